//! The way back against differences of the layer in doubles, and what must hold of it whatever the numbers.

mod support;

use mha::{
    Alibi, Argument, Attention, BackwardError, Config, Dims, Dropout, Error, Gradients, Inputs,
    Isa, Mask, MultiHeadAttention, Norm, NormKind, Options, Outputs, Part, Rope, Shape, Upstream,
    Weights, Window,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::{Call, floats};

/// All gradients of a call, owned.
#[derive(Clone, Debug, PartialEq)]
struct All {
    inputs: [Vec<f32>; 3],
    w: [Vec<f32>; 4],
    b: [Option<Vec<f32>>; 4],
    bias: Option<Vec<f32>>,
}

impl All {
    fn like(call: &Call, value: f32) -> Self {
        let like = |x: &Vec<f32>| vec![value; x.len()];
        Self {
            inputs: [like(&call.q), like(&call.k), like(&call.v)],
            w: call.w.each_ref().map(like),
            b: call.b.each_ref().map(|b| b.as_ref().map(like)),
            bias: call.bias.as_ref().map(|(bias, _)| like(bias)),
        }
    }

    fn gradients(&mut self) -> Gradients<'_> {
        let [q, k, v] = self.inputs.each_mut().map(|x| Some(&mut **x));
        let [wq, wk, wv, wo] = self.w.each_mut().map(|x| Some(&mut **x));
        let [bq, bk, bv, bo] = self.b.each_mut().map(|x| x.as_deref_mut());
        let bias = self.bias.as_deref_mut();
        Gradients { q, k, v, wq, wk, wv, wo, bq, bk, bv, bo, bias, accumulate: false }
    }

    fn parts(&self) -> Vec<(&'static str, &[f32])> {
        let mut parts: Vec<(&'static str, &[f32])> = Vec::new();
        parts.extend(["dq", "dk", "dv"].into_iter().zip(self.inputs.iter().map(Vec::as_slice)));
        parts
            .extend(["dwq", "dwk", "dwv", "dwo"].into_iter().zip(self.w.iter().map(Vec::as_slice)));
        let biases = ["dbq", "dbk", "dbv", "dbo"].into_iter().zip(&self.b);
        parts.extend(biases.filter_map(|(name, b)| Some((name, b.as_deref()?))));
        parts.extend(self.bias.as_deref().map(|bias| ("dbias", bias)));
        parts
    }

    fn add(&mut self, other: &Self) {
        let add = |a: &mut [f32], b: &[f32]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        self.inputs.iter_mut().zip(&other.inputs).for_each(|(a, b)| add(a, b));
        self.w.iter_mut().zip(&other.w).for_each(|(a, b)| add(a, b));
        for (a, b) in self.b.iter_mut().zip(&other.b) {
            if let (Some(a), Some(b)) = (a, b) {
                add(a, b);
            }
        }
        if let (Some(a), Some(b)) = (&mut self.bias, &other.bias) {
            add(a, b);
        }
    }
}

/// What comes from above.
struct Above {
    dy: Vec<f32>,
    dscores: Option<Vec<f32>>,
}

impl Above {
    fn random(call: &Call, seed: u64) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed ^ 0x6162_6f76);
        let dy = floats(rng, call.config.y_len(call.shape), 1.0);
        let scores = call.config.scores_len(call.shape);
        Self { dy, dscores: rng.random_bool(0.5).then(|| floats(rng, scores, 1.0)) }
    }

    fn upstream(&self) -> Upstream<'_> {
        let upstream = Upstream::new(&self.dy);
        match &self.dscores {
            Some(dscores) => upstream.scores(dscores),
            None => upstream,
        }
    }
}

/// A random call whose logits are moderate, so that differences tell something.
fn moderate(seed: u64) -> Call {
    let mut call = support::judged(if seed.is_multiple_of(3) {
        Call::around_tiles(seed)
    } else {
        Call::random(seed)
    });
    let d = call.config.attention.qk / call.config.attention.heads;
    let (q_in, k_in) = (call.config.dims.q_in, call.config.dims.k_in);
    let size = |x: &[f32]| x.iter().fold(1e-3f32, |size, x| size.max(x.abs()));
    let by = 2.0 / (size(&call.q) * (q_in as f32 * k_in as f32).sqrt());
    call.q.iter_mut().for_each(|x| *x *= by);
    let by = 1.0 / size(&call.k);
    call.k.iter_mut().for_each(|x| *x *= by);
    call.config.attention.scale = call.config.attention.scale.map(|s| s / (d as f32).sqrt());
    call
}

