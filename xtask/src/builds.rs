//! What the library is built for: an architecture, and what of its processor is made use of.
//!
//! The archives of `cargo xtask dist c` and the images of `cargo xtask firmware` are the same builds.

use crate::cross::Cross;

/// A build of the library.
pub(crate) struct Build {
    /// What its archive is called.
    pub(crate) name: &'static str,
    /// The processors that it is for.
    pub(crate) cores: &'static str,
    /// What Rust calls the target.
    pub(crate) target: &'static str,
    /// What Rust calls the processor, where more than the target is made use of.
    pub(crate) cpu: Option<&'static str>,
    /// The library's feature for it.
    pub(crate) feature: Option<&'static str>,
    /// Cargo's profile: `release`, or `size` for the least code.
    pub(crate) profile: &'static str,
    /// What the macros of a C compiler say where its objects may be linked with this archive, and no
    /// other archive is the better choice; empty where macros cannot tell.
    pub(crate) when: &'static str,
    /// The compiler of C for it.
    pub(crate) gcc: &'static str,
    /// What that compiler is told.
    pub(crate) flags: &'static [&'static str],
}

/// Cortex-M55 without its vectors: for a board's tests, not shipped.
pub(crate) const THUMBV8_1M_FP: Build = Build {
    name: "thumbv8.1m.main-fp",
    cores: "Cortex-M55 without Helium",
    feature: None,
    ..THUMBV8_1M_MVE
};

const ARM_GCC: &str = "arm-none-eabi-gcc";
const RISCV_GCC: &str = "riscv64-unknown-elf-gcc";

pub(crate) const THUMBV6M: Build = Build {
    name: "thumbv6m",
    cores: "Cortex-M0, M0+, M1",
    target: "thumbv6m-none-eabi",
    cpu: None,
    feature: None,
    profile: "release",
    when: "defined(__ARM_ARCH_6M__)",
    gcc: ARM_GCC,
    flags: &["-mcpu=cortex-m0", "-mthumb"],
};

pub(crate) const THUMBV7M: Build = Build {
    name: "thumbv7m",
    cores: "Cortex-M3",
    target: "thumbv7m-none-eabi",
    when: "defined(__ARM_ARCH_7M__)",
    flags: &["-mcpu=cortex-m3", "-mthumb"],
    ..THUMBV6M
};

const THUMBV7EM: Build = Build {
    name: "thumbv7em",
    cores: "Cortex-M4, M7 without an FPU",
    target: "thumbv7em-none-eabi",
    when: "defined(__ARM_ARCH_7EM__) && !defined(__ARM_FP)",
    flags: &["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=soft"],
    ..THUMBV6M
};

pub(crate) const THUMBV7EM_FP: Build = Build {
    name: "thumbv7em-fp",
    cores: "Cortex-M4F",
    target: "thumbv7em-none-eabihf",
    when: "defined(__ARM_ARCH_7EM__) && defined(__ARM_FP)",
    flags: &["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"],
    ..THUMBV6M
};

pub(crate) const THUMBV7EM_FP_M7: Build = Build {
    name: "thumbv7em-fp-m7",
    cores: "Cortex-M7 with an FPU",
    cpu: Some("cortex-m7"),
    feature: Some("cortex-m7"),
    // No macro of GCC's tells an M7 from an M4.
    when: "",
    flags: &["-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"],
    ..THUMBV7EM_FP
};

const THUMBV8M: Build = Build {
    name: "thumbv8m.main",
    cores: "Cortex-M33, M35P without an FPU",
    target: "thumbv8m.main-none-eabi",
    when: "defined(__ARM_ARCH_8M_MAIN__) && !defined(__ARM_FP)",
    flags: &["-mcpu=cortex-m33", "-mthumb", "-mfloat-abi=soft"],
    ..THUMBV6M
};

pub(crate) const THUMBV8M_FP: Build = Build {
    name: "thumbv8m.main-fp",
    cores: "Cortex-M33, M35P with an FPU",
    target: "thumbv8m.main-none-eabihf",
    cpu: Some("cortex-m33"),
    when: "defined(__ARM_ARCH_8M_MAIN__) && defined(__ARM_FP) && !(__ARM_FEATURE_MVE & 2)",
    flags: &["-mcpu=cortex-m33", "-mthumb", "-mfloat-abi=hard"],
    ..THUMBV6M
};

pub(crate) const THUMBV8_1M_MVE: Build = Build {
    name: "thumbv8.1m.main-mve",
    cores: "Cortex-M55, M85 with Helium's floats",
    target: "thumbv8m.main-none-eabihf",
    cpu: Some("cortex-m55"),
    feature: Some("helium"),
    when: "__ARM_FEATURE_MVE & 2",
    flags: &["-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"],
    ..THUMBV6M
};

