//! `cargo xtask firmware`: builds the firmware, runs it in QEMU, and says what it answered and what
//! that cost.
//!
//! A program of `demos/firmware` is built three times: for the board; for the board without its
//! calls into the library, so that the difference is the library; and for the desk. Board and desk
//! must print the same lines and leave the same words, but for lines that begin with `cost`. What
//! they print lies beside the program, as `NAME.out`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cross::{self, Cross};
use crate::report::{self, Report};
use crate::tools::{self, Tool};

/// What every word about firmware needs.
pub(crate) const TOOLS: [&Tool; 3] = [&tools::RUST_CORTEX_M, &tools::QEMU, &tools::GCC];

/// A board that QEMU has, and what is built for it.
pub(crate) struct Board {
    /// What it is called here: QEMU's name for it, and what runs on it where that is not its own.
    pub(crate) name: &'static str,
    /// Its processor.
    pub(crate) core: &'static str,
    /// What the compiler calls it.
    pub(crate) target: &'static str,
    /// What the compiler calls the processor, where more than the target is made use of.
    cpu: Option<&'static str>,
    /// The library's feature for it.
    feature: Option<&'static str>,
    /// The emulator.
    qemu: &'static str,
    /// QEMU's name for it, and that of its folder in `demos/firmware/boards`.
    machine: &'static str,
}

impl Board {
    /// A board on which the target is all there is to know.
    const fn plain(machine: &'static str, core: &'static str, target: &'static str) -> Self {
        let qemu = "qemu-system-arm";
        Self { name: machine, core, target, cpu: None, feature: None, qemu, machine }
    }

    /// Its memory, in the linker's words.
    pub(crate) fn memory(&self) -> PathBuf {
        crate::root().join("demos/firmware/boards").join(self.machine).join("memory.x")
    }

    /// What GCC calls the processor.
    pub(crate) fn gcc_cpu(&self) -> &'static str {
        self.cpu.unwrap_or("cortex-m4")
    }

    /// Whether its kernel is of the fused family.
    pub(crate) fn is_fused(&self) -> bool {
        self.feature == Some("helium")
    }

    /// Whether it computes floats itself.
    pub(crate) fn has_floats(&self) -> bool {
        self.target.ends_with("hf")
    }

    /// A build for it.
    fn cross(&self) -> Cross {
        let cross = Cross::new(self.target);
        match self.cpu {
            // Flags that are given here replace those of .cargo/config.toml.
            Some(cpu) => {
                cross.flags(&format!("-C llvm-args=-unroll-runtime=false -C target-cpu={cpu}"))
            }
            None => cross,
        }
    }
}

/// Every board, the default one first. Its memory is described in `demos/firmware/boards`.
pub(crate) const BOARDS: &[Board] = &[
    Board::plain("mps2-an386", "Cortex-M4F", "thumbv7em-none-eabihf"),
    Board {
        cpu: Some("cortex-m7"),
        feature: Some("cortex-m7"),
        ..Board::plain("mps2-an500", "Cortex-M7", "thumbv7em-none-eabihf")
    },
    Board {
        cpu: Some("cortex-m33"),
        ..Board::plain("mps2-an505", "Cortex-M33", "thumbv8m.main-none-eabihf")
    },
    Board {
        cpu: Some("cortex-m55"),
        ..Board::plain("mps3-an547", "Cortex-M55", "thumbv8m.main-none-eabihf")
    },
    Board {
        name: "mps3-an547-helium",
        cpu: Some("cortex-m55"),
        feature: Some("helium"),
        ..Board::plain("mps3-an547", "Cortex-M55", "thumbv8m.main-none-eabihf")
    },
    Board::plain("mps2-an385", "Cortex-M3", "thumbv7m-none-eabi"),
    Board {
        name: "mps2-an385-m0",
        ..Board::plain("mps2-an385", "Cortex-M0", "thumbv6m-none-eabi")
    },
    Board {
        qemu: "qemu-system-riscv32",
        ..Board::plain("virt", "RV32IMC", "riscv32imc-unknown-none-elf")
    },
];

