//! `cargo xtask size`: flash, RAM, scratch, stack and instructions of the library on every board.
//!
//! An image is measured with and without its calls into the library; the difference is what the
//! library costs. Costs of a call are those of the program's own run. The models are those in C, over
//! the archives that are shipped.
//!
//! `docs/sizes.json` is what was measured when it was last written, `docs/sizes.md` the same as tables.
//! `--check` fails where a figure has grown by more than 3 % since.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, elf};

use crate::boards::{BOARDS, Board, board};
use crate::firmware::{Program, Run, TOOLS, TOOLS_C, Variant, build, build_c, count, ratio};
use crate::tools;

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The boards; all of them where none is named
    #[arg(value_name = "BOARD")]
    boards: Vec<String>,
    /// Fail where a figure is more than 3 % greater than the committed one
    #[arg(long)]
    check: bool,
    /// Take what is measured, on every board, as docs/sizes.json and docs/sizes.md
    #[arg(long, conflicts_with_all = ["check", "boards"])]
    write: bool,
    /// Also write the table to a file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    tools::get(&TOOLS);
    tools::get(&TOOLS_C);
    let boards = args.boards.iter().map(|name| board(name));
    let boards = boards.collect::<Result<Vec<_>>>()?;
    let rows = if boards.is_empty() { measure(BOARDS)? } else { measure(boards)? };
    print(&rows);
    if let Some(path) = args.json {
        fs::write(&path, json(&rows))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.write {
        let rows: Vec<Figures> = rows.iter().map(Row::figures).collect();
        fs::write(committed(), format!("{}\n", serde_json::to_string_pretty(&rows)?))?;
        fs::write(committed().with_extension("md"), page(&rows))?;
        println!("wrote docs/sizes.json and docs/sizes.md");
    }
    if args.check {
        compare(&rows)?;
    }
    Ok(())
}

/// What was committed.
fn committed() -> PathBuf {
    crate::root().join("docs/sizes.json")
}

/// How much a figure may grow before somebody has to say so.
const ALLOWED: f64 = 1.03;

/// The suite's step: nothing has grown, and the page is that of the figures.
pub(crate) fn check() -> Result<()> {
    let rows = measure(BOARDS)?;
    compare(&rows)
}

/// Compares with the committed figures; what this machine cannot measure is left out.
fn compare(rows: &[Row]) -> Result<()> {
    let text = fs::read_to_string(committed()).context("docs/sizes.json")?;
    let old: Vec<Figures> = serde_json::from_str(&text)?;
    let page_is = fs::read_to_string(committed().with_extension("md"))?;
    let how = "`cargo xtask size --write` takes what there is";
    ensure!(page_is == page(&old), "docs/sizes.md is not that of docs/sizes.json; {how}");
    let mut grown = Vec::new();
    for row in rows.iter().map(Row::figures) {
        let same = |other: &&Figures| other.board == row.board && other.call == row.call;
        let Some(old) = old.iter().find(same) else {
            grown.push(format!("{} {}: not in docs/sizes.json", row.board, row.call));
            continue;
        };
        for ((name, new), (_, old)) in row.numbers().into_iter().zip(old.numbers()) {
            let (Some(new), Some(old)) = (new, old) else { continue };
            if new as f64 > old as f64 * ALLOWED {
                grown.push(format!("{} {}: {name} was {old}, is {new}", row.board, row.call));
            }
        }
    }
    ensure!(grown.is_empty(), "figures have grown; {how}:\n{}", grown.join("\n"));
    println!("no figure has grown by more than 3 % since docs/sizes.json");
    Ok(())
}

/// A line of the table.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Figures {
    board: String,
    core: String,
    call: String,
    /// Bytes of flash that the library takes.
    flash: i64,
    /// Bytes of static RAM that the library takes.
    ram: i64,
    scratch: i64,
    stack: i64,
    instructions: Option<i64>,
    instructions_of_layer: Option<i64>,
    macs_of_layer: i64,
}

