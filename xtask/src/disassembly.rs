//! What the compiler made of the kernels: the innermost loop of every tile, taken from a listing of
//! the built library, holds the multiply-adds of the tile and neither a spill nor a call.
//!
//! The loop is what a product spends its time in; one register that does not fit, or one function that
//! is not inlined, costs more than any idea gains.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::report::output;
use crate::tools;

/// What a kernel's loops are to look like.
pub(crate) struct Loops {
    /// The kernel's type.
    kernel: &'static str,
    /// The multiply-add.
    instruction: &'static str,
    /// What its operands are written with.
    register: &'static str,
    /// Registers that the largest tile has at least.
    largest: usize,
    /// Whether the machine loads a part of a register as it loads all of it; where it has to be put
    /// together in memory, only whole registers are checked.
    masks: bool,
}

/// The kernels of x86-64.
pub(crate) const X86_64: [Loops; 2] = [
    Loops {
        kernel: "Avx2Kernel",
        instruction: "vfmadd",
        register: "ymm",
        largest: 12,
        masks: true,
    },
    Loops {
        kernel: "Avx512Kernel",
        instruction: "vfmadd",
        register: "zmm",
        largest: 24,
        masks: true,
    },
];

/// The kernel of aarch64.
pub(crate) const AARCH64: [Loops; 1] = [Loops {
    kernel: "NeonKernel",
    instruction: "fmla",
    register: ".4s",
    largest: 24,
    masks: false,
}];

/// The compiler's flags for a library that [`check`] can read: names that say which tile it is.
pub(crate) const FLAGS: &str = "-Csymbol-mangling-version=v0";

/// Checks every tile of the kernels in a library.
pub(crate) fn check(library: &Path, kernels: &[Loops]) -> Result<()> {
    let objdump = tools::llvm("objdump").context("no llvm-objdump")?;
    let mut objdump = Command::new(objdump);
    objdump.args(["--disassemble", "--demangle", "--no-show-raw-insn"]);
    if kernels.iter().any(|loops| loops.kernel.starts_with("Avx")) {
        objdump.arg("--x86-asm-syntax=intel");
    }
    let listing = output(objdump.arg(library))?;
    for loops in kernels {
        let tiles = loops.check(&listing)?;
        eprintln!("   {}: {tiles} tiles", loops.kernel);
    }
    Ok(())
}

/// One line of a listing.
struct Instruction<'a> {
    address: u64,
    text: &'a str,
}

impl Instruction<'_> {
    /// Where a branch leads; nothing if it is none.
    fn target(&self) -> Option<u64> {
        let name = self.text.split_whitespace().next()?;
        if !(name.starts_with('j')
            || name.starts_with("b.")
            || matches!(name, "b" | "cbz" | "cbnz" | "tbz" | "tbnz"))
        {
            return None;
        }
        let (before, _) = self.text.split_once('<')?;
        let target = before.split([' ', '\t', ',']).rfind(|word| !word.is_empty())?;
        u64::from_str_radix(target.trim_start_matches("0x"), 16).ok()
    }

    fn is_call(&self) -> bool {
        self.text
            .split_whitespace()
            .next()
            .is_some_and(|name| matches!(name, "call" | "bl" | "blr"))
    }
}

impl Loops {
    /// Checks every tile; gives how many there are.
    fn check(&self, listing: &str) -> Result<usize> {
        // A tile is a function inside of which is another with the features turned on, unless that
        // has become one with it.
        let mut tiles: BTreeMap<(usize, usize, usize), Vec<usize>> = BTreeMap::new();
        for function in listing.split("\n\n") {
            let Some((name, body)) = function.trim_start().split_once(":\n") else { continue };
            let Some(tile) = self.tile(name) else { continue };
            let context =
                || format!("{}, {} × {} registers, lanes {}", self.kernel, tile.0, tile.1, tile.2);
            let loops = self.hot_loop(body).with_context(context)?;
            tiles.entry(tile).or_default().extend(loops);
        }
        let kernel = self.kernel;
        for (&(rows, vectors, lanes), loops) in &tiles {
            let expected = rows * vectors;
            match loops[..] {
                [found] if found > 0 && found % expected == 0 => {}
                _ => bail!(
                    "{kernel}, {rows} × {vectors} registers, lanes {lanes}: loops of {loops:?} \
                     multiply-adds, not one of {expected}"
                ),
            }
        }
        let largest = tiles.keys().map(|(rows, vectors, _)| rows * vectors).max().unwrap_or(0);
        ensure!(largest >= self.largest, "{kernel}: the largest tile has {largest} registers");
        Ok(tiles.len())
    }

    /// Rows, registers of columns and the kind of lanes of a tile whose lanes lie side by side.
    fn tile(&self, name: &str) -> Option<(usize, usize, usize)> {
        let (kernel, function) = name.split_once(" as mha::kernel::generic::Tiles>::tile::")?;
        let function = function.strip_prefix("shell::").unwrap_or(function);
        let numbers = function.strip_prefix('<')?.split('>').next()?;
        let mut numbers = numbers.split(", ").map(|number| number.parse().ok());
        let tile = (numbers.next()??, numbers.next()??, numbers.next()??);
        (kernel.ends_with(self.kernel) && tile.2 <= usize::from(self.masks)).then_some(tile)
    }