/// A program of `demos/firmware`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Program {
    /// The trained model: which of nine speakers says this /ae/?
    Vowels,
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
    pub(crate) const ALL: [Self; 5] =
        [Self::Vowels, Self::Layer, Self::Attention, Self::Rest, Self::Adapt];

    /// The program's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Vowels => "vowels",
            Self::Layer => "layer",
            Self::Attention => "attention",
            Self::Rest => "rest",
            Self::Adapt => "adapt",
        }
    }

    /// The function whose calls are counted.
    pub(crate) const fn measured(self) -> &'static str {
        match self {
            Self::Vowels => "measured_inference",
            Self::Layer => "measured_layer",
            Self::Attention => "measured_attention",
            Self::Rest => "measured_scores",
            Self::Adapt => "measured_step",
        }
    }

    /// The library's function inside of it, where that is another.
    pub(crate) const fn measured_inside(self) -> Option<&'static str> {
        match self {
            Self::Vowels => Some(Self::Layer.measured()),
            _ => None,
        }
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
    let board = board(&args.board)?;
    tools::get(&TOOLS);
    if let Some(lack) = lack(board) {
        bail!("{} cannot run here: {lack}", board.name);
    }
    let desk = Run::on_desk(board, args.model)?;
    if args.bless {
        fs::write(args.model.expected(), desk.pinned())?;
    }
    let image = build(board, args.model, Variant::Whole)?;
    let run = Run::on_board(board, args.model, &image)?;
    print_report(board, args.model, &run)?;
    if args.profile {
        print_profile(&run);
    }
    agree(&desk, &run)?;
    println!("every answer has the bits of the desk's");
    Ok(())
}