impl Figures {
    /// What must not grow.
    fn numbers(&self) -> [(&'static str, Option<i64>); 6] {
        [
            ("flash", Some(self.flash)),
            ("static RAM", Some(self.ram)),
            ("scratch", Some(self.scratch)),
            ("stack", Some(self.stack)),
            ("instructions", self.instructions),
            ("instructions of the layer", self.instructions_of_layer),
        ]
    }
}

/// docs/sizes.md.
fn page(rows: &[Figures]) -> String {
    let mut page = String::from(
        "# Sizes\n\n\
         What the library costs on each board, by `cargo xtask size`; `cargo xtask size --write` made this \
         page, and `cargo xtask test firmware` fails where a figure grows by more than 3 % and the page \
         is not written anew.\n\n\
         Flash and static RAM are those of an image less those of the same image without its calls into \
         the library. Scratch is the buffer that the caller gives, the network's own rows among it where \
         the call is a model's. Stack is how deep the call wrote, painted before and read after. \
         Instructions are counted in QEMU: exact and repeatable, but not cycles; those of a \
         multiply-accumulate are of the layer alone. Models are the programs of `demos/firmware/c` over \
         the shipped archives, the answer that asks for the most; the rest are programs in Rust.\n\n\
         | board | core | call | flash | static RAM | scratch | stack | instructions | per MAC |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let each = match row.instructions_of_layer {
            Some(n) => format!("{:.2}", n as f64 / row.macs_of_layer as f64),
            None => "-".into(),
        };
        let all = row.instructions.map_or_else(|| "-".into(), |n| n.to_string());
        page += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {all} | {each} |\n",
            row.board, row.core, row.call, row.flash, row.ram, row.scratch, row.stack
        );
    }
    page
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
    fn figures(&self) -> Figures {
        Figures {
            board: self.board.into(),
            core: self.core.into(),
            call: self.call.clone(),
            flash: self.library(Sections::flash),
            ram: self.library(Sections::ram),
            scratch: self.scratch as i64,
            stack: self.stack as i64,
            instructions: self.instructions.map(|n| n as i64),
            instructions_of_layer: self.of_layer.map(|n| n as i64),
            macs_of_layer: self.macs as i64,
        }
    }

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

    /// Bytes of static RAM that begin at zero.
    pub(crate) const fn zeros(&self) -> u64 {
        self.bss
    }

    /// Bytes of static RAM.
    pub(crate) const fn ram(&self) -> u64 {
        self.data + self.bss
    }
}

/// In place of a case's name: the call that asks for the most.
const LONGEST: &str = "longest";

/// The calls whose figures are quoted, on the default board.
const QUOTED: &[(Program, &[&str])] = &[
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
        if [tools::ARM_GCC, tools::RISCV_GCC].iter().all(crate::tools::Tool::found) {
            for program in [Program::Digits, Program::Vowels] {
                measure_program(board, program, build_c, &[LONGEST], &mut rows)?;
            }
        }
        let is_least = board.build.profile == "size" && board.is_roomy;
        if board.name != BOARDS[0].name && !is_least {
            continue;
        }
        for &(program, cases) in QUOTED {
            measure_program(board, program, build, cases, &mut rows)?;
        }
    }
    ensure!(!rows.is_empty(), "there is no board that this machine can build for and run");
    Ok(rows)
}

fn measure_program(
    board: &'static Board,
    program: Program,
    build: fn(&Board, Program, Variant) -> Result<PathBuf>,
    cases: &[&str],
    rows: &mut Vec<Row>,
) -> Result<()> {
    let without_calls = sections(&build(board, program, Variant::WithoutCalls)?)?;
    let image = build(board, program, Variant::Whole)?;
    let costs = Run::on_board(board, program, &image)?.costs(program)?;
    let image = sections(&image)?;
    for case in cases {
        let cost = match *case {
            LONGEST => {
                let counted = costs.iter().any(|cost| cost.instructions.is_some());
                let costs = costs.iter().filter(|cost| !counted || cost.instructions.is_some());
                costs.max_by_key(|cost| (cost.macs, cost.instructions))
            }
            case => costs.iter().find(|cost| cost.name == case),
        };
        let cost = cost.with_context(|| format!("{} ran no case {case}", program.name()))?;
        rows.push(Row {
            board: board.name,
            core: board.core,
            call: match *case {
                LONGEST => program.name().into(),
                case => format!("{} {case}", program.name()),
            },
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
        "of it: the library's part; the rest is start-up, console, the network around the layer,"
    );
    println!("inputs, outputs, scratch and the model's weights.");
    println!("Instructions are counted in QEMU: exact and repeatable, but not cycles.");
}

fn line(words: [&str; 10]) {
    let [board, call, numbers @ .., instructions, each] = words;
    print!("{board:<19}{call:<16}");
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
