//! The C door: builds the static library for this machine, and over it the C and C++ test programs
//! with every compiler that is there, for every version of the language.
//!
//! A program that links is a proof: the library's panic handler calls a function that nobody
//! defines, so there is no way from a function of the header to a panic.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use mha_conformance::{Case, Causality, Comparison, Door, Process, files, wire};

use crate::cross::{self, Cross};
use crate::report::{Report, call, output};
use crate::tools;
use crate::{abi, disassembly, header};

/// Builds tests/c/run_cases.c over the static library and gives the program's path. It reads
/// requests on its standard input and answers on its standard output.
pub(crate) fn runner() -> Result<PathBuf> {
    let library = library()?;
    let compilers = compilers();
    let compiler = compilers.first().context("no C compiler: neither gcc nor clang")?;
    let program = Program { name: "run_cases", language: Language::C, says: None };
    compiler.compile(&program, "c11", &["-O2"], &library)
}

/// The suite `c`: every check of the header, the library and the test programs, a step each.
pub(crate) fn test(report: &mut Report) {
    report.step("c: header is what the source says", header::check);
    report.step("c: examples of the README", examples);
    report.step("c: what must not compile does not", must_not_compile);
    if report.has("c: interface", &[&tools::ARM_GCC, &tools::RISCV_GCC]) {
        report.step("c: interface as committed", abi::check);
    }
    let mut built = None;
    report.step("c: static library", || {
        built = Some(library()?);
        Ok(())
    });
    let Some(library) = built else { return };
    if report.has("c: symbols", &[&tools::LLVM]) {
        report.step("c: symbols", || symbols(&library));
    }
    for compiler in compilers() {
        for (language, standard) in STANDARDS {
            report.step(&format!("c: {} -std={standard}", compiler.name), || {
                for program in PROGRAMS.iter().filter(|program| program.language == language) {
                    let path = compiler.compile(program, standard, &["-O1"], &library)?;
                    program.run(&mut Command::new(path))?;
                }
                Ok(())
            });
        }
        report.step(&format!("c: {} with sanitizers", compiler.name), || {
            let flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
            for program in &PROGRAMS {
                let standard = program.language.usual();
                let path = compiler.compile(program, standard, &flags, &library)?;
                program.run(&mut Command::new(&path))?;
                if program.name == "run_cases" {
                    run_cases(Command::new(path), &CASES)?;
                }
            }
            Ok(())
        });
    }
    report.step("c: wire protocol", || protocol(&runner()?));
    if report.has("c: valgrind", &[&tools::VALGRIND]) {
        report.step("c: valgrind", || valgrind(&library));
    }
    if report.has("c: Cortex-M4F", &[&tools::RUST_CORTEX_M, &tools::ARM_GCC, &tools::QEMU]) {
        report.step("c: Cortex-M4F", cortex_m);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    C,
    Cpp,
}

impl Language {
    /// The version of the language where one is enough.
    fn usual(self) -> &'static str {
        match self {
            Self::C => "c11",
            Self::Cpp => "c++17",
        }
    }
}

/// The versions of the languages that the headers must be good for.
const STANDARDS: [(Language, &str); 5] = [
    (Language::C, "c99"),
    (Language::C, "c11"),
    (Language::C, "c17"),
    (Language::Cpp, "c++17"),
    (Language::Cpp, "c++20"),
];

pub(crate) const WARNINGS: [&str; 7] =
    ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wcast-align", "-Werror"];
pub(crate) const WARNINGS_C: [&str; 2] = ["-Wstrict-prototypes", "-Wmissing-prototypes"];
/// And what a firmware build of C++ does without.
const WARNINGS_CPP: [&str; 3] = ["-Wold-style-cast", "-fno-exceptions", "-fno-rtti"];

/// A test program.
struct Program {
    name: &'static str,
    language: Language,
    /// All that it must print, where that matters.
    says: Option<&'static str>,
}

/// What the examples print.
const EXAMPLE: Option<&str> = Some("y = 3 6, scores = 0.5 0.5\n");

const STREAM: &str = "1000 frames, the last 48 kept\n";
const DECODE: &str = "token by token is the whole at once: yes\n";
const BATCH: &str = "padded, packed and alone agree: yes\n";

const THREADS: &str = "rows 44, 23, 18, 15: the bits of one thread: yes\n";

const TRAIN: &str =
    "four threads give what one does: yes; the loss falls to less than a tenth: yes\n";

