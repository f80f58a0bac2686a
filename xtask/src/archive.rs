//! The archive that is shipped: one relocatable object in which nothing is global but the functions of
//! the header.
//!
//! A static library as Rust makes it brings the compiler's whole run-time library, under names such as
//! `memcpy` and `expf`, which a firmware would take instead of its own, and which a second such library
//! would define again. So what is needed of it is linked in and made local, and what every C compiler
//! has anyway is left undefined: `memcpy`, `memmove`, `memset`, and without an FPU the helpers for
//! floats.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use object::read::elf::{ElfFile32, FileHeader as _};
use object::{Object, ObjectSection};

use crate::builds::Build;
use crate::c::{LIBRARY, declared};
use crate::cross::Cross;
use crate::report::{call, output};
use crate::tools;

/// The archive's file.
pub(crate) const FILE: &str = "libmha.a";

/// What the archive may need of whoever links it, whatever the processor.
const MEMORY: [&str; 3] = ["memcpy", "memmove", "memset"];

/// Makes the archive of a build; its path.
pub(crate) fn make(build: &Build) -> Result<PathBuf> {
    let folder = crate::target().join("archives").join(build.name);
    let functions = declared()?;
    let (linked, outside) = link(build, &build.cross(), &folder)?;

    // Only the functions of the header stay global.
    let product = folder.join("mha.o");
    let list = folder.join("functions.txt");
    fs::write(&list, functions.iter().map(|name| format!("{name}\n")).collect::<String>())?;
    let mut objcopy = llvm("objcopy")?;
    objcopy.arg(format!("--keep-global-symbols={}", list.display()));
    objcopy.args(["--strip-debug", "--remove-section=.llvmbc", "--remove-section=.llvmcmd"]);
    objcopy.args(["--remove-section=.comment", "--remove-section=.rmeta"]);
    let names: BTreeSet<_> = outside.iter().map(|(_, outside)| outside).collect();
    let local = folder.join("local.o");
    call_quietly(objcopy.arg(&linked).arg(&local))?;
    let mut objcopy = llvm("objcopy")?;
    objcopy.args(names.iter().map(|name| format!("--redefine-sym=mha_outside_{name}={name}")));
    call_quietly(objcopy.arg(&local).arg(&product))?;
    if build.is_arm() && build.has_floats() {
        fit_every_float_abi(&product)?;
    }

    // The same bytes wherever it is built.
    let archive = folder.join(FILE);
    let _ = fs::remove_file(&archive);
    call_quietly(llvm("ar")?.args(["rcsD"]).arg(&archive).arg(&product))?;
    check(build, &archive, &functions)?;
    Ok(archive)
}

/// The library of a build as one object, with what is to be needed from outside under names that nothing
/// defines; and those names, as the compiler wrote them and as C has them.
pub(crate) fn link(
    build: &Build,
    cross: &Cross,
    folder: &Path,
) -> Result<(PathBuf, Vec<(String, String)>)> {
    fs::create_dir_all(folder)?;
    let functions = declared()?;
    let raw = raw(build, cross)?;

    // 1. The library's own object.
    let members = output(llvm("ar")?.arg("t").arg(&raw))?;
    let ours: Vec<_> = members.lines().filter(|name| name.starts_with("mha_ffi-")).collect();
    let &[ours] = &ours[..] else { bail!("{ours:?} are ours, not one object") };
    let object = folder.join("ours.o");
    let bytes = llvm("ar")?.arg("p").arg(&raw).arg(ours).output()?.stdout;
    fs::write(&object, bytes)?;

    // 2. What whoever links it shall bring gets names that nothing here defines.
    let needed = undefined(&object)?;
    let outside: Vec<_> = needed
        .iter()
        .filter_map(|name| Some((name.clone(), outside(build, name)?.to_owned())))
        .collect();
    let mut objcopy = llvm("objcopy")?;
    for (name, outside) in &outside {
        objcopy.arg(format!("--redefine-sym={name}=mha_outside_{outside}"));
    }
    let apart = folder.join("apart.o");
    call_quietly(objcopy.arg(&object).arg(&apart))?;

    // 3. Everything else out of the compiler's library, and nothing that no function reaches.
    let linked = folder.join("linked.o");
    let mut ld = Command::new(linker()?);
    ld.args(["-r", "--gc-sections"]);
    ld.args(functions.iter().flat_map(|name| ["-u", name]));
    call_quietly(ld.arg(&apart).arg(&raw).arg("-o").arg(&linked))?;
    Ok((linked, outside))
}

