//! Requests by their bytes, so that a change of order is seen here and not in a door.

use mha::{Attention, Config, Dims, Rope, ScoresAt, Shape, Window};

use super::{MAGIC, PLAIN_WORDS, WORDS, Word, answer, request};
use crate::call::{Answer, Call, Causality, Drop, Grid, Operation, Parameters};
use crate::family::{Family, Past, Slopes};
use crate::rotation::Rotation;

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

#[test]
fn a_request_has_every_word_in_its_place() {
    let dims = Dims::new((1, 2, 3), (4, 6), 5);
    let config = Config::new(dims).heads(2).scale(0.5);
    let parameters = Parameters {
        weights: [vec![1.0; 4], vec![2.0; 8], vec![3.0; 18], vec![4.0; 30]],
        biases: [None, Some(vec![5.0; 4]), None, Some(vec![6.0; 5])],
    };
    let operation = Operation::Layer(config, parameters);
    let call = Call {
        k: Some(vec![8.0; 2]),
        v: Some(vec![9.0; 3]),
        mask: Some(Grid { data: vec![1, 0, 1, 1], extents: [1, 2, 2, 1] }),
        bias: Some(Grid { data: vec![0.25; 2], extents: [1, 1, 2, 1] }),
        causal: Causality::PerSequence(vec![-3]),
        dropout: Some(Drop { p: 0.5, seed: 77 }),
        scores: Some(ScoresAt::Masked),
        ..Call::new(operation, Shape::new(1, 2, 1), vec![7.0; 2])
    };
    let bytes = request(&call);
    let (header, payload) = bytes.split_at((2 + WORDS) * 8);
    let half = u64::from(0.5f32.to_bits());
    assert_eq!(PLAIN_WORDS, 32);
    let plain = [
        MAGIC, 58, // then the header
        1, 1, 2, 3, 4, 6, 5, 2, // kind, dims, heads
        0, 1, half, // weight order, scale
        1, 2, 1, // shape
        2, 0, // causal
        1, 2, // scores
        1, half, 77, // dropout
        1, 1, 2, 2, 1, // mask
        1, 1, 1, 2, 1,      // bias
        0b1010, // the biases that there are
    ];
    let mut expected = plain.to_vec();
    // A plain call asks for nothing that a door of the plain layer has not got.
    expected.resize(60, 0);
    assert_eq!(words(header), expected);

    let mut floats = vec![7.0f32; 2];
    for (value, count) in
        [(8.0, 2), (9.0, 3), (1.0, 4), (2.0, 8), (3.0, 18), (4.0, 30), (5.0, 4), (6.0, 5)]
    {
        floats.extend(std::iter::repeat_n(value, count));
    }
    let mut expected: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
    expected.extend((-3i64).to_le_bytes());
    expected.extend([1, 0, 1, 1]);
    expected.extend([0.25f32; 2].iter().flat_map(|float| float.to_le_bytes()));
    assert_eq!(payload, expected);
}

/// Grouped heads over a past, with every option.
fn decoder() -> Call {
    let operation = Operation::DotProduct(Attention::new(4, 8, 4).kv_heads(2));
    let rope = Rope { dims: 2, interleaved: true, ..Rope::new(1e4) };
    Call {
        k: Some(vec![2.0; 4]),
        v: Some(vec![3.0; 2]),
        scores: Some(ScoresAt::Capped),
        family: Family {
            offset: Some(Causality::Offset(-2)),
            window: Window { left: None, right: Some(5) },
            lens: Some(vec![3]),
            softcap: Some(0.5),
            alibi: Some(Slopes::Given(vec![4.0; 4])),
            rope: Some(Rope { q_offset: Some(6), k_offset: Some(0), ..rope }),
            sinks: Some(vec![5.0; 4]),
            past: Some(Past { len: 2, k: vec![6.0; 8], v: vec![7.0; 4] }),
            present: true,
        },
        ..Call::new(operation, Shape::new(1, 1, 1), vec![1.0; 8])
    }
}

