//! How far the layer is from the same formula in doubles.

mod support;

use mha::{Isa, MultiHeadAttention, Outputs};
use support::Call;

#[test]
fn every_kernel_is_close_to_doubles() {
    for isa in Isa::available() {
        let mut worst = 0.0f64;
        for seed in 0..1500 {
            let mut call = Call::random(seed);
            call.dropout = None;
            if let Some((bias, _)) = &mut call.bias {
                // A row of nothing but -1e9 is decided by digits that an f32 at 1e9 has not.
                bias.iter_mut().filter(|b| **b == -1e9).for_each(|b| *b = -300.0);
            }
            let layer = MultiHeadAttention::with_isa(call.config, call.weights(), isa).unwrap();
            let mut y = vec![f32::NAN; call.config.y_len(call.shape)];
            let mut scores = vec![f32::NAN; call.config.scores_len(call.shape)];
            let mut scratch = vec![f32::NAN; call.config.scratch_len(call.shape)];
            let outputs = Outputs::new(&mut y).scores(&mut scores);
            layer.forward(call.shape, call.inputs(), outputs, &mut scratch).unwrap();
            let (expected_y, expected_scores) = call.doubles();
            // A logit of size l has an error of about l · 2⁻²³ per product, and its weight the same
            // error relative to itself.
            let rms = |x: &[f32]| {
                (x.iter().map(|x| f64::from(x * x)).sum::<f64>() / x.len().max(1) as f64).sqrt()
            };
            let inputs = rms(&call.q) * rms(&call.k);
            let width =
                (call.config.dims.qk * call.config.dims.q_in.max(call.config.dims.k_in)) as f64;
            let logits = 1.0 + inputs * width + if call.bias.is_some() { 300.0 } else { 0.0 };
            let bound = 3e-7 * logits;
            let size = expected_y.iter().fold(1.0f64, |size, y| size.max(y.abs()));
            for (got, expected) in y.iter().zip(&expected_y) {
                let error = (f64::from(*got) - expected).abs() / size;
                assert!(
                    error <= bound,
                    "call {seed} on {}: {got} for {expected}, {error:e} > {bound:e}",
                    isa.name()
                );
                worst = worst.max(error / bound);
            }
            for (got, expected) in scores.iter().zip(&expected_scores) {
                let error = (f64::from(*got) - expected).abs();
                assert!(
                    error <= bound,
                    "call {seed} on {}: score {got} for {expected}",
                    isa.name()
                );
            }
        }
        println!("{}: worst error {worst:.2} of its bound", isa.name());
        // A bound that is never nearly met would prove little.
        assert!(worst > 0.02);
    }
}