fn backward_on(isa: Isa, call: &Call, above: &Above, scratch: usize, start: f32) -> All {
    let layer = MultiHeadAttention::with_isa(call.config, call.weights(), isa).unwrap();
    let mut all = All::like(call, start);
    let mut scratch = vec![f32::NAN; scratch];
    let gradients = all.gradients();
    layer.backward(call.shape, call.inputs(), above.upstream(), gradients, &mut scratch).unwrap();
    all
}

fn backward(call: &Call, above: &Above) -> All {
    let scratch = call.config.backward_scratch_len(call.shape);
    backward_on(Isa::detect(), call, above, scratch, f32::NAN)
}

/// The array of a call that a gradient belongs to.
fn array<'c>(call: &'c mut Call, name: &str) -> &'c mut [f32] {
    match name {
        "dq" => &mut call.q,
        "dk" => &mut call.k,
        "dv" => &mut call.v,
        "dwq" => &mut call.w[0],
        "dwk" => &mut call.w[1],
        "dwv" => &mut call.w[2],
        "dwo" => &mut call.w[3],
        "dbq" => call.b[0].as_mut().unwrap(),
        "dbk" => call.b[1].as_mut().unwrap(),
        "dbv" => call.b[2].as_mut().unwrap(),
        "dbo" => call.b[3].as_mut().unwrap(),
        _ => &mut call.bias.as_mut().unwrap().0,
    }
}

/// What dropout multiplies each score by.
fn factors(call: &Call) -> Option<Vec<f64>> {
    let (p, seed) = call.dropout?;
    let heads = call.config.attention.heads;
    let attention = Attention::new(heads, heads, heads);
    // With the same logit everywhere every score is the same, so what became of it tells all.
    let Shape { batch, q_len, kv_len } = call.shape;
    let (q, k) = (vec![0.0; batch * q_len * heads], vec![0.0; batch * kv_len * heads]);
    let mut scores = vec![0.0; call.config.scores_len(call.shape)];
    let mut scratch = vec![0.0; attention.scratch_len(call.shape)];
    let inputs = Inputs::new(&q, &k, &k).dropout(Dropout::new(p, seed));
    let isa = Isa::PORTABLE;
    mha::dot_product_attention_scores(
        attention,
        isa,
        call.shape,
        inputs,
        &mut scores,
        &mut scratch,
    )
    .unwrap();
    let survivor = 1.0 / f64::from(1.0 - p);
    Some(scores.iter().map(|&score| if score > 0.0 { survivor } else { 0.0 }).collect())
}

/// The loss that has these gradients from above, in doubles.
fn loss(call: &Call, above: &Above, factors: Option<&[f64]>) -> f64 {
    let (y, scores) = call.doubles_dropped(factors);
    let dot = |a: &[f64], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum::<f64>();
    dot(&y, &above.dy) + above.dscores.as_ref().map_or(0.0, |dscores| dot(&scores, dscores))
}

