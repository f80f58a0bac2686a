//! The attention page: built from demos/page over the npm package, served, and tested in a browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use mha::Isa;
use mha_nets::{digits, drawing, vowels};

use crate::report::{Report, call};
use crate::tools;
use crate::wasm::{self, copy, fresh};

/// The bundler.
const ESBUILD: &str = "esbuild@0.28.2";

/// A driver of browsers and a judge of accessibility.
const BROWSER: [&str; 2] = ["playwright-core@1.65.1", "axe-core@4.14.1"];

/// The case files that come with the page; demos/page/src/data.ts names them in this order.
const CASES: [&str; 1] = ["cases/pytorch/unbatched_mask"];

/// What is added to millionths, so that none is negative.
const MIDDLE: u32 = 1 << 22;

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only write the page, into target/page: files that work from any path, and from a folder
    #[arg(long)]
    build: bool,
    /// Where it is served on this machine
    #[arg(long, default_value_t = 8000)]
    port: u16,
}

/// Builds the page, and serves it.
pub(crate) fn run(Args { build, port }: Args) -> Result<()> {
    let stage = stage()?;
    self::build(&stage)?;
    println!("{}", folder().display());
    if build {
        return Ok(());
    }
    let server = crate::root().join("tests/page/support/serve.mjs");
    call(Command::new("node").arg(server).arg(folder()).arg(port.to_string()))
}

/// Where the page is built.
fn folder() -> PathBuf {
    crate::target().join("page")
}

/// Prepares the page's sources, with the package installed beside them and their data written.
pub(crate) fn stage() -> Result<PathBuf> {
    let package = wasm::package()?;
    let stage = crate::target().join("npm/page");
    fresh(&stage)?;
    copy(&crate::root().join("demos/page"), &stage)?;
    copy(&package, &stage.join("node_modules/mha"))?;
    write_data(&stage.join("data"))?;
    Ok(stage)
}

/// Checks the types and bundles.
fn build(stage: &Path) -> Result<()> {
    call(Command::new(tools::npm(wasm::TYPESCRIPT, "tsc")?).arg("--project").arg(stage))?;
    call(node(stage)?.arg("build.mjs").arg(folder()))
}

/// Node in the folder of the page's sources, told where the bundler is.
fn node(stage: &Path) -> Result<Command> {
    let mut node = bundler()?;
    node.current_dir(stage);
    Ok(node)
}

/// Node, told where the bundler is.
pub(crate) fn bundler() -> Result<Command> {
    let modules = tools::npm_modules("bundler", &[ESBUILD])?;
    let mut node = Command::new("node");
    node.env("ESBUILD", modules.join("esbuild/package.json"));
    Ok(node)
}

/// Images of each digit that are learned again while something else is learned: so many of the training split,
/// and as many drawings.
const REHEARSALS: usize = 4;

/// Writes what comes with the page, in one file: lengths, then words (the weights of both networks as
/// floats, an utterance of each speaker in millionths, as it was published), then bytes (an image of
/// each digit to try and some to learn again, cases). The first bytes of all words come first, then all second ones: alike lies by
/// alike, and compresses.
fn write_data(to: &Path) -> Result<()> {
    let demos = crate::root().join("demos");
    let images = mha_desk::digits(&demos)?;
    let network = digits::Digits::committed(Isa::PORTABLE);
    let mut scratch = vec![0.0; digits::Digits::SCRATCH_LEN];
    // Of what was held out, three in 450 are not recognised; those are no examples.
    let mut recognised = |item: &&mha_desk::Digit| {
        let mut logits = [0.0; digits::CLASSES];
        let result = network.classify(&item.image, &mut logits, None, &mut scratch);
        item.held_out && result.is_ok() && mha_nets::best(&logits) == usize::from(item.label)
    };
    let mut bytes = Vec::new();
    for digit in 0..10 {
        let mut of_digit = images.iter().filter(|item| item.label == digit);
        bytes.extend(of_digit.find(&mut recognised).context("no such digit")?.image);
    }
    for digit in 0..10 {
        let learned =
            images.iter().filter(|item| usize::from(item.label) == digit && !item.held_out);
        bytes.extend(learned.take(REHEARSALS).flat_map(|item| item.image));
        bytes.extend((0..REHEARSALS).flat_map(|which| mha_trainer::digits::drawing(digit, which)));
    }
    let mut utterances = Vec::new();
    let spoken = mha_desk::vowels(&demos)?;
    for speaker in 0..vowels::CLASSES {
        let take = |item: &&mha_desk::Vowel| item.held_out && usize::from(item.label) == speaker;
        let item = spoken.iter().find(take).context("no such speaker")?;
        utterances.extend([speaker as u32, item.len as u32]);
        for &value in item.frames[..item.len].as_flattened() {
            let millionths = (f64::from(value) * 1e6).round() + f64::from(MIDDLE);
            ensure!(
                ((millionths - f64::from(MIDDLE)) / 1e6) as f32 == value,
                "{value} has more digits"
            );
            utterances.push(millionths as u32);
        }
    }
    let floats =
        [mha_desk::flat_weights(&demos, "digits")?, mha_desk::flat_weights(&demos, "vowels")?];
    let mut lengths: Vec<_> = floats.iter().map(Vec::len).chain([utterances.len()]).collect();
    for case in CASES {
        let from = crate::root().join("tests").join(case).with_extension("safetensors");
        let case = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        lengths.push(case.len());
        bytes.extend(case);
    }

    let mut all: Vec<u8> = lengths.iter().flat_map(|&len| (len as u32).to_le_bytes()).collect();
    let floats = floats.into_iter().flatten().map(f32::to_le_bytes);
    let words: Vec<_> = floats.chain(utterances.into_iter().map(u32::to_le_bytes)).collect();
    for plane in 0..4 {
        all.extend(words.iter().map(|word| word[plane]));
    }
    all.extend(bytes);
    fs::create_dir_all(to)?;
    fs::write(to.join("data.gz"), wasm::gzip(&all)?)?;
    Ok(())
}

