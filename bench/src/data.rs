//! The numbers that a case is timed on: the same for every library.

use std::path::Path;

use anyhow::{Context, Result};

use crate::shapes::Case;

/// Weights, inputs, and what lies in the cache.
pub(crate) struct Tensors {
    pub(crate) wq: Vec<f32>,
    pub(crate) wk: Vec<f32>,
    pub(crate) wv: Vec<f32>,
    pub(crate) wo: Vec<f32>,
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    /// `[past, key features]`
    pub(crate) past_k: Vec<f32>,
    /// `[past, value features]`
    pub(crate) past_v: Vec<f32>,
    /// The gradient with respect to the output.
    pub(crate) dy: Vec<f32>,
}

impl Tensors {
    /// Uniform numbers of variance 1 in and, by the weights' scale, about that within: so the logits
    /// differ and a wrong softmax is seen.
    pub(crate) fn new(case: &Case) -> Self {
        let (config, shape) = (&case.config, case.shape);
        let dims = &config.dims;
        let mut state = 1u32;
        let mut fill = |len: usize, inputs: usize| -> Vec<f32> {
            let most = (3.0 / inputs as f32).sqrt();
            let next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((state >> 8) as f32 / 8_388_608.0 - 1.0) * most
            };
            std::iter::repeat_with(next).take(len).collect()
        };
        let keys = shape.batch * case.new_keys();
        let past = shape.batch * case.past;
        Self {
            wq: fill(config.wq_len(), dims.q_in),
            wk: fill(config.wk_len(), dims.k_in),
            wv: fill(config.wv_len(), dims.v_in),
            wo: fill(config.wo_len(), dims.v),
            q: fill(shape.batch * shape.q_len * dims.q_in, 1),
            k: fill(keys * dims.k_in, 1),
            v: fill(keys * dims.v_in, 1),
            past_k: fill(past * config.attention.key_features(), 1),
            past_v: fill(past * config.attention.value_features(), 1),
            dy: fill(config.y_len(shape), 1),
        }
    }

    /// Writes each as a file of little-endian floats, for other programs.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let files = [
            ("wq", &self.wq),
            ("wk", &self.wk),
            ("wv", &self.wv),
            ("wo", &self.wo),
            ("q", &self.q),
            ("k", &self.k),
            ("v", &self.v),
            ("past_k", &self.past_k),
            ("past_v", &self.past_v),
            ("dy", &self.dy),
        ];
        for (name, floats) in files {
            let bytes: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
            let path = folder.join(name).with_extension("f32");
            std::fs::write(&path, bytes)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Reads such a file.
pub(crate) fn read(path: &Path) -> Result<Vec<f32>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}