/// Compares a few elements of every gradient, as several have computed them, with a difference of the loss.
fn compare(call: &Call, above: &Above, computed: &[(&str, All)], seed: u64) {
    let rng = &mut StdRng::seed_from_u64(seed);
    let factors = factors(call);
    let largest = |gradient: &[f32]| gradient.iter().fold(0.0, |size: f32, g| size.max(g.abs()));
    for (i, (name, first)) in computed[0].1.parts().into_iter().enumerate() {
        for (what, all) in computed {
            let is_finite = all.parts()[i].1.iter().all(|g| g.is_finite());
            assert!(is_finite, "seed {seed} on {what}: {name} is not finite");
        }
        for _ in 0..if first.is_empty() { 0 } else { 3 } {
            let at = rng.random_range(0..first.len());
            let mut moved = call.clone();
            let x = array(&mut moved, name)[at];
            // Differences take longer than gradients, so there is one for all.
            let expected = x.is_finite().then(|| {
                let step = 1.0 / 256.0;
                let mut at_offset = |offset: f32| {
                    array(&mut moved, name)[at] = x + offset;
                    (loss(&moved, above, factors.as_deref()), f64::from(x + offset))
                };
                // Of fourth order, over the steps as floats have them.
                let slope = |(f1, x1): (f64, f64), (f0, x0): (f64, f64)| (f1 - f0) / (x1 - x0);
                let near = slope(at_offset(step), at_offset(-step));
                let far = slope(at_offset(2.0 * step), at_offset(-2.0 * step));
                (4.0 * near - far) / 3.0
            });
            for (what, all) in computed {
                let gradient = all.parts()[i].1;
                let (got, what) = (gradient[at], format!("seed {seed} on {what}: {name}[{at}]"));
                let Some(expected) = expected else {
                    assert_eq!(got, 0.0, "{what} of an excluded key");
                    continue;
                };
                let error = (f64::from(got) - expected).abs();
                let bound = 2e-4 * (f64::from(largest(gradient)) + expected.abs()) + 1e-4;
                assert!(error <= bound, "{what} is {got} for {expected}");
            }
        }
    }
}

#[test]
fn gradients_are_differences_of_the_layer_in_doubles() {
    for seed in 0..80 {
        let call = moderate(seed);
        let above = Above::random(&call, seed);
        let scratch = call.config.backward_scratch_len(call.shape);
        let on = |isa: Isa| (isa.name(), backward_on(isa, &call, &above, scratch, f32::NAN));
        compare(&call, &above, &Isa::available().map(on).collect::<Vec<_>>(), seed);
    }
}

#[test]
fn dropout_makes_the_decisions_of_the_way_forward_again() {
    for seed in 0..30 {
        let mut call = moderate(seed);
        call.dropout = Some((0.1 + 0.01 * seed as f32, seed));
        let above = Above::random(&call, seed);
        compare(&call, &above, &[("the fastest", backward(&call, &above))], seed);
    }
}

#[test]
fn long_rows_are_computed_again_tile_by_tile() {
    for (seed, kv_len) in [(1, 700), (2, 641), (3, 1000)] {
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut call = moderate(7);
        call.config = Config::new(Dims::new((5, 6, 7), (12, 6), 4)).heads(3);
        call.shape = Shape::new(2, 9, kv_len);
        (call.bias, call.mask, call.causal) = (None, None, Some(kv_len as isize - 9));
        let config = call.config;
        call.w = [config.wq_len(), config.wk_len(), config.wv_len(), config.wo_len()]
            .map(|n| floats(rng, n, 0.5));
        call.b = [None, Some(floats(rng, 12, 0.5)), None, Some(floats(rng, 4, 0.5))];
        call.q = floats(rng, 2 * 9 * 5, 1.0);
        call.k = floats(rng, 2 * kv_len * 6, 1.0);
        call.v = floats(rng, 2 * kv_len * 7, 1.0);
        let above = Above::random(&call, seed);
        compare(&call, &above, &[("many keys", backward(&call, &above))], seed);
    }
}

/// Whether the bias stands for several queries, so that its gradient is a sum over blocks.
fn sums_over_queries(call: &Call) -> bool {
    call.bias.as_ref().is_some_and(|(_, extents)| extents[2] == 1)
}

#[test]
fn any_scratch_gives_the_same_bits() {
    for seed in 200..260 {
        let mut call = moderate(seed);
        if seed.is_multiple_of(4) {
            call.dropout = Some((0.3, seed));
        }
        let above = Above::random(&call, seed);
        let mut whole = backward(&call, &above);
        if sums_over_queries(&call) {
            whole.bias = None;
        }
        let (least, most) = (
            call.config.min_backward_scratch_len(call.shape),
            call.config.backward_scratch_len(call.shape),
        );
        for part in 0..5 {
            let scratch = least + (most - least.min(most)) * part / 5;
            let mut all = backward_on(Isa::detect(), &call, &above, scratch, f32::NAN);
            if sums_over_queries(&call) {
                all.bias = None;
            }
            for ((name, a), (_, b)) in whole.parts().into_iter().zip(all.parts()) {
                assert_eq!(support::bits(a), support::bits(b), "seed {seed}, {scratch}: {name}");
            }
        }
    }
}

