//! `cargo xtask firmware`: builds the firmware, runs it in QEMU, and says what it answered and what
//! that cost.
//!
//! A program of `demos/firmware` is built three times: for the board; for the board without its
//! calls into the library, so that the difference is the library; and for the desk. Board and desk
//! must print the same lines and leave the same words, but for lines that begin with `cost`. What
//! they print lies beside the program, as `NAME.out`. The models' programs are there in C too, and
//! must print what those in Rust print.

mod image;
mod print;
mod run;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

pub(crate) use self::image::{build, build_c};
pub(crate) use self::print::{count, ratio};
pub(crate) use self::run::{Part, Run, count_parts};
use crate::boards::{BOARDS, Board, board, list};
use crate::report::Report;
use crate::tools::{self, Tool};

/// What every word about firmware needs.
pub(crate) const TOOLS: [&Tool; 3] = [&tools::RUST_CORTEX_M, &tools::QEMU, &tools::GCC];

/// What it needs where a program is in C.
pub(crate) const TOOLS_C: [&Tool; 3] = [&tools::ARM_GCC, &tools::RISCV_GCC, &tools::LLVM];

/// A program of `demos/firmware`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Program {
    /// The trained model: which of ten digits is this image?
    Digits,
    /// The trained model: which of nine speakers says this /ae/?
    Vowels,
    /// The model of the vowels, frame by frame as they arrive: who is speaking?
    Stream,
    /// The layer by itself, on made-up inputs
    Layer,
    /// Attention without projections, on made-up inputs
    Attention,
    /// What else of the library firmware may call
    Rest,
    /// The trained model learns another microphone
    Adapt,
}

impl Program {
    /// Every program.
    pub(crate) const ALL: [Self; 7] = [
        Self::Digits,
        Self::Vowels,
        Self::Stream,
        Self::Layer,
        Self::Attention,
        Self::Rest,
        Self::Adapt,
    ];

    /// The program's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Vowels => "vowels",
            Self::Stream => "stream",
            Self::Layer => "layer",
            Self::Attention => "attention",
            Self::Rest => "rest",
            Self::Adapt => "adapt",
        }
    }

    /// The function whose calls are counted.
    pub(crate) const fn measured(self) -> &'static str {
        match self {
            Self::Digits | Self::Vowels | Self::Stream => "measured_inference",
            Self::Layer => "measured_layer",
            Self::Attention => "measured_attention",
            Self::Rest => "measured_scores",
            Self::Adapt => "measured_step",
        }
    }

    /// The library's function inside of it, where that is another.
    pub(crate) const fn measured_inside(self) -> Option<&'static str> {
        match self {
            Self::Digits | Self::Vowels => Some(Self::Layer.measured()),
            _ => None,
        }
    }

    /// Whether it is one of the trained models.
    pub(crate) const fn is_model(self) -> bool {
        self.measured_inside().is_some()
    }

    /// Whether it is there in C too.
    pub(crate) const fn is_in_c(self) -> bool {
        self.is_model() || matches!(self, Self::Stream)
    }

    /// Whether it runs on a board: small memories hold the models alone.
    pub(crate) const fn fits(self, board: &Board) -> bool {
        board.is_roomy || self.is_in_c()
    }

    /// What the program must print, but for costs and what it was given in a file.
    fn expected(self) -> PathBuf {
        crate::root().join("demos/firmware/src/bin").join(self.name()).with_extension("out")
    }
}

/// Which variant of a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// The program as it is.
    Whole,
    /// Without its calls into the library.
    WithoutCalls,
    /// With a panic that the link must refuse.
    PlantedPanic,
}

