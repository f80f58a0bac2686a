//! Prints a hash of what each family of kernels answers to each case, to be compared with what another
//! machine prints. A machine without fused kernels prints one family.

use std::path::Path;

use anyhow::{Context, Result};
use mha::Isa;
use mha_conformance::{Case, Door, Rust, Scratch, files};

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).context("which folder of cases?")?;
    let fused = Isa::available().find(|isa| isa.is_fused());
    for path in files(Path::new(&folder))? {
        let case = Case::read(&path)?;
        for (family, isa) in [("unfused", Some(Isa::PORTABLE)), ("fused", fused)] {
            let Some(isa) = isa else { continue };
            let answer = Rust::new(isa, Scratch::Recommended).run(&case.call)?;
            // FNV-1a. Which of the many NaNs it is, processors choose.
            let hash =
                answer.y.iter().chain(&answer.scores).fold(0xcbf2_9ce4_8422_2325, |hash, x| {
                    let bits = if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() };
                    (hash ^ u64::from(bits)).wrapping_mul(0x100_0000_01b3)
                });
            println!("{family} {hash:016x} {}", path.display());
        }
    }
    Ok(())
}