#[test]
fn what_is_kept_changes_no_bit() {
    for seed in 260..340 {
        let mut call = moderate(seed);
        if seed.is_multiple_of(3) {
            call.dropout = Some((0.3, seed));
        }
        let above = Above::random(&call, seed);
        let (config, shape) = (call.config, call.shape);
        for isa in Isa::available() {
            let layer = MultiHeadAttention::with_isa(config, call.weights(), isa).unwrap();
            let what = format!("seed {seed} on {}", isa.name());
            let (least, most) = (config.min_scratch_len(shape), config.scratch_len(shape));
            for scratch in [most, least] {
                let mut scratch = vec![f32::NAN; scratch];
                let new = |len| vec![f32::NAN; len];
                let mut y = [(); 2].map(|()| new(config.y_len(shape)));
                let mut scores = [(); 2].map(|()| new(config.scores_len(shape)));
                let mut kept = new(config.kept_len(shape));
                let outputs = Outputs::new(&mut y[0]).scores(&mut scores[0]);
                layer.forward(shape, call.inputs(), outputs, &mut scratch).unwrap();
                let outputs = Outputs::new(&mut y[1]).scores(&mut scores[1]);
                layer
                    .forward_keeping(shape, call.inputs(), outputs, &mut kept, &mut scratch)
                    .unwrap();
                assert_eq!(support::bits(&y[0]), support::bits(&y[1]), "{what}: y");
                assert_eq!(support::bits(&scores[0]), support::bits(&scores[1]), "{what}: scores");

                let scratch = config.backward_scratch_len(shape);
                let whole = backward_on(isa, &call, &above, scratch, f32::NAN);
                let mut all = All::like(&call, f32::NAN);
                let mut scratch = vec![f32::NAN; scratch];
                let upstream = above.upstream().kept(&kept);
                let gradients = all.gradients();
                layer.backward(shape, call.inputs(), upstream, gradients, &mut scratch).unwrap();
                for ((name, a), (_, b)) in whole.parts().into_iter().zip(all.parts()) {
                    assert_eq!(support::bits(a), support::bits(b), "{what}: {name}");
                }
            }
        }
    }
}

#[test]
fn what_is_kept_changes_no_bit_with_options() {
    let rng = &mut StdRng::seed_from_u64(11);
    let config = Config::new(Dims::new((5, 6, 7), (24, 20), 9)).heads(4).kv_heads(2);
    let shape = Shape::new(2, 21, 37);
    let weights = floats(rng, config.weights_len() + config.biases_len(), 0.3);
    let layer =
        MultiHeadAttention::new(config, Weights::from_flat(&config, &weights).unwrap()).unwrap();
    let (q, k) = (floats(rng, 2 * 21 * 5, 1.0), floats(rng, 2 * 37 * 6, 1.0));
    let (v, dy) = (floats(rng, 2 * 37 * 7, 1.0), floats(rng, config.y_len(shape), 1.0));
    let sinks = floats(rng, 4, 1.0);
    let plain = Options::new();
    for options in [
        plain.rope(Rope::new(100.0)),
        plain.rope(Rope::new(100.0)).softcap(2.0).alibi(Alibi::Standard).sinks(&sinks),
        plain.window(Window::left(3)).lens(&[30, 37]),
    ] {
        let inputs = Inputs::new(&q, &k, &v).causal().dropout(Dropout::new(0.2, 5));
        let inputs = inputs.options(&options);
        let [mut y, mut other_y] = [(); 2].map(|()| vec![f32::NAN; config.y_len(shape)]);
        let mut kept = vec![f32::NAN; config.kept_len(shape)];
        let mut scratch = vec![f32::NAN; config.scratch_len(shape)];
        layer.forward(shape, inputs, Outputs::new(&mut y), &mut scratch).unwrap();
        let outputs = Outputs::new(&mut other_y);
        layer.forward_keeping(shape, inputs, outputs, &mut kept, &mut scratch).unwrap();
        assert_eq!(support::bits(&y), support::bits(&other_y), "{options:?}: y");
        let mut scratch = vec![f32::NAN; config.backward_scratch_len(shape)];
        let mut back = |upstream| {
            let [mut dq, mut dk, mut dv] = [&q, &k, &v].map(|x| vec![f32::NAN; x.len()]);
            let mut flat = vec![f32::NAN; weights.len()];
            let weights = Gradients::from_flat(&config, &mut flat).unwrap();
            let (q, k, v) = (Some(&mut *dq), Some(&mut *dk), Some(&mut *dv));
            let gradients = Gradients { q, k, v, ..weights };
            layer.backward(shape, inputs, upstream, gradients, &mut scratch).unwrap();
            [dq, dk, dv, flat].map(|gradient| support::bits(&gradient))
        };
        let upstream = Upstream::new(&dy);
        assert_eq!(back(upstream), back(upstream.kept(&kept)), "{options:?}: gradients");
    }
}

