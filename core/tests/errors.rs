//! Every way in which a call can be wrong: the error names the argument, and nothing is written.

mod support;

use mha::{
    Argument, Attention, Broadcast, Causal, Config, Dims, Dropout, Error, Inputs, Isa, Mask,
    MultiHeadAttention, Outputs, Shape, Weights, dot_product_attention,
    dot_product_attention_scores,
};

const CONFIG: Config = Config::new(Dims::new((3, 4, 5), (6, 4), 7)).heads(2);
const SHAPE: Shape = Shape::new(2, 3, 4);
const PATTERN: f32 = f32::from_bits(0x7fc1_2345);

/// A valid call, to be spoilt in one place.
struct Owned {
    w: [Vec<f32>; 4],
    b: [Vec<f32>; 4],
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    y: Vec<f32>,
    scores: Vec<f32>,
    scratch: Vec<f32>,
}

impl Owned {
    fn new() -> Self {
        let dims = CONFIG.dims;
        let zeros = |n: usize| vec![0.25; n];
        Self {
            w: [CONFIG.wq_len(), CONFIG.wk_len(), CONFIG.wv_len(), CONFIG.wo_len()].map(zeros),
            b: [dims.qk, dims.qk, dims.v, dims.out].map(zeros),
            q: zeros(2 * 3 * 3),
            k: zeros(2 * 4 * 4),
            v: zeros(2 * 4 * 5),
            y: vec![PATTERN; 2 * 3 * 7],
            scores: vec![PATTERN; 2 * 2 * 3 * 4],
            scratch: vec![PATTERN; CONFIG.min_scratch_len(SHAPE)],
        }
    }

