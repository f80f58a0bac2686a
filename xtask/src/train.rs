//! `cargo xtask train digits|vowels`: trains a demo model from scratch with this repository's code.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use mha_desk::{Digit, Tensor, Vowel};
use mha_trainer::optimise::{self, Settings, Task};
use mha_trainer::{digits, right_digits, right_vowels, vowels};

use crate::draw::{Block, Style, curve};

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model
    model: Which,
    /// What all chance comes from
    #[arg(long)]
    seed: Option<u64>,
    /// How many steps
    #[arg(long)]
    steps: Option<u32>,
    /// The file to write, demos/models/MODEL.safetensors unless one is named
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Cross-validate inside the training split instead, and write nothing
    #[arg(long)]
    validate: bool,
    /// Threads; the weights do not depend on it
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// A model.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// Handwritten digits
    Digits,
    /// Who of nine says /ae/
    Vowels,
}

impl Which {
    const fn name(self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Vowels => "vowels",
        }
    }
}

/// How wide the curve is drawn, and how many lines high.
const CURVE: (usize, usize) = (72, 12);

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    let settings = match args.model {
        Which::Digits => digits::SETTINGS,
        Which::Vowels => vowels::SETTINGS,
    };
    let settings = Settings {
        seed: args.seed.unwrap_or(settings.seed),
        steps: args.steps.unwrap_or(settings.steps).max(1),
        ..settings
    };
    let there_are = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or(there_are).max(1);
    let start = Instant::now();
    match (args.model, args.validate) {
        (Which::Digits, true) => validate_digits(&settings, threads)?,
        (Which::Vowels, true) => validate_vowels(&settings, threads)?,
        (model, false) => {
            let (flat, tensors) = match model {
                Which::Digits => train_digits(&settings, threads)?,
                Which::Vowels => train_vowels(&settings, threads)?,
            };
            let default = format!("demos/models/{}.safetensors", model.name());
            let path = args.out.unwrap_or_else(|| crate::root().join(default));
            write(&path, model, &flat, &tensors)?;
            println!("written: {}", path.display());
        }
    }
    println!("{:.0} s on {threads} threads", start.elapsed().as_secs_f64());
    Ok(())
}