#[test]
fn what_is_kept_has_one_length() {
    let call = moderate(5);
    let layer = MultiHeadAttention::new(call.config, call.weights()).unwrap();
    let above = Above::random(&call, 5);
    let needed = call.config.kept_len(call.shape);
    let error = |got| Error::Length { argument: Argument::Kept, needed, got };
    let mut y = vec![3.0; call.config.y_len(call.shape)];
    let mut scratch = vec![0.0; call.config.backward_scratch_len(call.shape)];
    for got in [0, needed - 1, needed + 1] {
        let mut kept = vec![0.0; got];
        let (shape, inputs, outputs) = (call.shape, call.inputs(), Outputs::new(&mut y));
        let result = layer.forward_keeping(shape, inputs, outputs, &mut kept, &mut scratch);
        assert_eq!(result, Err(BackwardError::Call(error(got))));
        assert!(y.iter().all(|y| *y == 3.0), "nothing is written where an error is returned");
        let (mut all, above) = (All::like(&call, 3.0), above.upstream().kept(&kept));
        let result = layer.backward(shape, call.inputs(), above, all.gradients(), &mut scratch);
        assert_eq!(result, Err(BackwardError::Call(error(got))));
    }
}

#[test]
fn less_scratch_than_the_least_is_refused() {
    let call = moderate(5);
    let above = Above::random(&call, 5);
    let layer = MultiHeadAttention::new(call.config, call.weights()).unwrap();
    let needed = call.config.min_backward_scratch_len(call.shape);
    let mut all = All::like(&call, 3.0);
    let before = all.clone();
    let mut scratch = vec![0.0; needed - 1];
    let result =
        layer.backward(call.shape, call.inputs(), above.upstream(), all.gradients(), &mut scratch);
    let error = Error::Length { argument: Argument::Scratch, needed, got: needed - 1 };
    assert_eq!(result, Err(BackwardError::Call(error)));
    assert_eq!(all, before, "nothing is written where an error is returned");
}

fn near(a: &All, b: &All, bound: f32, what: &str) {
    let all = a.parts();
    let size = all.iter().flat_map(|(_, a)| *a).fold(1e-2f32, |size, x| size.max(x.abs()));
    for ((name, a), (_, b)) in all.into_iter().zip(b.parts()) {
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= bound * size, "{what}: {name} is {a} against {b}");
        }
    }
}

