//! The oracle against every case of the attention family: before anything is held against it, it has
//! to agree with the libraries that computed those.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mha_family_oracle::oracle::{Answer, Attention, Rope, attend};
use mha_family_oracle::steps::{PLAIN, dense, slopes};
use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::{Map, Value};

/// A tensor widened to `f64`, and its shape.
type Tensor = (Vec<f64>, Vec<usize>);

const STAGES: [&str; 4] = ["logits", "capped", "masked", "softmax"];

/// Expected values are f32; what a case brings with it is as much as it needs.
const TOLERANCE: [f64; 2] = [2e-6, 2e-6];

fn read(path: &Path) -> (Map<String, Value>, BTreeMap<String, Tensor>) {
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let meta = serde_json::from_str(&header.metadata().as_ref().unwrap()["mha"]).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let widened = file.tensors().into_iter().map(|(name, view)| {
        let bytes = view.data();
        let data = match view.dtype() {
            Dtype::F32 => words(bytes, |w| f64::from(f32::from_le_bytes(w))),
            Dtype::F16 => words(bytes, |w| widen(u16::from_le_bytes(w))),
            Dtype::BF16 => {
                words(bytes, |w: [u8; 2]| f64::from(f32::from_le_bytes([0, 0, w[0], w[1]])))
            }
            Dtype::I64 => words(bytes, |w| i64::from_le_bytes(w) as f64),
            Dtype::BOOL | Dtype::U8 => words(bytes, |w: [u8; 1]| f64::from(w[0])),
            other => panic!("{name}: {other:?}"),
        };
        (name, (data, view.shape().to_vec()))
    });
    (meta, widened.collect())
}

fn words<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.as_chunks::<N>().0.iter().map(|word| read(*word)).collect()
}

/// IEEE 754 binary16.
fn widen(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 0 { magnitude } else { -magnitude }
}

/// The element of a tensor of up to four axes that is broadcast to `[batch, heads, q_len, n]`.
fn spread((data, shape): &Tensor, at: [usize; 4]) -> f64 {
    let axes = &at[4 - shape.len()..];
    let place = |place, (&extent, &i): (&usize, &usize)| place * extent + i.min(extent - 1);
    data[shape.iter().zip(axes).fold(0, place)]
}

fn number(meta: &Map<String, Value>, key: &str) -> Option<f64> {
    meta.get(key).map(|value| value.as_f64().unwrap())
}

/// Runs a case and returns its answer, `y` projected.
fn run(meta: &Map<String, Value>, t: &BTreeMap<String, Tensor>) -> Answer {
    let size = |key: &str| meta.get(key).map(|value| value.as_u64().unwrap() as usize);
    let width = |names: &[&str]| match &meta["dims"] {
        Value::Object(dims) => names.iter().find_map(|n| dims.get(*n)).unwrap().as_u64().unwrap(),
        square => square.as_u64().unwrap(),
    } as usize;
    let (qk, v_width) = (width(&["qk", "q_in"]), width(&["v", "qk", "q_in"]));
    let heads = size("heads").unwrap();
    let kv_heads = size("kv_heads").unwrap_or(heads);
    let (d, d_v) = (qk / heads, v_width / heads);
    let q = &t["q"];
    let k = t.get("k").unwrap_or(q);
    let v = t.get("v").unwrap_or(k);
    let rank = q.1.len();
    let (batch, q_len, kv_len) = (q.1[..rank - 2].iter().product(), q.1[rank - 2], k.1[rank - 2]);
    let past_len = t.get("past_k").map_or(0, |past| past.1[2]);

    let weights = meta.get("weights").map_or("in_out", |weights| weights.as_str().unwrap());
    let project = |x: &[f64], letter: &str, inputs: usize, outputs: usize| {
        if weights == "none" {
            return x.to_vec();
        }
        let w = &t[&format!("w{letter}")].0;
        let strides = if weights == "in_out" { (outputs, 1) } else { (1, inputs) };
        let none = (Vec::new(), Vec::new());
        let bias = &t.get(&format!("b{letter}")).unwrap_or(&none).0;
        dense(x, inputs, outputs, |i, o| w[i * strides.0 + o * strides.1], bias)
    };
    let last = |x: &Tensor| *x.1.last().unwrap();
    let (q, k, v) = (
        project(&q.0, "q", last(q), qk),
        project(&k.0, "k", last(k), kv_heads * d),
        project(&v.0, "v", last(v), kv_heads * d_v),
    );

    let list = |name: &str| t.get(name).map_or(Vec::new(), |tensor| tensor.0.clone());
    let positions: Vec<i64> = match meta.get("causal_offset") {
        None => Vec::new(),
        Some(Value::Array(each)) => each.iter().map(|p| p.as_i64().unwrap()).collect(),
        Some(one) => vec![one.as_i64().unwrap(); batch],
    };
    let lengths: Vec<usize> = list("kv_lens").iter().map(|n| *n as usize).collect();
    let slopes: Vec<f64> = match meta.get("alibi") {
        Some(Value::Bool(true)) => slopes(heads),
        Some(Value::Array(each)) => each.iter().map(|s| s.as_f64().unwrap()).collect(),
        _ => Vec::new(),
    };
    let side = |i: usize| meta.get("window").and_then(|window| window[i].as_u64());
    let rope = meta.get("rope").map(|rope| Rope {
        base: rope.get("base").map_or(1e4, |base| base.as_f64().unwrap()),
        dims: rope.get("dims").map_or(d, |dims| dims.as_u64().unwrap() as usize),
        interleaved: rope.get("interleaved").is_some_and(|yes| yes.as_bool().unwrap()),
        q_offset: rope.get("q_offset").map_or(0, |offset| offset.as_i64().unwrap()),
        k_offset: rope.get("k_offset").map_or(0, |offset| offset.as_i64().unwrap()),
    });
    let (bias, mask) = (t.get("bias"), t.get("mask"));
    let mut answer = attend(&Attention {
        batch,
        q_len,
        kv_len,
        past_len,
        heads,
        kv_heads,
        widths: (d, d_v),
        q: &q,
        k: &k,
        v: &v,
        past_k: &list("past_k"),
        past_v: &list("past_v"),
        scale: number(meta, "scale"),
        softcap: number(meta, "softcap"),
        positions: &positions,
        causal: meta.get("causal").is_some_and(|causal| causal.as_bool().unwrap()),
        window: (side(0), side(1)),
        lengths: &lengths,
        slopes: &slopes,
        sinks: &list("sinks"),
        rope,
        bias: &|at| bias.map_or(0.0, |bias| spread(bias, at)),
        mask: &|at| mask.is_none_or(|mask| spread(mask, at) != 0.0),
    });
    answer.y = project(&answer.y, "o", v_width, width(&["out", "q_in"]));
    answer
}

