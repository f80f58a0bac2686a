//! What options a call may have, and which scores it may ask for: every mistake is refused by the
//! name of its argument before anything is written, and what is chosen has the bits of the whole.

mod support;

use core::cell::Cell;

use mha::{
    Alibi, Angles, Argument, Cache, CacheConfig, Causal, Config, Dims, Error, Extra, Inputs, Isa,
    MultiHeadAttention, Norm, NormKind, Options, Outputs, Plain, Rope, ScoresAt, Segments, Select,
    Shape, Weights,
};
use support::{Call, bits};

const CONFIG: Config = Config::new(Dims::new((3, 4, 5), (8, 6), 7)).heads(2).kv_heads(1);
const SHAPE: Shape = Shape::new(2, 3, 4);
const PATTERN: f32 = f32::from_bits(0x7fc1_2345);
const HERE: Options<'_> = Options::new();

/// Runs a call that must be refused, and tells why.
fn refused(options: &Options<'_>, scores: usize) -> Error {
    let weights = vec![0.25; CONFIG.weights_len()];
    let layer = MultiHeadAttention::new(CONFIG, Weights::from_flat(&CONFIG, &weights).unwrap());
    let (q, k, v) = (vec![0.25; 2 * 3 * 3], vec![0.25; 2 * 4 * 4], vec![0.25; 2 * 4 * 5]);
    let (mut y, mut scores) = (vec![PATTERN; CONFIG.y_len(SHAPE)], vec![PATTERN; scores]);
    let mut scratch = vec![PATTERN; CONFIG.scratch_len(SHAPE)];
    let inputs = Inputs::new(&q, &k, &v).options(options);
    let outputs = Outputs::new(&mut y).scores(&mut scores);
    let error = layer.unwrap().forward(SHAPE, inputs, outputs, &mut scratch);
    let error = error.expect_err("the options are wrong");
    for x in y.iter().chain(&scores).chain(&scratch) {
        assert_eq!(x.to_bits(), PATTERN.to_bits(), "written in spite of {error}");
    }
    error
}

