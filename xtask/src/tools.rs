//! The programs from outside that the tests use: what for, how each is found, the line that gets it.
//!
//! As root on Debian the tests install what is missing, naming it first. Elsewhere nothing is
//! touched outside of the target directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cross;
use crate::report::{call, output};

/// A program from outside, or several that come together.
pub(crate) struct Tool {
    /// What it is called.
    pub(crate) name: &'static str,
    purpose: &'static str,
    found: fn() -> bool,
    /// The target of Rust that it is, for rustup; Debian's Rust builds any.
    target: Option<&'static str>,
    debian: &'static [&'static str],
    /// The line for macOS; by Homebrew where it has the program.
    mac: &'static str,
}

/// Debian's Rust, whose standard library comes as source and is built for every target.
const RUST_WEB: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "lld-22"];

/// The target of the browser and of Node.
pub(crate) const WASM: &str = "wasm32-unknown-unknown";
/// The target of the firmware demo.
pub(crate) const CORTEX_M4F: &str = "thumbv7em-none-eabihf";
/// The target that is tested by emulation.
pub(crate) const AARCH64: &str = "aarch64-unknown-linux-gnu";

/// GCC for this machine.
pub(crate) const GCC: Tool = Tool {
    name: "gcc and g++",
    purpose: "builds the C and C++ test programs",
    found: || on_path("gcc").is_some() && on_path("g++").is_some(),
    target: None,
    debian: &["gcc", "g++", "libc6-dev"],
    mac: "xcode-select --install",
};

/// Clang for this machine, with its sanitizers.
pub(crate) const CLANG: Tool = Tool {
    name: "clang",
    purpose: "builds the C and C++ test programs a second time",
    found: || clang("clang").is_some() && clang("clang++").is_some(),
    target: None,
    debian: &["clang-22", "libclang-rt-22-dev"],
    mac: "xcode-select --install",
};

/// LLVM's tools for object files.
pub(crate) const LLVM: Tool = Tool {
    name: "LLVM's nm, objcopy, objdump, size and readelf",
    purpose: "look into object files and images",
    found: || {
        ["nm", "objcopy", "objdump", "size", "readelf"].iter().all(|tool| llvm(tool).is_some())
    },
    target: None,
    debian: &["llvm-22"],
    mac: "brew install llvm",
};

/// Memory errors in C programs.
pub(crate) const VALGRIND: Tool = Tool {
    name: "valgrind",
    purpose: "looks for memory errors in the C test programs",
    found: || on_path("valgrind").is_some(),
    target: None,
    debian: &["valgrind", "libc6-dbg"],
    mac: "valgrind does not run on macOS",
};

/// Rust for WebAssembly.
pub(crate) const RUST_WASM: Tool = Tool {
    name: "Rust for wasm32-unknown-unknown",
    purpose: "builds the JavaScript package",
    found: || cross::available(WASM),
    target: Some(WASM),
    debian: &[],
    mac: "",
};

/// Rust for Cortex-M.
pub(crate) const RUST_CORTEX_M: Tool = Tool {
    name: "Rust for thumbv7em-none-eabihf",
    purpose: "builds the firmware demo",
    found: || cross::available(CORTEX_M4F),
    target: Some(CORTEX_M4F),
    debian: &[],
    mac: "",
};

/// Rust for 64-bit Arm under Linux, and what runs its programs elsewhere.
pub(crate) const RUST_AARCH64: Tool = Tool {
    name: "Rust for aarch64-unknown-linux-gnu, its linker and an emulator",
    purpose: "runs the tests on another kind of processor",
    found: || {
        let programs = ["qemu-aarch64", "aarch64-linux-gnu-gcc"];
        cross::available(AARCH64) && programs.iter().all(|program| on_path(program).is_some())
    },
    target: Some(AARCH64),
    debian: &["qemu-user", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
    mac: "qemu's user mode does not run on macOS",
};

/// Node.
pub(crate) const NODE: Tool = Tool {
    name: "Node and npm",
    purpose: "run the JavaScript package and get its build tools",
    found: || node_version() >= Some(18) && on_path("npm").is_some(),
    target: None,
    debian: &["nodejs", "npm"],
    mac: "brew install node",
};

/// A browser.
pub(crate) const CHROMIUM: Tool = Tool {
    name: "Chromium",
    purpose: "runs the attention page and the package in bundles",
    found: || chromium().is_some(),
    target: None,
    debian: &["chromium"],
    mac: "brew install --cask chromium",
};

/// Where Chromium lies.
pub(crate) fn chromium() -> Option<PathBuf> {
    ["chromium", "chromium-browser", "google-chrome"].iter().find_map(|name| on_path(name))
}

/// Python with its installer.
pub(crate) const PYTHON: Tool = Tool {
    name: "Python and pip",
    purpose: "gets ONNX's cases and a trained model from PyPI",
    found: crate::python::found,
    target: None,
    debian: &["python3", "python3-pip"],
    mac: "brew install python",
};

/// An emulator of Cortex-M boards.
pub(crate) const QEMU: Tool = Tool {
    name: "qemu-system-arm and qemu-system-riscv32",
    purpose: "run the firmware demo",
    found: || ["arm", "riscv32"].iter().all(|a| on_path(&format!("qemu-system-{a}")).is_some()),
    target: None,
    debian: &["qemu-system-arm", "qemu-system-misc"],
    mac: "brew install qemu",
};

/// GCC for Cortex-M.
pub(crate) const ARM_GCC: Tool = Tool {
    name: "arm-none-eabi-gcc",
    purpose: "checks the header with the firmware engineers' compiler",
    found: || on_path("arm-none-eabi-gcc").is_some(),
    target: None,
    debian: &["gcc-arm-none-eabi", "libnewlib-arm-none-eabi", "libstdc++-arm-none-eabi-newlib"],
    mac: "brew install --cask gcc-arm-embedded",
};

/// GCC for bare RISC-V.
pub(crate) const RISCV_GCC: Tool = Tool {
    name: "riscv64-unknown-elf-gcc",
    purpose: "builds the firmware in C for RISC-V",
    found: || on_path("riscv64-unknown-elf-gcc").is_some(),
    target: None,
    debian: &["gcc-riscv64-unknown-elf"],
    mac: "brew install riscv64-elf-gcc",
};

impl Tool {
    /// Whether it is there.
    pub(crate) fn found(&self) -> bool {
        (self.found)()
    }

    /// The line that gets it on this machine.
    pub(crate) fn line(&self) -> String {
        let mut lines = Vec::new();
        // Without root, or without Debian, rustup is the way to a target.
        let rustup = self.target.filter(|_| !(is_debian() && (is_root() || !has_rustup())));
        if let Some(target) = rustup {
            lines.push(cross::remedy(target));
        }
        let packages = if rustup.is_some() { self.debian.to_vec() } else { self.packages() };
        if is_debian() && !packages.is_empty() {
            let sudo = if is_root() { "" } else { "sudo " };
            let packages = packages.join(" ");
            lines.push(format!("{sudo}apt-get install -y --no-install-recommends {packages}"));
        } else if cfg!(target_os = "macos") && !self.mac.is_empty() {
            lines.push(self.mac.into());
        } else if !packages.is_empty() {
            lines.push(format!("install what Debian calls {}", packages.join(" ")));
        }
        lines.join(" && ")
    }

    /// All that it takes on Debian.
    fn packages(&self) -> Vec<&'static str> {
        let rust = if self.target.is_some() { RUST_WEB } else { &[] };
        [rust, self.debian].concat()
    }
}

