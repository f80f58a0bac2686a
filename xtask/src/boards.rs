//! The boards that QEMU has, and what is built for each.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::builds::{self, Build};
use crate::{cross, tools};

/// A board that QEMU has, and what is built for it.
pub(crate) struct Board {
    /// What it is called here: QEMU's name for it, and what runs on it where that is not its own.
    pub(crate) name: &'static str,
    /// Its processor.
    pub(crate) core: &'static str,
    /// What is built for it.
    pub(crate) build: &'static Build,
    /// The emulator.
    pub(crate) qemu: &'static str,
    /// QEMU's name for it, and that of its folder in `demos/firmware/boards`.
    pub(crate) machine: &'static str,
    /// Whether its memory holds the programs that are not models.
    pub(crate) is_roomy: bool,
}

impl Board {
    /// A board of Arm's.
    const fn arm(machine: &'static str, core: &'static str, build: &'static Build) -> Self {
        let qemu = "qemu-system-arm";
        Self { name: machine, core, build, qemu, machine, is_roomy: true }
    }

    /// Its memory, in the linker's words.
    pub(crate) fn memory(&self) -> PathBuf {
        crate::root().join("demos/firmware/boards").join(self.machine).join("memory.x")
    }

    /// What this machine lacks to build for the board and run it, and how to get it.
    pub(crate) fn lack(&self) -> Option<String> {
        let target = self.build.target;
        if !cross::available(target) {
            return Some(format!("no Rust for {target}: {}", cross::remedy(target)));
        }
        if tools::on_path(self.qemu).is_none() {
            return Some(format!("no {}: {}", self.qemu, tools::QEMU.line()));
        }
        None
    }

    /// The emulator with an image.
    pub(crate) fn emulator(&self, image: &std::path::Path) -> Command {
        let mut command = Command::new(self.qemu);
        command.args(["-M", self.machine]);
        if !self.build.is_arm() {
            command.args(["-bios", "none"]);
        }
        command.args(["-display", "none", "-monitor", "none", "-serial", "none"]);
        command.args(["-semihosting-config", "enable=on,target=native"]);
        command.arg("-kernel").arg(image);
        command
    }
}

/// Every board, the default one first. Its memory is described in `demos/firmware/boards`.
pub(crate) const BOARDS: &[Board] = &[
    Board::arm("mps2-an386", "Cortex-M4F", &builds::THUMBV7EM_FP),
    Board::arm("mps2-an500", "Cortex-M7", &builds::THUMBV7EM_FP_M7),
    Board::arm("mps2-an505", "Cortex-M33", &builds::THUMBV8M_FP),
    Board::arm("mps3-an547", "Cortex-M55", &builds::THUMBV8_1M_FP),
    Board {
        name: "mps3-an547-helium",
        ..Board::arm("mps3-an547", "Cortex-M55", &builds::THUMBV8_1M_MVE)
    },
    Board::arm("mps2-an385", "Cortex-M3", &builds::THUMBV7M),
    Board {
        name: "microbit",
        is_roomy: false,
        ..Board::arm("microbit", "Cortex-M0", &builds::THUMBV6M)
    },
    Board { name: "mps2-an385-m0", ..Board::arm("mps2-an385", "Cortex-M0", &builds::THUMBV6M) },
    Board {
        name: "mps2-an386-size",
        ..Board::arm("mps2-an386", "Cortex-M4F", &builds::THUMBV7EM_FP_SIZE)
    },
    Board {
        name: "microbit-size",
        is_roomy: false,
        ..Board::arm("microbit", "Cortex-M0", &builds::THUMBV6M_SIZE)
    },
    Board { qemu: "qemu-system-riscv32", ..Board::arm("virt", "RV32IMC", &builds::RISCV32IMC) },
];

/// The board of a name.
pub(crate) fn board(name: &str) -> Result<&'static Board> {
    let found = BOARDS.iter().find(|board| board.name == name);
    found.with_context(|| format!("no board {name}: `cargo xtask firmware --list` lists them"))
}

/// Prints the boards and what this machine lacks for each.
pub(crate) fn list() {
    for board in BOARDS {
        let lack = board.lack().unwrap_or_else(|| "ready".into());
        println!("{:<18} {:<12} {:<28} {lack}", board.name, board.core, board.build.target);
    }
}