#[test]
fn every_option_is_checked() {
    let length = |argument, needed, got| Error::Length { argument, needed, got };
    let value = |argument| Error::Value { argument };
    let table = |cos, sin, dims| Rope { dims, ..Rope::table(cos, sin) };
    let norm = Norm { kind: NormKind::Rms, epsilon: 1e-6, q_gain: None, k_gain: None };
    let mut lse = [0.0; 11];
    let lse = Cell::from_mut(lse.as_mut_slice()).as_slice_of_cells();
    let each = Causal::PerSequence(&[0; 3]);
    let rope = |rope| Options { rope: Some(rope), ..HERE };
    let with_norm = |norm| Options { norm: Some(norm), ..HERE };
    let segments = |q, kv| Options { segments: Some(Segments { q, kv }), ..HERE };
    let extra = |k, v| Options { extra: Some(Extra { k, v }), ..HERE };
    let scores = |scores, score_queries| Options { scores, score_queries, ..HERE };
    let wrong = [
        (HERE.offset(each), length(Argument::Causal, 2, 3)),
        (HERE.lens(&[4]), length(Argument::Lens, 2, 1)),
        (HERE.lens(&[4, 5]), Error::Range { argument: Argument::Lens, len: 4, end: 5 }),
        (HERE.softcap(0.0), value(Argument::Softcap)),
        (HERE.softcap(-1.0), value(Argument::Softcap)),
        (HERE.softcap(f32::NAN), value(Argument::Softcap)),
        (HERE.softcap(f32::INFINITY), value(Argument::Softcap)),
        (HERE.alibi(Alibi::Slopes(&[1.0])), length(Argument::Alibi, 2, 1)),
        (HERE.sinks(&[1.0; 3]), length(Argument::Sinks, 2, 3)),
        (rope(Rope { dims: 3, ..Rope::new(1e4) }), value(Argument::Rope)),
        (rope(Rope { dims: 6, ..Rope::new(1e4) }), value(Argument::Rope)),
        (rope(Rope::new(0.0)), value(Argument::Rope)),
        (rope(Rope::new(f32::NAN)), value(Argument::Rope)),
        (rope(Rope::new(f32::INFINITY)), value(Argument::Rope)),
        (rope(table(&[], &[], 0)), value(Argument::Rope)),
        (rope(table(&[1.0; 4], &[0.0; 3], 0)), value(Argument::Rope)),
        (rope(table(&[1.0; 3], &[0.0; 3], 0)), value(Argument::Rope)),
        (with_norm(Norm { q_gain: Some(&[1.0; 3]), ..norm }), length(Argument::Norm, 4, 3)),
        (with_norm(Norm { k_gain: Some(&[1.0; 5]), ..norm }), length(Argument::Norm, 4, 5)),
        (with_norm(Norm { epsilon: -1e-6, ..norm }), value(Argument::Norm)),
        (with_norm(Norm { epsilon: f32::NAN, ..norm }), value(Argument::Norm)),
        (segments(&[0; 5], &[0; 8]), length(Argument::Segments, 6, 5)),
        (segments(&[0; 6], &[0; 9]), length(Argument::Segments, 8, 9)),
        (extra(&[0.0; 5], &[0.0; 3]), length(Argument::Extra, 4, 5)),
        (extra(&[0.0; 4], &[0.0; 6]), length(Argument::Extra, 3, 6)),
        (
            scores(Select::Head(2), None),
            Error::Range { argument: Argument::Scores, len: 2, end: 2 },
        ),
        (
            scores(Select::All, Some([1, 4])),
            Error::Range { argument: Argument::Scores, len: 3, end: 4 },
        ),
        (
            scores(Select::All, Some([2, 1])),
            Error::Range { argument: Argument::Scores, len: 3, end: 1 },
        ),
        (
            scores(Select::All, Some([usize::MAX, usize::MAX])),
            Error::Range { argument: Argument::Scores, len: 3, end: usize::MAX },
        ),
        (scores(Select::Head(1), Some([1, 3])), length(Argument::Scores, 2 * 2 * 4, 48)),
        (Options { lse: Some(lse), ..HERE }, length(Argument::Lse, 12, 11)),
    ];
    for (options, expected) in wrong {
        assert_eq!(refused(&options, 2 * 2 * 3 * 4), expected, "{options:?}");
        // A cache says the same, before it attends.
        let cache_config = CacheConfig::linear(4).batch(2);
        let mut keys = vec![0.0; cache_config.keys_len(&CONFIG.attention)];
        let mut values = vec![0.0; cache_config.values_len(&CONFIG.attention)];
        let mut cache =
            Cache::new(cache_config, &CONFIG.attention, &mut keys, &mut values).unwrap();
        cache.append(&[0.5; 2 * 4 * 4], &[0.5; 2 * 4 * 3], Plain).unwrap();
        let (mut y, mut scores) = ([PATTERN; 2 * 3 * 6], [PATTERN; 48]);
        let (q, mut scratch) = ([0.5; 2 * 3 * 8], [PATTERN; 4096]);
        let inputs = Inputs::query(&q).options(&options);
        let outputs = Outputs::new(&mut y).scores(&mut scores);
        let (attention, isa) = (CONFIG.attention, Isa::detect());
        let error = mha::dot_product_attention_cached(
            attention,
            isa,
            &cache,
            3,
            inputs,
            outputs,
            &mut scratch,
        );
        assert_eq!(error, Err(expected), "{options:?}");
        assert!(y.iter().chain(&scores).chain(&scratch).all(|x| x.to_bits() == PATTERN.to_bits()));
    }
}