/// Shapes of the tensors of a flat slice, by their names.
type Shapes = Vec<(&'static str, Vec<usize>)>;

fn write(path: &std::path::Path, model: Which, flat: &[f32], shapes: &Shapes) -> Result<()> {
    let mut rest = flat;
    let mut tensors: Vec<Tensor<'_>> = Vec::new();
    for (name, shape) in shapes {
        let count = shape.iter().product();
        let (own, after) = rest.split_at_checked(count).context("too few weights")?;
        rest = after;
        tensors.push((name, shape.clone(), own));
    }
    let about = match model {
        Which::Digits => digits::ABOUT,
        Which::Vowels => vowels::ABOUT,
    };
    mha_desk::write_model(path, about, &tensors)
}

fn shapes(task: &dyn Task) -> Shapes {
    let shape = |tensor: &mha_nets::learning::Tensor| {
        (tensor.name, tensor.rows.into_iter().chain([tensor.columns]).collect())
    };
    task.tensors().iter().map(shape).collect()
}

/// Trains with a bar, and draws the curve.
fn train(name: &str, task: &dyn Task, settings: &Settings, threads: usize) -> Result<Vec<f32>> {
    let style = ProgressStyle::with_template("{msg:24} {bar:40} {pos} of {len}, {eta} left")?;
    let bar = ProgressBar::new(settings.steps.into()).with_style(style);
    let mut losses = Vec::new();
    let mut smooth = f32::NAN;
    let weights = optimise::train(task, settings, threads, |_, loss| {
        smooth = if smooth.is_nan() { loss } else { 0.98 * smooth + 0.02 * loss };
        losses.push(loss);
        if losses.len() % 20 == 0 {
            bar.set_message(format!("{name}, loss {smooth:.4}"));
            bar.set_position(losses.len() as u64);
        }
    });
    bar.finish_and_clear();
    let weights = weights?;
    let style = Style::detect();
    let (picture, [low, high]) = curve(&losses, CURVE.0, CURVE.1);
    let mut scale = vec![format!("{high:.3}")];
    scale.resize(CURVE.1 - 1, String::new());
    scale.push(format!("{low:.3}"));
    println!("{}: the loss over {} steps\n", style.bold(name), settings.steps);
    println!("{}", Block::beside(&[Block::text(&scale), picture.draw(style)], 1));
    Ok(weights)
}

fn train_digits(settings: &Settings, threads: usize) -> Result<(Vec<f32>, Shapes)> {
    let items = mha_desk::digits(&crate::root().join("demos"))?;
    let own = |held_out| items.iter().filter(move |item: &&Digit| item.held_out == held_out);
    let task = digits::Digits::new(own(false), settings.seed, threads);
    let weights = train("digits", &task, settings, threads)?;
    for (split, held_out) in [("training", false), ("test", true)] {
        score(split, right_digits(&weights, own(held_out))?, own(held_out).count());
    }
    Ok((weights, shapes(&task)))
}

fn train_vowels(settings: &Settings, threads: usize) -> Result<(Vec<f32>, Shapes)> {
    let items = mha_desk::vowels(&crate::root().join("demos"))?;
    let own = |held_out| items.iter().filter(move |item: &&Vowel| item.held_out == held_out);
    let training: Vec<&Vowel> = own(false).collect();
    let moments = vowels::moments(&training);
    let task = vowels::Vowels::new(&training, &moments);
    let weights = train("vowels", &task, settings, threads)?;
    let flat = [moments.as_flattened(), &weights].concat();
    for (split, held_out) in [("training", false), ("test", true)] {
        score(split, right_vowels(&flat, own(held_out))?, own(held_out).count());
    }
    let features = moments[0].len();
    let mut all = vec![("input.mean", vec![features]), ("input.deviation", vec![features])];
    all.extend(shapes(&task));
    Ok((flat, all))
}

fn score(split: &str, right: usize, all: usize) {
    println!("{split}: {right} of {all} right, {:.2} %", 100.0 * right as f64 / all as f64);
}

/// Three-fold.
fn validate_digits(settings: &Settings, threads: usize) -> Result<()> {
    let mut items = mha_desk::digits(&crate::root().join("demos"))?;
    items.retain(|item| !item.held_out);
    let folds = digits::folds(items.len(), 3);
    let mut right = 0;
    for fold in 0..3 {
        let part = |inside: bool| {
            let of = items.iter().zip(&folds).filter(move |(_, of)| (**of == fold) == inside);
            of.map(|(item, _)| item)
        };
        let task = digits::Digits::new(part(false), settings.seed, threads);
        let weights = train(&format!("fold {fold}"), &task, settings, threads)?;
        right += right_digits(&weights, part(true))?;
    }
    score("validation", right, items.len());
    Ok(())
}

/// Five-fold.
fn validate_vowels(settings: &Settings, threads: usize) -> Result<()> {
    let mut items = mha_desk::vowels(&crate::root().join("demos"))?;
    items.retain(|item| !item.held_out);
    let folds = vowels::folds(items.len());
    let mut right = 0;
    for fold in 0..5 {
        let part = |inside: bool| {
            let of = items.iter().zip(&folds).filter(move |(_, of)| (**of == fold) == inside);
            of.map(|(item, _)| item).collect::<Vec<_>>()
        };
        let moments = vowels::moments(&part(false));
        let task = vowels::Vowels::new(&part(false), &moments);
        let weights = train(&format!("fold {fold}"), &task, settings, threads)?;
        let flat = [moments.as_flattened(), &weights].concat();
        right += right_vowels(&flat, part(true).into_iter())?;
    }
    score("validation", right, items.len());
    Ok(())
}