/// Names what is missing and, as root on Debian, installs it.
pub(crate) fn get(tools: &[&Tool]) {
    let missing: Vec<_> = tools.iter().filter(|tool| !tool.found()).collect();
    if missing.is_empty() {
        return;
    }
    for tool in &missing {
        eprintln!("missing: {} ({}): {}", tool.name, tool.purpose, tool.line());
    }
    if is_debian() && is_root() {
        let packages = missing.iter().flat_map(|tool| tool.packages()).collect();
        if let Err(error) = install(packages) {
            eprintln!("{error:#}");
        }
    }
}

/// One call of apt-get for all of them. A package that this Debian does not have is left out, so
/// that it does not keep the others away.
fn install(packages: BTreeSet<&str>) -> Result<()> {
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.args(["-o", "DPkg::Lock::Timeout=600"]).env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    call(apt().args(["update", "-qq"]))?;
    let known = |package: &&str| {
        let known = output(Command::new("apt-cache").args(["show", "--quiet", package])).is_ok();
        if !known {
            eprintln!("   Debian has no {package} here");
        }
        known
    };
    let packages: Vec<_> = packages.into_iter().filter(known).collect();
    eprintln!("   installing {}", packages.join(" "));
    // What it says fills pages and matters only where it fails.
    output(apt().args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages))?;
    Ok(())
}

/// Where a program lies.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A program of Clang (`clang`, `clang++`), under its versioned name or the plain one.
pub(crate) fn clang(program: &str) -> Option<PathBuf> {
    on_path(&format!("{program}-22")).or_else(|| on_path(program))
}

/// A tool of LLVM (`nm`, `objcopy`, …), under its versioned name or the plain one.
pub(crate) fn llvm(tool: &str) -> Option<PathBuf> {
    on_path(&format!("llvm-{tool}-22")).or_else(|| on_path(&format!("llvm-{tool}")))
}

/// A program out of an npm package, which is put under the target directory where it is not there
/// yet: `npm("binaryen@132.0.0", "wasm-opt")`.
#[allow(dead_code, reason = "for the JavaScript package")]
pub(crate) fn npm(package: &str, program: &str) -> Result<PathBuf> {
    let name = package.replace(['/', '@'], "-");
    let folder = crate::target().join("npm").join(name.trim_matches('-'));
    let program = folder.join("node_modules/.bin").join(program);
    if !program.exists() {
        eprintln!("   missing: {package}: getting it from npm into {}", folder.display());
        std::fs::create_dir_all(&folder).context("cannot make a folder for npm")?;
        let quiet = ["--no-audit", "--no-fund", "--no-save", "--loglevel=error"];
        let mut npm = Command::new("npm");
        call(npm.arg("install").args(quiet).arg("--prefix").arg(&folder).arg(package))?;
    }
    Ok(program)
}

/// Packages from npm with what they need, in a folder of the target directory: its `node_modules`.
pub(crate) fn npm_modules(folder: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = crate::target().join("npm").join(folder);
    let (stamp, wanted) = (folder.join("packages"), packages.join(" "));
    if std::fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
        eprintln!("   getting {wanted} from npm into {}", folder.display());
        std::fs::create_dir_all(&folder).context("cannot make a folder for npm")?;
        let quiet = ["--no-audit", "--no-fund", "--no-save", "--loglevel=error"];
        let mut npm = Command::new("npm");
        call(npm.arg("install").args(quiet).arg("--prefix").arg(&folder).args(packages))?;
        std::fs::write(stamp, wanted)?;
    }
    Ok(folder.join("node_modules"))
}

fn node_version() -> Option<u32> {
    let version = output(Command::new("node").arg("--version")).ok()?;
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && on_path("apt-get").is_some()
}

fn has_rustup() -> bool {
    on_path("rustup").is_some()
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}