/// How far the worst element is off, in units of what is allowed.
fn share(got: &[f64], expected: &[f64], [absolute, relative]: [f64; 2]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let one = |(g, e): (&f64, &f64)| {
        // What is stored is f32: a larger number became infinite.
        let g = if g.abs() > f64::from(f32::MAX) { g.signum() * f64::INFINITY } else { *g };
        if g == *e || (g.is_nan() && e.is_nan()) {
            return 0.0;
        }
        let used = (g - e).abs() / (absolute + relative * e.abs());
        if used.is_finite() { used } else { f64::INFINITY }
    };
    got.iter().zip(expected).map(one).fold(0.0, f64::max)
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // Files that are wrong on purpose.
            if path.file_name().is_some_and(|name| name != "invalid") {
                files(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "safetensors") {
            found.push(path);
        }
    }
}

#[test]
fn the_oracle_agrees_with_every_case() {
    let mut paths = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../cases_family"), &mut paths);
    let (mut compared, mut failures) = (0, Vec::new());
    for path in paths {
        let (meta, t) = read(&path);
        // The oracle rotates inside attention only, and drops nothing.
        if meta.contains_key("kind") || meta.contains_key("dropout") {
            continue;
        }
        let answer = run(&meta, &t);
        let at = meta.get("scores_at").map_or("softmax", |at| at.as_str().unwrap());
        let stage = STAGES.iter().position(|stage| *stage == at).unwrap();
        for (name, got) in [
            ("y", &answer.y),
            ("scores", &answer.scores[stage]),
            ("present_k", &answer.present_k),
            ("present_v", &answer.present_v),
        ] {
            let Some((expected, _)) = t.get(name) else { continue };
            let tolerance = meta.get(&format!("{name}_tol"));
            let tolerance =
                tolerance.map_or(TOLERANCE, |pair| [0, 1].map(|i| pair[i].as_f64().unwrap()));
            let share = share(got, expected, tolerance);
            compared += 1;
            if share > 1.0 {
                failures.push(format!("{}: {name} uses {share:.2} of it", path.display()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(compared > 900, "only {compared} outputs compared");
}

/// Two halves of the keys, merged by their log-sum-exp, are the whole; so the oracle's is right.
#[test]
fn halves_merge_by_their_log_sum_exp() {
    let row = |seed: u32, len: usize| -> Vec<f64> {
        (0..len as u32).map(|i| f64::from((i * 37 + seed * 101) % 41) / 10.0 - 2.0).collect()
    };
    let (q, k, v) = (row(1, 2 * 4), row(2, 6 * 4), row(3, 6 * 3));
    let piece = |keys: std::ops::Range<usize>, sinks: &[f64]| {
        let (k, v) = (&k[keys.start * 4..keys.end * 4], &v[keys.start * 3..keys.end * 3]);
        let (kv_len, softcap) = (keys.len(), Some(1.5));
        attend(&Attention {
            q_len: 2,
            kv_len,
            widths: (4, 3),
            q: &q,
            k,
            v,
            softcap,
            sinks,
            ..PLAIN
        })
    };
    let (whole, first, second) = (piece(0..6, &[0.3]), piece(0..2, &[0.3]), piece(2..6, &[]));
    for i in 0..2 {
        let lse = (first.lse[i].exp() + second.lse[i].exp()).ln();
        assert!((lse - whole.lse[i]).abs() < 1e-12);
        for c in 0..3 {
            let part = |piece: &Answer| (piece.lse[i] - lse).exp() * piece.y[i * 3 + c];
            assert!((part(&first) + part(&second) - whole.y[i * 3 + c]).abs() < 1e-12);
        }
    }
}

/// A row that sees nothing: zeros; its log-sum-exp is its sink, or −∞ without one.
#[test]
fn an_empty_row_has_only_its_sink() {
    let (q, k, v) = (&[1.0, 2.0], &[3.0, 4.0], &[f64::NAN, 1.0]);
    let empty = |sinks: &[f64]| {
        let lengths = &[0];
        attend(&Attention { q_len: 1, kv_len: 1, widths: (2, 2), q, k, v, lengths, sinks, ..PLAIN })
    };
    assert_eq!((empty(&[]).y, empty(&[]).lse), (vec![0.0; 2], vec![f64::NEG_INFINITY]));
    assert_eq!((empty(&[0.5]).y, empty(&[0.5]).lse), (vec![0.0; 2], vec![0.5]));
    assert_eq!(empty(&[0.5]).scores[3], [0.0]);
}