#[test]
fn what_excludes_each_other_is_refused_by_both_names() {
    let rope = Options { rope: Some(Rope::new(1e4)), ..HERE };
    let norm = Norm { kind: NormKind::L2, epsilon: 0.0, q_gain: None, k_gain: None };
    let norm = Options { norm: Some(norm), ..HERE };
    for (options, argument) in [(rope, Argument::Rope), (norm, Argument::Norm)] {
        let (q, k, v, mut y) = ([0.5; 8], [0.5; 4], [0.5; 3], [PATTERN; 6]);
        let inputs = Inputs::new(&q, &k, &v).options(&options);
        let (shape, mut scratch) = (Shape::new(1, 1, 1), [PATTERN; 1024]);
        let (attention, outputs) = (CONFIG.attention, Outputs::new(&mut y));
        let error = mha::dot_product_attention(
            attention,
            Isa::detect(),
            shape,
            inputs,
            outputs,
            &mut scratch,
        );
        assert_eq!(error, Err(Error::Conflict { argument, other: Argument::K }));
        assert!(y.iter().chain(&scratch).all(|x| x.to_bits() == PATTERN.to_bits()));
    }
    // A position in a table or none: a key is refused before the cache has changed.
    let (cos, sin) = ([1.0; 4], [0.0; 4]);
    let short = Options { rope: Some(Rope { dims: 6, ..Rope::table(&cos, &sin) }), ..HERE };
    assert!(matches!(short.rope.unwrap().angles, Angles::Table { .. }));
    let config = CacheConfig::linear(4);
    let mut keys = vec![PATTERN; config.keys_len(&CONFIG.attention)];
    let mut values = vec![PATTERN; config.values_len(&CONFIG.attention)];
    let mut cache = Cache::new(config, &CONFIG.attention, &mut keys, &mut values).unwrap();
    let error = cache.append(&[0.5; 4], &[0.5; 3], &short);
    assert_eq!(error, Err(Error::Value { argument: Argument::Rope }));
    assert_eq!(cache.len(), 0);
}

/// The last position that a table of angles has is served, the next one refused: of keys and of
/// queries, in a call, over a cache, and in sequences one behind the other.
#[test]
fn a_position_past_a_table_is_refused() {
    const CONFIG: Config = Config::new(Dims::square(4)).heads(2);
    const ROWS: usize = 6;
    let weights = [0.3; CONFIG.weights_len()];
    let layer =
        MultiHeadAttention::new(CONFIG, Weights::from_flat(&CONFIG, &weights).unwrap()).unwrap();
    let (cos, sin, x) = ([0.8; ROWS], [0.6; ROWS], [0.5; 8 * 4]);
    let table = Rope::table(&cos, &sin);
    let refused = |end| Err(Error::Range { argument: Argument::Rope, len: ROWS, end });
    let forward = |q_len: usize, kv_len: usize, rope, offset| {
        let options = Options { rope: Some(rope), offset, ..Options::new() };
        let shape = Shape::new(1, q_len, kv_len);
        let (mut y, mut scratch) =
            ([PATTERN; 8 * 4], [PATTERN; CONFIG.scratch_len(Shape::new(1, 8, 8))]);
        let inputs = Inputs::cross(&x[..q_len * 4], &x[..kv_len * 4]).options(&options);
        let outputs = Outputs::new(&mut y[..q_len * 4]);
        let result = layer.forward(shape, inputs, outputs, &mut scratch);
        let untouched = y.iter().chain(&scratch).all(|x| x.to_bits() == PATTERN.to_bits());
        assert_eq!(untouched, result.is_err());
        let (mut y, starts) = ([PATTERN; 8 * 4], [[0, 0, q_len], [0, 0, kv_len]]);
        let outputs = Outputs::new(&mut y[..q_len * 4]);
        let packed = layer.forward_packed(&starts[0], &starts[1], inputs, outputs, &mut scratch);
        assert_eq!(packed, result);
        result
    };
    let at = |offset| Some(Causal::Offset(offset));
    assert_eq!(forward(6, 6, table, None), Ok(()));
    assert_eq!(forward(2, 7, table, None), refused(7));
    assert_eq!(forward(7, 2, table, None), refused(7));
    assert_eq!(forward(2, 2, table, at(4)), Ok(()));
    assert_eq!(forward(2, 2, table, at(5)), refused(7));
    assert_eq!(forward(8, 2, table, at(-2)), Ok(()));
    assert_eq!(forward(2, 2, table, at(isize::MIN)), Ok(()));
    assert_eq!(forward(2, 2, Rope { q_offset: Some(4), ..table }, at(9)), Ok(()));
    assert_eq!(forward(2, 2, Rope { q_offset: Some(5), ..table }, None), refused(7));
    assert_eq!(forward(2, 2, Rope { k_offset: Some(5), ..table }, None), refused(7));
    let far = Rope { k_offset: Some(usize::MAX), ..table };
    assert_eq!(forward(2, 2, far, None), refused(usize::MAX));
    assert_eq!(forward(2, 0, far, None), Ok(()));

    // Over a cache keys count on, and a query stands where it does.
    let config = CacheConfig::linear(8);
    let mut keys = vec![0.0; config.keys_len(&CONFIG.attention)];
    let mut values = vec![0.0; config.values_len(&CONFIG.attention)];
    let mut cache = Cache::new(config, &CONFIG.attention, &mut keys, &mut values).unwrap();
    let options = Options { rope: Some(table), ..Options::new() };
    layer.append(&mut cache, &x[..5 * 4], &x[..5 * 4], &options).unwrap();
    let two = &x[..2 * 4];
    assert_eq!(layer.append(&mut cache, two, two, &options), refused(7));
    assert_eq!(cache.append(two, two, &options), refused(7));
    assert_eq!(cache.len(), 5);
    layer.append(&mut cache, two, two, mha::Plain).unwrap();
    let (mut y, mut scratch) = ([0.0; 4], [0.0; CONFIG.cached_scratch_len(1)]);
    let inputs = Inputs::query(&x[..4]).options(&options);
    let attend = layer.attend(&cache, 1, inputs, Outputs::new(&mut y), &mut scratch);
    assert_eq!(attend, refused(7));
    let attention = CONFIG.attention;
    let (isa, outputs) = (Isa::detect(), Outputs::new(&mut y));
    let alone =
        mha::dot_product_attention_cached(attention, isa, &cache, 1, inputs, outputs, &mut scratch);
    assert_eq!(alone, refused(7));
}