    /// The multiply-adds of each innermost loop that has some. Fails for a loop that does more than
    /// to read its operands.
    fn hot_loop(&self, body: &str) -> Result<Vec<usize>> {
        let code: Vec<Instruction<'_>> = body
            .lines()
            .filter_map(|line| {
                let (address, text) = line.split_once(':')?;
                let address = u64::from_str_radix(address.trim(), 16).ok()?;
                Some(Instruction { address, text: text.trim() })
            })
            .collect();
        let backward = |instruction: &&Instruction<'_>| {
            instruction.target().is_some_and(|target| target <= instruction.address)
        };
        // A register that a frame does not need holds an operand's address.
        let framed = code.iter().any(|i| i.text.split_whitespace().eq(["mov", "rbp,", "rsp"]));
        let mut found = Vec::new();
        for end in code.iter().filter(backward) {
            let start = end.target().unwrap_or(0);
            let inside = |i: &&Instruction<'_>| (start..=end.address).contains(&i.address);
            if code.iter().filter(inside).filter(backward).count() > 1 {
                continue;
            }
            let multiply_adds = code
                .iter()
                .filter(inside)
                .filter(|i| i.text.starts_with(self.instruction) && i.text.contains(self.register))
                .count();
            if multiply_adds == 0 {
                continue;
            }
            for i in code.iter().filter(inside) {
                ensure!(!i.is_call(), "a call in the loop: {}", i.text);
                let stack = i.text.contains("[rsp") || i.text.contains("[sp");
                let stack = stack || framed && i.text.contains("[rbp");
                ensure!(!stack, "a spill in the loop: {}", i.text);
            }
            found.push(multiply_adds);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPS: Loops = Loops {
        kernel: "Avx2Kernel",
        instruction: "vfmadd",
        register: "ymm",
        largest: 2,
        masks: true,
    };

    /// A tile of two rows of one register, as the disassembler prints it.
    const LISTING: &str = "\
0000000000000000 <<mha::kernel::Avx2Kernel as mha::kernel::generic::Tiles>::tile::<2, 1, 0>>:
       0:      \tjmp\t0x5 <<mha::kernel::Avx2Kernel as mha::kernel::generic::Tiles>::tile::<2, 1, 0>+0x5>

0000000000000000 <<mha::kernel::Avx2Kernel as mha::kernel::generic::Tiles>::tile::shell::<2, 1, 0>>:
       0:      \tpush\trbp
       4:      \tje\t0x30 <<mha::kernel::Avx2Kernel as mha::kernel::generic::Tiles>::tile::shell::<2, 1, 0>+0x30>
      10:      \tvmovups\tymm2, ymmword ptr [rcx]
      14:      \tvbroadcastss\tymm3, dword ptr [rbp]
      18:      \tvfmadd231ps\tymm0, ymm3, ymm2
      1c:      \tvbroadcastss\tymm4, dword ptr [rbp + 4*r8]
      20:      \tvfmadd231ps\tymm1, ymm4, ymm2
      24:      \tadd\trbp, 0x4
      28:      \tdec\trax
      2c:      \tjne\t0x10 <<mha::kernel::Avx2Kernel as mha::kernel::generic::Tiles>::tile::shell::<2, 1, 0>+0x10>
      30:      \tvmovups\tymmword ptr [rsp], ymm0
      34:      \tret
";

    #[test]
    fn a_loop_of_multiply_adds_passes() {
        assert_eq!(LOOPS.check(LISTING).expect("it passes"), 1);
    }

    /// What the check is for: each of these is what a compiler has done to such a loop.
    #[test]
    fn what_does_not_belong_into_the_loop_is_found() {
        let add = "      24:      \tadd\trbp, 0x4\n";
        for (from, to, word) in [
            (add, "      24:      \tvmovups\tymm5, ymmword ptr [rsp + 0x20]\n", "spill"),
            (add, "      24:      \tvfmadd231ps\tymm5, ymm3, ymmword ptr [rsp]\n", "spill"),
            (add, "      24:      \tcall\t0x90 <memcpy>\n", "call"),
            (add, "      24:      \tvfmadd231ps\tymm5, ymm3, ymm2\n", "multiply-adds"),
            ("push\trbp", "mov\trbp, rsp", "spill"),
            ("vfmadd231ps\tymm1", "vmulps\tymm1", "multiply-adds"),
            ("vfmadd231ps\tymm0, ymm3, ymm2", "vfmadd231ps\txmm0, xmm3, xmm2", "multiply-adds"),
            ("jne\t0x10", "jne\t0x30", "multiply-adds"),
            ("<2, 1, 0>", "<1, 1, 0>", "largest"),
        ] {
            let doctored = LISTING.replace(from, to);
            assert_ne!(doctored, LISTING);
            let error = LOOPS.check(&doctored).expect_err(to);
            assert!(format!("{error:#}").contains(word), "{to}: {error:#}");
        }
    }
}