/// The static library as Rust makes it.
fn raw(build: &Build, cross: &Cross) -> Result<PathBuf> {
    let mut cargo = cross.cargo("rustc")?;
    cargo.args(["--profile", build.profile]).args(LIBRARY).args(["--features", "one-object"]);
    cargo.args(build.feature.map(|feature| format!("--features={feature}")));
    call(&mut cargo)?;
    Ok(cross.folder(build.profile).join("libmha_ffi.a"))
}

/// What an undefined symbol becomes in the archive, if it is left to whoever links that.
fn outside<'a>(build: &Build, name: &'a str) -> Option<&'a str> {
    if let Some(name) = MEMORY.into_iter().find(|memory| *memory == name) {
        return Some(name);
    }
    (!build.has_floats() && name.starts_with("__")).then_some(name)
}

/// The archive defines what the header declares and nothing else, and needs what it may.
fn check(build: &Build, archive: &Path, functions: &BTreeSet<String>) -> Result<()> {
    let defined = output(llvm("nm")?.args(["--extern-only", "--defined-only"]).arg(archive))?;
    let defined: BTreeSet<_> =
        defined.lines().filter_map(|line| Some(line.split(" T ").nth(1)?.to_owned())).collect();
    ensure!(defined == *functions, "{}: other functions than the header's", archive.display());
    for name in undefined(archive)? {
        ensure!(outside(build, &name).is_some(), "{} needs {name}", archive.display());
    }
    let all = output(llvm("nm")?.arg(archive))?;
    for word in ["panic", "unwind", "eh_personality", "__rust_alloc"] {
        ensure!(!all.contains(word), "{} has a symbol with {word} in it", archive.display());
    }
    Ok(())
}

/// The names that a file leaves undefined.
pub(crate) fn undefined(path: &Path) -> Result<BTreeSet<String>> {
    let said = output(llvm("nm")?.args(["--undefined-only", "--format=just-symbols"]).arg(path))?;
    let names = said.lines().filter(|line| !line.is_empty() && !line.ends_with(':'));
    Ok(names.map(str::to_owned).collect())
}

/// Says in an object's attributes that it may be linked with objects of every convention of passing
/// floats: no function that others can call passes any.
fn fit_every_float_abi(path: &Path) -> Result<()> {
    /// `Tag_ABI_VFP_args`, and its value for "compatible with all".
    const TAG: (u8, u8) = (28, 3);
    let mut bytes = fs::read(path)?;
    let file = ElfFile32::<object::Endianness>::parse(&*bytes)?;
    ensure!(file.elf_header().e_machine(file.endian()) == object::elf::EM_ARM);
    let section = file.section_by_name(".ARM.attributes").context("no attributes")?;
    let (start, length) = section.file_range().context("empty attributes")?;
    let (start, length) = (usize::try_from(start)?, usize::try_from(length)?);
    let place = place_of_tag(&bytes[start..start + length], TAG.0).context("no such attribute")?;
    bytes[start + place] = TAG.1;
    fs::write(path, bytes)?;
    Ok(())
}

/// Where the value of an attribute with a small number lies in a section of one vendor and one
/// sub-section for the whole file.
fn place_of_tag(section: &[u8], tag: u8) -> Option<usize> {
    /// Tags below 64 whose values are strings: CPU_raw_name, CPU_name and compatibility, which begins
    /// with a number.
    const STRINGS: [u8; 2] = [4, 5];
    let end_of_string = |at: usize| Some(at + section.get(at..)?.iter().position(|&b| b == 0)? + 1);
    // Version, length, vendor; then the tag of the file and a length.
    let mut at = end_of_string(5)? + 5;
    while let Some(&found) = section.get(at) {
        if found == tag {
            return Some(at + 1);
        }
        let wide = found & 0x80 != 0;
        // Values and tags are groups of seven bits; strings are those of odd tags from 64 on.
        let number = if wide {
            u32::from(found & 0x7f) | u32::from(*section.get(at + 1)?) << 7
        } else {
            found.into()
        };
        at += if wide { 2 } else { 1 };
        if STRINGS.contains(&found) || number == 67 {
            at = end_of_string(at)?;
        } else {
            while section.get(at)? & 0x80 != 0 {
                at += 1;
            }
            at += 1;
        }
    }
    None
}

fn llvm(tool: &str) -> Result<Command> {
    Ok(Command::new(tools::llvm(tool).with_context(|| format!("no llvm-{tool}"))?))
}

/// LLVM's linker, which makes one object of several.
fn linker() -> Result<PathBuf> {
    let found = tools::on_path("ld.lld-22").or_else(|| tools::on_path("ld.lld"));
    found.context("no ld.lld: install LLVM's lld")
}

fn call_quietly(command: &mut Command) -> Result<()> {
    output(command).map(|_| ())
}
