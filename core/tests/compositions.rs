//! Which option composes with which, tried in code: every pair of options in every way of calling
//! either works, and then both are felt, or is refused by an error that names both. The table in
//! `docs/compositions.md` is what comes out; `BLESS=1` writes it.
//!
//! That the numbers are right is for `tests/family`, which draws whole compositions.

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use mha::{
    Alibi, Broadcast, Cache, CacheConfig, Causal, Config, Dims, Dropout, Error, Extra, Inputs, Isa,
    Mask, MultiHeadAttention, Norm, NormKind, Options, Outputs, Rope, ScoresAt, Segments, Select,
    Shape, Weights, Window, dot_product_attention, dot_product_attention_cached,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cell::Cell;

/// Ways of calling, and the argument that an error has for each.
const WAYS: [(&str, &str); 7] = [
    ("forward", ""),
    ("forward_rows", ""),
    ("forward_packed", "rows"),
    ("attend", ""),
    ("attend, ring gone round", "cache"),
    ("dot_product_attention", "k"),
    ("dot_product_attention_cached", ""),
];

/// Options, the argument that an error has for each, and which are values of the same field.
const OPTIONS: [(&str, &str, &str); 25] = [
    ("kv_heads", "kv_heads", ""),
    ("scale", "scale", ""),
    ("causal", "causal", "causal"),
    ("causal, an offset for each sequence", "causal", "causal"),
    ("offset", "causal", "offset"),
    ("offset, one for each sequence", "causal", "offset"),
    ("window", "window", ""),
    ("lens", "lens", ""),
    ("mask", "mask", ""),
    ("bias", "bias", ""),
    ("segments", "segments", ""),
    ("softcap", "softcap", ""),
    ("alibi", "alibi", ""),
    ("rope", "rope", ""),
    ("norm", "norm", ""),
    ("sinks", "sinks", ""),
    ("extra", "extra", ""),
    ("dropout", "dropout", ""),
    ("scores, of one head", "scores", "scores"),
    ("scores, mean of the heads", "scores", "scores"),
    ("score_queries", "scores", ""),
    ("scores_at: logits", "scores_at", "scores_at"),
    ("scores_at: capped", "scores_at", "scores_at"),
    ("scores_at: masked", "scores_at", "scores_at"),
    ("lse", "lse", ""),
];

/// A position is felt by these alone; the causal rule has its own.
const FEEL_AN_OFFSET: [&str; 3] = ["window", "alibi", "rope"];

const BATCH: usize = 2;
const Q_LEN: usize = 4;
const KV_LEN: usize = 20;
const WIDTH: usize = 16;
const HEADS: usize = 4;
const SHAPE: Shape = Shape::new(BATCH, Q_LEN, KV_LEN);

/// What a composition gives: every output, or why not.
type Outcome = Result<Vec<u32>, Error>;

fn bits(x: &[f32]) -> impl Iterator<Item = u32> {
    x.iter().map(|x| x.to_bits())
}

/// Calls the library in a way with some options.
fn call(way: usize, chosen: &[usize]) -> Outcome {
    let has = |name: &str| chosen.iter().any(|&option| OPTIONS[option].0 == name);
    let rng = &mut StdRng::seed_from_u64(7);
    let mut floats = |n, size| support::floats(rng, n, size);
    let (q, k, v) = (
        floats(BATCH * Q_LEN * WIDTH, 1.0),
        floats(BATCH * KV_LEN * WIDTH, 1.0),
        floats(BATCH * KV_LEN * WIDTH, 1.0),
    );
    let weights = [(); 4].map(|()| floats(WIDTH * WIDTH, 0.6));
    let (bias, sinks) = (floats(HEADS * Q_LEN * KV_LEN, 2.0), floats(HEADS, 2.0));
    let (extra_k, extra_v) = (floats(WIDTH, 2.0), floats(WIDTH, 2.0));
    let mask: Vec<bool> = (0..Q_LEN * KV_LEN).map(|_| rng.random_bool(0.7)).collect();
    let documents: Vec<u32> =
        (0..BATCH * (Q_LEN + KV_LEN)).map(|_| rng.random_range(0..2)).collect();

    let mut config = Config::new(Dims::square(WIDTH)).heads(HEADS);
    if has("kv_heads") {
        config = config.kv_heads(2);
    }
    if has("scale") {
        config = config.scale(0.9);
    }
    let attention = config.attention;
    let (kf, vf) = (attention.key_features(), attention.value_features());
    let weights = Weights::new(
        &weights[0],
        &weights[1][..config.wk_len()],
        &weights[2][..config.wv_len()],
        &weights[3],
    );

    let mut lse = [0.0; BATCH * HEADS * Q_LEN];
    let cells = Cell::from_mut(&mut lse[..]).as_slice_of_cells();
    let mut options = Options::new();
    if has("offset") {
        options.offset = Some(Causal::Offset(8));
    }
    if has("offset, one for each sequence") {
        options.offset = Some(Causal::PerSequence(&[9, 7]));
    }
    if has("window") {
        options.window = Window::both(6, 4);
    }
    if has("lens") {
        // In a ring that has gone round the first sequence sees nothing.
        options.lens = Some(&[3, 18]);
    }
    if has("segments") {
        let (q, kv) = documents.split_at(BATCH * Q_LEN);
        options.segments = Some(Segments { q, kv });
    }
    options.softcap = has("softcap").then_some(0.8);
    options.alibi = has("alibi").then_some(Alibi::Standard);
    options.rope = has("rope").then_some(Rope::new(100.0));
    let norm = Norm { kind: NormKind::Rms, epsilon: 1e-3, q_gain: None, k_gain: None };
    options.norm = has("norm").then_some(norm);
    options.sinks = has("sinks").then_some(&sinks[..]);
    options.extra = has("extra").then_some(Extra { k: &extra_k[..kf], v: &extra_v[..vf] });
    if has("scores, of one head") {
        options.scores = Select::Head(2);
    }
    if has("scores, mean of the heads") {
        options.scores = Select::Mean;
    }
    options.score_queries = has("score_queries").then_some([1, 3]);
    options.lse = has("lse").then_some(cells);

    // Without projections keys and values are as wide as they are attended to.
    let (own_k, own_v) = (&k[..BATCH * KV_LEN * kf], &v[..BATCH * KV_LEN * vf]);
    let mut inputs = match WAYS[way].0 {
        "forward" | "forward_rows" | "forward_packed" => Inputs::new(&q, &k, &v),
        "dot_product_attention" => Inputs::new(&q, own_k, own_v),
        _ => Inputs::query(&q),
    };
    if has("causal") {
        inputs = inputs.causal_from(Causal::Offset(10));
    }
    if has("causal, an offset for each sequence") {
        inputs = inputs.causal_from(Causal::PerSequence(&[12, 9]));
    }
    if has("mask") {
        inputs = inputs.mask(Mask::bools(&mask, [1, 1, Q_LEN, KV_LEN]));
    }
    if has("bias") {
        inputs = inputs.bias(Broadcast::new(&bias, [1, HEADS, Q_LEN, KV_LEN]));
    }
    if has("dropout") {
        inputs = inputs.dropout(Dropout::new(0.4, 5));
    }
    let at = [ScoresAt::Logits, ScoresAt::Capped, ScoresAt::Masked].into_iter();
    let at =
        at.zip(["logits", "capped", "masked"]).find(|(_, at)| has(&format!("scores_at: {at}")));
    let at = at.map_or(ScoresAt::Softmax, |(at, _)| at);

    let ring = WAYS[way].0 == "attend, ring gone round";
    let stored = if ring { 16 } else { KV_LEN };
    let whole = 0..BATCH * Q_LEN;
    let rows = if WAYS[way].0 == "forward_rows" { 1..7 } else { whole };
    let with_scores = options.score_queries.unwrap_or([0, Q_LEN]);
    let scored =
        rows.clone().filter(|row| (with_scores[0]..with_scores[1]).contains(&(row % Q_LEN)));
    let heads = if options.scores == Select::All { HEADS } else { 1 };
    let mut scores = vec![0.0; scored.count() * heads * stored];
    let mut y = vec![0.0; rows.len() * WIDTH];
    let outputs = Outputs::new(&mut y).scores(&mut scores).scores_at(at);

    let mut scratch = vec![0.0; config.scratch_len(SHAPE).max(config.cached_scratch_len(Q_LEN))];
    let layer = MultiHeadAttention::new(config, weights)?;
    let cache = if ring { CacheConfig::ring(16) } else { CacheConfig::linear(KV_LEN) };
    let cache = cache.batch(BATCH);
    let (mut keys, mut values) =
        (vec![0.0; cache.keys_len(&attention)], vec![0.0; cache.values_len(&attention)]);
    let mut cache = Cache::new(cache, &attention, &mut keys, &mut values)?;
    let (isa, inputs) = (Isa::detect(), inputs.options(&options));
    match WAYS[way].0 {
        "forward" => layer.forward(SHAPE, inputs, outputs, &mut scratch)?,
        "forward_rows" => layer.forward_rows(SHAPE, rows, inputs, outputs, &mut scratch)?,
        "forward_packed" => {
            let (q, kv) = ([0, Q_LEN, 2 * Q_LEN], [0, KV_LEN, 2 * KV_LEN]);
            layer.forward_packed(&q, &kv, inputs, outputs, &mut scratch)?;
        }
        "dot_product_attention" => {
            dot_product_attention(attention, isa, SHAPE, inputs, outputs, &mut scratch)?;
        }
        "dot_product_attention_cached" => {
            cache.append(own_k, own_v, &options)?;
            let scratch = &mut scratch;
            dot_product_attention_cached(attention, isa, &cache, Q_LEN, inputs, outputs, scratch)?;
        }
        _ => {
            // In two pieces: a ring takes no more at once than it holds.
            for half in 0..2 {
                let piece = |x: &[f32]| -> Vec<f32> {
                    let halves = x.chunks_exact(KV_LEN / 2 * WIDTH).skip(half).step_by(2);
                    halves.flatten().copied().collect()
                };
                layer.append(&mut cache, &piece(&k), &piece(&v), &options)?;
            }
            layer.attend(&cache, Q_LEN, inputs, outputs, &mut scratch)?;
        }
    }
    let lse = cells.iter().map(|x| x.get().to_bits()).collect::<Vec<_>>();
    Ok(bits(&y).chain(bits(&scores)).chain(lse).collect())
}

/// Whether an outcome is a refusal that names these two arguments.
fn refuses(outcome: &Outcome, a: &str, b: &str) -> bool {
    match outcome {
        Err(Error::Conflict { argument, other }) => {
            let names = [argument.name(), other.name()];
            names == [a, b] || names == [b, a]
        }
        _ => false,
    }
}

/// Every pair in every way; the table of it.
struct Tried {
    /// The ways in which an option alone is refused, with what the error says.
    ways: Vec<Vec<Option<String>>>,
    /// The pairs that are refused in every way in which both are not, with what the error says.
    pairs: Vec<(usize, usize, String)>,
}

fn same_field(a: usize, b: usize) -> bool {
    a == b || (!OPTIONS[a].2.is_empty() && OPTIONS[a].2 == OPTIONS[b].2)
}

fn try_everything() -> Tried {
    let plain: Vec<_> = (0..WAYS.len()).map(|way| call(way, &[]).unwrap()).collect();
    let alone: Vec<Vec<Outcome>> = (0..OPTIONS.len())
        .map(|option| (0..WAYS.len()).map(|way| call(way, &[option])).collect())
        .collect();
    let felt = |a: usize, b: usize| {
        let offset = |at: usize| OPTIONS[at].2 == "offset";
        !offset(a) || FEEL_AN_OFFSET.contains(&OPTIONS[b].0)
    };
    for (option, outcomes) in alone.iter().enumerate() {
        for (way, outcome) in outcomes.iter().enumerate() {
            let (name, argument, _) = OPTIONS[option];
            match outcome {
                Ok(outcome) => {
                    let offset = OPTIONS[option].2 == "offset";
                    assert!(
                        offset || *outcome != plain[way],
                        "{name} is not felt, {}",
                        WAYS[way].0
                    );
                }
                refused => {
                    let both = refuses(refused, argument, WAYS[way].1);
                    assert!(both, "{name}, {}: {refused:?}", WAYS[way].0);
                }
            }
        }
    }
    let mut pairs = Vec::new();
    for (a, b) in (0..OPTIONS.len()).flat_map(|b| (0..b).map(move |a| (a, b))) {
        if same_field(a, b) {
            continue;
        }
        let names = format!("{} with {}", OPTIONS[a].0, OPTIONS[b].0);
        let (mut works, mut errors) = (0, BTreeSet::new());
        for way in 0..WAYS.len() {
            let outcome = call(way, &[a, b]);
            match (&alone[a][way], &alone[b][way]) {
                (Ok(with_a), Ok(with_b)) => match &outcome {
                    Ok(with_both) => {
                        works += 1;
                        assert!(!felt(b, a) || with_both != with_a, "{names}: the second not felt");
                        assert!(!felt(a, b) || with_both != with_b, "{names}: the first not felt");
                    }
                    Err(error) => {
                        let both = refuses(&outcome, OPTIONS[a].1, OPTIONS[b].1);
                        assert!(both, "{names}, {}: {error}", WAYS[way].0);
                        errors.insert(error.to_string());
                    }
                },
                // What the way refuses of one it refuses of both, or they refuse each other.
                (first, second) => {
                    let known = [first, second].iter().any(|known| **known == outcome)
                        || refuses(&outcome, OPTIONS[a].1, OPTIONS[b].1);
                    assert!(known, "{names}, {}: {outcome:?}", WAYS[way].0);
                }
            }
        }
        assert!(works == 0 || errors.is_empty(), "{names}: now so, now otherwise: {errors:?}");
        assert!(works > 0 || errors.len() == 1, "{names}: {errors:?}");
        pairs.extend(errors.into_iter().map(|error| (a, b, error)));
    }
    let error = |outcome: &Outcome| outcome.as_ref().err().map(Error::to_string);
    Tried { ways: alone.iter().map(|ways| ways.iter().map(error).collect()).collect(), pairs }
}

/// The tables of the page.
fn tables(tried: &Tried) -> String {
    let mut text = String::from("| | ");
    let letter = |i: usize| char::from(b'a' + i as u8);
    let _ = writeln!(text, "{} |", WAYS.map(|way| format!("`{}`", way.0)).join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(WAYS.len()));
    for (option, ways) in OPTIONS.iter().zip(&tried.ways) {
        let cell = |error: &Option<String>| match error {
            None => "yes".into(),
            Some(error) => format!("`{error}`"),
        };
        let cells: Vec<_> = ways.iter().map(cell).collect();
        let _ = writeln!(text, "| {} | {} |", option.0, cells.join(" | "));
    }
    let _ = writeln!(text, "\n```text");
    for (b, option) in OPTIONS.iter().enumerate() {
        let cell = |a| match tried.pairs.iter().any(|pair| (pair.0, pair.1) == (a, b)) {
            _ if a == b => format!(" {}", letter(a)),
            _ if same_field(a, b) => " ·".into(),
            true => " -".into(),
            false => " +".into(),
        };
        let cells: String = (0..=b).map(cell).collect();
        let _ = writeln!(text, "{:>36}{cells}", option.0);
    }
    let _ = writeln!(text, "```\n\n| refused | |\n|---|---|");
    for (a, b, error) in &tried.pairs {
        let _ = writeln!(text, "| {} with {} | `{error}` |", OPTIONS[*a].0, OPTIONS[*b].0);
    }
    text
}

#[test]
fn the_table_of_compositions_is_what_comes_out() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compositions.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (start, end) = ("<!-- tried -->\n", "<!-- end -->");
    let (before, rest) = page.split_once(start).unwrap();
    let (table, after) = rest.split_once(end).unwrap();
    let tables = tables(&try_everything());
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, format!("{before}{start}{tables}{end}{after}")).unwrap();
        return;
    }
    assert!(table == tables, "docs/compositions.md is not what comes out:\n{tables}");
}
