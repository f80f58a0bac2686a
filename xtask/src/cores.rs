//! `cargo xtask bench cores`: instructions and bytes of the layer on every board, and an estimate of the
//! cycles.
//!
//! The calls are those of the firmware's programs, counted in QEMU from the entry of the measured
//! function to its return, function by function. Instructions and bytes are exact and repeat; cycles are
//! estimated from the classes of the instructions by the processor's published timings, with memory
//! that never makes it wait and operands that are always there: a lower bound.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::boards::{BOARDS, Board, board};
use crate::firmware::{Part, Program, Run, TOOLS, Variant, build};
use crate::{cmsis, tools};

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The boards; all of them where none is named
    #[arg(value_name = "BOARD")]
    boards: Vec<String>,
    /// Also write everything to a file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What is counted: a program, a case of it (the one that asks for the most where there is no name), and
/// what it is called here.
const CALLS: [(Program, Option<&str>, &str); 4] = [
    (Program::Attention, Some("a64"), "attention 64 x 64, d = 32"),
    (Program::Layer, Some("s3"), "layer S3"),
    (Program::Layer, Some("s9"), "layer S9"),
    (Program::Vowels, None, "model vowels"),
];

/// Multiply-accumulates and elements of the softmax of the first of them.
const ATTENTION_ELEMENTS: u64 = 64 * 64;

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    tools::get(&TOOLS);
    let boards = if args.boards.is_empty() {
        BOARDS.iter().filter(|board| board.is_roomy).collect()
    } else {
        args.boards.iter().map(|name| board(name)).collect::<Result<Vec<_>>>()?
    };
    let mut rows = Vec::new();
    for board in boards {
        match board.lack() {
            Some(lack) => eprintln!("   {} is left out: {lack}", board.name),
            None => measure(board, &mut rows)?,
        }
    }
    ensure!(!rows.is_empty(), "there is no board that this machine can build for and run");
    print(&rows);
    if let Some(path) = args.json {
        let rows = rows.iter().map(Row::json).collect();
        fs::write(&path, format!("{:#}\n", serde_json::Value::Array(rows)))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A call, or a part of one.
struct Row {
    board: &'static Board,
    what: String,
    counts: Counts,
    /// Multiply-accumulates or elements.
    by: u64,
    unit: &'static str,
}

/// Sums of [`Part`]s.
#[derive(Clone, Copy, Default)]
struct Counts {
    instructions: u64,
    loaded: u64,
    stored: u64,
    cycles: Option<u64>,
}

impl Counts {
    fn of<'a>(board: &Board, parts: impl Iterator<Item = &'a Part>) -> Self {
        let mut sum = Self { cycles: Some(0), ..Self::default() };
        for part in parts {
            sum.instructions += part.instructions;
            sum.loaded += part.bytes_loaded;
            sum.stored += part.bytes_stored;
            sum.cycles = sum.cycles.zip(cycles(board, part)).map(|(a, b)| a + b);
        }
        sum
    }
}

/// The least cycles that a function took.
///
/// Cortex-M0, M3 and M4 have tables in their technical reference manuals: one cycle an instruction, two
/// for a load or store unless one comes right before it, one and one for each word where there are
/// several, three for a multiply-add of floats, 14 for their division or root, two or more to refill the
/// pipeline after a branch. M33 is taken for an M4. An M7 issues two instructions a cycle, one of them
/// for floats, and moves 64 bits; an M55 takes two for each of Helium's, loads beside arithmetic.
fn cycles(board: &Board, part: &Part) -> Option<u64> {
    let &Part { instructions, .. } = part;
    let in_order = instructions + part.single - part.single_again
        + part.words
        + 2 * part.multiply_add
        + 13 * part.float_divide
        + part.move_two
        + 6 * part.divide
        + 2 * part.taken;
    match board.core {
        "Cortex-M0" => Some(instructions + part.single + part.words + 2 * part.taken),
        "Cortex-M3" | "Cortex-M4F" | "Cortex-M33" => Some(in_order),
        "Cortex-M7" => {
            let floats = part.float + part.multiply_add + 14 * part.float_divide;
            let memory = part.single + part.words.div_ceil(2);
            Some(instructions.div_ceil(2).max(floats).max(memory))
        }
        "Cortex-M55" => {
            let scalars = instructions - part.vector - part.vector_memory;
            let memory = part.words.div_ceil(2).saturating_sub(part.multiple);
            Some(scalars + memory + 2 * part.vector.max(part.vector_memory))
        }
        _ => None,
    }
}

