//! The format's rules, on files made here.

use mha::{Dims, ScoresAt, Shape};
use mha_conformance::{Call, Case, Causality, Operation, Tolerance};
use serde_json::{Map, Value, json};

/// A tensor of zeros: name, type, shape.
type Tensor<'a> = (&'a str, &'a str, &'a [usize]);

fn file(description: &Value, tensors: &[Tensor<'_>]) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "mha": description.to_string() }));
    let mut end = 0;
    for (name, dtype, shape) in tensors {
        let size = match *dtype {
            "BOOL" | "U8" => 1,
            "F16" | "BF16" => 2,
            "F32" => 4,
            _ => 8,
        };
        let begin = end;
        end += shape.iter().product::<usize>() * size;
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [begin, end] });
        header.insert((*name).into(), entry);
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + end, 0);
    bytes
}

/// Self-attention, 4 wide, without weights.
const BARE: [Tensor<'_>; 2] = [("q", "F32", &[1, 3, 4]), ("y", "F32", &[1, 3, 4])];

fn bare(more: &Value) -> Value {
    let mut description = json!({ "dims": 4, "heads": 2, "weights": "none" });
    let more = more.as_object().unwrap().clone();
    description.as_object_mut().unwrap().extend(more);
    description
}

fn read(more: &Value, tensors: &[Tensor<'_>]) -> Result<Case, String> {
    Case::parse(&file(&bare(more), tensors)).map_err(|error| format!("{error:#}"))
}

fn call(more: &Value) -> Call {
    read(more, &BARE).unwrap().call
}

#[test]
fn gradients_come_with_what_they_come_from() {
    let dy = ("dy", "F32", &[1, 3, 4][..]);
    let with = |more: &[Tensor<'_>]| read(&json!({}), &[&BARE[..], more].concat());
    let above = with(&[dy, ("dq", "F32", &[1, 3, 4])]).unwrap().call.above.unwrap();
    // The queries are keys and values too, so all three are needed for their gradient.
    assert_eq!(above.wanted.map(u8::from), [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for (tensors, error) in [
        (&[dy][..], "dy: there, but no gradient is expected"),
        (&[("dq", "F32", &[1, 3, 4])], "dy: missing, though dq is there"),
        (&[dy, ("dscores", "F32", &[1, 2, 3, 3])], "dy: there, but no gradient is expected"),
        (&[dy, ("dk", "F32", &[1, 3, 4])], "dk: there, but k is not"),
        (&[dy, ("dwo", "F32", &[4, 4])], "dwo: there, but the weight is not"),
        (&[dy, ("dbo", "F32", &[4])], "dbo: there, but the bias is not"),
        (&[dy, ("dbias", "F32", &[3, 3])], "dbias: there, but bias is not"),
        (&[dy, ("dq", "F32", &[1, 3, 5])], "dq: [1, 3, 5] where [1, 3, 4] is expected"),
    ] {
        assert_eq!(with(tensors).unwrap_err(), error);
    }
}

#[test]
fn keys_that_say_what_is_so_anyway_are_accepted() {
    let said = json!({ "kv_heads": 2, "alibi": false, "causal": false, "grad_tol": [1e-4, 1e-4] });
    assert_eq!(call(&said).causal, Causality::None);
    // The offset of a rule that is off says nothing.
    assert_eq!(call(&json!({ "causal_offset": 3 })).causal, Causality::None);
}

#[test]
fn causal_takes_one_offset_or_one_each() {
    assert_eq!(call(&json!({ "causal": true })).causal, Causality::Offset(0));
    let offset = json!({ "causal": true, "causal_offset": -2 });
    assert_eq!(call(&offset).causal, Causality::Offset(-2));
    let each = json!({ "causal": true, "causal_offset": [5] });
    assert_eq!(call(&each).causal, Causality::PerSequence(vec![5]));
}

#[test]
fn without_a_softcap_capped_scores_are_the_logits() {
    let tensors = [&BARE[..], &[("scores", "F32", &[1, 2, 3, 3])]].concat();
    for (name, at) in [
        ("softmax", ScoresAt::Softmax),
        ("logits", ScoresAt::Logits),
        ("capped", ScoresAt::Logits),
        ("masked", ScoresAt::Masked),
    ] {
        let case = read(&json!({ "scores_at": name }), &tensors).unwrap();
        assert_eq!(case.call.scores, Some(at), "{name}");
    }
    assert_eq!(call(&json!({ "scores_at": "logits" })).scores, None);
}

#[test]
fn tolerances_have_defaults() {
    let case = read(&json!({}), &BARE).unwrap();
    assert_eq!(case.y_tol, Tolerance { absolute: 2e-5, relative: 2e-5 });
    assert_eq!(case.scores_tol, case.y_tol);
    let case = read(&json!({ "y_tol": [1, 0.5], "source": "me" }), &BARE).unwrap();
    assert_eq!(case.y_tol.allowed(-4.0), 3.0);
    assert_eq!(case.source, "me");
}

#[test]
fn the_batch_may_have_any_number_of_axes() {
    for (q, y, batch) in [
        (&[3, 4][..], &[3, 4][..], 1),
        (&[3, 4], &[1, 3, 4], 1),
        (&[2, 3, 4], &[2, 3, 4], 2),
        (&[2, 5, 3, 4], &[2, 5, 3, 4], 10),
        (&[2, 5, 3, 4], &[10, 3, 4], 10),
        (&[0, 3, 4], &[0, 3, 4], 0),
    ] {
        let case = read(&json!({}), &[("q", "F32", q), ("y", "F32", y)]).unwrap();
        assert_eq!(case.call.shape, Shape::new(batch, 3, 3), "{q:?}");
    }
    let error = read(&json!({}), &[("q", "F32", &[2, 3, 4]), ("y", "F32", &[3, 4])]).unwrap_err();
    assert!(error.starts_with("y:"), "{error}");
}

#[test]
fn values_default_to_keys_and_keys_to_queries() {
    let call = call(&json!({}));
    assert!(call.k.is_none() && call.v.is_none());
    let tensors = [&BARE[..], &[("k", "F32", &[1, 7, 4])]].concat();
    let call = read(&json!({}), &tensors).unwrap().call;
    assert!(call.k.is_some() && call.v.is_none());
    assert_eq!(call.shape, Shape::new(1, 3, 7));
    assert_eq!(call.values().len(), 7 * 4);
}

#[test]
fn masks_and_biases_are_aligned_to_the_right() {
    for (shape, extents) in [
        (&[][..], [1, 1, 1, 1]),
        (&[3], [1, 1, 1, 3]),
        (&[3, 1], [1, 1, 3, 1]),
        (&[2, 1, 3], [1, 2, 1, 3]),
        (&[1, 2, 3, 3], [1, 2, 3, 3]),
    ] {
        let tensors = [&BARE[..], &[("mask", "BOOL", shape), ("bias", "F16", shape)]].concat();
        let call = read(&json!({}), &tensors).unwrap().call;
        assert_eq!(call.mask.unwrap().extents, extents);
        assert_eq!(call.bias.unwrap().extents, extents);
    }
}

#[test]
fn short_forms_of_dims_are_filled_in() {
    for (value, dims) in [
        (json!(6), Dims::square(6)),
        (json!({ "q_in": 6 }), Dims::square(6)),
        (json!({ "q_in": 6, "qk": 8, "out": 10 }), Dims::uniform(6, 8, 10)),
        (json!({ "q_in": 6, "qk": 8, "v": 4, "out": 5 }), Dims::shared(6, (8, 4), 5)),
        (
            json!({ "q_in": 6, "k_in": 7, "v_in": 9, "qk": 8, "v": 4, "out": 5 }),
            Dims::new((6, 7, 9), (8, 4), 5),
        ),
    ] {
        let Dims { q_in, k_in, v_in, qk, v, out } = dims;
        let tensors: [Tensor<'_>; 8] = [
            ("q", "F32", &[3, q_in]),
            ("k", "F32", &[3, k_in]),
            ("v", "F32", &[3, v_in]),
            ("wq", "F32", &[qk, q_in]),
            ("wk", "BF16", &[qk, k_in]),
            ("wv", "F16", &[v, v_in]),
            ("wo", "F32", &[out, v]),
            ("y", "F32", &[3, out]),
        ];
        let description = json!({ "dims": value, "heads": 2, "weights": "out_in" });
        let case = Case::parse(&file(&description, &tensors)).unwrap();
        let Operation::Layer(config, _) = case.call.operation else { panic!("no layer") };
        assert_eq!(config.dims, dims);
    }
}
