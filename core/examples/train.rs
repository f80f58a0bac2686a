//! Learns to look something up: given five keys with a value each, which value belongs to this key?
//!
//! Nothing but attention is trained, from scratch, and what its heads look at in the end is printed:
//! `cargo run --release --example train`.

use mha::init::{SplitMix, glorot_uniform};
use mha::{Config, Dims, Gradients, Inputs, MultiHeadAttention, Outputs, Shape, Upstream, Weights};
use mha_train::Adam;
use rand_core::{Rng, SeedableRng};

/// Keys, and with that tokens; a value is three numbers.
const KEYS: usize = 5;
const VALUE: usize = 3;
const TOKEN: usize = KEYS + VALUE;
/// Questions of a step.
const BATCH: usize = 32;
const STEPS: u32 = 1000;

const CONFIG: Config = Config::new(Dims::new((TOKEN, TOKEN, TOKEN), (16, 16), VALUE)).heads(2);
const SHAPE: Shape = Shape::new(BATCH, 1, KEYS);
const PARAMETERS: usize = CONFIG.weights_len();
/// Scratch that is enough for both ways.
const SCRATCH: usize = {
    let (forward, back) = (CONFIG.scratch_len(SHAPE), CONFIG.backward_scratch_len(SHAPE));
    if forward > back { forward } else { back }
};

/// What is asked, among what, and the right answers.
struct Questions {
    q: [[f32; TOKEN]; BATCH],
    kv: [[[f32; TOKEN]; KEYS]; BATCH],
    answers: [[f32; VALUE]; BATCH],
}

impl Questions {
    /// Keys in their order from a random one on, with random values of −1 or 1.
    fn ask(random: &mut SplitMix) -> Self {
        let mut all = Self {
            q: [[0.0; TOKEN]; BATCH],
            kv: [[[0.0; TOKEN]; KEYS]; BATCH],
            answers: [[0.0; VALUE]; BATCH],
        };
        let items = all.q.iter_mut().zip(&mut all.kv).zip(&mut all.answers);
        for ((q, kv), answer) in items {
            let (first, asked) = (random.next_u32() as usize, random.next_u32() as usize % KEYS);
            for (i, token) in kv.iter_mut().enumerate() {
                let (key, value) = token.split_at_mut(KEYS);
                key[(first + i) % KEYS] = 1.0;
                value.fill_with(|| if random.next_u32() & 1 == 0 { 1.0 } else { -1.0 });
                if i == asked {
                    answer.copy_from_slice(value);
                    q[..KEYS].copy_from_slice(key);
                }
            }
        }
        all
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut random = SplitMix::seed_from_u64(1);
    let (mut flat, mut gradient) = ([0.0; PARAMETERS], [0.0; PARAMETERS]);
    let (mut means, mut squares) = ([0.0; PARAMETERS], [0.0; PARAMETERS]);
    let mut scratch = [0.0; SCRATCH];
    glorot_uniform(&mut flat, TOKEN, 16, &mut random);
    let (mut loss, mut scores) = (0.0, [0.0; CONFIG.scores_len(SHAPE)]);
    for t in 1..=STEPS {
        let questions = Questions::ask(&mut random);
        let inputs =
            Inputs::cross(questions.q.as_flattened(), questions.kv.as_flattened().as_flattened());
        let layer = MultiHeadAttention::new(CONFIG, Weights::from_flat(&CONFIG, &flat)?)?;

        // Forward: the answers, and what each head looked at.
        let mut y = [0.0; BATCH * VALUE];
        layer.forward(SHAPE, inputs, Outputs::new(&mut y).scores(&mut scores), &mut scratch)?;

        // The loss, half the mean square of what is missing, and its gradient.
        loss = 0.0;
        for (y, &answer) in y.iter_mut().zip(questions.answers.as_flattened()) {
            *y = (*y - answer) / BATCH as f32;
            loss += 0.5 * *y * *y * BATCH as f32;
        }

        // Back: only the weights' gradients are wanted, so only they are computed.
        let wanted = Gradients::from_flat(&CONFIG, &mut gradient)?;
        layer.backward(SHAPE, inputs, Upstream::new(&y), wanted, &mut scratch)?;
        Adam::new(0.01).step(t, &mut flat, &gradient, &mut means, &mut squares)?;
        if t == 1 || t % 100 == 0 {
            println!("step {t:4}: loss {loss:.5} {}", "#".repeat((40.0 * loss).min(60.0) as usize));
        }
        if t == STEPS {
            println!("\nwhat the heads look at, of {KEYS} keys; [ ] is the one that was asked for");
            for (i, heads) in scores.chunks(2 * KEYS).take(4).enumerate() {
                for (head, scores) in heads.chunks(KEYS).enumerate() {
                    print!("question {i}, head {head}: ");
                    for (score, token) in scores.iter().zip(&questions.kv[i]) {
                        let asked = token[..KEYS] == questions.q[i][..KEYS];
                        let (open, close) = if asked { ('[', ']') } else { (' ', ' ') };
                        print!("{open}{score:.2}{close}");
                    }
                    println!();
                }
            }
        }
    }
    if loss > 0.01 {
        return Err(format!("it has not learned: the loss is {loss}").into());
    }
    Ok(())
}