#[test]
fn parts_add_up_to_the_whole() {
    for seed in 400..440 {
        let call = moderate(seed);
        let above = Above::random(&call, seed);
        let whole = backward(&call, &above);
        let layer = MultiHeadAttention::new(call.config, call.weights()).unwrap();
        let mut scratch = vec![f32::NAN; call.config.backward_scratch_len(call.shape)];
        let heads = call.config.attention.heads;
        for parts in [2, 3, 7] {
            let mut sum = All::like(&call, 0.0);
            // The library's cut, and one in both directions at once.
            let cut = |part| call.config.split_backward(call.shape, part, parts);
            let mut list: Vec<Part> = (0..parts).map(cut).collect();
            if parts == 3 {
                let (b, h) = (call.shape.batch / 2, heads.div_ceil(2));
                let ranges = [(0..b, 0..h), (0..b, h..heads), (b..call.shape.batch, 0..heads)];
                list = ranges.map(|(sequences, kv_heads)| Part { sequences, kv_heads }).to_vec();
            }
            for part in list {
                let mut all = All::like(&call, f32::NAN);
                let (shape, inputs, above) = (call.shape, call.inputs(), above.upstream());
                let gradients = all.gradients();
                layer.backward_part(shape, part, inputs, above, gradients, &mut scratch).unwrap();
                sum.add(&all);
            }
            near(&whole, &sum, 2e-5, &format!("seed {seed} in {parts} parts"));
        }
    }
}

#[test]
fn gradients_are_linear_in_what_comes_from_above() {
    for seed in 500..520 {
        let call = moderate(seed);
        let (mut one, two) = (Above::random(&call, seed), Above::random(&call, seed + 1000));
        one.dscores = None;
        let two = Above { dscores: None, ..two };
        let sum = one.dy.iter().zip(&two.dy).map(|(a, b)| a + b).collect();
        let doubled = Above { dy: one.dy.iter().map(|x| 2.0 * x).collect(), dscores: None };
        let sum = Above { dy: sum, dscores: None };
        let (a, b) = (backward(&call, &one), backward(&call, &two));
        let mut both = a.clone();
        both.add(&b);
        near(&both, &backward(&call, &sum), 5e-5, &format!("seed {seed}"));
        let mut twice = a.clone();
        twice.add(&a);
        assert_eq!(twice, backward(&call, &doubled), "seed {seed}: twice is exactly twice");
    }
}

#[test]
fn what_is_not_wanted_is_not_needed() {
    for seed in 600..620 {
        let call = moderate(seed);
        let above = Above::random(&call, seed);
        let whole = backward(&call, &above);
        let layer = MultiHeadAttention::new(call.config, call.weights()).unwrap();
        let mut scratch = vec![f32::NAN; call.config.backward_scratch_len(call.shape)];
        for wanted in 0..12 {
            let mut all = All::like(&call, f32::NAN);
            let mut gradients = all.gradients();
            let each = [
                &mut gradients.q,
                &mut gradients.k,
                &mut gradients.v,
                &mut gradients.wq,
                &mut gradients.wk,
                &mut gradients.wv,
                &mut gradients.wo,
                &mut gradients.bq,
                &mut gradients.bk,
                &mut gradients.bv,
                &mut gradients.bo,
                &mut gradients.bias,
            ];
            each.into_iter().enumerate().filter(|(i, _)| *i != wanted).for_each(|(_, g)| *g = None);
            let (inputs, above) = (call.inputs(), above.upstream());
            layer.backward(call.shape, inputs, above, gradients, &mut scratch).unwrap();
            for ((name, a), (_, b)) in whole.parts().into_iter().zip(all.parts()) {
                let untouched = b.iter().all(|x| x.is_nan());
                assert!(untouched || support::bits(a) == support::bits(b), "seed {seed}: {name}");
            }
        }
    }
}

#[test]
fn gradients_are_added_to_what_is_there() {
    let call = moderate(10);
    let above = Above::random(&call, 10);
    let once = backward(&call, &above);
    let layer = MultiHeadAttention::new(call.config, call.weights()).unwrap();
    let mut scratch = vec![f32::NAN; call.config.backward_scratch_len(call.shape)];
    let mut all = once.clone();
    let gradients = Gradients { accumulate: true, ..all.gradients() };
    layer.backward(call.shape, call.inputs(), above.upstream(), gradients, &mut scratch).unwrap();
    let mut twice = once.clone();
    twice.add(&once);
    near(&twice, &all, 1e-5, "accumulated");
}

