//! Running a program, on the desk or in QEMU with its instructions counted.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{Program, give_items, take_items};
use crate::boards::Board;
use crate::cross;
use crate::report;

/// What a program did on a machine.
pub(crate) struct Run {
    pub(super) console: String,
    pub(super) words: Vec<u8>,
    /// Each measured call, by its function, and its instructions; empty where nothing counts them.
    pub(super) calls: Vec<(String, u64)>,
    /// What each function did in each of them.
    parts: Vec<Vec<Part>>,
    /// Instructions, loads, stores and name of each function, most first.
    pub(super) functions: Vec<(u64, u64, u64, String)>,
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
        let mut command = Command::new(cross::host_cargo());
        command.args(["build", "--quiet", "--package", "mha-firmware", "--bin", program.name()]);
        command.args(board.build.is_fused().then_some("--features=fused"));
        let target = crate::target();
        command.current_dir(crate::root()).arg("--target-dir").arg(&target);
        report::call(&mut command)?;
        let folder = target.join("firmware/desk").join(program.name());
        fs::create_dir_all(&folder)?;
        give_items(program, &folder)?;
        let binary = target.join("debug").join(program.name());
        Self::of(&mut Command::new(binary), &folder)
    }

    /// Runs an image in QEMU, its instructions counted if that is possible.
    pub(crate) fn on_board(board: &Board, program: Program, image: &Path) -> Result<Self> {
        let folder = image.parent().context("an image lies in a folder")?;
        // Hundreds of answers without an FPU would take minutes to count.
        let counts_all = board.build.has_floats() || !program.is_in_c();
        if counts_all {
            give_items(program, folder)?;
        } else {
            take_items(folder);
        }
        let counts = folder.join("counts.txt");
        let _ = fs::remove_file(&counts);
        let counted = plugin().and_then(|plugin| {
            let mut argument = format!("{},out=counts.txt,parts=on", plugin.display());
            for name in [Some(program.measured()), program.measured_inside()] {
                argument.extend(name.map(|name| format!(",watch={name}")));
            }
            let mut run = Self::of(board.emulator(image).args(["-plugin", &argument]), folder)?;
            run.read_counts(&fs::read_to_string(&counts)?)?;
            Ok(run)
        });
        // A newer QEMU refuses the plugin, another machine may lack the compiler for it.
        let counted =
            counted.map_err(|error| eprintln!("   instructions are not counted: {error:#}"));
        match counted {
            Ok(counted) if counts_all => Ok(counted),
            counted => {
                give_items(program, folder)?;
                let run = Self::of(&mut board.emulator(image), folder)?;
                let Ok(Self { calls, parts, functions, .. }) = counted else { return Ok(run) };
                Ok(Self { calls, parts, functions, ..run })
            }
        }
    }

    /// Runs a command in a folder, for three minutes at most.
    fn of(command: &mut Command, folder: &Path) -> Result<Self> {
        let (console, words) = (folder.join("console.txt"), folder.join("words.bin"));
        let _ = fs::remove_file(&words);
        command.current_dir(folder).stdin(Stdio::null()).stdout(File::create(&console)?);
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
        let deadline = Instant::now() + Duration::from_secs(180);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("{name} did not end within three minutes; it printed {}", console.display());
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
    pub(super) fn lines(&self) -> String {
        let lines = self.console.lines().filter(|line| !line.starts_with("cost "));
        lines.flat_map(|line| [line, "\n"]).collect()
    }

    /// The lines that lie beside the program: without what it was given in a file.
    pub(super) fn pinned(&self) -> String {
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
    report::call(board.emulator(image).current_dir(folder).args(["-plugin", &argument]))?;
    let (calls, parts) = (Vec::new(), Vec::new());
    let (console, words, functions) = (String::new(), Vec::new(), Vec::new());
    let mut run = Run { console, words, calls, parts, functions };
    run.read_counts(&fs::read_to_string(folder.join("counts.txt"))?)?;
    run.parts(watch, 0).map(<[_]>::to_vec).with_context(|| format!("{watch} was not called"))
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