impl Variant {
    const fn feature(self) -> Option<&'static str> {
        match self {
            Self::Whole => None,
            Self::WithoutCalls => Some("without-calls"),
            Self::PlantedPanic => Some("plant-panic"),
        }
    }
}

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The board
    #[arg(default_value = "mps2-an386")]
    board: String,
    /// List the boards and what this machine lacks for each
    #[arg(long)]
    list: bool,
    /// What runs on it
    #[arg(long, visible_alias = "program", default_value = "vowels")]
    model: Program,
    /// The program in C, over the archive that is shipped
    #[arg(long, conflicts_with = "rust")]
    c: bool,
    /// The program in Rust: the default
    #[arg(long)]
    rust: bool,
    /// Also show where the instructions went, by function
    #[arg(long)]
    profile: bool,
    /// Take what the program prints on the desk as what it must print from now on
    #[arg(long)]
    bless: bool,
}

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    if args.list {
        list();
        return Ok(());
    }
    let (board, program) = (board(&args.board)?, args.model);
    tools::get(&TOOLS);
    if args.c {
        tools::get(&TOOLS_C);
        ensure!(program.is_in_c(), "there is no program {} in C", program.name());
    }
    if let Some(lack) = board.lack() {
        bail!("{} cannot run here: {lack}", board.name);
    }
    ensure!(program.fits(board), "{} is too small for {}", board.name, program.name());
    let desk = Run::on_desk(board, program)?;
    if args.bless {
        fs::write(program.expected(), desk.pinned())?;
    }
    let image = if args.c {
        build_c(board, program, Variant::Whole)?
    } else {
        build(board, program, Variant::Whole)?
    };
    let run = Run::on_board(board, program, &image)?;
    print::report(board, program, if args.c { "C" } else { "Rust" }, &image, &run)?;
    if args.profile {
        print::profile(&run);
    }
    agree(&desk, &run)?;
    println!("every answer has the bits of the desk's");
    Ok(())
}

/// The suite `firmware`: every check of the images, a step each.
pub(crate) fn test(report: &mut Report) {
    for (i, board) in BOARDS.iter().enumerate() {
        if let Some(lack) = board.lack() {
            report.skip(&format!("firmware on {}", board.name), lack);
            continue;
        }
        let in_c = report.has(&format!("{}: programs in C", board.name), &TOOLS_C);
        for program in [Program::Digits, Program::Vowels, Program::Stream] {
            if in_c {
                gives_the_bits(report, board, program, "C");
            }
        }
        if board.is_roomy {
            report.step(&format!("{}: no recursion, and the stack is bounded", board.name), || {
                crate::stack::check(board.build)
            });
        }
        // QEMU's micro:bit has no timer that interrupts.
        if in_c && board.build.is_arm() && board.is_roomy {
            report.step(&format!("{}: a call in an interrupt in a call", board.name), || {
                interrupted(board)
            });
        }
        // Everything on the default board; on the others that it computes the same.
        if i > 0 {
            for program in Program::ALL {
                let once = matches!(program, Program::Rest | Program::Adapt);
                if program.fits(board) && !once {
                    gives_the_bits(report, board, program, "Rust");
                }
            }
            continue;
        }
        report.step(&format!("{}: a planted panic does not link", board.name), || {
            planted_panic_does_not_link(board)
        });
        for program in Program::ALL {
            let name = program.name();
            report.step(&format!("{}: {name} links without a panic", board.name), || {
                no_panic_no_allocator(board, program)
            });
            gives_the_bits(report, board, program, "Rust");
        }
    }
    instructions_repeat(report);
    if report.has("firmware: sizes", &TOOLS_C) {
        report.step("firmware: sizes have not grown", crate::size::check);
    }
}

/// A program must answer on a board as on the desk.
fn gives_the_bits(
    report: &mut Report,
    board: &'static Board,
    program: Program,
    language: &'static str,
) {
    let name = program.name();
    report.step(&format!("{}: {name} in {language} gives the desk's bits", board.name), || {
        let desk = Run::on_desk(board, program)?;
        let image = match language {
            "C" => build_c(board, program, Variant::Whole)?,
            _ => build(board, program, Variant::Whole)?,
        };
        let run = Run::on_board(board, program, &image)?;
        agree(&desk, &run)?;
        if !board.build.is_fused() {
            as_written(program, &desk)?;
        }
        if language == "C" {
            let sections = crate::size::sections(&image)?;
            ensure!(sections.ram() == sections.zeros(), "constant weights and layer take RAM");
        }
        match program {
            Program::Stream => flat(&run),
            Program::Adapt => learns(&run),
            _ if program.is_model() => right_answers(board, program, &run),
            _ => Ok(()),
        }
    });
}

/// One layer in two contexts, one of which interrupts the other.
fn interrupted(board: &Board) -> Result<()> {
    let image = image::compile(board, "interrupt", &[], Variant::Whole)?;
    // Time is instructions, so that every run is the same.
    let said = crate::report::output(board.emulator(&image).args(["-icount", "shift=0"]))?;
    eprint!("   {said}");
    ensure!(said.ends_with("wrong words 0\n"), "the interrupted call has other bits");
    Ok(())
}

