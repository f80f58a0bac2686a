//! How far the layer is from the same formula in doubles.

mod support;

use mha::{Isa, MultiHeadAttention, Outputs};
use support::{Call, error, judged};

#[test]
fn every_kernel_is_close_to_doubles() {
    let mut worst: Vec<(Isa, f64)> = Isa::available().map(|isa| (isa, 0.0)).collect();
    for seed in 0..1500 {
        let call = judged(Call::random(seed));
        let expected = call.doubles();
        for (isa, worst) in &mut worst {
            let layer = MultiHeadAttention::with_isa(call.config, call.weights(), *isa).unwrap();
            let mut y = vec![f32::NAN; call.config.y_len(call.shape)];
            let mut scores = vec![f32::NAN; call.config.scores_len(call.shape)];
            let mut scratch = vec![f32::NAN; call.config.scratch_len(call.shape)];
            let outputs = Outputs::new(&mut y).scores(&mut scores);
            layer.forward(call.shape, call.inputs(), outputs, &mut scratch).unwrap();
            let what = format!("call {seed} on {}", isa.name());
            *worst = worst.max(error(&call, &expected, &y, &scores, &what));
        }
    }
    for (isa, worst) in worst {
        println!("{}: worst error {worst:.2} of its bound", isa.name());
        // A bound that is never nearly met would prove little.
        assert!(worst > 0.02);
    }
}
