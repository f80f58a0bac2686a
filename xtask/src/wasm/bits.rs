//! WebAssembly rounds every multiplication and every addition on its own, as the portable kernel
//! does, so the same call must give the same bits in both.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use mha::{Attention, Config, Dims, Isa, ScoresAt, Shape, WeightOrder};
use mha_conformance::{
    Call, Causality, Door, Drop, Grid, Operation, Parameters, Process, Rust, Scratch,
};

/// Lengths below, at, above and between the tiles of the kernels.
const LENGTHS: [usize; 10] = [1, 2, 3, 7, 16, 17, 48, 49, 65, 100];

/// How many calls are compared.
const CALLS: u64 = 200;

/// Runs seeded calls through the portable kernel here and through the program there.
pub(super) fn compare(runner: Command) -> Result<()> {
    let mut here = Rust::new(Isa::PORTABLE, Scratch::Recommended);
    let mut there = Process::start("wasm", runner)?;
    let mut floats = 0;
    for seed in 0..CALLS {
        let call = call(seed);
        let context = || format!("seed {seed}: {:?} {:?}", call.shape, call.attention());
        let ours = here.run(&call).with_context(context)?;
        let theirs = there.run(&call).with_context(context)?;
        for (name, ours, theirs) in
            [("y", &ours.y, &theirs.y), ("scores", &ours.scores, &theirs.scores)]
        {
            ensure!(ours.len() == theirs.len(), "{}: {name} is of another length", context());
            for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
                ensure!(
                    a.to_bits() == b.to_bits(),
                    "{}: {name}[{i}] is {a:e} ({:08x}) here and {b:e} ({:08x}) there",
                    context(),
                    a.to_bits(),
                    b.to_bits(),
                );
            }
            floats += ours.len();
        }
    }
    eprintln!("   {CALLS} calls, {floats} floats: the same bits");
    Ok(())
}

/// A call that depends on nothing but the seed.
fn call(seed: u64) -> Call {
    let mut random = Random(seed);
    let random = &mut random;
    let heads = [1, 2, 3, 8][random.below(4)];
    let mut widths = || heads * [1, 4, 5, 16][random.below(4)];
    let (qk, v) = (widths(), widths());
    let shape = Shape::new(1 + random.below(2), random.pick(&LENGTHS), random.pick(&LENGTHS));
    let (operation, inputs) = if seed.is_multiple_of(4) {
        (Operation::DotProduct(Attention::new(heads, qk, v)), (qk, qk, v))
    } else {
        let inputs = (1 + random.below(40), 1 + random.below(40), 1 + random.below(40));
        let out = 1 + random.below(40);
        let order = [WeightOrder::InOut, WeightOrder::OutIn][random.below(2)];
        let config = Config::new(Dims::new(inputs, (qk, v), out)).heads(heads).weight_order(order);
        let lens = [config.wq_len(), config.wk_len(), config.wv_len(), config.wo_len()];
        let weights = lens.map(|len| random.floats(len, 0.5));
        let biases =
            [qk, qk, v, out].map(|len| (random.below(2) == 0).then(|| random.floats(len, 1.0)));
        (Operation::Layer(config, Parameters { weights, biases }), inputs)
    };
    let Shape { batch, q_len, kv_len } = shape;
    let mut call = Call::new(operation, shape, random.floats(batch * q_len * inputs.0, 2.0));
    call.k = Some(random.floats(batch * kv_len * inputs.1, 2.0));
    call.v = Some(random.floats(batch * kv_len * inputs.2, 2.0));
    let mut grid = || {
        let sizes = [batch, heads, q_len, kv_len];
        let extents = sizes.map(|size| if random.below(2) == 0 { 1 } else { size });
        (extents, extents.iter().product())
    };
    let ((mask, mask_len), (bias, bias_len)) = (grid(), grid());
    if random.below(3) == 0 {
        let data = (0..mask_len).map(|_| u8::from(random.below(4) > 0)).collect();
        call.mask = Some(Grid { data, extents: mask });
    }
    if random.below(3) == 0 {
        // Far apart now and then, so that tiles raise the maximum and weights vanish.
        let spread = [1.0, 200.0][random.below(2)];
        call.bias = Some(Grid { data: random.floats(bias_len, spread), extents: bias });
    }
    let mut offset = || random.below(2 * kv_len) as isize - kv_len as isize / 2;
    call.causal = match seed % 3 {
        0 => Causality::None,
        1 => Causality::Offset(offset()),
        _ => Causality::PerSequence((0..batch).map(|_| offset()).collect()),
    };
    if random.below(4) == 0 {
        call.dropout = Some(Drop { p: 0.25, seed: random.next() });
    }
    call.scores = [None, Some(ScoresAt::Softmax), Some(ScoresAt::Logits), Some(ScoresAt::Masked)]
        [random.below(4)];
    call
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn pick(&mut self, from: &[usize]) -> usize {
        from[self.below(from.len())]
    }

    /// Uniform in `±spread`.
    fn floats(&mut self, len: usize, spread: f32) -> Vec<f32> {
        let scale = spread / (1u32 << 23) as f32;
        (0..len).map(|_| ((self.next() >> 40) as i32 - (1 << 23)) as f32 * scale).collect()
    }
}