const PROGRAMS: [Program; 15] = [
    Program { name: "example", language: Language::C, says: EXAMPLE },
    Program { name: "sizes", language: Language::C, says: None },
    Program { name: "calls", language: Language::C, says: None },
    Program { name: "errors", language: Language::C, says: None },
    Program { name: "family", language: Language::C, says: None },
    Program { name: "backward", language: Language::C, says: None },
    Program { name: "stream", language: Language::C, says: Some(STREAM) },
    Program { name: "decode", language: Language::C, says: Some(DECODE) },
    Program { name: "batch", language: Language::C, says: Some(BATCH) },
    Program { name: "threads", language: Language::C, says: Some(THREADS) },
    Program { name: "train", language: Language::C, says: Some(TRAIN) },
    Program { name: "run_cases", language: Language::C, says: None },
    Program { name: "example", language: Language::Cpp, says: EXAMPLE },
    Program { name: "fixed", language: Language::Cpp, says: None },
    Program { name: "wrapper", language: Language::Cpp, says: None },
];

impl Program {
    /// The source.
    fn source(&self) -> PathBuf {
        let (folder, extension) = match self.language {
            Language::C => ("tests/c", "c"),
            Language::Cpp => ("tests/cpp", "cpp"),
        };
        crate::root().join(folder).join(self.name).with_extension(extension)
    }

    /// Runs it, given the command that does; without input.
    fn run(&self, command: &mut Command) -> Result<()> {
        let result = command.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&result.stdout);
        let complained = String::from_utf8_lossy(&result.stderr);
        let name = self.source();
        ensure!(
            result.status.success(),
            "{}: {}\n{said}{complained}",
            name.display(),
            result.status
        );
        match self.says {
            Some(expected) => {
                ensure!(said == expected, "{}: says {said:?}, not {expected:?}", name.display());
            }
            None if !said.is_empty() => eprint!("   {said}"),
            None => {}
        }
        Ok(())
    }
}

/// Runs every program, the one for cases with all that there are, over a library that counts in the folder
/// `counts` which lines are run; the programs' paths.
pub(crate) fn run_counted(library: &Path, counts: &Path) -> Result<Vec<PathBuf>> {
    let compilers = compilers();
    let compiler = compilers.first().context("no C compiler")?;
    let one = |program: &Program| {
        let flags = ["-O1", "-DCOVERAGE", "-u", "__llvm_profile_runtime"];
        let path = compiler.compile(program, program.language.usual(), &flags, library)?;
        let command = || {
            let mut command = Command::new(&path);
            command.env("LLVM_PROFILE_FILE", counts.join("c-%m-%p.profraw"));
            command
        };
        program.run(&mut command())?;
        if program.name == "run_cases" {
            run_cases(command(), &["cases", "cases_family", "cases_gradients"])?;
        }
        Ok(path)
    };
    PROGRAMS.iter().map(one).collect()
}

/// A compiler of both languages.
struct Compiler {
    name: &'static str,
    c: PathBuf,
    cpp: PathBuf,
}

/// Those that this machine has.
fn compilers() -> Vec<Compiler> {
    let pair =
        |name, c: Option<PathBuf>, cpp: Option<PathBuf>| Some(Compiler { name, c: c?, cpp: cpp? });
    let gcc = pair("gcc", tools::on_path("gcc"), tools::on_path("g++"));
    let clang = pair("clang", tools::clang("clang"), tools::clang("clang++"));
    gcc.into_iter().chain(clang).collect()
}

impl Compiler {
    /// Compiles a program and links it with the library; the program's path.
    fn compile(
        &self,
        program: &Program,
        standard: &str,
        flags: &[&str],
        library: &Path,
    ) -> Result<PathBuf> {
        // Sanitized or not, a program of its own.
        let has = |word: &str| flags.iter().any(|flag| flag.contains(word));
        let kind = match (has("sanitize"), has("COVERAGE")) {
            (true, _) => "-sanitized",
            (_, true) => "-coverage",
            _ => "",
        };
        let folder = folder(&format!("{}-{standard}{kind}", self.name))?;
        let to = folder.join(format!("{}{}", program.name, std::env::consts::EXE_SUFFIX));
        let mut command = match program.language {
            Language::C => Command::new(&self.c),
            Language::Cpp => Command::new(&self.cpp),
        };
        command.arg(format!("-std={standard}")).args(WARNINGS).args(program.language.warnings());
        command.args(flags).arg("-I").arg(crate::root().join("include"));
        command.arg("-o").arg(&to).arg(program.source()).arg(library);
        if program.language == Language::C {
            command.args(["-lm", "-pthread"]);
        }
        output(&mut command)?;
        Ok(to)
    }
}

impl Language {
    fn warnings(self) -> &'static [&'static str] {
        match self {
            Self::C => &WARNINGS_C,
            Self::Cpp => &WARNINGS_CPP,
        }
    }
}

