//! Bits are a property of the layer: every kernel, tiling, range and thread of a family agrees, and
//! the unfused family agrees with the textbook.

mod support;

use mha::{Config, Dims, Inputs, Isa, MultiHeadAttention, Outputs, Shape, Weights, reference};
use support::{Call, bits};

const CALLS: u64 = 1500;

/// Every kernel there is, and whether its family is the fused one. A new kernel is named here, and
/// with that held to the bits of its family by every test of this file.
const FAMILIES: [(&str, bool); 4] =
    [("portable", false), ("neon", true), ("avx2", true), ("avx512", true)];

struct Result {
    y: Vec<f32>,
    scores: Vec<f32>,
}

fn run(call: &Call, isa: Isa, scratch_len: usize, with_scores: bool) -> Result {
    let layer = MultiHeadAttention::with_isa(call.config, call.weights(), isa).unwrap();
    let mut y = vec![f32::NAN; call.config.y_len(call.shape)];
    let mut scores = vec![f32::NAN; call.config.scores_len(call.shape)];
    let mut scratch = vec![f32::NAN; scratch_len];
    let mut outputs = Outputs::new(&mut y);
    if with_scores {
        outputs = outputs.scores(&mut scores);
    }
    layer.forward(call.shape, call.inputs(), outputs, &mut scratch).unwrap();
    Result { y, scores }
}

fn textbook(call: &Call) -> Result {
    let layer = MultiHeadAttention::with_isa(call.config, call.weights(), Isa::PORTABLE).unwrap();
    let mut y = vec![f32::NAN; call.config.y_len(call.shape)];
    let mut scores = vec![f32::NAN; call.config.scores_len(call.shape)];
    let mut workspace = vec![f32::NAN; reference::workspace_len(&layer, call.shape)];
    let outputs = Outputs::new(&mut y).scores(&mut scores);
    reference::forward(&layer, call.shape, call.inputs(), outputs, &mut workspace).unwrap();
    Result { y, scores }
}

/// What a kernel says of itself is what it is: its only value is −1 and a product that is 1 − 2⁻²⁶
/// before it is rounded, and 1 after.
#[test]
fn every_kernel_is_of_the_family_that_it_is_named_with() {
    let near = 2f32.powi(-13);
    let config = Config::new(Dims::new((1, 1, 2), (1, 1), 1)).heads(1);
    let (wv, v) = ([-1.0, 1.0 + near], [1.0, 1.0 - near]);
    let weights = Weights::new(&[1.0], &[1.0], &wv, &[1.0]);
    let inputs = Inputs::new(&[1.0], &[1.0], &v);
    for isa in Isa::available() {
        let name = isa.name();
        let family = FAMILIES.iter().find(|(kernel, _)| *kernel == name);
        let (_, fused) = family.unwrap_or_else(|| panic!("{name} is named in no family"));
        assert_eq!(isa.is_fused(), *fused, "{name}");
        let layer = MultiHeadAttention::with_isa(config, weights, isa).unwrap();
        let (mut y, mut scratch) = ([f32::NAN], [0.0; 1024]);
        layer.forward(Shape::new(1, 1, 1), inputs, Outputs::new(&mut y), &mut scratch).unwrap();
        assert_eq!(y[0], if *fused { -near * near } else { 0.0 }, "{name}");
    }
}

#[test]
fn every_kernel_and_every_scratch_gives_the_bits_of_its_family() {
    for seed in 0..CALLS {
        let call = Call::random(seed);
        let (most, least) =
            (call.config.scratch_len(call.shape), call.config.min_scratch_len(call.shape));
        let mut fused: Option<Result> = None;
        for isa in Isa::available() {
            let expected = if isa.is_fused() {
                fused.get_or_insert_with(|| run(&call, isa, most, true))
            } else {
                &textbook(&call)
            };
            for len in [most, least, (most + 3 * least) / 4, least + 40] {
                for with_scores in [false, true] {
                    let got = run(&call, isa, len, with_scores);
                    let name = isa.name();
                    assert_eq!(
                        bits(&got.y),
                        bits(&expected.y),
                        "y of call {seed} on {name}, {len}"
                    );
                    if with_scores {
                        let (got, expected) = (bits(&got.scores), bits(&expected.scores));
                        assert_eq!(got, expected, "scores of call {seed} on {name}, {len}");
                    }
                }
            }
        }
    }
}

/// A plan that takes one float more than there is would leave a part of the scratch out.
#[test]
fn every_length_of_scratch_gives_the_same_bits() {
    let mut calls = 0;
    for seed in 0.. {
        let call = Call::random(seed);
        let (most, least) =
            (call.config.scratch_len(call.shape), call.config.min_scratch_len(call.shape));
        let rows = call.shape.batch * call.shape.q_len;
        if rows < 5 || call.shape.kv_len < 5 || most > 3000 {
            continue;
        }
        let expected = run(&call, Isa::detect(), most, true);
        for len in least..most {
            let got = run(&call, Isa::detect(), len, true);
            assert_eq!(bits(&got.y), bits(&expected.y), "y of call {seed} in {len}");
            assert_eq!(bits(&got.scores), bits(&expected.scores), "scores of call {seed} in {len}");
        }
        calls += 1;
        if calls == 5 {
            break;
        }
    }
}

