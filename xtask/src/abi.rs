//! `cargo xtask abi`: what a program that was compiled against the header relies on, against the
//! committed list `docs/abi.txt`: every function with its signature, every number that has a name, and
//! where every member of every struct lies, for each of the models of data that the targets have.
//!
//! The layouts are the compilers' own: a file of `sizeof` and `offsetof` is compiled, not run, and its
//! constants are read from the object.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSection};

use crate::report::output;
use crate::tools;

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Take what there is as the list
    #[arg(long)]
    write: bool,
}

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    tools::get(&[&tools::GCC, &tools::ARM_GCC, &tools::RISCV_GCC]);
    if args.write {
        fs::write(path(), list()?)?;
        println!("wrote {}", path().display());
        return Ok(());
    }
    check()
}

fn path() -> PathBuf {
    crate::root().join("docs/abi.txt")
}

/// Compares with the committed list, line by line.
pub(crate) fn check() -> Result<()> {
    let committed = fs::read_to_string(path()).context("docs/abi.txt")?;
    let fresh = list()?;
    let (old, new): (Vec<_>, Vec<_>) = (committed.lines().collect(), fresh.lines().collect());
    let gone: Vec<_> = old.iter().filter(|line| !new.contains(line)).collect();
    let come: Vec<_> = new.iter().filter(|line| !old.contains(line)).collect();
    for line in &gone {
        eprintln!("   - {line}");
    }
    for line in &come {
        eprintln!("   + {line}");
    }
    ensure!(
        gone.is_empty() && come.is_empty(),
        "the interface is not what docs/abi.txt says: {} lines are gone, {} are new. What may change is \
         said in docs/abi.md; `cargo xtask abi --write` rewrites the list",
        gone.len(),
        come.len()
    );
    println!("{} lines, as committed", old.len());
    Ok(())
}