#[test]
fn the_family_has_every_word_in_its_place() {
    let bytes = request(&decoder());
    let (header, payload) = bytes.split_at((2 + WORDS) * 8);
    let header = words(header);
    assert_eq!(header[2..10], [2, 8, 4, 2, 8, 4, 4, 4]);
    assert_eq!(header[2 + Word::ScoresAt as usize], 3);
    let expected = [
        2, // kv_heads
        1,
        -2i64 as u64, // position
        0,
        0,
        1,
        5, // window
        1, // lens
        1,
        u64::from(0.5f32.to_bits()), // softcap
        2,                           // slopes
        1,
        2,
        1,
        u64::from(1e4f32.to_bits()), // rope
        1,
        6,
        1,
        0, // its offsets
        1, // sinks
        1,
        2,
        1, // cache
        0, // table
        0,
        0, // gradients
    ];
    assert_eq!(header[2 + PLAIN_WORDS..], expected);

    let floats = |value: f32, count| std::iter::repeat_n(value.to_le_bytes(), count).flatten();
    let mut expected: Vec<u8> =
        floats(1.0, 8).chain(floats(2.0, 4)).chain(floats(3.0, 2)).collect();
    expected.extend(3u64.to_le_bytes());
    for (value, count) in [(4.0, 4), (5.0, 4), (6.0, 8), (7.0, 4)] {
        expected.extend(floats(value, count));
    }
    assert_eq!(payload, expected);
}

#[test]
fn a_rotation_travels_with_its_table() {
    let rotation = Rotation {
        sizes: [1, 2, 3, 4],
        positions: vec![4, 0, 2],
        cos: vec![0.5; 5],
        sin: vec![0.25; 5],
        dims: 2,
        interleaved: true,
    };
    let operation = Operation::Rotate(rotation);
    let call = Call::new(operation, Shape::new(1, 3, 0), vec![1.0; 24]);
    let bytes = request(&call);
    let header = words(&bytes[..(2 + WORDS) * 8]);
    let at = |word: Word| header[2 + word as usize];
    assert_eq!([Word::Kind, Word::Qk, Word::Heads].map(at), [3, 8, 2]);
    assert_eq!([Word::Batch, Word::QLen, Word::KvLen].map(at), [1, 3, 0]);
    let table = [Word::HasRope, Word::RopeDims, Word::RopeInterleaved, Word::TableRows];
    assert_eq!(table.map(at), [0, 2, 1, 5]);
    let payload = &bytes[(2 + WORDS + 12) * 8..];
    assert_eq!(words(&payload[..24]), [4, 0, 2]);
    assert_eq!(payload.len(), 24 + 2 * 5 * 4);
}

fn attention() -> Call {
    let operation = Operation::DotProduct(Attention::new(1, 2, 2));
    Call {
        scores: Some(ScoresAt::Softmax),
        causal: Causality::Offset(-1),
        ..Call::new(operation, Shape::new(1, 1, 1), vec![7.0; 2])
    }
}

#[test]
fn attention_alone_travels_without_weights() {
    let bytes = request(&attention());
    let header = words(&bytes[..34 * 8]);
    assert_eq!(header[2..10], [2, 2, 2, 2, 2, 2, 2, 1]);
    assert_eq!(header[16..18], [1, -1i64 as u64]);
    assert_eq!(bytes.len(), (2 + WORDS) * 8 + 3 * 2 * 4);
}

#[test]
fn answers_are_read() {
    let mut ok = 0u64.to_le_bytes().to_vec();
    ok.extend([1.0f32, 2.0, 3.0].iter().flat_map(|float| float.to_le_bytes()));
    let expected = Answer {
        y: vec![1.0, 2.0],
        scores: vec![3.0],
        present: None,
        gradients: Default::default(),
    };
    assert_eq!(answer(&mut ok.as_slice(), &attention()).unwrap(), expected);

    let short = &ok[..16];
    let error = answer(&mut &*short, &attention()).unwrap_err();
    assert!(error.to_string().contains("scores"), "{error}");

    let mut refused = (-100i64).to_le_bytes().to_vec();
    refused.extend(5u64.to_le_bytes());
    refused.extend(b"newer");
    let error = answer(&mut refused.as_slice(), &attention()).unwrap_err();
    assert_eq!(error.to_string(), "newer (status -100)");
}

#[test]
fn an_answer_brings_what_a_cache_holds() {
    let call = decoder();
    // y, four heads' scores over three positions, two heads' keys and values.
    let floats = |value: f32, count| std::iter::repeat_n(value.to_le_bytes(), count).flatten();
    let mut ok = 0u64.to_le_bytes().to_vec();
    for (value, count) in [(1.0, 4), (2.0, 12), (3.0, 12), (4.0, 6)] {
        ok.extend(floats(value, count));
    }
    let present = Some([vec![3.0; 12], vec![4.0; 6]]);
    let expected =
        Answer { y: vec![1.0; 4], scores: vec![2.0; 12], present, gradients: Default::default() };
    assert_eq!(answer(&mut ok.as_slice(), &call).unwrap(), expected);

    ok.pop();
    let error = answer(&mut ok.as_slice(), &call).unwrap_err();
    assert!(error.to_string().contains("values"), "{error}");
}