#[test]
fn threads_that_share_a_call_give_the_bits_of_one() {
    for seed in 0..300 {
        let call = Call::random(seed);
        let rows = call.shape.batch * call.shape.q_len;
        let layer = MultiHeadAttention::new(call.config, call.weights()).unwrap();
        let whole = run(&call, layer.isa(), call.config.scratch_len(call.shape), false);
        let mut y = vec![f32::NAN; whole.y.len()];
        let cut = rows * 2 / 3;
        let (first, second) = y.split_at_mut(cut * call.config.dims.out);
        std::thread::scope(|scope| {
            for (rows, y) in [(0..cut, first), (cut..rows, second)] {
                let (call, layer) = (&call, &layer);
                scope.spawn(move || {
                    let mut scratch = vec![0.0; call.config.scratch_len(call.shape)];
                    layer
                        .forward_rows(
                            call.shape,
                            rows,
                            call.inputs(),
                            Outputs::new(y),
                            &mut scratch,
                        )
                        .unwrap();
                });
            }
        });
        assert_eq!(bits(&y), bits(&whole.y), "call {seed}");
    }
}

/// What a call gives by ranges of its rows, each with another scratch.
fn by_ranges(call: &Call, isa: Isa, expected: &Result, cuts: &[usize]) {
    let layer = MultiHeadAttention::with_isa(call.config, call.weights(), isa).unwrap();
    let Shape { q_len, kv_len, .. } = call.shape;
    let (heads, out) = (call.config.attention.heads, call.config.dims.out);
    let (most, least) =
        (call.config.scratch_len(call.shape), call.config.min_scratch_len(call.shape));
    for (i, rows) in cuts.windows(2).enumerate() {
        let rows = rows[0]..rows[1];
        let mut y = vec![f32::NAN; rows.len() * out];
        let mut scores = vec![f32::NAN; rows.len() * heads * kv_len];
        let mut scratch = vec![f32::NAN; most - (most - least) * (i % 3) / 2];
        let outputs = Outputs::new(&mut y).scores(&mut scores);
        layer.forward_rows(call.shape, rows.clone(), call.inputs(), outputs, &mut scratch).unwrap();
        let what = format!("rows {rows:?} on {}", isa.name());
        assert_eq!(bits(&y), bits(&expected.y[rows.start * out..rows.end * out]), "{what}");
        // Sequence by sequence: of each head, the rows of the range.
        let mut got = scores.chunks(kv_len);
        for sequence in 0..call.shape.batch {
            for head in 0..heads {
                for query in 0..q_len {
                    if rows.contains(&(sequence * q_len + query)) {
                        let row = (sequence * heads + head) * q_len + query;
                        let expected = &expected.scores[row * kv_len..][..kv_len];
                        assert_eq!(bits(got.next().unwrap()), bits(expected), "scores, {what}");
                    }
                }
            }
        }
        assert!(got.next().is_none());
    }
}

/// One sequence of a call, as a call of its own.
fn sequence(call: &Call, which: usize) -> Call {
    let Shape { batch, q_len, kv_len } = call.shape;
    let part = |x: &[f32]| x[x.len() / batch * which..][..x.len() / batch].to_vec();
    fn own<T: Clone>(all: &(Vec<T>, [usize; 4]), which: usize) -> (Vec<T>, [usize; 4]) {
        let (data, [batch, heads, rows, columns]) = all;
        let each = data.len() / batch;
        let which = if *batch == 1 { 0 } else { which };
        (data[each * which..][..each].to_vec(), [1, *heads, *rows, *columns])
    }
    Call {
        shape: Shape::new(1, q_len, kv_len),
        q: part(&call.q),
        k: part(&call.k),
        v: part(&call.v),
        bias: call.bias.as_ref().map(|bias| own(bias, which)),
        mask: call.mask.as_ref().map(|mask| own(mask, which)),
        ..call.clone()
    }
}

/// A family's bits do not depend on the kernel, on how the rows are cut or on what lies beside a
/// sequence in its batch. What is printed is equal on every machine.
#[test]
fn every_range_and_every_batch_gives_the_bits_of_its_family() {
    let mut hashes = [0xcbf2_9ce4_8422_2325u64; 2];
    for seed in 0..2000 {
        let mut call = Call::around_tiles(seed);
        let rows = call.shape.batch * call.shape.q_len;
        let mut cuts =
            [0, rows, seed as usize * 7 % (rows + 1), seed as usize * 11 % (rows + 1), rows];
        cuts.sort_unstable();
        for fused in [false, true] {
            let mut expected: Option<Result> = None;
            for isa in Isa::available().filter(|isa| isa.is_fused() == fused) {
                let expected = expected.get_or_insert_with(|| {
                    if fused {
                        run(&call, isa, call.config.scratch_len(call.shape), true)
                    } else {
                        textbook(&call)
                    }
                });
                by_ranges(&call, isa, expected, &cuts);
            }
            for bits in expected.iter().flat_map(|e| bits(&e.y).into_iter().chain(bits(&e.scores)))
            {
                let hash = &mut hashes[usize::from(fused)];
                *hash = (*hash ^ u64::from(bits)).wrapping_mul(0x100_0000_01b3);
            }
        }
        if call.shape.batch > 1 {
            // What is dropped depends on where in the batch a sequence stands.
            call.dropout = None;
            for isa in Isa::available() {
                let all = run(&call, isa, call.config.scratch_len(call.shape), true);
                for which in 0..call.shape.batch {
                    let one = sequence(&call, which);
                    let one = run(&one, isa, one.config.min_scratch_len(one.shape), true);
                    let y = &all.y[one.y.len() * which..][..one.y.len()];
                    let scores = &all.scores[one.scores.len() * which..][..one.scores.len()];
                    let what = format!("sequence {which} of call {seed} on {}", isa.name());
                    assert_eq!(bits(&one.y), bits(y), "{what}");
                    assert_eq!(bits(&one.scores), bits(scores), "scores of {what}");
                }
            }
        }
    }
    println!("bits of the unfused family: {:016x}", hashes[0]);
    if Isa::available().any(Isa::is_fused) {
        println!("bits of the fused family: {:016x}", hashes[1]);
    }
}
