//! Threads share a causal call: the library cuts its rows into parts of equal cost, each thread has
//! scratch of its own, and y has the bits that one thread gives.
//!
//! `cargo run --release --example threads`

use std::thread;

use mha::init::{SplitMix, glorot_uniform};
use mha::{Causal, Config, Dims, Error, Inputs, MultiHeadAttention, Outputs, Shape, Weights};
use rand_core::SeedableRng;

const CONFIG: Config = Config::new(Dims::square(64)).heads(8);
const SHAPE: Shape = Shape::new(2, 300, 300);

fn main() -> Result<(), Error> {
    let mut rng = SplitMix::seed_from_u64(1);
    let mut weights = vec![0.0; CONFIG.weights_len()];
    glorot_uniform(&mut weights, 64, 64, &mut rng);
    let mut x = vec![0.0; SHAPE.batch * SHAPE.q_len * 64];
    glorot_uniform(&mut x, 64, 64, &mut rng);
    let layer = MultiHeadAttention::new(CONFIG, Weights::from_flat(&CONFIG, &weights)?)?;
    let inputs = Inputs::itself(&x).causal();

    for threads in 1..=4 {
        let mut y = vec![0.0; CONFIG.y_len(SHAPE)];
        let mut rest = y.as_mut_slice();
        let results: Vec<Result<(), Error>> = thread::scope(|scope| {
            let mut running = Vec::new();
            for part in 0..threads {
                let rows = CONFIG.split_rows(SHAPE, Some(Causal::Natural), part, threads);
                let (mine, others) = rest.split_at_mut(rows.len() * CONFIG.dims.out);
                rest = others;
                let layer = &layer;
                running.push(scope.spawn(move || {
                    let mut scratch = vec![0.0; CONFIG.scratch_len(SHAPE)];
                    layer.forward_rows(SHAPE, rows, inputs, Outputs::new(mine), &mut scratch)
                }));
            }
            running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        results.into_iter().collect::<Result<(), Error>>()?;

        let mut whole = vec![0.0; y.len()];
        let mut scratch = vec![0.0; CONFIG.scratch_len(SHAPE)];
        layer.forward(SHAPE, inputs, Outputs::new(&mut whole), &mut scratch)?;
        assert!(y.iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits()));
        println!("{threads} threads: the bits of one call");
    }
    Ok(())
}

#[test]
fn every_number_of_threads_gives_the_same_bits() {
    main().unwrap();
}