/// Two runs must count the same.
fn instructions_repeat(report: &mut Report) {
    let Some(board) = BOARDS.iter().find(|board| board.lack().is_none()) else { return };
    let name = "firmware: the same instructions every time";
    let run = || {
        let image = build(board, Program::Digits, Variant::Whole)?;
        Run::on_board(board, Program::Digits, &image)
    };
    match run() {
        Ok(first) if first.calls.is_empty() => report.skip(name, "nothing counts them here"),
        first => {
            report.step(name, || {
                ensure!(first?.calls == run()?.calls, "two runs differ");
                Ok(())
            });
        }
    }
}

/// Puts the test split where a model's program looks for it, in the form that it reads.
fn give_items(program: Program, folder: &Path) -> Result<()> {
    let demos = crate::root().join("demos");
    if program == Program::Digits {
        let mut images = mha_desk::digits(&demos)?;
        images.retain(|image| image.held_out);
        fs::write(folder.join("images.bin"), mha_desk::image_bytes(&images))?;
    }
    if matches!(program, Program::Vowels | Program::Stream | Program::Adapt) {
        let mut vowels = mha_desk::vowels(&demos)?;
        vowels.retain(|vowel| vowel.held_out);
        fs::write(folder.join("utterances.bin"), mha_desk::utterance_bytes(&vowels))?;
    }
    Ok(())
}

/// Takes them away.
fn take_items(folder: &Path) {
    for name in ["images.bin", "utterances.bin"] {
        let _ = fs::remove_file(folder.join(name));
    }
}

/// Compares a board's run with the desk's: the same lines and the same words, but for items that do not
/// fit into its memory, about which it is silent.
fn agree(desk: &Run, board: &Run) -> Result<()> {
    let (desk_lines, board_lines) = (desk.lines(), board.lines());
    let is_answer = |line: &&str| line.starts_with("answer ");
    if board_lines.lines().filter(is_answer).count() < desk_lines.lines().filter(is_answer).count()
    {
        // An answer ends with a digest of its words.
        let mut of_desk = desk_lines.lines();
        for line in board_lines.lines().filter(is_answer) {
            ensure!(of_desk.any(|other| other == line), "the desk does not print `{line}`");
        }
        return Ok(());
    }
    for (desk, board) in desk_lines.lines().zip(board_lines.lines()) {
        ensure!(desk == board, "the desk prints `{desk}`, the board `{board}`");
    }
    let (desk_lines, board_lines) = (desk_lines.lines().count(), board_lines.lines().count());
    ensure!(
        desk_lines == board_lines,
        "the desk prints {desk_lines} lines, the board {board_lines}"
    );
    ensure!(!desk.words.is_empty(), "no words to compare");
    let pairs = desk.words.chunks(4).zip(board.words.chunks(4));
    for (i, (desk, board)) in pairs.enumerate() {
        ensure!(desk == board, "word {i} is {desk:02x?} on the desk and {board:02x?} on the board");
    }
    ensure!(desk.words.len() == board.words.len(), "the board left another number of words");
    Ok(())
}

/// Compares what a program printed with what lies beside its source.
fn as_written(program: Program, run: &Run) -> Result<()> {
    let path = program.expected();
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let bless = format!("`cargo xtask firmware --model {} --bless` rewrites it", program.name());
    for (expected, printed) in expected.lines().zip(run.pinned().lines()) {
        ensure!(
            expected == printed,
            "{} says `{expected}`, the program `{printed}`; {bless}",
            path.display()
        );
    }
    ensure!(expected == run.pinned(), "{} has other lines; {bless}", path.display());
    Ok(())
}

/// Whether a model gives the right answers to the test split, all of it that fits.
fn right_answers(board: &Board, program: Program, run: &Run) -> Result<()> {
    let line = run.console.lines().find_map(|line| line.strip_prefix("right file "));
    let line = line.context("the program did not read the test split")?;
    let (right, all) = line.split_once(' ').context("a strange line")?;
    let (right, all): (u32, u32) = (right.parse()?, all.parse()?);
    let expected = match program {
        Program::Digits => 450,
        // Those of up to 20 frames.
        _ if !board.is_roomy => 332,
        _ => 370,
    };
    ensure!(all == expected, "{all} of the test split's {expected} items were answered");
    ensure!(right * 100 >= all * 98, "only {right} of {all} answers are right");
    Ok(())
}