/// A folder for products.
fn folder(name: &str) -> Result<PathBuf> {
    let folder = crate::target().join("c").join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The arguments of `cargo rustc` that make the static library.
pub(crate) const LIBRARY: [&str; 8] = [
    "--quiet",
    "--package",
    "mha-ffi",
    "--lib",
    "--crate-type",
    "staticlib",
    "--features",
    "panic-handler",
];

/// Builds the static library for this machine, with names that say which function is which.
pub(crate) fn library() -> Result<PathBuf> {
    // A folder of its own: the flags are not those of other builds.
    let target = crate::target().join("library");
    let mut cargo = Command::new(cross::host_cargo());
    cargo.current_dir(crate::root()).args(["rustc", "--release"]).args(LIBRARY);
    cargo.arg("--target-dir").arg(&target);
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", disassembly::FLAGS);
    call(&mut cargo)?;
    let library = target.join("release/libmha_ffi.a");
    ensure!(library.exists(), "cargo has made no {}", library.display());
    Ok(library)
}

/// Mistakes that the types of `mha.hpp` tell the compiler about, and a word of what it must say.
const MISTAKES: [(&str, &str); 6] = [
    ("layer.forward<shape>(mha::inputs(x), y);", "nodiscard"),
    ("constexpr mha::layer<config> other(x, w, w, w);", "no match"),
    (
        "static float few[3]; (void)layer.forward<shape>(mha::inputs(x), y, few).ok();",
        "shorter than",
    ),
    ("float short_y[1]; (void)layer.forward<shape>(mha::inputs(x), short_y).ok();", "no match"),
    (
        "static constexpr mha::config odd = mha::config(mha::square(2)).heads(3); mha::layer<odd> l(w, w, w, w);",
        "does not divide",
    ),
    (
        "static constexpr mha::config none = mha::config(mha::square(0)); (void)mha::layer<none>::wq_len;",
        "is zero",
    ),
];

/// Each of them is refused, and the program without any is not.
fn must_not_compile() -> Result<()> {
    let folder = folder("mistakes")?;
    let compilers = compilers();
    let compiler = compilers.first().context("no C++ compiler")?;
    let source = folder.join("mistake.cpp");
    for (i, (mistake, word)) in [("", "")].iter().chain(&MISTAKES).enumerate() {
        let text = format!(
            "#include \"mha.hpp\"\n\
             constexpr float w[] = {{1.0f, 0.0f, 0.0f, 1.0f}};\n\
             constexpr mha::config config = mha::config(mha::square(2)).heads(1);\n\
             constexpr mha::shape shape{{1, 1, 1}};\n\
             constexpr mha::layer<config> layer(w, w, w, w);\n\
             int main()\n{{\n\
             static float x[2], y[2];\n\
             {mistake}\n\
             return static_cast<int>(x[0] + y[0]) + (layer.check().ok() ? 0 : 1);\n}}\n"
        );
        fs::write(&source, text)?;
        let mut cpp = Command::new(&compiler.cpp);
        cpp.args(["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-I"]);
        let result = cpp.arg(crate::root().join("include")).arg(&source).output()?;
        let said = String::from_utf8_lossy(&result.stderr);
        ensure!(
            result.status.success() == (i == 0),
            "`{mistake}` compiles, or nothing does:\n{said}"
        );
        ensure!(said.contains(word), "`{mistake}` is refused, but not for {word:?}:\n{said}");
    }
    Ok(())
}

/// The functions that the header declares.
pub(crate) fn declared() -> Result<BTreeSet<String>> {
    let header = fs::read_to_string(crate::root().join("include/mha.h"))?;
    let functions = header.lines().filter_map(|line| {
        // Such as `mha_status mha_forward(const struct mha_layer *layer,`.
        let before = line.starts_with(|c: char| c.is_ascii_lowercase()).then_some(line)?;
        let (name, _) = before.split_once('(')?;
        let name = name.rsplit([' ', '*']).next()?;
        name.starts_with("mha_").then(|| name.to_owned())
    });
    Ok(functions.collect())
}

/// The library defines what the header declares and nothing else of that name, and needs nothing but
/// what every compiler expects to be there.
fn symbols(library: &Path) -> Result<()> {
    let nm = tools::llvm("nm").context("no llvm-nm")?;
    let said = output(Command::new(nm).arg("--extern-only").arg(library))?;
    // A blank line between the members of the archive; ours is the one with our functions.
    let ours = said.split("\n\n").find(|member| member.contains(" T mha_forward"));
    let ours = ours.context("no function mha_forward in the library")?;
    let symbols = |kind: fn(&str) -> bool| -> BTreeSet<String> {
        let words = ours.lines().map(|line| line.split_whitespace().rev().collect::<Vec<_>>());
        let found = words.filter(|words| words.get(1).is_some_and(|word| kind(word)));
        found
            .filter_map(|words| words.first().map(|name| name.trim_start_matches('_').to_owned()))
            .collect()
    };
    let defined = symbols(|kind| kind == "T");
    let declared = declared()?;
    ensure!(declared.len() > 20, "only {} functions in the header", declared.len());
    let missing: Vec<_> = declared.difference(&defined).collect();
    ensure!(missing.is_empty(), "declared but not in the library: {missing:?}");
    let others: Vec<_> = defined.difference(&declared).collect();
    ensure!(others.is_empty(), "in the library but not declared: {others:?}");
    let allowed = ["memcpy", "memmove", "memset", "memcmp", "bcmp"];
    let needed = symbols(|kind| kind == "U");
    let others: Vec<_> = needed.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
    ensure!(others.is_empty(), "the library needs {others:?}");
    eprintln!("   {} functions; needs {needed:?}", defined.len());
    Ok(())
}

/// The folders of cases that are run more slowly than by this machine alone.
const CASES: [&str; 2] = ["cases", "cases_family"];

/// The case files of the repository, those in some folders, through a program that speaks the protocol.
fn run_cases(command: Command, folders: &[&str]) -> Result<()> {
    let mut door = Process::start("c", command)?;
    let mut passed = 0;
    let mut paths = Vec::new();
    for folder in folders {
        paths.extend(files(&crate::root().join("tests").join(folder))?);
    }
    for path in paths {
        // What cannot be read is the business of the suite of the cases.
        let Ok(case) = Case::read(&path) else { continue };
        let answer = door.run(&case.call).with_context(|| path.display().to_string())?;
        let comparisons = case.compare(&answer);
        ensure!(
            comparisons.iter().all(Comparison::passed),
            "{}: {}",
            path.display(),
            comparisons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        );
        passed += 1;
    }
    ensure!(passed >= 1000, "only {passed} case files could be read");
    eprintln!("   {passed} cases passed");
    Ok(())
}

/// What the door says to requests that no case makes.
fn protocol(runner: &Path) -> Result<()> {
    let cases = files(&crate::root().join("tests/cases"))?;
    let mut calls = cases.iter().filter_map(|path| Some(Case::read(path).ok()?.call));
    let call = calls.find(|call| matches!(call.causal, Causality::None)).context("no case")?;
    let request = wire::request(&call);
    let answer = |request: &[u8]| -> Result<(bool, Vec<u8>)> {
        let pipe = Stdio::piped;
        let mut child =
            Command::new(runner).stdin(pipe()).stdout(pipe()).stderr(Stdio::null()).spawn()?;
        let mut input = child.stdin.take().context("no pipe")?;
        // A door that refuses a request does not read it to its end.
        let _ = input.write_all(request);
        drop(input);
        let output = child.wait_with_output()?;
        Ok((output.status.success(), output.stdout))
    };
    let words = |index: usize, word: u64| {
        let mut changed = request.clone();
        if let Some(bytes) = changed.get_mut(index * 8..index * 8 + 8) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        changed
    };
    let usual = answer(&request)?;
    ensure!(usual.0 && usual.1.starts_with(&0u64.to_le_bytes()), "the request itself fails");

    // One more word, which this door does not know: fine while it is zero.
    let end = (2 + wire::WORDS) * 8;
    let mut longer = words(1, wire::WORDS as u64 + 1);
    longer.splice(end..end, 0u64.to_le_bytes());
    ensure!(answer(&longer)? == usual, "a longer header of zeros is not the same");
    if let Some(byte) = longer.get_mut(end) {
        *byte = 1;
    }
    let (fine, said) = answer(&longer)?;
    let newer = (wire::NEWER as u64).to_le_bytes();
    ensure!(fine && said.starts_with(&newer), "a newer request gets {said:?}");

    for (what, request) in [
        ("no magic number", words(0, 1)),
        ("a short header", words(1, 31)),
        ("an end in the header", request.get(..100).unwrap_or_default().to_vec()),
        ("an end in the payload", request.get(..request.len() - 1).unwrap_or_default().to_vec()),
    ] {
        let (fine, said) = answer(&request)?;
        ensure!(!fine && said.is_empty(), "{what} is answered {said:?}");
    }

    // A wrong word: an answer with status, length and text, and then the next request.
    let mut two = words(2 + 14, 7);
    two.extend(&request);
    let (fine, said) = answer(&two)?;
    let message = "causal: not a valid value";
    let mut expected = (6u64 | 18 << 8).to_le_bytes().to_vec();
    expected.extend((message.len() as u64).to_le_bytes());
    expected.extend(message.bytes());
    expected.extend(&usual.1);
    ensure!(fine && said == expected, "a wrong word gets {:?}", String::from_utf8_lossy(&said));
    Ok(())
}

/// The programs and the case files under valgrind, which sees into the library too.
fn valgrind(library: &Path) -> Result<()> {
    let compilers = compilers();
    let compiler = compilers.first().context("no C compiler")?;
    for program in &PROGRAMS {
        // Arithmetic by the million, and no memory to speak of.
        if program.name == "sizes" {
            continue;
        }
        let standard = program.language.usual();
        let path = compiler.compile(program, standard, &["-O1"], library)?;
        let command = || {
            let mut valgrind = Command::new("valgrind");
            valgrind.args(["--quiet", "--error-exitcode=9", "--leak-check=full"]);
            valgrind.arg("--suppressions=tests/c/valgrind.supp").current_dir(crate::root());
            // Nobody sees how a program ends that is asked for cases: it ends in the middle of one.
            valgrind.arg("--exit-on-first-error=yes").arg(&path);
            valgrind
        };
        program.run(&mut command())?;
        if program.name == "run_cases" {
            run_cases(command(), &CASES)?;
        }
    }
    Ok(())
}

/// The C and C++ blocks of the README are parts of the examples, which are compiled and run.
fn examples() -> Result<()> {
    let readme = crate::root().join("README.md");
    let readme = fs::read_to_string(&readme).with_context(|| readme.display().to_string())?;
    for (language, tag) in [(Language::C, "c"), (Language::Cpp, "cpp")] {
        let example = Program { name: "example", language, says: EXAMPLE }.source();
        let source = fs::read_to_string(&example)?;
        let fence = format!("```{tag}\n");
        let blocks = readme.split(fence.as_str()).skip(1);
        let blocks: Vec<_> = blocks.filter_map(|rest| rest.split("```").next()).collect();
        ensure!(!blocks.is_empty(), "README.md has no block of {tag}");
        for block in blocks {
            ensure!(
                source.contains(block.trim_end()),
                "README.md: a block is not in {}:\n{block}",
                example.display()
            );
        }
    }
    Ok(())
}

/// The C programs on bare metal, in the emulator: the header's formulas for small machines, 32-bit
/// sizes, and a link without a panic path.
fn cortex_m() -> Result<()> {
    let cross = Cross::new(tools::CORTEX_M4F);
    call(cross.cargo("rustc")?.arg("--release").args(LIBRARY))?;
    let library = cross.folder("release").join("libmha_ffi.a");
    let folder = folder("mps2-an386")?;
    let board = crate::root().join("tests/c/board");
    let machine = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"];
    let startup = folder.join("startup.o");
    let mut gcc = Command::new("arm-none-eabi-gcc");
    gcc.args(machine).args(["-std=c99", "-O2", "-c"]).args(WARNINGS).args(WARNINGS_C);
    output(gcc.arg(board.join("startup.c")).arg("-o").arg(&startup))?;
    for program in &PROGRAMS {
        // There is no standard input worth the name, nor are there threads; the wrapper's test wants more
        // of a standard library than firmware has.
        if ["run_cases", "threads", "train", "wrapper"].contains(&program.name) {
            continue;
        }
        let (compiler, standard) = match program.language {
            Language::C => ("arm-none-eabi-gcc", "-std=c99"),
            Language::Cpp => ("arm-none-eabi-g++", "-std=c++17"),
        };
        let image = folder.join(format!("{}{standard}", program.name)).with_extension("elf");
        let mut gcc = Command::new(compiler);
        gcc.args(machine).arg(standard).arg("-O2").args(WARNINGS).args(program.language.warnings());
        gcc.arg("-I").arg(crate::root().join("include"));
        gcc.arg(program.source()).arg(&startup).arg(&library).arg("-lm");
        gcc.args(["-nostartfiles", "--specs=nano.specs", "--specs=rdimon.specs"]);
        gcc.args(["-u", "_printf_float", "-Wl,--gc-sections", "-Wl,--no-warn-execstack"]);
        gcc.arg("-T").arg(board.join("mps2-an386.ld")).arg("-o").arg(&image);
        output(&mut gcc)?;
        let mut qemu = Command::new("qemu-system-arm");
        qemu.args(["-M", "mps2-an386", "-display", "none", "-monitor", "none", "-serial", "none"]);
        qemu.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(&image);
        program.run(&mut qemu)?;
    }
    Ok(())
}