/// Whether a function computes products.
fn is_product(name: &str) -> bool {
    let parts = ["product", "by_rows", "by_columns", "strip", "helium::tile", "panels", "Dense"];
    parts.iter().chain(&["add_rows", "add_columns", "accumulate"]).any(|part| name.contains(part))
}

/// Whether a function computes the softmax.
fn is_softmax(name: &str) -> bool {
    let parts = [
        "::tops",
        "::settle",
        "::advance",
        "::scale_rows",
        "scale_eights",
        "weigh",
        "weight",
        "largest",
        "extremes",
        "bounds",
        "dense::scale",
        "::see",
        "::total",
    ];
    parts.iter().any(|part| name.contains(part))
}

fn measure(board: &'static Board, rows: &mut Vec<Row>) -> Result<()> {
    for (program, case, what) in CALLS {
        let image = build(board, program, Variant::Whole)?;
        let run = Run::on_board(board, program, &image)?;
        let costs = run.costs(program)?;
        let found = match case {
            Some(case) => costs.iter().position(|cost| cost.name == case),
            // Where instructions are slow to count, not all are.
            None => (0..costs.len())
                .filter(|&i| costs[i].instructions.is_some())
                .max_by_key(|&i| (costs[i].macs, costs[i].instructions)),
        };
        let at = found.with_context(|| format!("{} ran no case {case:?}", program.name()))?;
        let macs = costs[at].macs;
        // Calls that were refused early are not among those that were counted.
        let at = costs[..at].iter().filter(|cost| cost.stack > 0).count();
        let inside = program.measured_inside().unwrap_or(program.measured());
        let parts = run.parts(inside, at).context("nothing counts instructions here")?;
        let mut row = |what: &str, counts, by, unit| {
            rows.push(Row { board, what: what.into(), counts, by, unit });
        };
        row(what, Counts::of(board, parts.iter()), macs, "MAC");
        if program == Program::Attention && board.build.has_floats() {
            let products = parts.iter().filter(|part| is_product(&part.name));
            row("  its products", Counts::of(board, products), macs, "MAC");
            let softmax = parts.iter().filter(|part| is_softmax(&part.name));
            row("  its softmax", Counts::of(board, softmax), ATTENTION_ELEMENTS, "element");
            // Its way for Helium needs headers that the distribution does not have.
            if board.build.is_fused() {
                continue;
            }
            match cmsis::products(board) {
                Ok(parts) => {
                    let counts = Counts::of(board, parts.iter());
                    row("  CMSIS-DSP's products", counts, macs, "MAC");
                }
                Err(error) => eprintln!("   CMSIS-DSP is left out: {error:#}"),
            }
        }
    }
    Ok(())
}

impl Row {
    fn json(&self) -> serde_json::Value {
        let Counts { instructions, loaded, stored, cycles } = self.counts;
        serde_json::json!({
            "board": self.board.name,
            "core": self.board.core,
            "call": self.what.trim(),
            "instructions": instructions,
            "bytes_loaded": loaded,
            "bytes_stored": stored,
            "cycles_at_least": cycles,
            "per": self.unit,
            "units": self.by,
            "instructions_each": instructions as f64 / self.by as f64,
            "cycles_at_least_each": cycles.map(|cycles| cycles as f64 / self.by as f64),
        })
    }
}

fn print(rows: &[Row]) {
    println!(
        "{:<12}{:<27}{:>13}{:>13}{:>12}{:>9}{:>10}  each",
        "core", "call", "instructions", "bytes in", "bytes out", "instr", "cycles ≥"
    );
    for row in rows {
        let each = |number: u64| format!("{:.2}", number as f64 / row.by as f64);
        let Counts { instructions, loaded, stored, cycles } = row.counts;
        println!(
            "{:<12}{:<27}{:>13}{:>13}{:>12}{:>9}{:>10}  {}",
            row.board.core,
            row.what,
            instructions,
            loaded,
            stored,
            each(instructions),
            cycles.map_or_else(|| "-".into(), each),
            row.unit
        );
    }
    println!();
    println!(
        "Instructions and bytes are counted in QEMU: exact and repeatable. Cycles are estimated by"
    );
    println!("the processor's published timings, without waiting for memory or for operands.");
}
