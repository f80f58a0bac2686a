//! Every step against its formula in `f64`, the loss against finite differences of its own in `f64`.

use mha_train::{Adam, Error, Sgd, Target, clip_norm, cross_entropy, smooth};

/// Numbers between −1 and 1, the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / 8_388_608.0 - 1.0
    }

    fn list(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }
}

fn near(ours: f32, theirs: f64, bound: f64, what: &str) {
    let off = (f64::from(ours) - theirs).abs() / theirs.abs().max(1.0);
    assert!(off <= bound, "{what}: {ours} is not {theirs}");
}

#[test]
fn sgd_is_its_formula() {
    let mut numbers = Numbers(1);
    for (momentum, decay) in [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.5, 0.25)] {
        let sgd = Sgd::new(0.05).momentum(momentum).decay(decay);
        let mut parameters = numbers.list(37);
        let mut velocity = vec![0.0; 37];
        let mut theirs: Vec<f64> = parameters.iter().map(|&p| p.into()).collect();
        let mut speed = vec![0.0; 37];
        let mut stateless = parameters.clone();
        for _ in 0..50 {
            let gradients = numbers.list(37);
            sgd.step(&mut parameters, &gradients, &mut velocity).unwrap();
            for i in 0..37 {
                let g = f64::from(gradients[i]) + f64::from(decay) * theirs[i];
                speed[i] = f64::from(momentum) * speed[i] + g;
                theirs[i] -= f64::from(0.05f32) * speed[i];
                near(parameters[i], theirs[i], 2e-6, "parameter");
                near(velocity[i], speed[i], 2e-6, "velocity");
            }
            if momentum == 0.0 {
                sgd.step(&mut stateless, &gradients, &mut []).unwrap();
                assert_eq!(stateless, parameters);
            }
        }
    }
}

#[test]
fn adam_is_its_formula() {
    let mut numbers = Numbers(2);
    for decay in [0.0, 0.3] {
        let adam = Adam::new(0.01).betas(0.8, 0.99).decay(decay);
        let mut parameters = numbers.list(37);
        let (mut means, mut squares) = (vec![0.0; 37], vec![0.0; 37]);
        let mut theirs: Vec<f64> = parameters.iter().map(|&p| p.into()).collect();
        let (mut m, mut v) = (vec![0.0; 37], vec![0.0; 37]);
        let (b1, b2) = (f64::from(adam.beta1), f64::from(adam.beta2));
        for t in 1..=100 {
            let gradients = numbers.list(37);
            adam.step(t, &mut parameters, &gradients, &mut means, &mut squares).unwrap();
            for i in 0..37 {
                let g = f64::from(gradients[i]);
                m[i] = b1 * m[i] + (1.0 - b1) * g;
                v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                let mean = m[i] / (1.0 - b1.powi(t as i32));
                let root = (v[i] / (1.0 - b2.powi(t as i32))).sqrt();
                let up = mean / (root + f64::from(adam.epsilon)) + f64::from(decay) * theirs[i];
                theirs[i] -= f64::from(adam.rate) * up;
                near(parameters[i], theirs[i], 3e-7 * f64::from(t).sqrt(), "parameter");
            }
        }
    }
}

#[test]
fn clipping_keeps_the_direction() {
    let mut numbers = Numbers(3);
    for scale in [1.0, 1e-30, 1e-22, 1e25, 1e37] {
        for len in [1, 7, 8, 9, 100] {
            let before: Vec<f32> = numbers.list(len).iter().map(|x| x * scale).collect();
            let norm = before.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            let mut after = before.clone();
            let limit = (norm / 3.0) as f32;
            let said = clip_norm(&mut after, limit);
            assert!((f64::from(said) / norm - 1.0).abs() < 1e-5, "{said} is not {norm}");
            for (after, before) in after.iter().zip(&before) {
                assert!((after * 3.0 - before).abs() <= 2e-5 * limit, "{after} of {before}");
            }
            let mut same = before.clone();
            clip_norm(&mut same, said);
            assert_eq!(same, before, "a norm at its limit stays");
        }
    }
    assert_eq!(clip_norm(&mut [], 1.0), 0.0);
    assert_eq!(clip_norm(&mut [0.0, -0.0], 0.0), 0.0);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut gradients = [1.0, bad, 2.0];
        assert!(!clip_norm(&mut gradients, 0.5).is_finite());
        assert_eq!((gradients[0], gradients[2]), (1.0, 2.0));
    }
}