pub(crate) const RISCV32IMC: Build = Build {
    name: "riscv32imc",
    cores: "RV32IMC",
    target: "riscv32imc-unknown-none-elf",
    cpu: None,
    feature: None,
    profile: "release",
    when: "__riscv_xlen == 32 && defined(__riscv_compressed) && !defined(__riscv_atomic)",
    gcc: RISCV_GCC,
    flags: &["-march=rv32imc", "-mabi=ilp32", "-msmall-data-limit=0", "-mno-relax"],
};

const RISCV32IMAC: Build = Build {
    name: "riscv32imac",
    cores: "RV32IMAC",
    target: "riscv32imac-unknown-none-elf",
    when: "__riscv_xlen == 32 && defined(__riscv_compressed) && defined(__riscv_atomic)",
    flags: &["-march=rv32imac", "-mabi=ilp32", "-msmall-data-limit=0", "-mno-relax"],
    ..RISCV32IMC
};

/// A build with the least code, for whoever asks for it by name.
const fn least(name: &'static str, of: Build) -> Build {
    Build { name, feature: Some("size"), profile: "size", when: "", ..of }
}

pub(crate) const THUMBV6M_SIZE: Build = least("thumbv6m-size", THUMBV6M);
const THUMBV7M_SIZE: Build = least("thumbv7m-size", THUMBV7M);
const THUMBV7EM_SIZE: Build = least("thumbv7em-size", THUMBV7EM);
pub(crate) const THUMBV7EM_FP_SIZE: Build = least("thumbv7em-fp-size", THUMBV7EM_FP);
const THUMBV8M_SIZE: Build = least("thumbv8m.main-size", THUMBV8M);
const THUMBV8M_FP_SIZE: Build = least("thumbv8m.main-fp-size", THUMBV8M_FP);
const RISCV32IMC_SIZE: Build = least("riscv32imc-size", RISCV32IMC);
const RISCV32IMAC_SIZE: Build = least("riscv32imac-size", RISCV32IMAC);

const AARCH64: Build = Build {
    name: "aarch64-linux",
    cores: "64-bit Arm under Linux",
    target: "aarch64-unknown-linux-gnu",
    cpu: None,
    feature: None,
    profile: "release",
    when: "defined(__aarch64__) && defined(__linux__)",
    gcc: "aarch64-linux-gnu-gcc",
    flags: &[],
};

pub(crate) const X86_64: Build = Build {
    name: "x86_64-linux",
    cores: "x86-64 under Linux",
    target: "x86_64-unknown-linux-gnu",
    when: "defined(__x86_64__) && defined(__linux__)",
    gcc: "gcc",
    ..AARCH64
};

/// Those that are shipped.
pub(crate) const SHIPPED: [&Build; 20] = [
    &THUMBV6M,
    &THUMBV7M,
    &THUMBV7EM,
    &THUMBV7EM_FP,
    &THUMBV7EM_FP_M7,
    &THUMBV8M,
    &THUMBV8M_FP,
    &THUMBV8_1M_MVE,
    &RISCV32IMC,
    &RISCV32IMAC,
    &THUMBV6M_SIZE,
    &THUMBV7M_SIZE,
    &THUMBV7EM_SIZE,
    &THUMBV7EM_FP_SIZE,
    &THUMBV8M_SIZE,
    &THUMBV8M_FP_SIZE,
    &RISCV32IMC_SIZE,
    &RISCV32IMAC_SIZE,
    &AARCH64,
    &X86_64,
];

impl Build {
    /// Whether its kernel is of the fused family.
    pub(crate) fn is_fused(&self) -> bool {
        self.feature == Some("helium")
    }

    /// Whether the processor computes floats itself.
    pub(crate) fn has_floats(&self) -> bool {
        self.target.ends_with("hf") || !self.is_bare()
    }

    /// Whether there is no operating system.
    pub(crate) fn is_bare(&self) -> bool {
        self.target.contains("-none-")
    }

    /// Whether the target is Arm's 32-bit one.
    pub(crate) fn is_arm(&self) -> bool {
        self.target.starts_with("thumb")
    }

    /// A build for it.
    pub(crate) fn cross(&self) -> Cross {
        let cross = Cross::new(self.target);
        match self.cpu {
            Some(_) => cross.flags(&self.flags_of_rust()),
            None => cross,
        }
    }

    /// The same in which every function says how much stack it takes.
    pub(crate) fn cross_with_stack_sizes(&self) -> Cross {
        Cross::new(self.target).flags(&format!("{} -Z emit-stack-sizes", self.flags_of_rust()))
    }

    /// Flags that are given replace those of .cargo/config.toml.
    fn flags_of_rust(&self) -> String {
        let bare = if self.is_bare() { "-C llvm-args=-unroll-runtime=false" } else { "" };
        let cpu = self.cpu.map(|cpu| format!(" -C target-cpu={cpu}")).unwrap_or_default();
        format!("{bare}{cpu}")
    }
}
