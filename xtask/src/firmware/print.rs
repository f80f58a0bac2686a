//! The report of a run.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::Program;
use super::run::{Cost, Run};
use crate::boards::Board;
use crate::size;

/// Prints what a program answered and what that cost.
pub(super) fn report(
    board: &Board,
    program: Program,
    language: &str,
    image: &Path,
    run: &Run,
) -> Result<()> {
    let target = board.build.target;
    println!(
        "{}: {} in QEMU, {target}, {} in {language}\n",
        board.name,
        board.core,
        program.name()
    );
    let costs = run.costs(program)?;
    if program.is_in_c() {
        answers(program, run, &costs);
    } else if program == Program::Adapt {
        lessons(run, &costs);
    } else {
        cases(run, &costs);
    }
    println!("\n{:<20}{:>9}  where", "section", "bytes");
    for section in size::list(image)? {
        println!("{:<20}{:>9}  {}", section.name, section.bytes, section.place);
    }
    let sections = size::sections(image)?;
    println!("flash {} bytes, static RAM {} bytes", sections.flash(), sections.ram());
    Ok(())
}

/// What was learned, and what a step of it costs.
fn lessons(run: &Run, costs: &[Cost]) {
    for line in run.lines().lines() {
        println!("{line}");
    }
    let mut instructions: Vec<u64> = costs.iter().filter_map(|cost| cost.instructions).collect();
    instructions.sort_unstable();
    if let [least, .., most] = instructions[..] {
        let median = instructions[instructions.len() / 2];
        println!("instructions for a step, one utterance: {least} to {most}, median {median}");
    }
    if let Some(stack) = costs.iter().map(|cost| cost.stack).max() {
        println!("deepest stack of a step: {stack} bytes");
    }
}

/// A line for each item in flash, and what those of the file come to.
fn answers(program: Program, run: &Run, costs: &[Cost]) {
    let (question, size, label) = match program {
        Program::Digits => ("Which of ten digits is this image?", "blocks", "digit"),
        _ => ("Which of nine speakers says this /ae/?", "frames", "speaker"),
    };
    println!("{question}\n");
    println!("{:>9}{:>9}{:>9}{:>14}{:>15}", size, "answer", label, "instructions", "of them layer");
    if program == Program::Stream {
        frames(run, costs);
        return;
    }
    let answers = run.console.lines().filter_map(|line| line.strip_prefix("answer "));
    for (answer, cost) in answers.zip(costs) {
        let words: Vec<&str> = answer.split(' ').collect();
        let &["flash", frames, answer, speaker, _] = &words[..] else { continue };
        let wrong = if answer == speaker { "" } else { "  wrong" };
        let (all, layer) = (count(cost.instructions), count(cost.of_layer));
        println!("{frames:>9}{answer:>9}{speaker:>9}{all:>14}{layer:>15}{wrong}");
    }
    println!();
    for line in run.console.lines().filter_map(|line| line.strip_prefix("right ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let &[source, right, all] = &words[..] else { continue };
        let share = 100.0 * right.parse().unwrap_or(0.0) / all.parse().unwrap_or(1.0);
        let place = if source == "flash" { "in flash" } else { "of the test split, from a file" };
        println!("{right} of {all} {place} are right: {share:.2} %");
    }
    let mut instructions: Vec<u64> = costs.iter().filter_map(|cost| cost.instructions).collect();
    instructions.sort_unstable();
    if let [least, .., most] = instructions[..] {
        let median = instructions[instructions.len() / 2];
        println!("instructions for an answer: {least} to {most}, median {median}");
        let layer: u64 = costs.iter().filter_map(|cost| cost.of_layer).sum();
        let counted = costs.iter().filter(|cost| cost.of_layer.is_some());
        let macs: u64 = counted.map(|cost| cost.macs).sum();
        println!("instructions for a multiply-accumulate of the layer: {}", ratio(layer, macs));
    }
    if let Some(stack) = costs.iter().map(|cost| cost.stack).max() {
        println!("deepest stack of an answer: {stack} bytes");
    }
}

/// What a frame of the stream costs by how many are remembered, and how many answers are right.
fn frames(run: &Run, costs: &[Cost]) {
    let mut by_macs: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for cost in costs {
        by_macs.entry(cost.macs).or_default().extend(cost.instructions);
    }
    println!("{:>10}{:>8}{:>12}{:>12}", "remembered", "frames", "least", "most");
    for (i, instructions) in by_macs.values().enumerate() {
        let (least, most) =
            (instructions.iter().min().copied(), instructions.iter().max().copied());
        println!("{:>10}{:>8}{:>12}{:>12}", i + 1, instructions.len(), count(least), count(most));
    }
    for line in run.console.lines().filter_map(|line| line.strip_prefix("right ")) {
        println!("{line}: right and all, after the last frame of an utterance");
    }
    if let Some(stack) = costs.iter().map(|cost| cost.stack).max() {
        println!("deepest stack of an answer: {stack} bytes");
    }
}

fn cases(run: &Run, costs: &[Cost]) {
    let answers: BTreeMap<&str, &str> = run
        .console
        .lines()
        .filter_map(|line| line.strip_prefix("case ")?.split_once(' '))
        .collect();
    println!(
        "{:<18}{:>10}{:>9}{:>8}{:>13}{:>11}  answer",
        "case", "MAC", "scratch", "stack", "instructions", "instr/MAC"
    );
    for cost in costs {
        let Cost { name, macs, scratch, stack, instructions, .. } = cost;
        let answer = answers.get(name.as_str()).copied().unwrap_or_default();
        let each = instructions.filter(|_| answer.starts_with("ok"));
        let each = each.map(|n| ratio(n, *macs)).unwrap_or_default();
        let instructions = count(*instructions);
        println!(
            "{name:<18}{macs:>10}{scratch:>9}{stack:>8}{instructions:>13}{each:>11}  {answer}"
        );
    }
}

/// A number that may be unknown.
pub(crate) fn count(number: Option<u64>) -> String {
    number.map_or_else(|| "-".into(), |number| number.to_string())
}

/// A quotient with two decimals.
pub(crate) fn ratio(number: u64, by: u64) -> String {
    format!("{:.2}", number as f64 / by as f64)
}

/// Prints where the instructions went.
pub(super) fn profile(run: &Run) {
    let total: u64 = run.functions.iter().map(|f| f.0).sum();
    println!("\n{:>12}{:>7}{:>12}{:>12}  function", "instructions", "", "loads", "stores");
    for (instructions, loads, stores, name) in run.functions.iter().take(20) {
        let share = 100.0 * *instructions as f64 / total as f64;
        let name = format!("{:#}", rustc_demangle::demangle(name));
        println!("{instructions:>12}{share:>6.1}%{loads:>12}{stores:>12}  {name}");
    }
}