fn write_floats(to: &Path, floats: &[f32]) -> Result<()> {
    let bytes: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
    fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))
}

/// The suite `page`.
pub(crate) fn test(report: &mut Report) {
    let mut staged = None;
    report.step("the page, its types and its size", || {
        let stage = stage()?;
        build(&stage)?;
        staged = Some(stage);
        Ok(())
    });
    let Some(stage) = staged else { return };
    report.step("the networks have the host's bits, every case file is understood", || {
        let expected = stage.join("expected");
        fs::create_dir_all(&expected)?;
        write_expected(&expected)?;
        let mut node = node(&stage)?;
        node.env("PAGE_STAGE", &stage).args(["--test", "--test-reporter=spec"]);
        call(node.args(tests(".test.mjs")?))
    });
    if report.has("the page in a browser", &[&tools::CHROMIUM]) {
        report.step("the page in a browser", || {
            let mut node = browser()?;
            node.env("PAGE", folder()).args(["--test", "--test-reporter=spec"]);
            call(node.args(tests(".browser.mjs")?))
        });
    }
}

/// Node, told where the bundler is and, where there is one, the browser with its driver.
pub(crate) fn browser() -> Result<Command> {
    let modules = tools::npm_modules("browser", &BROWSER)?;
    let chromium = tools::chromium().unwrap_or_default();
    let mut node = bundler()?;
    node.env("BROWSER_MODULES", modules.join("playwright-core/package.json"));
    node.env("CHROMIUM", chromium).current_dir(crate::root());
    Ok(node)
}

/// The test files that end so.
fn tests(ending: &str) -> Result<Vec<PathBuf>> {
    let folder = crate::root().join("tests/page");
    let entries = folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<_> =
        entries.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|path| path.to_string_lossy().ends_with(ending));
    files.sort();
    ensure!(!files.is_empty(), "no {ending} in {}", folder.display());
    Ok(files)
}

/// What the Rust program answers: the logits of every item of the data, with the portable kernel;
/// images of drawings.
fn write_expected(to: &Path) -> Result<()> {
    let demos = crate::root().join("demos");
    let network = digits::Digits::committed(Isa::PORTABLE);
    let (mut items, mut logits) = (Vec::new(), Vec::new());
    let mut scratch = vec![0.0; digits::Digits::SCRATCH_LEN];
    for item in mha_desk::digits(&demos)? {
        let mut one = [0.0; digits::CLASSES];
        network
            .classify(&item.image, &mut one, None, &mut scratch)
            .map_err(|error| anyhow!("{error}"))?;
        items.extend(item.image);
        logits.extend(one);
    }
    fs::write(to.join("images.bin"), items)?;
    write_floats(&to.join("digits.bin"), &logits)?;

    let network = vowels::Vowels::committed(Isa::PORTABLE);
    let (mut items, mut logits) = (Vec::new(), Vec::new());
    let mut scratch = vec![0.0; vowels::Vowels::SCRATCH_LEN];
    for item in mha_desk::vowels(&demos)? {
        items.extend([f32::from(item.label), item.len as f32]);
        items.extend(item.frames[..item.len].as_flattened());
        for len in 1..=item.len {
            let mut one = [0.0; vowels::CLASSES];
            let utterance = vowels::Utterance::new(&item.frames[..len]);
            network
                .classify(utterance, &mut one, None, &mut scratch)
                .map_err(|error| anyhow!("{error}"))?;
            logits.extend(one);
        }
    }
    write_floats(&to.join("utterances.bin"), &items)?;
    write_floats(&to.join("vowels.bin"), &logits)?;

    // Drawings of a few lines each, and blots: width, pixels, image.
    let mut drawings = Vec::new();
    let mut state = 1u64;
    for _ in 0..300 {
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let width = 1 + random(90);
        let mut canvas = vec![0u8; width * (1 + random(90))];
        for _ in 0..random(5) {
            let (start, step, len) = (random(canvas.len()), 1 + random(2 * width), random(90));
            let thick = 1 + random(6);
            for i in 0..len {
                for j in 0..thick {
                    if let Some(pixel) = canvas.get_mut(start + i * step + j) {
                        *pixel = 100 + random(156) as u8;
                    }
                }
            }
        }
        let image = drawing::image(&canvas, width);
        drawings.extend(
            [width as u32, canvas.len() as u32, u32::from(image.is_some())]
                .map(u32::to_le_bytes)
                .as_flattened(),
        );
        drawings.extend(canvas);
        drawings.extend(image.unwrap_or([0; 64]));
    }
    fs::write(to.join("drawings.bin"), drawings)?;
    Ok(())
}