/// A compiler with what it is told.
type Compiler = (&'static str, &'static [&'static str]);

/// A model of data: its name, and compilers that have it with what they are told. All of a name must
/// agree.
const MODELS: [(&str, &[Compiler]); 2] = [
    (
        "32-bit",
        &[
            ("arm-none-eabi-gcc", &["-mcpu=cortex-m0", "-mthumb"]),
            ("arm-none-eabi-gcc", &["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard"]),
            ("arm-none-eabi-gcc", &["-mcpu=cortex-m4", "-mthumb", "-fno-short-enums"]),
            ("riscv64-unknown-elf-gcc", &["-march=rv32imc", "-mabi=ilp32", "-ffreestanding"]),
        ],
    ),
    ("64-bit", &[("gcc", &[]), ("gcc", &["-fshort-enums"]), ("aarch64-linux-gnu-gcc", &[])]),
];

/// The list as it should be.
fn list() -> Result<String> {
    let header = fs::read_to_string(crate::root().join("include/mha.h"))?;
    let mut text = String::from(
        "# What programs compiled against include/mha.h rely on; by `cargo xtask abi --write`.\n",
    );
    for function in functions(&header) {
        writeln!(text, "function {function}")?;
    }
    for (name, value) in numbers(&header) {
        writeln!(text, "number {name} {value}")?;
    }
    let structs = structs(&header)?;
    ensure!(structs.len() > 15, "only {} structs in the header", structs.len());
    for (model, compilers) in MODELS {
        let mut agreed: Option<Vec<u32>> = None;
        for (compiler, flags) in compilers {
            if tools::on_path(compiler).is_none() {
                eprintln!("   {compiler} is not here: its layout is left out");
                continue;
            }
            let layout = layout(compiler, flags, &structs)?;
            match &agreed {
                Some(other) => {
                    ensure!(*other == layout, "{compiler} {flags:?} has another layout");
                }
                None => agreed = Some(layout),
            }
        }
        let Some(layout) = agreed else { bail!("no compiler for {model}") };
        let mut words = layout.into_iter();
        let mut word = || words.next().context("a short table");
        for (name, members) in &structs {
            writeln!(text, "struct {model} {name} size {} align {}", word()?, word()?)?;
            for member in members {
                writeln!(text, "member {model} {name}.{member} at {} size {}", word()?, word()?)?;
            }
        }
    }
    Ok(text)
}

/// The header without comments and preprocessor.
fn code(header: &str) -> String {
    let lines = header.lines().map(|line| line.split("//").next().unwrap_or_default());
    let mut code = String::new();
    let mut inside = false;
    let mut directive = false;
    for line in lines {
        let begins = line.trim_start().starts_with('#');
        let is_directive = begins || directive;
        directive = is_directive && line.trim_end().ends_with('\\');
        if line.contains("/*") {
            inside = true;
        }
        if !inside && !is_directive {
            code.push_str(line);
            code.push('\n');
        }
        if line.contains("*/") {
            inside = false;
        }
    }
    code
}

/// Each function as it is declared, on one line, in order of names.
fn functions(header: &str) -> Vec<String> {
    let code = code(header);
    let declarations = code.split(';').map(|declaration| {
        let words: Vec<_> = declaration.split_whitespace().collect();
        words.join(" ")
    });
    let is_function = |declaration: &String| {
        declaration.ends_with(')') && declaration.contains(" mha_")
            || declaration.contains(" *mha_")
    };
    let mut functions: Vec<_> = declarations
        .filter(|declaration| is_function(declaration) && !declaration.contains("MHA_ASSERT_"))
        .map(|declaration| match declaration.rfind("{ ") {
            Some(at) => declaration[at + 2..].to_owned(),
            None => declaration,
        })
        .collect();
    functions.sort();
    functions
}

/// The enumerators and their values.
fn numbers(header: &str) -> BTreeMap<String, i64> {
    let lines = header.lines().filter_map(|line| {
        let (name, value) = line.trim().strip_suffix(',')?.split_once(" = ")?;
        (name.starts_with("MHA_")).then_some((name.to_owned(), value.parse().ok()?))
    });
    lines.collect()
}

/// The structs and their members, in order.
fn structs(header: &str) -> Result<Vec<(String, Vec<String>)>> {
    let code = code(header);
    let mut structs = Vec::new();
    for rest in code.split("typedef struct ").skip(1) {
        let (name, rest) = rest.split_once(" {").context("a struct without a body")?;
        let (body, _) = rest.split_once('}').context("a struct without an end")?;
        let mut members = Vec::new();
        for declaration in body.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let name = declaration.split('[').next().unwrap_or_default();
            let name = name.rsplit([' ', '*', '\n']).next().unwrap_or_default();
            members.push(name.to_owned());
        }
        structs.push((name.trim().to_owned(), members));
    }
    structs.sort();
    Ok(structs)
}

/// What a compiler says: for each struct its size and alignment, then each member's place and size.
fn layout(compiler: &str, flags: &[&str], structs: &[(String, Vec<String>)]) -> Result<Vec<u32>> {
    let folder = crate::target().join("c/abi");
    fs::create_dir_all(&folder)?;
    let mut source = String::from(
        "#include \"mha.h\"\n__attribute__((section(\".layout\"), used)) const uint32_t mha_layout[] = {\n",
    );
    for (name, members) in structs {
        writeln!(source, "(uint32_t)sizeof({name}), (uint32_t)_Alignof({name}),")?;
        for member in members {
            writeln!(
                source,
                "(uint32_t)offsetof({name}, {member}), (uint32_t)sizeof((({name} *)0)->{member}),"
            )?;
        }
    }
    source.push_str("};\n");
    let (from, to) = (folder.join("layout.c"), folder.join("layout.o"));
    fs::write(&from, source)?;
    let mut cc = Command::new(compiler);
    cc.args(flags).args(["-std=c11", "-c", "-I"]).arg(crate::root().join("include"));
    output(cc.arg(&from).arg("-o").arg(&to))?;
    let bytes = fs::read(&to)?;
    let file = object::File::parse(&*bytes)?;
    let section = file.section_by_name(".layout").context("no section")?;
    let words = section.data()?.as_chunks::<4>().0;
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}