type Result = (Vec<f32>, Vec<f32>);

fn run(call: &Call, options: &Options<'_>, at: ScoresAt, scratch: usize) -> Result {
    let layer = MultiHeadAttention::new(call.config, call.weights()).unwrap();
    let mut y = vec![f32::NAN; call.config.y_len(call.shape)];
    let mut scores = vec![f32::NAN; options.scores_len(&call.config.attention, call.shape)];
    let mut scratch = vec![f32::NAN; scratch];
    let outputs = Outputs::new(&mut y).scores(&mut scores).scores_at(at);
    layer.forward(call.shape, call.inputs().options(options), outputs, &mut scratch).unwrap();
    (y, scores)
}

/// Some queries of `[sequences and heads, queries, kv_len]`.
fn cut(scores: &[f32], queries: usize, kv_len: usize, [start, end]: [usize; 2]) -> Vec<f32> {
    let each = (queries * kv_len).max(1);
    scores.chunks(each).flat_map(|head| head[start * kv_len..end * kv_len].to_vec()).collect()
}

#[test]
fn chosen_queries_have_the_scores_of_the_whole() {
    for seed in 0..300 {
        let call = Call::random(seed);
        let Shape { q_len, kv_len, .. } = call.shape;
        let start = seed as usize * 7 % (q_len + 1);
        let chosen = [start, start + seed as usize * 13 % (q_len - start + 1)];
        let heads = call.config.attention.heads;
        for select in [Select::All, Select::Head(seed as usize % heads), Select::Mean] {
            let at = match select {
                Select::Mean => ScoresAt::Softmax,
                _ => [ScoresAt::Softmax, ScoresAt::Logits, ScoresAt::Masked][seed as usize % 3],
            };
            let all = Options { scores: select, ..HERE };
            let some = Options { score_queries: Some(chosen), ..all };
            for scratch in
                [call.config.scratch_len(call.shape), call.config.min_scratch_len(call.shape)]
            {
                let (y, scores) = run(&call, &all, at, scratch);
                let (y_some, some) = run(&call, &some, at, scratch);
                assert_eq!(bits(&y_some), bits(&y), "call {seed}, {select:?}");
                let expected = cut(&scores, q_len, kv_len, chosen);
                assert_eq!(bits(&some), bits(&expected), "call {seed}, {select:?}, {chosen:?}");
            }
        }
    }
}