#[test]
fn what_nobody_sees_gives_nothing_and_gets_nothing() {
    let config = Config::new(Dims::new((6, 5, 4), (8, 12), 3)).heads(2);
    let rng = &mut StdRng::seed_from_u64(3);
    let shape = Shape::new(2, 20, 40);
    let w = [config.wq_len(), config.wk_len(), config.wv_len(), config.wo_len()]
        .map(|n| floats(rng, n, 1.0));
    let weights = Weights::new(&w[0], &w[1], &w[2], &w[3]);
    let layer = MultiHeadAttention::new(config, weights).unwrap();
    let mut q = floats(rng, 2 * 20 * 6, 1.0);
    let (mut k, mut v) = (floats(rng, 2 * 40 * 5, 1.0), floats(rng, 2 * 40 * 4, 1.0));
    let (dy, dscores) =
        (floats(rng, config.y_len(shape), 1.0), floats(rng, config.scores_len(shape), 1.0));
    // Keys 17 and 31 on are hidden, and the first two queries see nothing.
    let mask: Vec<bool> =
        (0..20 * 40).map(|at| at / 40 >= 2 && at % 40 != 17 && at % 40 < 31).collect();
    let run = |q: &[f32], k: &[f32], v: &[f32]| {
        let (mut dq, mut dk, mut dv) = (vec![9.0; q.len()], vec![9.0; k.len()], vec![9.0; v.len()]);
        let mut flat = vec![9.0; config.weights_len()];
        let mut scratch = vec![f32::NAN; config.backward_scratch_len(shape)];
        let gradients = Gradients::from_flat(&config, &mut flat).unwrap();
        let (q_, k_, v_) = (Some(&mut *dq), Some(&mut *dk), Some(&mut *dv));
        let gradients = Gradients { q: q_, k: k_, v: v_, ..gradients };
        let inputs = Inputs::new(q, k, v).mask(Mask::bools(&mask, [1, 1, 20, 40]));
        let above = Upstream::new(&dy).scores(&dscores);
        layer.backward(shape, inputs, above, gradients, &mut scratch).unwrap();
        (dq, dk, dv, flat)
    };
    let clean = run(&q, &k, &v);
    for batch in 0..2 {
        q[batch * 20 * 6..][..2 * 6].fill(f32::NAN);
        for key in (17..18).chain(31..40) {
            k[(batch * 40 + key) * 5..][..5].fill(f32::NAN);
            v[(batch * 40 + key) * 4..][..4].fill(f32::NAN);
        }
    }
    let poisoned = run(&q, &k, &v);
    assert_eq!(clean, poisoned);
    assert!(clean.1[17 * 5..18 * 5].iter().all(|&d| d == 0.0), "no gradient for a hidden key");
    assert!(clean.0[..12].iter().all(|&d| d == 0.0), "none for a query that sees nothing");
    assert!(clean.3.iter().all(|d| d.is_finite()));
}

#[test]
fn attention_alone_is_the_layer_with_projections_that_do_nothing() {
    let rng = &mut StdRng::seed_from_u64(11);
    for seed in 0..30u64 {
        let (heads, d, d_v) =
            (1 + seed as usize % 3, 2 * (1 + seed as usize % 5), 3 + seed as usize % 4);
        let (qk, v) = (heads * d, heads * d_v);
        let shape = Shape::new(1 + seed as usize % 2, 1 + 3 * seed as usize, 2 + 5 * seed as usize);
        let config = Config::new(Dims::new((qk, qk, v), (qk, v), v)).heads(heads);
        let identity = |n: usize| {
            (0..n * n).map(|at| f32::from(u8::from(at / n == at % n))).collect::<Vec<_>>()
        };
        let (i_qk, i_v) = (identity(qk), identity(v));
        let layer =
            MultiHeadAttention::new(config, Weights::new(&i_qk, &i_qk, &i_v, &i_v)).unwrap();
        let (queries, keys) = (shape.batch * shape.q_len, shape.batch * shape.kv_len);
        let q = floats(rng, queries * qk, 1.0);
        let (k, values) = (floats(rng, keys * qk, 1.0), floats(rng, keys * v, 1.0));
        let dy = floats(rng, queries * v, 1.0);
        let options = Options::new().rope(Rope::new(100.0)).softcap(2.0).alibi(Alibi::Standard);
        let inputs = || Inputs::new(&q, &k, &values).options(&options);
        let mut scratch = vec![f32::NAN; config.backward_scratch_len(shape)];
        let run = |alone: bool, scratch: &mut [f32]| {
            let [mut dq, mut dk, mut dv] = [&q, &k, &values].map(|x| vec![0.0; x.len()]);
            let gradients = Gradients {
                q: Some(&mut dq),
                k: Some(&mut dk),
                v: Some(&mut dv),
                ..Gradients::default()
            };
            let above = Upstream::new(&dy);
            if alone {
                mha::dot_product_attention_backward(
                    config.attention,
                    Isa::detect(),
                    shape,
                    inputs(),
                    above,
                    gradients,
                    scratch,
                )
                .unwrap();
            } else {
                layer.backward(shape, inputs(), above, gradients, scratch).unwrap();
            }
            [dq, dk, dv]
        };
        assert_eq!(run(true, &mut scratch), run(false, &mut scratch), "seed {seed}");
    }
}

