//! `cargo xtask size`: flash, RAM, scratch, stack and instructions of the library on every board.
//!
//! An image is measured with and without its calls into the library; the difference is what the
//! library costs. Costs of a call are those of the program's own run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, elf};

use crate::firmware::{BOARDS, Board, Program, Run, Variant, build, lack};

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also write the table to a file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    let rows = measure()?;
    print(&rows)?;
    if let Some(path) = args.json {
        fs::write(&path, json(&rows)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// One call on one board.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    board: &'static str,
    core: &'static str,
    call: String,
    image: Sections,
    without_calls: Sections,
    scratch: u64,
    stack: u64,
    macs: u64,
    instructions: Option<u64>,
}

/// Bytes of an image by where they lie.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sections {
    /// Code.
    text: u64,
    /// Constants, the vector table among them.
    rodata: u64,
    /// Variables with a first value, which takes as much flash again.
    data: u64,
    /// Variables that begin at zero.
    bss: u64,
}

impl Sections {
    /// Bytes of flash.
    const fn flash(&self) -> u64 {
        self.text + self.rodata + self.data
    }

    /// Bytes of static RAM.
    const fn ram(&self) -> u64 {
        self.data + self.bss
    }
}

/// The calls whose figures are quoted.
const QUOTED: &[(Program, &[&str])] =
    &[(Program::Layer, &["s9", "s9_least", "s3", "s3_least"]), (Program::Attention, &["a64", "a64_least"])];

/// Builds and runs everything that is quoted, on every board that this machine can run.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for board in BOARDS {
        if let Some(lack) = lack(board) {
            eprintln!("   {} is left out: {lack}", board.name);
            continue;
        }
        for &(program, cases) in QUOTED {
            measure_program(board, program, cases, &mut rows)?;
        }
    }
    ensure!(!rows.is_empty(), "there is no board that this machine can build for and run");
    Ok(rows)
}

fn measure_program(
    board: &'static Board,
    program: Program,
    cases: &[&str],
    rows: &mut Vec<Row>,
) -> Result<()> {
    let without_calls = sections(&build(board, program, Variant::WithoutCalls)?)?;
    let image = build(board, program, Variant::Whole)?;
    let costs = Run::on_board(board, program, &image)?.costs()?;
    let image = sections(&image)?;
    for case in cases {
        let cost = costs.iter().find(|cost| cost.name == *case);
        let cost = cost.with_context(|| format!("{} ran no case {case}", program.name()))?;
        rows.push(Row {
            board: board.name,
            core: board.core,
            call: format!("{} {case}", program.name()),
            image,
            without_calls,
            scratch: cost.scratch,
            stack: cost.stack,
            macs: cost.macs,
            instructions: cost.instructions,
        });
    }
    Ok(())
}

/// The sections of an image that a board's memory holds.
fn sections(image: &Path) -> Result<Sections> {
    let bytes = fs::read(image)?;
    let file = object::File::parse(&*bytes).with_context(|| format!("{} is no image", image.display()))?;
    let mut sections = Sections::default();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        let is = |flag: u32| sh_flags & u64::from(flag) != 0;
        if !is(elf::SHF_ALLOC) {
            continue;
        }
        let part = if is(elf::SHF_EXECINSTR) {
            &mut sections.text
        } else if !is(elf::SHF_WRITE) {
            &mut sections.rodata
        } else if section.file_range().is_some_and(|(_, length)| length > 0) {
            &mut sections.data
        } else {
            &mut sections.bss
        };
        *part += section.size();
    }
    Ok(sections)
}

/// The names of an image's symbols.
pub(crate) fn symbols(image: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(image)?;
    let file = object::File::parse(&*bytes).with_context(|| format!("{} is no image", image.display()))?;
    Ok(file.symbols().filter_map(|symbol| symbol.name().ok().map(str::to_owned)).collect())
}

/// Prints the table.
pub(crate) fn print(rows: &[Row]) -> Result<()> {
    println!(
        "{:<12}{:<18}{:>8}{:>10}{:>8}{:>8}{:>9}{:>8}{:>14}{:>11}",
        "board", "call", "flash", "its part", "static", "", "scratch", "stack", "instructions", "instr/MAC"
    );
    println!(
        "{:<12}{:<18}{:>8}{:>10}{:>8}{:>8}{:>9}{:>8}",
        "", "", "image", "of it", "its", "image", "bytes", "bytes"
    );
    for row in rows {
        println!(
            "{:<12}{:<18}{:>8}{:>10}{:>8}{:>8}{:>9}{:>8}{:>14}{:>11}",
            row.board,
            row.call,
            row.image.flash(),
            row.image.flash() as i64 - row.without_calls.flash() as i64,
            row.image.ram() as i64 - row.without_calls.ram() as i64,
            row.image.ram(),
            row.scratch,
            row.stack,
            row.instructions.map_or_else(|| "-".into(), |n| n.to_string()),
            row.instructions.map_or_else(|| "-".into(), |n| format!("{:.2}", n as f64 / row.macs as f64)),
        );
    }
    println!("\nInstructions are counted in QEMU: exact and repeatable, but not cycles.");
    Ok(())
}

fn json(rows: &[Row]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let Row { board, core, call, image, without_calls, .. } = row;
            serde_json::json!({
                "board": board,
                "core": core,
                "call": call,
                "flash": image.flash(),
                "flash_of_library": image.flash() as i64 - without_calls.flash() as i64,
                "text": image.text,
                "rodata": image.rodata,
                "data": image.data,
                "bss": image.bss,
                "static_ram_of_library": image.ram() as i64 - without_calls.ram() as i64,
                "scratch": row.scratch,
                "stack": row.stack,
                "macs": row.macs,
                "instructions": row.instructions,
                "instructions_per_mac": row.instructions.map(|n| n as f64 / row.macs as f64),
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::Array(rows))
}
