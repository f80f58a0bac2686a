//! What the package decodes, out of `expected.json`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What stands before the residues of a source.
const START: &str = "<SOS>";

/// What stands behind them.
const END: &str = "<EOS>";

/// The whole file.
pub(crate) struct Expected {
    value: Value,
    pub(crate) models: Vec<Models>,
}

/// What a model decodes.
pub(crate) struct Models {
    pub(crate) mode: String,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    /// Each sequence alone.
    pub(crate) alone: Vec<Wanted>,
    /// All of them at once, padded.
    pub(crate) batch: Vec<Wanted>,
}

/// What one sequence decodes to.
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) tokens: Vec<usize>,
    /// The winning logit of every step; of a batch none are recorded.
    pub(crate) logits: Vec<f32>,
    /// The word of the chain that the package reports.
    pub(crate) chain: String,
}

impl Expected {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let modes = value["models"].as_object().context("models: missing")?;
        let models = modes.iter().map(|(mode, about)| {
            let decoded = list(&about["decoded"])?.iter().map(|about| {
                Ok(Wanted {
                    name: text_of(&about["name"])?,
                    tokens: sizes(&about["tokens"])?,
                    logits: floats(&about["logits"])?,
                    chain: text_of(&about["chain"])?,
                })
            });
            let batch = &about["batch"];
            let (names, tokens) = (list(&batch["names"])?, list(&batch["tokens"])?);
            ensure!(names.len() == tokens.len(), "batch: as many names as rows of tokens");
            let batch = names.iter().zip(tokens).map(|(name, tokens)| {
                let (name, tokens) = (text_of(name)?, sizes(tokens)?);
                Ok(Wanted { name, tokens, logits: Vec::new(), chain: String::new() })
            });
            Ok(Models {
                mode: mode.clone(),
                layers: size(&about["layers"])?,
                heads: size(&about["heads"])?,
                alone: decoded.collect::<Result<_>>()?,
                batch: batch.collect::<Result<_>>()?,
            })
        });
        let models = models.collect::<Result<_>>()?;
        Ok(Self { value, models })
    }

    /// A sequence as tokens, without padding.
    pub(crate) fn source(&self, name: &str) -> Result<Vec<usize>> {
        let words = list(&self.value["vocabulary"]["sequence"])?;
        let sequences = list(&self.value["sequences"])?;
        let sequence = sequences.iter().find(|sequence| sequence["name"] == name);
        let residues = text_of(&sequence.context("no such sequence")?["residues"])?;
        let letters = residues.split("").filter(|letter| !letter.is_empty());
        let source = std::iter::once(START).chain(letters).chain([END]).map(|word| {
            words
                .iter()
                .position(|known| known == word)
                .with_context(|| format!("{word}: no token"))
        });
        source.collect()
    }

    /// The word of a decoded token.
    pub(crate) fn word(&self, token: usize) -> Result<&str> {
        self.value["vocabulary"]["number"][token].as_str().context("no such token")
    }

    /// What the package's authors published for a model: the sequence's name, the step of the first
    /// logit, and the logits.
    pub(crate) fn published(&self, mode: &str) -> Vec<(&str, usize, Vec<f32>)> {
        let published = &self.value["published"];
        let logits = published["logits"].as_object().filter(|_| published["mode"] == mode);
        let first = size(&published["first"]).unwrap_or(0);
        let all = logits.into_iter().flatten();
        all.map(|(name, logits)| (name.as_str(), first, floats(logits).unwrap_or_default()))
            .collect()
    }
}

fn list(value: &Value) -> Result<&[Value]> {
    value.as_array().map(Vec::as_slice).context("a list is missing")
}

fn text_of(value: &Value) -> Result<String> {
    value.as_str().map(String::from).context("a text is missing")
}

fn size(value: &Value) -> Result<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok()).context("a size is missing")
}

fn sizes(value: &Value) -> Result<Vec<usize>> {
    list(value)?.iter().map(size).collect()
}

fn floats(value: &Value) -> Result<Vec<f32>> {
    let number = |value: &Value| value.as_f64().map(|x| x as f32).context("a number is missing");
    list(value)?.iter().map(number).collect()
}