/// The loss in doubles.
fn loss(logits: &[f64], targets: &[f64]) -> f64 {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = logits.iter().map(|l| (l - top).exp()).sum::<f64>().ln() + top;
    logits.iter().zip(targets).map(|(l, t)| t * (log_sum - l)).sum()
}

#[test]
fn the_loss_and_its_gradient_are_those_of_doubles() {
    let mut numbers = Numbers(4);
    for scale in [0.1, 3.0, 40.0] {
        for classes in [1, 2, 9, 33] {
            let logits: Vec<f32> = numbers.list(classes).iter().map(|x| x * scale).collect();
            let class = classes / 2;
            let mut soft = vec![0.0; classes];
            smooth(class, 0.1, &mut soft).unwrap();
            let mut hard = vec![0.0; classes];
            smooth(class, 0.0, &mut hard).unwrap();
            for (target, probabilities) in [
                (Target::Class(class), &hard),
                (Target::Soft(&hard), &hard),
                (Target::Soft(&soft), &soft),
            ] {
                let wide: Vec<f64> = logits.iter().map(|&x| x.into()).collect();
                let targets: Vec<f64> = probabilities.iter().map(|&x| x.into()).collect();
                let mut gradient = vec![f32::NAN; classes];
                let ours = cross_entropy(&logits, target, &mut gradient).unwrap();
                near(ours, loss(&wide, &targets), 1e-6, "loss");
                for i in 0..classes {
                    let (mut up, mut down) = (wide.clone(), wide.clone());
                    up[i] += 1e-5;
                    down[i] -= 1e-5;
                    let slope = (loss(&up, &targets) - loss(&down, &targets)) / 2e-5;
                    near(gradient[i], slope, 1e-6, "gradient");
                }
            }
        }
    }
    // A class that cannot be, and is not wanted.
    let mut gradient = [0.0; 2];
    let loss = cross_entropy(&[0.0, f32::NEG_INFINITY], Target::Class(0), &mut gradient).unwrap();
    assert_eq!((loss, gradient), (0.0, [0.0, 0.0]));
}

#[test]
fn mistakes_are_named_and_write_nothing() {
    let length = |of, needed, got| Err(Error::Length { of, needed, got });
    let mut parameters = [1.0; 3];
    assert_eq!(Sgd::new(1.0).step(&mut parameters, &[1.0; 2], &mut []), length("gradients", 3, 2));
    let heavy = Sgd::new(1.0).momentum(0.9);
    assert_eq!(heavy.step(&mut parameters, &[1.0; 3], &mut []), length("velocity", 3, 0));
    let adam = Adam::new(1.0);
    let (mut two, mut three) = ([0.0; 2], [0.0; 3]);
    let mut step = |t, gradients: &[f32], means: &mut [f32], squares: &mut [f32]| {
        adam.step(t, &mut parameters, gradients, means, squares)
    };
    assert_eq!(step(0, &[1.0; 3], &mut three, &mut [0.0; 3]), Err(Error::Step));
    assert_eq!(step(1, &[1.0; 4], &mut three, &mut [0.0; 3]), length("gradients", 3, 4));
    assert_eq!(step(1, &[1.0; 3], &mut two, &mut [0.0; 3]), length("means", 3, 2));
    assert_eq!(step(1, &[1.0; 3], &mut three, &mut [0.0; 2]), length("squares", 3, 2));
    assert_eq!((parameters, two, three), ([1.0; 3], [0.0; 2], [0.0; 3]));
    let mut gradient = [7.0; 2];
    let mut of = |target| cross_entropy(&[1.0, 2.0], target, &mut gradient).map(|_| ());
    assert_eq!(of(Target::Class(2)), Err(Error::Class { classes: 2, got: 2 }));
    assert_eq!(of(Target::Soft(&[1.0])), length("targets", 2, 1));
    assert_eq!(gradient, [7.0; 2]);
    let short = cross_entropy(&[1.0, 2.0], Target::Class(0), &mut [0.0]).map(|_| ());
    assert_eq!(short, length("gradient", 2, 1));
    assert_eq!(smooth(3, 0.1, &mut [0.0; 3]), Err(Error::Class { classes: 3, got: 3 }));
    let said = Error::Length { of: "means", needed: 3, got: 2 }.to_string();
    assert_eq!(said, "means: 3 elements needed, 2 given");
}
