//! The shapes that are timed, and what one call of each costs.

use mha::{CacheConfig, Config, Dims, Shape};
use serde::Serialize;

/// One shape of a layer's call.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) config: Config,
    /// The queries and keys of the attention, those in the cache included.
    pub(crate) shape: Shape,
    /// Positions that lie in a cache already; the call appends the others and attends to all.
    pub(crate) past: usize,
    /// Whether forward and backward are timed, with all gradients.
    pub(crate) training: bool,
}

/// A case as the programs that time other libraries read it.
#[derive(Serialize)]
pub(crate) struct Description {
    name: &'static str,
    q_in: usize,
    k_in: usize,
    v_in: usize,
    qk: usize,
    v: usize,
    out: usize,
    heads: usize,
    batch: usize,
    q_len: usize,
    kv_len: usize,
    past: usize,
    scores: bool,
    training: bool,
}

/// S1 to S9.
pub(crate) fn cases() -> Vec<Case> {
    let case = |name, what, dims, heads, (batch, q_len, kv_len), past| Case {
        name,
        what,
        config: Config::new(dims).heads(heads),
        shape: Shape::new(batch, q_len, kv_len),
        past,
        training: false,
    };
    let square = Dims::square;
    vec![
        case("S1", "seed, first example", square(64), 8, (32, 10, 20), 0),
        case("S2", "seed, second example", Dims::uniform(64, 1024, 1024), 8, (32, 10, 10), 0),
        case("S3", "keyword spotting", square(64), 1, (1, 99, 99), 0),
        case("S4", "MiniLM", square(384), 12, (1, 128, 128), 0),
        case("S5", "ViT-Tiny", square(192), 3, (1, 197, 197), 0),
        case("S6", "BERT-base", square(768), 12, (1, 512, 512), 0),
        case("S7", "long", square(512), 8, (1, 4096, 4096), 0),
        case("S8", "one decoding step", square(512), 8, (1, 1, 1024), 1023),
        case("S9", "microcontroller", square(32), 4, (1, 16, 16), 0),
    ]
}

impl Case {
    /// Positions of each sequence whose keys and values the call projects.
    pub(crate) fn new_keys(&self) -> usize {
        self.shape.kv_len - self.past
    }

    /// Operations of the products of one call; a multiply-add is two.
    pub(crate) fn operations(&self) -> f64 {
        let Dims { q_in, k_in, v_in, qk, v, out } = self.config.dims;
        let (keys, values) =
            (self.config.attention.key_features(), self.config.attention.value_features());
        let Shape { batch, q_len, kv_len } = self.shape;
        let projections =
            q_len * (q_in * qk + v * out) + self.new_keys() * (k_in * keys + v_in * values);
        2.0 * (batch * (projections + q_len * kv_len * (qk + v))) as f64
    }

    /// Bytes of the weights and of the cached keys and values, all of which a decoding step reads.
    pub(crate) fn bytes(&self) -> usize {
        let attention = &self.config.attention;
        let cache = CacheConfig::linear(self.shape.kv_len);
        let floats = cache.keys_len(attention) + cache.values_len(attention);
        4 * (self.config.weights_len() + floats)
    }

    /// Floats of scratch that a call takes at full speed.
    pub(crate) fn scratch_len(&self) -> usize {
        if self.past > 0 {
            self.config.cached_scratch_len(self.shape.q_len)
        } else {
            self.config.scratch_len(self.shape)
        }
    }

    /// For a program that reads JSON.
    pub(crate) fn describe(&self, scores: bool) -> Description {
        let Dims { q_in, k_in, v_in, qk, v, out } = self.config.dims;
        let Shape { batch, q_len, kv_len } = self.shape;
        let (name, heads, past) = (self.name, self.config.attention.heads, self.past);
        Description {
            name,
            q_in,
            k_in,
            v_in,
            qk,
            v,
            out,
            heads,
            batch,
            q_len,
            kv_len,
            past,
            scores,
            training: self.training,
        }
    }
}
