//! A trained encoder-decoder that numbers antibodies, with its attention computed by this library:
//! does it decode the tokens that the package decodes which it comes from? README.md beside this
//! file describes the model, [`check`] reads what `export.py` wrote. Nothing expected is computed here.

#![forbid(unsafe_code)]

mod expected;
mod model;
mod net;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use mha::Isa;
use safetensors::tensor::SafeTensors;

use expected::{Expected, Models, Wanted};
use model::{Decoded, Model};
use net::Tensors;

/// Decodes every sequence alone and all of them in one padded batch, with each model of a file, and
/// compares tokens, chains and logits; and runs the decoder over the decoded tokens in one causal
/// call, which must give the bits of the steps over a cache, as the batch must those of each sequence
/// alone. A line of text for each model.
///
/// # Errors
/// A file that `export.py` did not write, or the first thing that differs.
pub fn check(path: &Path, isa: Isa) -> Result<Vec<String>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let wrong = |error| anyhow!("not a safetensors file: {error}");
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(wrong)?;
    let text = header.metadata().as_ref().and_then(|entries| entries.get("anarcii"));
    let expected = Expected::parse(text.context("__metadata__: the entry anarcii is missing")?)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(wrong)?;
    ensure!(!expected.models.is_empty(), "there is no model to check");
    expected.models.iter().map(|models| one(&expected, models, &tensors, isa)).collect()
}

fn one(
    expected: &Expected,
    wanted: &Models,
    tensors: &SafeTensors<'_>,
    isa: Isa,
) -> Result<String> {
    let mode = &wanted.mode;
    let model = Model::read(&Tensors::new(tensors, mode), wanted.layers, wanted.heads, isa)?;
    let (mut furthest, mut tokens) = (0f32, 0);
    let mut alone = BTreeMap::new();
    for wanted in &wanted.alone {
        let about = || format!("{mode}, {}", wanted.name);
        let source = expected.source(&wanted.name)?;
        let [decoded]: [Decoded; 1] = model
            .decode(&[&source])
            .and_then(|all| all.try_into().ok().context("not one answer"))
            .with_context(about)?;
        same_tokens(wanted, &decoded).with_context(about)?;
        ensure!(expected.word(decoded.tokens[1])? == wanted.chain, "{}: another chain", about());
        ensure!(!wanted.logits.is_empty(), "{}: nothing to compare with", about());
        let logits = wanted.logits.iter().zip(&decoded.logits);
        for (step, (wanted, got)) in logits.enumerate() {
            let off = (wanted - got).abs();
            ensure!(off <= tolerance(mode), "{}: step {step}: {got}, not {wanted}", about());
            furthest = furthest.max(off);
        }
        let whole = model.whole(&source, &decoded.tokens).with_context(about)?;
        let same = bits(&whole) == bits(&decoded.logits);
        ensure!(same, "{}: one causal call and steps over a cache differ", about());
        tokens += decoded.tokens.len();
        alone.insert(&wanted.name, decoded);
    }
    let sources: Vec<_> =
        wanted.batch.iter().map(|w| expected.source(&w.name)).collect::<Result<_>>()?;
    let sources: Vec<_> = sources.iter().map(Vec::as_slice).collect();
    let batch = model.decode(&sources)?;
    ensure!(batch.len() == wanted.batch.len() && batch.len() > 1, "not all of the batch");
    for (wanted, decoded) in wanted.batch.iter().zip(&batch) {
        same_tokens(wanted, decoded).with_context(|| format!("{mode}, batch, {}", wanted.name))?;
        // The tokens forgive a key too many, the bits of their logits do not.
        let same =
            alone.get(&wanted.name).is_some_and(|a| bits(&a.logits) == bits(&decoded.logits));
        ensure!(same, "{mode}, {}: padding has changed the logits", wanted.name);
        tokens += decoded.tokens.len();
    }
    for (name, first, logits) in expected.published(mode) {
        let got = alone.get(&name.to_string()).and_then(|decoded| decoded.logits.get(first..));
        let got = got.with_context(|| format!("{mode}, {name}: published but not decoded"))?;
        let far = |(wanted, got): (&f32, &f32)| (wanted - got).abs() > tolerance(mode);
        ensure!(!logits.is_empty() && got.len() == logits.len(), "{mode}, {name}: published");
        ensure!(!logits.iter().zip(got).any(far), "{mode}, {name}: not the published logits");
    }
    Ok(format!(
        "{mode}: {} sequences alone and {} in a batch, {tokens} tokens, logits within {furthest:.1e}",
        wanted.alone.len(),
        batch.len(),
    ))
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

fn same_tokens(wanted: &Wanted, decoded: &Decoded) -> Result<()> {
    ensure!(wanted.tokens.len() > 2, "nothing to compare with");
    let pairs = wanted.tokens.iter().zip(&decoded.tokens);
    if let Some(step) = pairs.clone().position(|(wanted, got)| wanted != got) {
        let (wanted, got) = (wanted.tokens[step], decoded.tokens[step]);
        return Err(anyhow!("token {step} is {got}, not {wanted}"));
    }
    ensure!(wanted.tokens.len() == decoded.tokens.len(), "another number of tokens");
    Ok(())
}

/// How far a logit may be off. Those of the larger model are ill-conditioned: f32 and f64, or two
/// processors, are 3e-3 apart, as README.md says; of the smaller one 1e-4.
fn tolerance(mode: &str) -> f32 {
    if mode == "speed" { 5e-4 } else { 1e-2 }
}
