//! A case as the benchmark describes it, and its tensors.

use std::path::Path;

use serde::Deserialize;

use crate::Result;

/// Widths and lengths of a case.
#[derive(Clone, Deserialize)]
pub(crate) struct Description {
    pub(crate) q_in: usize,
    pub(crate) k_in: usize,
    pub(crate) v_in: usize,
    pub(crate) qk: usize,
    pub(crate) v: usize,
    pub(crate) out: usize,
    pub(crate) heads: usize,
    pub(crate) batch: usize,
    pub(crate) q_len: usize,
    pub(crate) kv_len: usize,
    pub(crate) past: usize,
    pub(crate) scores: bool,
    pub(crate) training: bool,
}

impl Description {
    /// What logits are multiplied by.
    pub(crate) fn scale(&self) -> f32 {
        1.0 / ((self.qk / self.heads) as f32).sqrt()
    }
}

/// A case with its tensors: weights `[in, out]`, inputs `[batch, len, features]`, the past `[past, features]`.
pub(crate) struct Case {
    pub(crate) sizes: Description,
    pub(crate) wq: Vec<f32>,
    pub(crate) wk: Vec<f32>,
    pub(crate) wv: Vec<f32>,
    pub(crate) wo: Vec<f32>,
    pub(crate) q_input: Vec<f32>,
    pub(crate) k_input: Vec<f32>,
    pub(crate) v_input: Vec<f32>,
    pub(crate) past_k: Vec<f32>,
    pub(crate) past_v: Vec<f32>,
    pub(crate) dy: Vec<f32>,
}

impl Case {
    /// Reads the tensors of a case. The scale of the logits goes into `wq`, but for training.
    pub(crate) fn read(sizes: Description, folder: &Path) -> Result<Self> {
        let tensor = |name: &str| -> Result<Vec<f32>> {
            let bytes = std::fs::read(folder.join(name).with_extension("f32"))?;
            Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
        };
        // In training the scale is a part of what is differentiated.
        let scale = if sizes.training { 1.0 } else { sizes.scale() };
        Ok(Self {
            wq: tensor("wq")?.into_iter().map(|weight| weight * scale).collect(),
            wk: tensor("wk")?,
            wv: tensor("wv")?,
            wo: tensor("wo")?,
            q_input: tensor("q")?,
            k_input: tensor("k")?,
            v_input: tensor("v")?,
            past_k: tensor("past_k")?,
            past_v: tensor("past_v")?,
            dy: tensor("dy")?,
            sizes,
        })
    }

    /// Keys that the call projects.
    pub(crate) fn new_keys(&self) -> usize {
        self.sizes.kv_len - self.sizes.past
    }
}
