//! How each struct becomes its twin in Rust: checked, and not a byte of it kept.

use mha::{
    Attention, Broadcast, Config, Dims, Dropout, Inputs, Mask, MultiHeadAttention, Outputs,
    ScoresAt, Shape, WeightOrder, Weights,
};

mod options;

use crate::buffer::{Buffer, Written, check};
use crate::isa::isa;
use crate::status::{Fault, mha_argument as A, mha_kind as K};
use crate::types::*;
pub(crate) use options::Given;

/// The struct that a pointer points to.
///
/// # Safety
/// If the pointer is neither null nor misaligned, the struct is there and nobody writes to it
/// during `'a`.
pub(crate) unsafe fn read<'a, T>(data: *const T, argument: A) -> Result<&'a T, Fault> {
    check(data, argument)?;
    // SAFETY: neither null nor misaligned; the rest is the caller's promise.
    Ok(unsafe { &*data })
}

impl mha_config {
    /// The crate's configuration, unchecked but for the order of the weights.
    pub(crate) fn get(&self) -> Result<Config, Fault> {
        let order = match self.weight_order {
            0 => WeightOrder::InOut,
            1 => WeightOrder::OutIn,
            _ => return Err(Fault::new(K::Value, A::WeightOrder)),
        };
        Ok(self.sizes().weight_order(order))
    }

    /// The crate's configuration as far as sizes depend on it.
    pub(crate) fn sizes(&self) -> Config {
        let mha_dims { q_in, k_in, v_in, qk, v, out } = self.dims;
        let config = Config::new(Dims { q_in, k_in, v_in, qk, v, out }).heads(self.heads);
        let config = if self.kv_heads == 0 { config } else { config.kv_heads(self.kv_heads) };
        if self.has_scale == 0 { config } else { config.scale(self.scale) }
    }
}

impl mha_attention {
    /// The crate's attention, unchecked.
    pub(crate) fn get(&self) -> Attention {
        let attention = Attention::new(self.heads, self.qk, self.v);
        let attention =
            if self.kv_heads == 0 { attention } else { attention.kv_heads(self.kv_heads) };
        if self.has_scale == 0 { attention } else { attention.scale(self.scale) }
    }
}

impl mha_shape {
    pub(crate) fn get(self) -> Shape {
        Shape { batch: self.batch, q_len: self.q_len, kv_len: self.kv_len }
    }
}

impl mha_slice {
    /// Whether the caller left it out.
    pub(crate) fn is_absent(&self) -> bool {
        self.data.is_null() && self.len == 0
    }

    /// The slice, apart from everything that the call writes.
    ///
    /// # Safety
    /// If the pointer passes the checks, `len` floats are there, and nobody writes them during `'a`.
    pub(crate) unsafe fn get<'a>(
        &self,
        written: &Written,
        argument: A,
    ) -> Result<&'a [f32], Fault> {
        // SAFETY: the caller's promise.
        unsafe { written.read(self.data, self.len, argument) }
    }

    /// The slice, if it was not left out.
    ///
    /// # Safety
    /// That of [`mha_slice::get`].
    unsafe fn optional<'a>(
        &self,
        written: &Written,
        argument: A,
    ) -> Result<Option<&'a [f32]>, Fault> {
        // SAFETY: the caller's promise.
        if self.is_absent() { Ok(None) } else { unsafe { self.get(written, argument).map(Some) } }
    }
}

impl mha_slice_mut {
    /// Whether the caller left it out.
    pub(crate) fn is_absent(&self) -> bool {
        self.data.is_null() && self.len == 0
    }

    pub(crate) fn buffer(&self, argument: A) -> Result<Buffer<f32>, Fault> {
        Buffer::new(self.data, self.len, argument)
    }
}

/// The parts of the weights, in the order of their struct.
const PARTS: [A; 8] = [A::Wq, A::Wk, A::Wv, A::Wo, A::Bq, A::Bk, A::Bv, A::Bo];

impl mha_layer {
    /// The crate's layer.
    ///
    /// # Safety
    /// Every weight whose pointer passes the checks is as long as it says or, where it does not say,
    /// as the configuration wants, and nobody writes it during `'a`.
    pub(crate) unsafe fn get<'a>(
        &self,
        written: &Written,
    ) -> Result<MultiHeadAttention<'a>, Fault> {
        let config = self.config.get()?;
        // Before a length is taken from it.
        config.check()?;
        let isa = isa(self.isa)?;
        let mha_weights { wq, wk, wv, wo, bq, bk, bv, bo } = &self.weights;
        let slices = [wq, wk, wv, wo, bq, bk, bv, bo];
        let mut parts = [None; 8];
        let needed = config.part_lens();
        for (i, ((part, slice), needed)) in parts.iter_mut().zip(slices).zip(needed).enumerate() {
            let is_bias = i >= 4;
            if is_bias && slice.is_absent() {
                continue;
            }
            let len = if slice.len == 0 { needed } else { slice.len };
            let argument = PARTS.get(i).copied().unwrap_or(A::Weights);
            // SAFETY: the caller's promise.
            *part = Some(unsafe { mha_slice { len, ..*slice }.get(written, argument)? });
        }
        let [wq, wk, wv, wo, bq, bk, bv, bo] = parts;
        let [wq, wk, wv, wo] = [wq, wk, wv, wo].map(Option::unwrap_or_default);
        let weights = Weights { wq, wk, wv, wo, bq, bk, bv, bo };
        Ok(MultiHeadAttention::with_isa(config, weights, isa)?)
    }
}

