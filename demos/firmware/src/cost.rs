//! What a call is measured against: the multiplications and additions that the mathematics asks for.

use mha::{Attention, Config, Shape};

/// Multiply-accumulates of attention between projected queries and keys: `q · kᵀ` and `α · v`.
#[must_use]
pub const fn attention(attention: &Attention, shape: Shape) -> usize {
    shape.batch * shape.q_len * shape.kv_len * (attention.qk + attention.v)
}

/// Multiply-accumulates of the layer: its four projections and its attention.
#[must_use]
pub const fn layer(config: &Config, shape: Shape) -> usize {
    let queries = shape.q_len * (config.wq_len() + config.wo_len());
    let keys = shape.kv_len * (config.wk_len() + config.wv_len());
    shape.batch * (queries + keys) + attention(&config.attention, shape)
}