#[test]
fn each_mistake_is_named() {
    let call = moderate(21);
    let layer = MultiHeadAttention::new(call.config, call.weights()).unwrap();
    let above = Above { dscores: None, ..Above::random(&call, 21) };
    let scores = vec![0.0; call.config.scores_len(call.shape)];
    let mut scratch = vec![0.0; call.config.backward_scratch_len(call.shape)];
    let mut refused = |options: &Options<'_>, upstream: Upstream<'_>| {
        let inputs = call.inputs().options(options);
        layer
            .backward(call.shape, inputs, upstream, Gradients::default(), &mut scratch)
            .expect_err("refused")
    };
    let plain = Options::new();
    let above_y = above.upstream();
    let needed = above.dy.len();
    assert_eq!(
        refused(&plain, Upstream::new(&above.dy[1..])),
        BackwardError::Gradient { of: Argument::Y, needed, got: needed - 1 }
    );
    assert_eq!(refused(&plain, above_y.scores(&scores[1..])).argument(), Argument::Scores);
    let norm = Norm { kind: NormKind::Rms, epsilon: 1e-6, q_gain: None, k_gain: None };
    assert_eq!(
        refused(&Options::new().norm(norm), above_y),
        BackwardError::Option { argument: Argument::Norm }
    );
    let capless = Options::new().softcap(-1.0);
    assert_eq!(
        refused(&capless, above_y),
        BackwardError::Call(Error::Value { argument: Argument::Softcap })
    );
    let window = Options { score_queries: Some([0, 0]), ..Options::new().window(Window::left(3)) };
    assert_eq!(
        refused(&window, above_y.scores(&scores)),
        BackwardError::Option { argument: Argument::Scores }
    );
    let mut nothing = [0.0; 3];
    let mut of_a_bias = call.clone();
    of_a_bias.b = [None, None, None, None];
    let layer = MultiHeadAttention::new(call.config, of_a_bias.weights()).unwrap();
    let gradients = Gradients { bk: Some(&mut nothing), ..Gradients::default() };
    let result = layer.backward(call.shape, call.inputs(), above_y, gradients, &mut scratch);
    assert_eq!(result, Err(BackwardError::Absent { of: Argument::Bk }));
    let message = result.unwrap_err().to_string();
    assert_eq!(message, "dbk: the call has no bk");
    let gradients = Gradients { wo: Some(&mut nothing), ..Gradients::default() };
    let error = layer.backward(call.shape, call.inputs(), above_y, gradients, &mut scratch);
    assert!(matches!(error, Err(BackwardError::Gradient { of: Argument::Wo, got: 3, .. })));
    let part = Part { sequences: 0..call.shape.batch + 1, kv_heads: 0..1 };
    let (inputs, gradients) = (call.inputs(), Gradients::default());
    let error = layer
        .backward_part(call.shape, part, inputs, above_y, gradients, &mut scratch)
        .unwrap_err();
    assert!(matches!(error, BackwardError::Call(Error::Range { argument: Argument::Rows, .. })));
}
