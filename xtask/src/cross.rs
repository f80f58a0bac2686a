//! Building for other machines.
//!
//! Where rustup has the target installed, that is used. Elsewhere Debian's rustc-web, which comes
//! with the source of the standard library, builds `core` along. Every set of flags has a target
//! directory of its own, because a change of flags rebuilds everything; and so has every part of the
//! standard library, so that builds for different kinds of machines do not wait for each other.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// How much of the standard library a build needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Library {
    /// `core` alone: firmware.
    Core,
    /// `core` and `alloc`: WebAssembly.
    #[allow(dead_code, reason = "for whoever builds without std but with a heap")]
    Alloc,
    /// All of it.
    #[allow(dead_code, reason = "for tests that run on another machine")]
    Std,
}

/// A build for another machine.
///
/// ```ignore
/// let cross = Cross::new("thumbv7em-none-eabihf");
/// report::call(cross.cargo("build")?.args(["--release", "--package", "mha-firmware"]))?;
/// let image = cross.folder("release").join("mha-firmware");
/// ```
pub(crate) struct Cross {
    target: String,
    library: Library,
    flags: String,
}

/// Who compiles.
enum Toolchain {
    /// The cargo that runs this program, with the target installed by rustup.
    Rustup,
    /// Debian's, which builds the standard library itself.
    Debian,
}

impl Cross {
    /// A build for `target` that needs `core` alone.
    pub(crate) fn new(target: &str) -> Self {
        Self { target: target.into(), library: Library::Core, flags: String::new() }
    }

    /// Says how much of the standard library is needed.
    #[allow(dead_code, reason = "see Library")]
    pub(crate) fn library(self, library: Library) -> Self {
        Self { library, ..self }
    }

    /// Sets the compiler's flags (`RUSTFLAGS`).
    #[allow(dead_code, reason = "for builds that turn instructions on")]
    pub(crate) fn flags(self, flags: &str) -> Self {
        Self { flags: flags.into(), ..self }
    }

    /// `cargo WORD` for the target, ready for more arguments. An error that says how to get the
    /// target where it cannot be built.
    pub(crate) fn cargo(&self, word: &str) -> Result<Command> {
        let target = &self.target;
        let Some(toolchain) = toolchain(target) else {
            bail!("no Rust for {target}: {}", remedy(target));
        };
        let mut command = match toolchain {
            Toolchain::Rustup => Command::new(host_cargo()),
            Toolchain::Debian => debian_cargo(target),
        };
        command.arg(word).args(["--target", target]).arg("--target-dir").arg(self.target_dir());
        if matches!(toolchain, Toolchain::Debian) {
            command.arg(match self.library {
                Library::Core => "-Zbuild-std=core",
                Library::Alloc => "-Zbuild-std=core,alloc",
                Library::Std => "-Zbuild-std=std,panic_abort",
            });
        }
        command.current_dir(crate::root());
        // Flags of the environment override those of .cargo/config.toml.
        command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        if !self.flags.is_empty() {
            command.env("RUSTFLAGS", &self.flags);
        }
        Ok(command)
    }

    /// Where a build of the given profile (`release`, `debug`) leaves its products.
    pub(crate) fn folder(&self, profile: &str) -> PathBuf {
        self.target_dir().join(&self.target).join(profile)
    }

    fn target_dir(&self) -> PathBuf {
        let words = self.flags.split(|c: char| !c.is_ascii_alphanumeric());
        let library = match self.library {
            Library::Core => "core",
            Library::Alloc => "alloc",
            Library::Std => "std",
        };
        let words = std::iter::once(library).chain(words.filter(|word| !word.is_empty()));
        crate::target().join("cross").join(words.collect::<Vec<_>>().join("-"))
    }
}

/// Whether there is a compiler for the target.
pub(crate) fn available(target: &str) -> bool {
    toolchain(target).is_some()
}

/// The line that gets a compiler for the target.
pub(crate) fn remedy(target: &str) -> String {
    format!("rustup target add {target}")
}

fn toolchain(target: &str) -> Option<Toolchain> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    let installed = sysroot.join("lib/rustlib").join(target).join("lib");
    if installed.is_dir() {
        return Some(Toolchain::Rustup);
    }
    debian().then_some(Toolchain::Debian)
}

/// Whether Debian's rustc is new enough for this repository, brings the library's source and has a
/// linker.
fn debian() -> bool {
    let source = Path::new("/usr/lib/rustlib/src/rust/library/core/Cargo.toml");
    let version = Command::new("/usr/bin/rustc").arg("--version").output();
    let version = version.map(|v| String::from_utf8_lossy(&v.stdout).into_owned());
    let minor = version.ok().and_then(|v| v.split('.').nth(1)?.parse::<u32>().ok());
    let programs = ["/usr/bin/cargo", "/usr/bin/ld.lld-22", "/usr/bin/wasm-ld-22"];
    let programs = programs.iter().all(|program| Path::new(program).exists());
    source.exists() && programs && minor >= Some(89)
}

/// The cargo that runs this program.
pub(crate) fn host_cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

fn debian_cargo(target: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(PathBuf::from("/usr/bin")).chain(std::env::split_paths(&path));
    let mut command = Command::new("/usr/bin/cargo");
    if let Ok(path) = std::env::join_paths(path) {
        command.env("PATH", path);
    }
    command.env("RUSTC", "/usr/bin/rustc").env("RUSTDOC", "/usr/bin/rustdoc");
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    // Stable, with the one unstable option that builds the library.
    command.env("RUSTC_BOOTSTRAP", "1");
    if let Some(linker) = linker(target) {
        let name = target.to_uppercase().replace(['-', '.'], "_");
        command.env(format!("CARGO_TARGET_{name}_LINKER"), linker);
    }
    command
}

/// The linker, where the compiler's own default is not what Debian has.
fn linker(target: &str) -> Option<&'static str> {
    if target.starts_with("wasm32") {
        Some("wasm-ld-22")
    } else if target.starts_with("thumb") || target.starts_with("riscv32") {
        Some("ld.lld-22")
    } else if target == "aarch64-unknown-linux-gnu" {
        Some("aarch64-linux-gnu-gcc")
    } else {
        None
    }
}
