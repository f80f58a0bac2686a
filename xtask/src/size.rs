//! `cargo xtask size`: flash, RAM, scratch, stack and instructions of the library on a board.
//!
//! An image is measured with and without its calls into the library; the difference is what the
//! library costs. Costs of a call are those of the program's own run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, elf};

use crate::boards::{BOARDS, Board, board};
use crate::firmware::{Program, Run, TOOLS, Variant, build, count, ratio};
use crate::tools;

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The boards; the default one where none is named
    #[arg(value_name = "BOARD")]
    boards: Vec<String>,
    /// Also write the table to a file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    tools::get(&TOOLS);
    let boards = args.boards.iter().map(|name| board(name));
    let boards = boards.collect::<Result<Vec<_>>>()?;
    let rows = if boards.is_empty() { measure(&BOARDS[..1])? } else { measure(boards)? };
    print(&rows);
    if let Some(path) = args.json {
        fs::write(&path, json(&rows))
            .with_context(|| format!("cannot write {}", path.display()))?;
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
    of_layer: Option<u64>,
}

impl Row {
    /// What the image has more than the same without its calls. Signed, because a build could come
    /// out smaller with them.
    fn library(&self, part: impl Fn(&Sections) -> u64) -> i64 {
        part(&self.image) as i64 - part(&self.without_calls) as i64
    }
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
    pub(crate) const fn flash(&self) -> u64 {
        self.text + self.rodata + self.data
    }

    /// Bytes of static RAM.
    pub(crate) const fn ram(&self) -> u64 {
        self.data + self.bss
    }
}

/// In place of a case's name: the call that asks for the most.
const LONGEST: &str = "longest";

/// The calls whose figures are quoted.
const QUOTED: &[(Program, &[&str])] = &[
    (Program::Vowels, &[LONGEST]),
    (Program::Layer, &["s9", "s9_least", "s3", "s3_least"]),
    (Program::Attention, &["a64", "a64_least"]),
];

/// Builds and runs everything that is quoted, on those of the boards that this machine can run.
pub(crate) fn measure(boards: impl IntoIterator<Item = &'static Board>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for board in boards {
        if let Some(lack) = board.lack() {
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
    let costs = Run::on_board(board, program, &image)?.costs(program)?;
    let image = sections(&image)?;
    for case in cases {
        let cost = match *case {
            LONGEST => costs.iter().max_by_key(|cost| (cost.macs, cost.instructions)),
            case => costs.iter().find(|cost| cost.name == case),
        };
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
            of_layer: cost.of_layer,
        });
    }
    Ok(())
}

/// The sections of an image that a board's memory holds.
pub(crate) fn sections(image: &Path) -> Result<Sections> {
    let bytes = fs::read(image)?;
    let file =
        object::File::parse(&*bytes).with_context(|| format!("{} is no image", image.display()))?;
    let mut sections = Sections::default();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        let is = |flag: u32| sh_flags & u64::from(flag) != 0;
        if !is(elf::SHF_ALLOC) || is_rest(section.name()?) {
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

/// Whether a section is what static memory leaves: riscv-rt has sections for that.
fn is_rest(name: &str) -> bool {
    matches!(name, ".stack" | ".heap")
}

/// A section that takes memory.
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// Flash, RAM or both.
    pub(crate) place: &'static str,
}

/// The sections of an image that take memory, in their order.
pub(crate) fn list(image: &Path) -> Result<Vec<Section>> {
    let bytes = fs::read(image)?;
    let file =
        object::File::parse(&*bytes).with_context(|| format!("{} is no image", image.display()))?;
    let mut sections = Vec::new();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        let is = |flag: u32| sh_flags & u64::from(flag) != 0;
        if !is(elf::SHF_ALLOC) || section.size() == 0 || is_rest(section.name()?) {
            continue;
        }
        let has_bytes = section.file_range().is_some_and(|(_, length)| length > 0);
        let place = match (is(elf::SHF_WRITE), has_bytes) {
            (false, _) => "flash",
            (true, true) => "flash and RAM",
            (true, false) => "RAM",
        };
        let name = section.name()?.to_owned();
        sections.push(Section { name, bytes: section.size(), place });
    }
    Ok(sections)
}

/// The names of an image's symbols.
pub(crate) fn symbols(image: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(image)?;
    let file =
        object::File::parse(&*bytes).with_context(|| format!("{} is no image", image.display()))?;
    Ok(file.symbols().filter_map(|symbol| symbol.name().ok().map(str::to_owned)).collect())
}

/// Prints the table.
pub(crate) fn print(rows: &[Row]) {
    line(["", "", "flash", "flash", "RAM", "RAM", "bytes", "bytes", "", "instr/MAC"]);
    line([
        "board",
        "call",
        "image",
        "of it",
        "image",
        "of it",
        "scratch",
        "stack",
        "instructions",
        "of layer",
    ]);
    for row in rows {
        let numbers = [
            row.image.flash().to_string(),
            row.library(Sections::flash).to_string(),
            row.image.ram().to_string(),
            row.library(Sections::ram).to_string(),
            row.scratch.to_string(),
            row.stack.to_string(),
            count(row.instructions),
            row.of_layer.map_or_else(|| count(None), |n| ratio(n, row.macs)),
        ];
        let [a, b, c, d, e, f, g, h] = numbers.each_ref().map(String::as_str);
        line([row.board, &row.call, a, b, c, d, e, f, g, h]);
    }
    println!();
    println!(
        "of it: the library's part, with the network's around it where the call is a model's;"
    );
    println!("the rest is start-up, console, inputs, outputs, scratch and the model's weights.");
    println!("Instructions are counted in QEMU: exact and repeatable, but not cycles.");
}

fn line(words: [&str; 10]) {
    let [board, call, numbers @ .., instructions, each] = words;
    print!("{board:<12}{call:<20}");
    for number in numbers {
        print!("{number:>9}");
    }
    println!("{instructions:>14}{each:>11}");
}

fn json(rows: &[Row]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let Row { board, core, call, image, .. } = row;
            serde_json::json!({
                "board": board,
                "core": core,
                "call": call,
                "flash": image.flash(),
                "flash_of_library": row.library(Sections::flash),
                "text": image.text,
                "rodata": image.rodata,
                "data": image.data,
                "bss": image.bss,
                "static_ram_of_library": row.library(Sections::ram),
                "scratch": row.scratch,
                "stack": row.stack,
                "macs": row.macs,
                "instructions": row.instructions,
                "instructions_of_layer": row.of_layer,
                "instructions_per_mac": row.of_layer.map(|n| n as f64 / row.macs as f64),
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::Array(rows))
}