/// Which of the inputs a call looks at beside the queries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    /// Keys and values.
    Read,
    /// Keys: scores alone are computed.
    Ignored,
    /// Neither: both lie in a cache.
    Cached,
}

impl mha_inputs {
    /// The crate's inputs.
    ///
    /// # Safety
    /// Every buffer whose pointer passes the checks is as long as it says, and nobody writes it
    /// during `'a`.
    pub(crate) unsafe fn get<'a>(
        &self,
        shape: Shape,
        heads: usize,
        values: Values,
        written: &Written,
    ) -> Result<Inputs<'a>, Fault> {
        let sizes = [shape.batch, heads, shape.q_len, shape.kv_len];
        // What is left out is the one before, except that no keys at all need no buffer either.
        let keys = shape.kv_len != 0;
        // SAFETY: the caller's promise, here and below.
        let q = unsafe { self.q.get(written, A::Q)? };
        let k = if values == Values::Cached {
            &[]
        } else if keys && self.k.is_absent() {
            q
        } else {
            // SAFETY: as above.
            unsafe { self.k.get(written, A::K)? }
        };
        let v = if values != Values::Read || keys && self.v.is_absent() {
            k
        } else {
            // SAFETY: as above.
            unsafe { self.v.get(written, A::V)? }
        };
        let mut inputs = Inputs::new(q, k, v);
        let bias = &self.bias;
        if !(bias.data.is_null() && bias.len == 0) {
            let data = mha_slice { data: bias.data, len: bias.len };
            // SAFETY: as above.
            let data = unsafe { data.get(written, A::Bias)? };
            inputs = inputs.bias(Broadcast::new(data, extents(bias.extents, sizes)));
        }
        let mask = &self.mask;
        if !(mask.data.is_null() && mask.len == 0) {
            // SAFETY: as above.
            let data = unsafe { written.read(mask.data, mask.len, A::Mask)? };
            let bytes = Mask::bytes(data, extents(mask.extents, sizes));
            inputs = inputs.mask(if mask.excluding == 0 { bytes } else { bytes.excluding() });
        }
        // SAFETY: as above.
        if let Some(causal) = unsafe { self.causal.get(written)? } {
            inputs = inputs.causal_from(causal);
        }
        if self.dropout.p != 0.0 {
            inputs = inputs.dropout(Dropout::new(self.dropout.p, self.dropout.seed));
        }
        Ok(inputs)
    }
}

/// Puts the axis's size where an extent is left out.
fn extents(extents: [usize; 4], sizes: [usize; 4]) -> [usize; 4] {
    let [b, h, q, k] = extents;
    let [batch, heads, q_len, kv_len] = sizes;
    let or = |extent: usize, size: usize| if extent == 0 { size } else { extent };
    [or(b, batch), or(h, heads), or(q, q_len), or(k, kv_len)]
}

impl mha_outputs {
    /// The point at which scores are taken.
    fn scores_at(&self) -> Result<ScoresAt, Fault> {
        match self.scores_at {
            0 => Ok(ScoresAt::Softmax),
            1 => Ok(ScoresAt::Logits),
            2 => Ok(ScoresAt::Masked),
            3 => Ok(ScoresAt::Capped),
            _ => Err(Fault::new(K::Value, A::ScoresAt)),
        }
    }

    /// The buffers, checked but not yet slices.
    pub(crate) fn buffers(&self) -> Result<OutputBuffers, Fault> {
        let wanted = !self.scores.is_absent();
        Ok(OutputBuffers {
            y: self.y.buffer(A::Y)?,
            scores: self.scores.buffer(A::Scores)?,
            wanted,
            at: self.scores_at()?,
        })
    }
}

/// The outputs before they are slices.
pub(crate) struct OutputBuffers {
    pub(crate) y: Buffer<f32>,
    pub(crate) scores: Buffer<f32>,
    wanted: bool,
    at: ScoresAt,
}

impl OutputBuffers {
    /// The crate's outputs.
    ///
    /// # Safety
    /// The buffers are as long as they say, and nobody else touches them during `'a`.
    pub(crate) unsafe fn get<'a>(self) -> Outputs<'a> {
        // SAFETY: the caller's promise, here and below.
        let outputs = Outputs::new(unsafe { self.y.slice_mut() }).scores_at(self.at);
        if self.wanted {
            // SAFETY: as above.
            outputs.scores(unsafe { self.scores.slice_mut() })
        } else {
            outputs
        }
    }
}
