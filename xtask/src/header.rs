//! `cargo xtask header`: writes include/mha.h from the C interface's source.

use std::fs;

use anyhow::{Context, Result, ensure};
use cbindgen::{Braces, Config, DocumentationStyle, Language, RenameRule, Style};

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail where the committed header is not what would be written
    #[arg(long)]
    check: bool,
}

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    if args.check { check() } else { write() }
}

/// The files with items of the interface, in the order in which the header has them.
const SOURCES: [&str; 18] = [
    "version",
    "status",
    "status/number",
    "status/text",
    "isa",
    "types",
    "options",
    "cache",
    "call",
    "family",
    "backward/types",
    "backward/keeping",
    "backward/call",
    "backward/apart",
    "backward/size",
    "backward/message",
    "size",
    "init",
];

/// Enumerations that no signature names: a word from C may hold anything, so it is an integer.
const ENUMERATIONS: [&str; 10] = [
    "mha_kind",
    "mha_argument",
    "mha_isa",
    "mha_weight_order",
    "mha_causal_mode",
    "mha_scores_at",
    "mha_alibi_kind",
    "mha_rope_kind",
    "mha_norm_kind",
    "mha_select",
];

/// Fails where the committed header is not what the source says.
pub(crate) fn check() -> Result<()> {
    let path = path();
    let committed = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let fresh = generate()?;
    let same = committed.lines().zip(fresh.lines()).take_while(|(a, b)| a == b).count();
    ensure!(
        committed == fresh,
        "include/mha.h is not what the source says, from line {} on: run `cargo xtask header`",
        same + 1
    );
    Ok(())
}

fn write() -> Result<()> {
    let path = path();
    fs::write(&path, generate()?).with_context(|| path.display().to_string())?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

fn path() -> std::path::PathBuf {
    crate::root().join("include/mha.h")
}

/// The header's text.
fn generate() -> Result<String> {
    let folder = crate::root().join("ffi");
    let part = |name: &str| {
        let path = folder.join("header").join(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        anyhow::Ok(text.trim_end().to_owned())
    };
    let mut config = Config {
        language: Language::C,
        header: Some(part("manual.h")?),
        after_includes: Some(format!("\n{}", part("macros.h")?)),
        trailer: Some(part("trailer.h")?),
        include_guard: Some("MHA_H".into()),
        no_includes: true,
        sys_includes: vec!["stddef.h".into(), "stdint.h".into()],
        cpp_compat: true,
        usize_is_size_t: true,
        style: Style::Both,
        braces: Braces::SameLine,
        line_length: 100,
        tab_width: 4,
        documentation_style: DocumentationStyle::Cxx,
        ..Config::default()
    };
    config.enumeration.prefix_with_name = true;
    config.enumeration.rename_variants = RenameRule::ScreamingSnakeCase;
    config.export.include = ENUMERATIONS.map(String::from).to_vec();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(folder.join("src").join(source).with_extension("rs"));
    }
    let bindings = builder.generate().context("the C interface's source")?;
    let mut text = Vec::new();
    bindings.write(&mut text);
    Ok(String::from_utf8(text)?)
}
