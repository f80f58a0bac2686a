//! `cargo xtask stack`: how deep each function of the C interface can go at most, and that none calls
//! itself, by way of whatever others.
//!
//! Every function says how much stack it takes (`-Z emit-stack-sizes`), and the relocations of the one
//! object say which calls which: there are no calls through pointers, so the deepest path is a bound.
//! What `memcpy`, `memmove`, `memset` and the helpers of soft floats take is theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex};

use crate::archive;
use crate::boards::{BOARDS, board};
use crate::builds::Build;
use crate::c::declared;
use crate::tools;

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The boards; the default one where none is named
    #[arg(value_name = "BOARD")]
    boards: Vec<String>,
    /// Also show the way down from this function
    #[arg(long, value_name = "FUNCTION")]
    path: Option<String>,
}

/// More than any function of any build takes; in bytes.
const BOUND: u64 = 6656;

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    tools::get(&[&tools::RUST_CORTEX_M, &tools::LLVM]);
    let boards: Vec<_> = match args.boards.is_empty() {
        true => vec![&BOARDS[0]],
        false => args.boards.iter().map(|name| board(name)).collect::<Result<_>>()?,
    };
    for board in boards {
        let graph = Graph::of(board.build)?;
        println!("{}: {}", board.name, board.build.cores);
        for function in declared()? {
            println!("{:>8}  {function}", graph.depth(&function)?);
        }
        if let Some(function) = &args.path {
            for name in graph.path(function)? {
                let demangled = format!("{:#}", rustc_demangle::demangle(&name));
                println!("{:>8}  {demangled}", graph.own(&name));
            }
        }
    }
    Ok(())
}

/// The suite's step for a board: no recursion, and no function deeper than the bound.
pub(crate) fn check(build: &Build) -> Result<()> {
    let graph = Graph::of(build)?;
    let mut deepest = (0, String::new());
    for function in declared()? {
        deepest = deepest.max((graph.depth(&function)?, function));
    }
    let (depth, function) = deepest;
    eprintln!("   {function} is the deepest: {depth} bytes at most");
    ensure!(depth <= BOUND, "{function} takes {depth} bytes of stack, more than {BOUND}");
    Ok(())
}

/// Which function calls which, and what each takes.
struct Graph {
    sizes: BTreeMap<String, u64>,
    calls: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn of(build: &Build) -> Result<Self> {
        let folder = crate::target().join("stack").join(build.name);
        let (object, _) = archive::link(build, &build.cross_with_stack_sizes(), &folder)?;
        Self::read(&object)
    }

    /// From an object in which every function has a section of its own.
    fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path)?;
        let file = object::File::parse(&*bytes)?;
        let mut at: BTreeMap<(usize, u64), String> = BTreeMap::new();
        for symbol in file.symbols().filter(|symbol| symbol.kind() == object::SymbolKind::Text) {
            let Some(section) = symbol.section_index() else { continue };
            // The lowest bit says that a function of Arm's is in Thumb code.
            at.insert((section.0, symbol.address() & !1), symbol.name()?.to_owned());
        }
        let mut graph = Self { sizes: BTreeMap::new(), calls: BTreeMap::new() };
        // What lies in a section at or before an offset.
        let find = |section: SectionIndex, offset: u64| {
            let before = at.range((section.0, 0)..=(section.0, offset));
            before.last().map(|(_, name)| name.clone())
        };
        let target_of = |relocation: &object::Relocation, addend: u64| -> Result<Option<String>> {
            let RelocationTarget::Symbol(index) = relocation.target() else { return Ok(None) };
            let symbol = file.symbol_by_index(index)?;
            let Some(section) = symbol.section_index() else {
                return Ok(Some(symbol.name()?.to_owned()));
            };
            let is_text = file.section_by_index(section)?.kind() == object::SectionKind::Text;
            if !is_text {
                return Ok(None);
            }
            let is_section = symbol.kind() == object::SymbolKind::Section;
            let offset = (symbol.address() & !1) + if is_section { addend & !1 } else { 0 };
            Ok(find(section, offset))
        };
        for section in file.sections() {
            if section.name()? == ".stack_sizes" {
                let data = section.data()?;
                let mut targets = BTreeMap::new();
                for (offset, relocation) in section.relocations() {
                    let place = usize::try_from(offset)?;
                    let implicit = data.get(place..place + 4).context("a cut-off section")?;
                    let implicit = u32::from_le_bytes(implicit.try_into()?).into();
                    let addend = if relocation.has_implicit_addend() {
                        implicit
                    } else {
                        relocation.addend().cast_unsigned()
                    };
                    targets.insert(place, target_of(&relocation, addend)?);
                }
                let width = if file.is_64() { 8 } else { 4 };
                for (place, function) in targets {
                    let (mut size, mut shift) = (0, 0);
                    for byte in data.get(place + width..).unwrap_or_default() {
                        size |= u64::from(byte & 0x7f) << shift;
                        shift += 7;
                        if byte & 0x80 == 0 {
                            break;
                        }
                    }
                    graph.sizes.insert(function.context("a size of nothing")?, size);
                }
            } else if section.kind() == object::SectionKind::Text {
                for (offset, relocation) in section.relocations() {
                    let Some(caller) = find(section.index(), offset) else { continue };
                    let addend = relocation.addend().max(0).cast_unsigned();
                    if let Some(callee) = target_of(&relocation, addend)? {
                        let recursive = callee == caller
                            && !matches!(relocation.kind(), object::RelocationKind::PltRelative);
                        // Jumps inside of a function have relocations on RISC-V.
                        if !recursive {
                            graph.calls.entry(caller).or_default().insert(callee);
                        }
                    }
                }
            }
        }
        ensure!(graph.sizes.len() > 50, "only {} functions say what they take", graph.sizes.len());
        Ok(graph)
    }

    /// What a function takes by itself.
    fn own(&self, function: &str) -> u64 {
        self.sizes.get(function).copied().unwrap_or(0)
    }

    /// What a function and those below it take at most.
    fn depth(&self, function: &str) -> Result<u64> {
        Ok(self.path(function)?.iter().map(|name| self.own(name)).sum())
    }

    /// The deepest way down.
    fn path(&self, function: &str) -> Result<Vec<String>> {
        let mut known = BTreeMap::new();
        self.walk(function, &mut Vec::new(), &mut known)?;
        let mut path = vec![function.to_owned()];
        while let Some((_, Some(next))) = path.last().and_then(|name| known.get(name)) {
            path.push(next.clone());
        }
        Ok(path)
    }

    fn walk(
        &self,
        function: &str,
        above: &mut Vec<String>,
        known: &mut BTreeMap<String, (u64, Option<String>)>,
    ) -> Result<u64> {
        if let Some((depth, _)) = known.get(function) {
            return Ok(*depth);
        }
        if above.iter().any(|name| name == function) {
            bail!("{function} calls itself, by {}", above.join(", "));
        }
        above.push(function.to_owned());
        let mut deepest = (0, None);
        for callee in self.calls.get(function).into_iter().flatten() {
            let depth = self.walk(callee, above, known)?;
            if depth > deepest.0 {
                deepest = (depth, Some(callee.clone()));
            }
        }
        above.pop();
        let depth = self.own(function) + deepest.0;
        known.insert(function.to_owned(), (depth, deepest.1));
        Ok(depth)
    }
}