/// Whether the model hears better through the other microphone after it has learned it: on the part of the
/// test split that it is asked, and by half of its mistakes at least.
fn learns(run: &Run) -> Result<()> {
    let wrong = |when: &str| -> Result<u32> {
        let line =
            run.console.lines().find_map(|line| line.strip_prefix(when)?.strip_prefix(" file "));
        let line = line.with_context(|| format!("the program says nothing of {when}"))?;
        let (right, all) = line.split_once(' ').context("a strange line")?;
        let (right, all): (u32, u32) = (right.parse()?, all.parse()?);
        ensure!(all == 93, "it was asked {all} utterances");
        all.checked_sub(right).context("more are right than there are")
    };
    let (before, after) = (wrong("before")?, wrong("after")?);
    ensure!(before > 0 && 2 * after <= before, "{before} mistakes before, {after} after");
    Ok(())
}

/// Whether a round of the ring costs the same however many there were before, and no frame ever more.
fn flat(run: &Run) -> Result<()> {
    let costs = run.costs(Program::Stream)?;
    ensure!(!run.lines().contains("refused") && costs.len() > 500, "frames were refused");
    let endless = costs.iter().filter(|cost| cost.name == "endless");
    let endless: Vec<u64> = endless.filter_map(|cost| cost.instructions).collect();
    // The first rounds fill it.
    let (rounds, _) = endless.get(32..).unwrap_or(&[]).as_chunks::<16>();
    let most_of = |round: &[u64; 16]| round.iter().copied().max().unwrap_or(0);
    let (least, most) = (rounds.iter().map(most_of).min(), rounds.iter().map(most_of).max());
    let (Some(least), Some(most)) = (least, most) else {
        eprintln!("   nothing counts instructions here");
        return Ok(());
    };
    ensure!(rounds.len() > 10, "only {} rounds", rounds.len());
    // Numbers decide how long arithmetic takes without an FPU, and whether a tile is an easy one.
    ensure!(most * 100 <= least * 103, "the worst frame of a round takes {least} to {most}");
    let ever = costs.iter().filter_map(|cost| cost.instructions).max().unwrap_or(0);
    ensure!(ever * 100 <= most * 103, "a frame takes {ever}, of a long stream {most} at most");
    eprintln!("   the worst frame of {} rounds: {least} to {most} instructions", rounds.len());
    Ok(())
}

/// The control of the panic gate: with one panic in reach the linker must name it.
fn planted_panic_does_not_link(board: &Board) -> Result<()> {
    let cross = board.build.cross();
    let mut command = image::cargo_build(board, &cross, Program::Layer, Variant::PlantedPanic)?;
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "an image with a panic in it linked");
    ensure!(
        said.contains("undefined symbol: mha_panic_path_is_reachable")
            || said.contains("undefined reference to `mha_panic_path_is_reachable'"),
        "the build failed, but not for the panic:\n{said}"
    );
    Ok(())
}

/// Links an image, which the panic gate allows only if no panic is left, and looks for the traces
/// that panics, formatting and allocators leave among its symbols.
fn no_panic_no_allocator(board: &Board, program: Program) -> Result<()> {
    let image = build(board, program, Variant::Whole)?;
    let symbols = crate::size::symbols(&image)?;
    ensure!(
        symbols.iter().any(|symbol| symbol == program.measured()),
        "the image has no symbol {}: is it stripped?",
        program.measured()
    );
    let strange: Vec<_> = symbols.iter().filter(|symbol| must_not_be_linked(symbol)).collect();
    ensure!(strange.is_empty(), "the image has {strange:?}");
    Ok(())
}

/// Whether a symbol, mangled or not, belongs to panics, unwinding, formatting or an allocator.
fn must_not_be_linked(symbol: &str) -> bool {
    let name = format!("{:#}", rustc_demangle::demangle(symbol));
    let parts = ["panic", "unwind", "alloc", "malloc", "eh_personality"];
    parts.iter().any(|part| name.contains(part)) || name.contains("core::fmt")
}