/// The suite `firmware`: every check of the images, a step each.
pub(crate) fn test(report: &mut Report) {
    for (i, board) in BOARDS.iter().enumerate() {
        if let Some(lack) = lack(board) {
            report.skip(&format!("firmware on {}", board.name), lack);
            continue;
        }
        // Everything on the default board; on the others that their kernels compute the same.
        if i > 0 {
            for program in [Program::Layer, Program::Attention] {
                gives_the_bits(report, board, program);
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
            gives_the_bits(report, board, program);
        }
    }
    instructions_repeat(report);
    report.step("firmware: sizes", || {
        crate::size::print(&crate::size::measure(&BOARDS[..1])?);
        Ok(())
    });
}

/// A program must answer on a board as on the desk.
fn gives_the_bits(report: &mut Report, board: &'static Board, program: Program) {
    report.step(&format!("{}: {} gives the desk's bits", board.name, program.name()), || {
        let desk = Run::on_desk(board, program)?;
        let image = build(board, program, Variant::Whole)?;
        let run = Run::on_board(board, program, &image)?;
        agree(&desk, &run)?;
        if !board.is_fused() {
            as_written(program, &desk)?;
        }
        match program {
            Program::Vowels => right_answers(&run),
            Program::Adapt => learns(&run),
            _ => Ok(()),
        }
    });
}

/// Two runs must count the same.
fn instructions_repeat(report: &mut Report) {
    let Some(board) = BOARDS.iter().find(|board| lack(board).is_none()) else { return };
    let name = "firmware: the same instructions every time";
    let run = || {
        let image = build(board, Program::Vowels, Variant::Whole)?;
        Run::on_board(board, Program::Vowels, &image)
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

/// The board of a name.
pub(crate) fn board(name: &str) -> Result<&'static Board> {
    let found = BOARDS.iter().find(|board| board.name == name);
    found.with_context(|| format!("no board {name}: `cargo xtask firmware --list` lists them"))
}

/// What this machine lacks to build for a board and run it, and how to get it.
pub(crate) fn lack(board: &Board) -> Option<String> {
    if !cross::available(board.target) {
        return Some(format!("no Rust for {}: {}", board.target, cross::remedy(board.target)));
    }
    if tools::on_path(board.qemu).is_none() {
        return Some(format!("no {}: {}", board.qemu, tools::QEMU.line()));
    }
    None
}

fn list() {
    for board in BOARDS {
        let lack = lack(board).unwrap_or_else(|| "ready".into());
        println!("{:<14} {:<12} {:<28} {lack}", board.name, board.core, board.target);
    }
}

/// Builds a program for a board; the image.
pub(crate) fn build(board: &Board, program: Program, variant: Variant) -> Result<PathBuf> {
    let cross = board.cross();
    report::call(&mut cargo_build(board, &cross, program, variant)?)?;
    // Variants and boards are built in one place: the image is kept from the next build.
    let from = cross.folder("release").join(program.name());
    let to =
        folder(board, program)?.join(variant.feature().unwrap_or("whole")).with_extension("elf");
    fs::copy(&from, &to).with_context(|| format!("no image {}", from.display()))?;
    Ok(to)
}

fn cargo_build(
    board: &Board,
    cross: &Cross,
    program: Program,
    variant: Variant,
) -> Result<Command> {
    let mut command = cross.cargo("build")?;
    command.args(["--quiet", "--release", "--package", "mha-firmware", "--bin", program.name()]);
    let features = variant.feature().into_iter().chain(board.feature);
    command.args(features.map(|feature| format!("--features={feature}")));
    command.env("MHA_BOARD", board.machine);
    Ok(command)
}

/// Where a program's images and what they wrote are kept.
fn folder(board: &Board, program: Program) -> Result<PathBuf> {
    let folder = crate::target().join("firmware").join(board.name).join(program.name());
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// What a program did on a machine.
pub(crate) struct Run {
    console: String,
    words: Vec<u8>,
    /// Each measured call, by its function, and its instructions; empty where nothing counts them.
    calls: Vec<(String, u64)>,
    /// What each function did in each of them.
    parts: Vec<Vec<Part>>,
    /// Instructions, loads, stores and name of each function, most first.
    functions: Vec<(u64, u64, u64, String)>,
}

/// What a function did in a measured call: instructions and bytes, and instructions of the classes that
/// `tests/qemu/count.c` tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) instructions: u64,
    pub(crate) bytes_loaded: u64,
    pub(crate) bytes_stored: u64,
    pub(crate) single: u64,
    pub(crate) single_again: u64,
    pub(crate) multiple: u64,
    pub(crate) words: u64,
    pub(crate) float: u64,
    pub(crate) multiply_add: u64,
    pub(crate) float_divide: u64,
    pub(crate) move_two: u64,
    pub(crate) divide: u64,
    pub(crate) vector_memory: u64,
    pub(crate) vector: u64,
    pub(crate) taken: u64,
}

impl Part {
    /// From a line of the plugin's, without its first word.
    fn parse(line: &str) -> Result<Self> {
        let mut words = line.splitn(18, ' ');
        let mut numbers = [0; 17];
        for number in &mut numbers {
            *number = words.next().context("a short line")?.parse()?;
        }
        let [instructions, _, _, bytes_loaded, bytes_stored, classes @ ..] = numbers;
        let [single, single_again, multiple, words_moved, float, multiply_add, classes @ ..] =
            classes;
        let [float_divide, move_two, divide, vector_memory, vector, taken] = classes;
        let name = words.next().context("a part without a name")?;
        Ok(Self {
            name: format!("{:#}", rustc_demangle::demangle(name)),
            instructions,
            bytes_loaded,
            bytes_stored,
            single,
            single_again,
            multiple,
            words: words_moved,
            float,
            multiply_add,
            float_divide,
            move_two,
            divide,
            vector_memory,
            vector,
            taken,
        })
    }
}

/// What a measured call cost.
pub(crate) struct Cost {
    /// The name of the case.
    pub(crate) name: String,
    /// Multiply-accumulates that the mathematics asks for.
    pub(crate) macs: u64,
    /// Scratch that the call was given, in bytes.
    pub(crate) scratch: u64,
    /// Deepest stack of the call, in bytes.
    pub(crate) stack: u64,
    /// Instructions; `None` where nothing counts them.
    pub(crate) instructions: Option<u64>,
    /// Those of them that the library took.
    pub(crate) of_layer: Option<u64>,
}

impl Run {
    /// Builds a program for the desk and runs it, in the family of a board.
    pub(crate) fn on_desk(board: &Board, program: Program) -> Result<Self> {
        // Features are not mixed in one place, or each build would undo the other's.
        let fused = board.is_fused();
        let target = crate::target().join(if fused { "fused" } else { "" });
        let mut command = Command::new(cross::host_cargo());
        command.args(["build", "--quiet", "--package", "mha-firmware", "--bin", program.name()]);
        command
            .args(board.feature.filter(|_| fused).map(|feature| format!("--features={feature}")));
        command.current_dir(crate::root()).arg("--target-dir").arg(&target);
        report::call(&mut command)?;
        let folder = target.join("firmware/desk").join(program.name());
        fs::create_dir_all(&folder)?;
        give_utterances(program, &folder)?;
        let binary = target.join("debug").join(program.name());
        Self::of(&mut Command::new(binary), &folder)
    }

    /// Runs an image in QEMU, its instructions counted if that is possible.
    pub(crate) fn on_board(board: &Board, program: Program, image: &Path) -> Result<Self> {
        let folder = folder(board, program)?;
        // Hundreds of answers without an FPU would take minutes.
        if board.has_floats() {
            give_utterances(program, &folder)?;
        } else {
            let _ = fs::remove_file(folder.join("utterances.bin"));
        }
        let counts = folder.join("counts.txt");
        let _ = fs::remove_file(&counts);
        let counted = plugin().and_then(|plugin| {
            let mut argument = format!("{},out=counts.txt,parts=on", plugin.display());
            for name in [Some(program.measured()), program.measured_inside()] {
                argument.extend(name.map(|name| format!(",watch={name}")));
            }
            let mut run = Self::of(qemu(board, image).args(["-plugin", &argument]), &folder)?;
            run.read_counts(&fs::read_to_string(&counts)?)?;
            Ok(run)
        });
        // A newer QEMU refuses the plugin, another machine may lack the compiler for it.
        counted.or_else(|error| {
            eprintln!("   instructions are not counted: {error:#}");
            Self::of(&mut qemu(board, image), &folder)
        })
    }

    /// Runs a command in a folder, for a minute at most.
    fn of(command: &mut Command, folder: &Path) -> Result<Self> {
        let (console, words) = (folder.join("console.txt"), folder.join("words.bin"));
        let _ = fs::remove_file(&words);
        command.current_dir(folder).stdin(Stdio::null()).stdout(File::create(&console)?);
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("{name} did not end within a minute; it printed {}", console.display());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let console = fs::read_to_string(&console)?;
        ensure!(status.success(), "{name}: {status}; it printed\n{console}");
        let words = fs::read(&words).context("the program left no words.bin")?;
        Ok(Self { console, words, calls: Vec::new(), parts: Vec::new(), functions: Vec::new() })
    }

    /// What `tests/qemu/count.c` wrote.
    fn read_counts(&mut self, counts: &str) -> Result<()> {
        for line in counts.lines() {
            if let Some(part) = line.strip_prefix("part ") {
                self.parts.last_mut().context("a part of no call")?.push(Part::parse(part)?);
                continue;
            }
            let words: Vec<&str> = line.splitn(5, ' ').collect();
            match words[..] {
                ["call", name, instructions] => {
                    self.calls.push((name.into(), instructions.parse()?));
                    self.parts.push(Vec::new());
                }
                ["symbol", instructions, loads, stores, name] => {
                    let numbers = (instructions.parse()?, loads.parse()?, stores.parse()?);
                    self.functions.push((numbers.0, numbers.1, numbers.2, name.into()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The lines that no machine may print differently.
    fn lines(&self) -> String {
        let lines = self.console.lines().filter(|line| !line.starts_with("cost "));
        lines.flat_map(|line| [line, "\n"]).collect()
    }

    /// The lines that lie beside the program: without what it was given in a file.
    fn pinned(&self) -> String {
        let lines = self.lines();
        let lines = lines.lines().filter(|line| line.split(' ').nth(1) != Some("file"));
        lines.flat_map(|line| [line, "\n"]).collect()
    }

    /// Instructions of each call of a function, in order.
    fn calls(&self, name: &str) -> impl Iterator<Item = u64> {
        self.calls.iter().filter(move |call| call.0 == name).map(|call| call.1)
    }

    /// What each function did in a certain call of a measured one.
    pub(crate) fn parts(&self, name: &str, call: usize) -> Option<&[Part]> {
        let calls = self.calls.iter().zip(&self.parts).filter(|((of, _), _)| of == name);
        calls.map(|(_, parts)| &parts[..]).nth(call)
    }

    /// The cost of each measured call, in order.
    pub(crate) fn costs(&self, program: Program) -> Result<Vec<Cost>> {
        let mut calls = self.calls(program.measured());
        let mut inside = program.measured_inside().map(|name| self.calls(name));
        let mut costs = Vec::new();
        for line in self.console.lines() {
            let Some(cost) = line.strip_prefix("cost ") else { continue };
            let words: Vec<&str> = cost.split(' ').collect();
            let &[name, macs, scratch, stack] = &words[..] else { bail!("a strange line: {line}") };
            let stack = stack.parse()?;
            // A call that was refused before the layer was made took no stack and was not counted.
            let instructions = if stack > 0 { calls.next() } else { None };
            let of_layer = match &mut inside {
                Some(inside) => inside.next(),
                None => instructions,
            };
            costs.push(Cost {
                name: name.into(),
                macs: macs.parse()?,
                scratch: scratch.parse()?,
                stack,
                instructions,
                of_layer,
            });
        }
        Ok(costs)
    }
}

/// Runs any image on a board; what each function did in the first call of one.
pub(crate) fn count_parts(
    board: &Board,
    image: &Path,
    watch: &str,
    folder: &Path,
) -> Result<Vec<Part>> {
    let argument = format!("{},out=counts.txt,parts=on,watch={watch}", plugin()?.display());
    report::call(qemu(board, image).current_dir(folder).args(["-plugin", &argument]))?;
    let (calls, parts) = (Vec::new(), Vec::new());
    let (console, words, functions) = (String::new(), Vec::new(), Vec::new());
    let mut run = Run { console, words, calls, parts, functions };
    run.read_counts(&fs::read_to_string(folder.join("counts.txt"))?)?;
    run.parts(watch, 0).map(<[_]>::to_vec).with_context(|| format!("{watch} was not called"))
}

/// QEMU with an image on a board.
fn qemu(board: &Board, image: &Path) -> Command {
    let mut command = Command::new(board.qemu);
    command.args(["-M", board.machine]);
    if board.target.starts_with("riscv") {
        command.args(["-bios", "none"]);
    }
    command.args(["-display", "none", "-monitor", "none", "-serial", "none"]);
    command.args(["-semihosting-config", "enable=on,target=native"]);
    command.arg("-kernel").arg(image);
    command
}

/// Puts the test split where the model's program looks for it, in the form that it reads.
fn give_utterances(program: Program, folder: &Path) -> Result<()> {
    if !matches!(program, Program::Vowels | Program::Adapt) {
        return Ok(());
    }
    let mut bytes = Vec::new();
    for vowel in mha_desk::vowels(&crate::root().join("demos"))? {
        if vowel.held_out {
            bytes.extend(u32::from(vowel.label).to_le_bytes());
            bytes.extend(u32::try_from(vowel.len)?.to_le_bytes());
            let frames = vowel.frames.get(..vowel.len).context("an utterance is too long")?;
            bytes.extend(frames.as_flattened().iter().flat_map(|x| x.to_le_bytes()));
        }
    }
    fs::write(folder.join("utterances.bin"), bytes)?;
    Ok(())
}

/// Compiles the plugin that counts instructions; its path.
fn plugin() -> Result<PathBuf> {
    let folder = crate::target().join("firmware");
    fs::create_dir_all(&folder)?;
    let (source, plugin) = (crate::root().join("tests/qemu/count.c"), folder.join("count.so"));
    let modified = |path: &Path| fs::metadata(path).and_then(|m| m.modified());
    if modified(&plugin).ok() < modified(&source).ok() {
        let mut command = Command::new("cc");
        command.args([
            "-O2",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-shared",
            "-fPIC",
            "-o",
        ]);
        report::call(command.arg(&plugin).arg(&source))?;
    }
    Ok(plugin)
}

/// Compares a board's run with the desk's.
fn agree(desk: &Run, board: &Run) -> Result<()> {
    for (desk, board) in desk.lines().lines().zip(board.lines().lines()) {
        ensure!(desk == board, "the desk prints `{desk}`, the board `{board}`");
    }
    let (desk_lines, board_lines) = (desk.lines().lines().count(), board.lines().lines().count());
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

/// Whether the model knows the speakers, all of the test split's.
fn right_answers(run: &Run) -> Result<()> {
    let line = run.console.lines().find_map(|line| line.strip_prefix("right file "));
    let line = line.context("the program did not read the test split")?;
    let (right, all) = line.split_once(' ').context("a strange line")?;
    let (right, all): (u32, u32) = (right.parse()?, all.parse()?);
    ensure!(all == 370, "the test split has {all} utterances");
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

/// The control of the panic gate: with one panic in reach the linker must name it.
fn planted_panic_does_not_link(board: &Board) -> Result<()> {
    let cross = board.cross();
    let mut command = cargo_build(board, &cross, Program::Layer, Variant::PlantedPanic)?;
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

fn print_report(board: &Board, program: Program, run: &Run) -> Result<()> {
    println!("{}: {} in QEMU, {}\n", board.name, board.core, board.target);
    let costs = run.costs(program)?;
    match program {
        Program::Vowels => print_answers(run, &costs),
        Program::Adapt => print_lessons(run, &costs),
        _ => print_cases(run, &costs),
    }
    Ok(())
}

/// A line for each utterance in flash, and what those of the file come to.
fn print_answers(run: &Run, costs: &[Cost]) {
    println!("Which of nine speakers says this /ae/?\n");
    println!(
        "{:>9}{:>9}{:>9}{:>14}{:>15}",
        "frames", "answer", "speaker", "instructions", "of them layer"
    );
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
        let macs: u64 = costs.iter().map(|cost| cost.macs).sum();
        println!("instructions for a multiply-accumulate of the layer: {}", ratio(layer, macs));
    }
    if let Some(stack) = costs.iter().map(|cost| cost.stack).max() {
        println!("deepest stack of an answer: {stack} bytes");
    }
}

/// What was learned, and what a step of it costs.
fn print_lessons(run: &Run, costs: &[Cost]) {
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

fn print_cases(run: &Run, costs: &[Cost]) {
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

fn print_profile(run: &Run) {
    let total: u64 = run.functions.iter().map(|f| f.0).sum();
    println!("\n{:>12}{:>7}{:>12}{:>12}  function", "instructions", "", "loads", "stores");
    for (instructions, loads, stores, name) in run.functions.iter().take(20) {
        let share = 100.0 * *instructions as f64 / total as f64;
        let name = format!("{:#}", rustc_demangle::demangle(name));
        println!("{instructions:>12}{share:>6.1}%{loads:>12}{stores:>12}  {name}");
    }
}