    fn run(&mut self, spoil: impl FnOnce(Inputs<'_>) -> Inputs<'_>) -> Result<(), Error> {
        let [wq, wk, wv, wo] = &self.w;
        let [bq, bk, bv, bo] = &self.b;
        let weights = Weights::new(wq, wk, wv, wo).biases(bq, bk, bv, bo);
        let layer = MultiHeadAttention::new(CONFIG, weights)?;
        let inputs = spoil(Inputs::new(&self.q, &self.k, &self.v));
        let outputs = Outputs::new(&mut self.y).scores(&mut self.scores);
        layer.forward(SHAPE, inputs, outputs, &mut self.scratch)
    }

    /// Runs, expects an error, and that no output or scratch has changed.
    fn refused(mut self, spoil: impl FnOnce(Inputs<'_>) -> Inputs<'_>) -> Error {
        let error = self.run(spoil).expect_err("the call is wrong");
        for x in self.y.iter().chain(&self.scores).chain(&self.scratch) {
            assert_eq!(x.to_bits(), PATTERN.to_bits(), "written in spite of {error}");
        }
        error
    }
}

#[test]
fn a_right_call_is_accepted() {
    let mut call = Owned::new();
    assert_eq!(call.run(|inputs| inputs), Ok(()));
    assert!(call.y.iter().chain(&call.scores).all(|x| x.is_finite()));
}

type Slot = fn(&mut Owned) -> &mut Vec<f32>;

const SLOTS: [(Argument, Slot); 14] = [
    (Argument::Wq, |call| &mut call.w[0]),
    (Argument::Wk, |call| &mut call.w[1]),
    (Argument::Wv, |call| &mut call.w[2]),
    (Argument::Wo, |call| &mut call.w[3]),
    (Argument::Bq, |call| &mut call.b[0]),
    (Argument::Bk, |call| &mut call.b[1]),
    (Argument::Bv, |call| &mut call.b[2]),
    (Argument::Bo, |call| &mut call.b[3]),
    (Argument::Q, |call| &mut call.q),
    (Argument::K, |call| &mut call.k),
    (Argument::V, |call| &mut call.v),
    (Argument::Y, |call| &mut call.y),
    (Argument::Scores, |call| &mut call.scores),
    (Argument::Scratch, |call| &mut call.scratch),
];

#[test]
fn every_slice_must_have_its_length() {
    for (argument, slot) in SLOTS {
        let needed = slot(&mut Owned::new()).len();
        for got in [0, 1, needed - 1, needed + 1, 2 * needed] {
            let mut call = Owned::new();
            slot(&mut call).resize(got, PATTERN);
            if argument == Argument::Scratch && got >= needed {
                assert_eq!(call.run(|inputs| inputs), Ok(()), "more scratch does no harm");
            } else if got != needed {
                let error = call.refused(|inputs| inputs);
                assert_eq!(error, Error::Length { argument, needed, got });
                let message = error.to_string();
                for part in [argument.name(), &needed.to_string(), &got.to_string()] {
                    assert!(message.contains(part), "{message} does not say {part}");
                }
            }
        }
    }
}

#[test]
fn arrays_that_do_not_broadcast_are_refused() {
    let sizes = [2, 2, 3, 4];
    for axis in 0..4 {
        for wrong in [0, sizes[axis] - 1, sizes[axis] + 1, 7] {
            if wrong == 1 || wrong == sizes[axis] {
                continue;
            }
            let mut extents = [1; 4];
            extents[axis] = wrong;
            let needed = sizes[axis];
            let floats = vec![0.0; wrong];
            let error = Owned::new().refused(|i| {
                // The data outlives the call.
                i.bias(Broadcast::new(floats.clone().leak(), extents))
            });
            assert_eq!(
                error,
                Error::Broadcast { argument: Argument::Bias, axis, needed, got: wrong }
            );
            let bools = vec![true; wrong];
            let error =
                Owned::new().refused(|i| i.mask(Mask::bools(bools.clone().leak(), extents)));
            assert_eq!(
                error,
                Error::Broadcast { argument: Argument::Mask, axis, needed, got: wrong }
            );
        }
    }
    for got in [0, 23, 25] {
        let error =
            Owned::new().refused(|i| i.mask(Mask::bytes(vec![1; got].leak(), [1, 2, 3, 4])));
        assert_eq!(error, Error::Length { argument: Argument::Mask, needed: 24, got });
        let error =
            Owned::new().refused(|i| i.bias(Broadcast::new(vec![0.0; got].leak(), [1, 2, 3, 4])));
        assert_eq!(error, Error::Length { argument: Argument::Bias, needed: 24, got });
    }
    for offsets in [&[][..], &[0], &[0, 0, 0]] {
        let error = Owned::new().refused(|i| i.causal_from(Causal::PerSequence(offsets)));
        let got = offsets.len();
        assert_eq!(error, Error::Length { argument: Argument::Causal, needed: 2, got });
    }
}

#[test]
fn values_outside_their_domain_are_refused() {
    for p in [-0.1, 1.0, 1.5, f32::NAN, f32::INFINITY] {
        let error = Owned::new().refused(|i| i.dropout(Dropout::new(p, 1)));
        assert_eq!(error, Error::Value { argument: Argument::Dropout });
    }
    for scale in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = CONFIG.scale(scale).check();
        assert_eq!(error, Err(Error::Value { argument: Argument::Scale }));
    }
}

#[test]
fn widths_and_heads_are_checked() {
    let zero = |argument| Err(Error::Zero { argument });
    assert_eq!(CONFIG.heads(0).check(), zero(Argument::Heads));
    assert_eq!(CONFIG.heads(3).check(), Err(Error::Heads { heads: 3, width: 4 }));
    assert_eq!(CONFIG.heads(4).check(), Err(Error::Heads { heads: 4, width: 6 }));
    assert_eq!(CONFIG.kv_heads(0).check(), zero(Argument::KvHeads));
    for (heads, kv_heads) in [(4, 3), (2, 4), (6, 4)] {
        let error = Config::new(Dims::square(12)).heads(heads).kv_heads(kv_heads).check();
        assert_eq!(error, Err(Error::Value { argument: Argument::KvHeads }));
    }
    for i in 0..6 {
        let mut n = [3, 4, 5, 6, 4, 7];
        n[i] = 0;
        let dims = Dims::new((n[0], n[1], n[2]), (n[3], n[4]), n[5]);
        assert_eq!(Config::new(dims).heads(2).check(), zero(Argument::Dims));
    }
    let large = Config::new(Dims::square(usize::MAX / 2)).heads(1);
    assert_eq!(large.check(), Err(Error::TooLarge { argument: Argument::Dims }));
    assert_eq!(Attention::new(2, 0, 4).check(), zero(Argument::Dims));
    for spoil in [|a: &mut Attention| a.qk = 8, |a: &mut Attention| a.v = 8] {
        let mut other = CONFIG;
        spoil(&mut other.attention);
        assert_eq!(other.check(), Err(Error::Value { argument: Argument::Dims }));
    }
}

#[test]
fn shapes_whose_sizes_overflow_are_refused_and_saturate() {
    let w = Owned::new().w;
    let [wq, wk, wv, wo] = &w;
    let layer = MultiHeadAttention::new(CONFIG, Weights::new(wq, wk, wv, wo)).unwrap();
    let half = usize::MAX / 2 + 1;
    for shape in [
        Shape::new(half, 2, 1),
        Shape::new(2, half, 1),
        Shape::new(1, usize::MAX, usize::MAX),
        Shape::new(1, 0, usize::MAX),
        Shape::new(0, usize::MAX, usize::MAX),
    ] {
        let (mut y, mut scratch) = ([PATTERN; 8], [PATTERN; 8]);
        let error = layer
            .forward(shape, Inputs::new(&[], &[], &[]), Outputs::new(&mut y), &mut scratch)
            .expect_err("too large");
        assert!(
            matches!(error, Error::TooLarge { .. } | Error::Length { .. }),
            "{shape:?}: {error}"
        );
        assert!(y.iter().chain(&scratch).all(|x| x.to_bits() == PATTERN.to_bits()));
    }
    // Where one size of the call could not be addressed, that is said, not that a slice is short.
    let (argument, forward) = (Argument::Shape, |shape, q: &[f32]| {
        let (mut y, mut scratch) = ([PATTERN; 7], [PATTERN; 8]);
        let outputs = Outputs::new(&mut y[..q.len() / 3 * 7]);
        layer.forward(shape, Inputs::new(q, &[], &[]), outputs, &mut scratch)
    });
    let keys_of_nobody = Shape::new(0, 1, usize::MAX / 16);
    assert_eq!(forward(keys_of_nobody, &[]), Err(Error::TooLarge { argument }));
    let queries_of_nobody = Shape::new(half, half, 0);
    let argument = Argument::Q;
    assert_eq!(forward(queries_of_nobody, &[]), Err(Error::TooLarge { argument }));
    let argument = Argument::K;
    assert_eq!(forward(Shape::new(1, 1, half), &[0.0; 3]), Err(Error::TooLarge { argument }));

    assert_eq!(CONFIG.scratch_len(Shape::new(1, 1, usize::MAX)), usize::MAX);
    assert_eq!(CONFIG.scores_len(Shape::new(half, half, 2)), usize::MAX);
    assert_eq!(CONFIG.y_len(Shape::new(half, half, 2)), usize::MAX);
}

#[test]
fn rows_outside_the_call_are_refused() {
    let mut call = Owned::new();
    let [wq, wk, wv, wo] = &call.w;
    let layer = MultiHeadAttention::new(CONFIG, Weights::new(wq, wk, wv, wo)).unwrap();
    #[expect(clippy::reversed_empty_ranges, reason = "that is the mistake")]
    for rows in [0..7, 7..8, 4..3, 0..usize::MAX] {
        let end = rows.end;
        let inputs = Inputs::new(&call.q, &call.k, &call.v);
        let outputs = Outputs::new(&mut call.y);
        let error = layer.forward_rows(SHAPE, rows, inputs, outputs, &mut call.scratch);
        assert_eq!(error, Err(Error::Range { argument: Argument::Rows, len: 6, end }));
    }
}

#[test]
fn attention_without_projections_is_checked_alike() {
    let attention = Attention::new(2, 6, 4);
    let shape = Shape::new(2, 3, 4);
    let (q, k, v) = (vec![0.1; 36], vec![0.1; 48], vec![0.1; 32]);
    let needed = [36, 48, 32, 24, 48, attention.min_scratch_len()];
    let names =
        [Argument::Q, Argument::K, Argument::V, Argument::Y, Argument::Scores, Argument::Scratch];
    for (which, &argument) in names.iter().enumerate() {
        for by in [-1isize, 1] {
            let mut lens = needed;
            lens[which] = lens[which].wrapping_add_signed(by);
            if argument == Argument::Scratch && by > 0 {
                continue;
            }
            let cut = |x: &Vec<f32>, len: usize| [x.as_slice(), &[0.1]].concat()[..len].to_vec();
            let (q, k, v) = (cut(&q, lens[0]), cut(&k, lens[1]), cut(&v, lens[2]));
            let (mut y, mut scores) = (vec![PATTERN; lens[3]], vec![PATTERN; lens[4]]);
            let mut scratch = vec![PATTERN; lens[5]];
            let (isa, inputs) = (Isa::detect(), Inputs::new(&q, &k, &v));
            let outputs = Outputs::new(&mut y).scores(&mut scores);
            let error = dot_product_attention(attention, isa, shape, inputs, outputs, &mut scratch);
            let (needed, got) = (needed[which], lens[which]);
            assert_eq!(error, Err(Error::Length { argument, needed, got }));
            let untouched = |x: &[f32]| x.iter().all(|x| x.to_bits() == PATTERN.to_bits());
            assert!(untouched(&y) && untouched(&scores) && untouched(&scratch));

            if matches!(argument, Argument::Q | Argument::K | Argument::Scores) {
                let error = dot_product_attention_scores(
                    attention,
                    isa,
                    shape,
                    inputs,
                    &mut scores,
                    &mut scratch,
                );
                assert_eq!(error, Err(Error::Length { argument, needed, got }));
                assert!(untouched(&scores) && untouched(&scratch));
            }
        }
    }
}

#[test]
fn flat_weights_are_taken_apart() {
    let flat: Vec<f32> =
        (0..CONFIG.weights_len() + CONFIG.biases_len()).map(|i| i as f32).collect();
    let weights = Weights::from_flat(&CONFIG, &flat).unwrap();
    assert_eq!(weights.wq[0], 0.0);
    assert_eq!(weights.wk[0], 18.0);
    assert_eq!(weights.wv[0], 18.0 + 24.0);
    assert_eq!(weights.wo[0], 18.0 + 24.0 + 20.0);
    assert_eq!(weights.bq.unwrap(), &flat[90..96]);
    assert_eq!(weights.bo.unwrap(), &flat[106..113]);
    assert!(Weights::from_flat(&CONFIG, &flat[..90]).unwrap().bq.is_none());
    for got in [0, 17, 89, 91, 96, 112] {
        let error = Weights::from_flat(&CONFIG, &flat[..got]).unwrap_err();
        assert_eq!(error, Error::Length { argument: Argument::Weights, needed: 90, got });
    }
}

#[test]
fn codes_and_messages_are_distinct_and_stable() {
    let argument = Argument::Q;
    let errors = [
        Error::Zero { argument },
        Error::Heads { heads: 3, width: 4 },
        Error::TooLarge { argument },
        Error::Length { argument, needed: 1, got: 2 },
        Error::Broadcast { argument, axis: 0, needed: 1, got: 2 },
        Error::Value { argument },
        Error::Range { argument, len: 1, end: 2 },
    ];
    for (i, error) in errors.iter().enumerate() {
        assert_eq!(error.code(), i as i32 + 1);
        assert!(error.to_string().starts_with(error.argument().name()));
    }
}