#[test]
fn rows_of_a_call_have_the_scores_of_the_queries_that_are_chosen_among_them() {
    for seed in 0..200 {
        let call = Call::random(seed);
        let Shape { q_len, kv_len, batch } = call.shape;
        let layer = MultiHeadAttention::new(call.config, call.weights()).unwrap();
        let heads = call.config.attention.heads;
        let start = seed as usize * 5 % (q_len + 1);
        let chosen = [start, start + seed as usize * 11 % (q_len - start + 1)];
        let all = run(&call, &HERE, ScoresAt::Softmax, call.config.scratch_len(call.shape));
        let first = seed as usize * 17 % (batch * q_len + 1);
        let rows = first..first + seed as usize * 3 % (batch * q_len - first + 1);
        // Row by row: which sequence, which query, whether it is chosen.
        let mut expected = Vec::new();
        for b in 0..batch {
            let mine =
                |i: &usize| rows.contains(&(b * q_len + i)) && (chosen[0]..chosen[1]).contains(i);
            let mine: Vec<usize> = (0..q_len).filter(mine).collect();
            for (h, i) in (0..heads).flat_map(|h| mine.iter().map(move |i| (h, i))) {
                let at = ((b * heads + h) * q_len + i) * kv_len;
                expected.extend_from_slice(&all.1[at..at + kv_len]);
            }
        }
        let mut y = vec![f32::NAN; rows.len() * call.config.dims.out];
        let mut scores = vec![f32::NAN; expected.len()];
        let mut scratch = vec![f32::NAN; call.config.scratch_len(call.shape)];
        let options = Options { score_queries: Some(chosen), ..HERE };
        let inputs = call.inputs().options(&options);
        let outputs = Outputs::new(&mut y).scores(&mut scores);
        layer.forward_rows(call.shape, rows.clone(), inputs, outputs, &mut scratch).unwrap();
        assert_eq!(bits(&scores), bits(&expected), "call {seed}, {rows:?}, {chosen:?}");
        let out = call.config.dims.out;
        assert_eq!(bits(&y), bits(&all.0[rows.start * out..rows.end * out]), "call {seed}");
        // One element more or less does not fit.
        let mut long = vec![PATTERN; expected.len() + 1];
        let outputs = Outputs::new(&mut y).scores(&mut long);
        let error = layer.forward_rows(call.shape, rows, inputs, outputs, &mut scratch);
        let (needed, got) = (expected.len(), long.len());
        assert_eq!(error, Err(Error::Length { argument: Argument::Scores, needed, got }));
    }
}

#[test]
fn packed_sequences_each_have_their_chosen_queries() {
    let weights: Vec<f32> = (0..CONFIG.weights_len()).map(|i| (i as f32 * 0.37).sin()).collect();
    let layer = MultiHeadAttention::new(CONFIG, Weights::from_flat(&CONFIG, &weights).unwrap());
    let layer = layer.unwrap();
    let starts = [0, 5, 12, 15];
    let wave = |n: usize| (0..n).map(|i| (i as f32 * 0.71).cos()).collect::<Vec<_>>();
    let (q, k, v) = (wave(15 * 3), wave(15 * 4), wave(15 * 5));
    let mut scratch = vec![0.0; CONFIG.scratch_len(Shape::new(1, 7, 7))];
    let mut packed = |options: &Options<'_>, len: usize| {
        let (mut y, mut scores) = (vec![f32::NAN; 15 * 7], vec![f32::NAN; len]);
        let inputs = Inputs::new(&q, &k, &v).causal().options(options);
        let outputs = Outputs::new(&mut y).scores(&mut scores);
        layer.forward_packed(&starts, &starts, inputs, outputs, &mut scratch)?;
        Ok((y, scores))
    };
    let (y, all) = packed(&HERE, 2 * (25 + 49 + 9)).unwrap();
    let some = Options { score_queries: Some([1, 3]), ..HERE };
    let (y_some, some_scores) = packed(&some, 2 * 2 * (5 + 7 + 3)).unwrap();
    assert_eq!(bits(&y_some), bits(&y));
    let (mut at, mut expected) = (0, Vec::new());
    for n in [5, 7, 3] {
        expected.extend(cut(&all[at..at + 2 * n * n], n, n, [1, 3]));
        at += 2 * n * n;
    }
    assert_eq!(bits(&some_scores), bits(&expected));
    // The shortest sequence has no fourth query.
    let error = packed(&Options { score_queries: Some([1, 4]), ..HERE }, 3 * 2 * 15);
    assert_eq!(error, Err(Error::Range { argument: Argument::Scores, len: 3, end: 4 }));
}
