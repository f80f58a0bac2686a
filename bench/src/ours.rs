//! The library as a contender: a call by one thread, or shared by several.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use mha::{
    Cache, CacheConfig, CacheState, Inputs, Isa, MultiHeadAttention, Outputs, Plain, Weights,
};
use rayon::ThreadPool;

use crate::data::Tensors;
use crate::sample::{Contender, time};
use crate::shapes::Case;

/// Positions of a block of keys in a cache: pieces that are filled apart begin at one.
const BLOCK: usize = 16;

/// The layer with everything that a call of it needs.
pub(crate) struct Ours<'a> {
    layer: MultiHeadAttention<'a>,
    case: &'a Case,
    tensors: &'a Tensors,
    way: Way,
    pub(crate) y: Vec<f32>,
    pub(crate) scores: Option<Vec<f32>>,
    /// One for each thread.
    scratch: Vec<Vec<f32>>,
    /// Where keys and values lie between the calls of a stream, or between the halves of a call.
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// How a call is carried out.
enum Way {
    /// `forward`.
    Alone,
    /// `append` and `attend`, one position.
    Step,
    /// `forward_rows` on a part of the sequences each.
    Sequences(Arc<ThreadPool>),
    /// One sequence: each projects a piece of the keys and values into one cache, then attends with a
    /// part of the queries, so that nothing is projected twice.
    Cached(Arc<ThreadPool>),
}

impl<'a> Ours<'a> {
    /// A call of `case` by this thread and those of `pool`. None where the
    /// rows of a call cannot be shared by so many.
    pub(crate) fn new(
        case: &'a Case,
        tensors: &'a Tensors,
        isa: Isa,
        scores: bool,
        pool: Option<Arc<ThreadPool>>,
    ) -> Result<Option<Self>> {
        let (config, shape) = (case.config, case.shape);
        let Tensors { wq, wk, wv, wo, .. } = tensors;
        let layer = MultiHeadAttention::with_isa(config, Weights::new(wq, wk, wv, wo), isa)?;
        // The thread that calls takes a part too.
        let threads = 1 + pool.as_ref().map_or(0, |pool| pool.current_num_threads());
        let way = match pool {
            None if case.past > 0 => Way::Step,
            None => Way::Alone,
            Some(_) if shape.batch * shape.q_len < threads => return Ok(None),
            Some(pool) if shape.batch >= threads => Way::Sequences(pool),
            Some(pool) => Way::Cached(pool),
        };
        let scratch = match way {
            Way::Cached(_) => config.cached_scratch_len(shape.q_len),
            _ => case.scratch_len(),
        };
        let mut ours = Self {
            layer,
            case,
            tensors,
            y: vec![f32::NAN; config.y_len(shape)],
            scores: scores.then(|| vec![f32::NAN; config.scores_len(shape)]),
            scratch: vec![vec![0.0; scratch]; threads],
            keys: Vec::new(),
            values: Vec::new(),
            way,
        };
        if matches!(ours.way, Way::Step | Way::Cached(_)) {
            ensure!(shape.batch == 1, "a cache of one sequence");
            let cache = ours.cache();
            ours.keys = vec![0.0; cache.keys_len(&config.attention)];
            ours.values = vec![0.0; cache.values_len(&config.attention)];
        }
        if case.past > 0 {
            let (keys, values) = (&mut ours.keys, &mut ours.values);
            let config = CacheConfig::linear(shape.kv_len);
            let mut cache = Cache::new(config, &case.config.attention, keys, values)?;
            cache.append(&tensors.past_k, &tensors.past_v, Plain)?;
        }
        Ok(Some(ours))
    }

    fn cache(&self) -> CacheConfig {
        CacheConfig::linear(self.case.shape.kv_len)
    }

    /// Bytes of scratch, and of the cache where a call needs one for itself.
    pub(crate) fn scratch_bytes(&self) -> usize {
        let own = if matches!(self.way, Way::Cached(_)) { &self.keys[..] } else { &[] };
        let cache = if own.is_empty() { 0 } else { own.len() + self.values.len() };
        4 * (self.scratch.iter().map(Vec::len).sum::<usize>() + cache)
    }

    /// One call.
    pub(crate) fn call(&mut self) -> Result<()> {
        match &self.way {
            Way::Alone => self.alone(),
            Way::Step => self.step(),
            Way::Sequences(pool) => self.sequences(&Arc::clone(pool)),
            Way::Cached(pool) => self.cached(&Arc::clone(pool)),
        }
    }

    fn alone(&mut self) -> Result<()> {
        let Tensors { q, k, v, .. } = self.tensors;
        let outputs = outputs(&mut self.y, self.scores.as_deref_mut());
        let scratch = &mut self.scratch[0];
        Ok(self.layer.forward(self.case.shape, Inputs::new(q, k, v), outputs, scratch)?)
    }

    fn step(&mut self) -> Result<()> {
        let Tensors { q, k, v, .. } = self.tensors;
        let state = CacheState { len: self.case.past, oldest: 0 };
        let (config, attention) = (self.cache(), &self.case.config.attention);
        let mut cache = Cache::resume(config, attention, &mut self.keys, &mut self.values, state)?;
        self.layer.append(&mut cache, k, v, Plain)?;
        let outputs = outputs(&mut self.y, self.scores.as_deref_mut());
        let (queries, scratch) = (self.case.shape.q_len, &mut self.scratch[0]);
        Ok(self.layer.attend(&cache, queries, Inputs::query(q), outputs, scratch)?)
    }

    fn sequences(&mut self, pool: &ThreadPool) -> Result<()> {
        let (layer, case) = (&self.layer, self.case);
        let Tensors { q, k, v, .. } = self.tensors;
        let (out, columns) = (case.config.dims.out, case.scores_columns());
        let parts = self.scratch.len();
        let mut results = vec![Ok(()); parts];
        let (mut y, mut scores) = (&mut self.y[..], self.scores.as_deref_mut());
        pool.in_place_scope(|scope| {
            for (part, (scratch, result)) in self.scratch.iter_mut().zip(&mut results).enumerate() {
                let rows = case.config.split_rows(case.shape, None, part, parts);
                let y = cut(&mut y, rows.len() * out);
                let scores = scores.as_mut().map(|scores| cut(scores, rows.len() * columns));
                let work = move || {
                    let inputs = Inputs::new(q, k, v);
                    *result =
                        layer.forward_rows(case.shape, rows, inputs, outputs(y, scores), scratch);
                };
                share(scope, part + 1 == parts, work);
            }
        });
        Ok(results.into_iter().collect::<Result<(), _>>()?)
    }

    fn cached(&mut self, pool: &ThreadPool) -> Result<()> {
        let (layer, case, config) = (&self.layer, self.case, self.cache());
        let Tensors { q, k, v, .. } = self.tensors;
        let (dims, attention) = (&case.config.dims, &case.config.attention);
        let parts = self.scratch.len();
        let mut results = vec![Ok(()); parts];

        // 1. Keys and values. Blocks of the cache lie one after another, so a piece of it is a cache.
        let kv_len = case.shape.kv_len;
        let (mut keys, mut values) = (&mut self.keys[..], &mut self.values[..]);
        pool.in_place_scope(|scope| {
            for (part, result) in results.iter_mut().enumerate() {
                let edge =
                    |part: usize| (kv_len.div_ceil(BLOCK) * part / parts * BLOCK).min(kv_len);
                let (start, end) = (edge(part), edge(part + 1));
                let piece = CacheConfig::linear(end - start);
                let keys = cut(&mut keys, piece.keys_len(attention));
                let values = cut(&mut values, piece.values_len(attention));
                let work = move || {
                    let (k, v) = (&k[start * dims.k_in..], &v[start * dims.v_in..]);
                    let (k, v) =
                        (&k[..piece.capacity * dims.k_in], &v[..piece.capacity * dims.v_in]);
                    *result = Cache::new(piece, attention, keys, values)
                        .and_then(|mut cache| layer.append(&mut cache, k, v, Plain));
                };
                share(scope, part + 1 == parts, work);
            }
        });
        results.iter().copied().collect::<Result<(), _>>()?;

        // 2. Queries.
        let state = CacheState { len: kv_len, oldest: 0 };
        let cache = Cache::resume(config, attention, &mut self.keys, &mut self.values, state)?;
        let (mut y, mut scores) = (&mut self.y[..], self.scores.as_deref_mut());
        pool.in_place_scope(|scope| {
            for (part, (scratch, result)) in self.scratch.iter_mut().zip(&mut results).enumerate() {
                let rows = case.config.split_rows(case.shape, None, part, parts);
                let y = cut(&mut y, rows.len() * dims.out);
                let columns = case.scores_columns();
                let scores = scores.as_mut().map(|scores| cut(scores, rows.len() * columns));
                let q = &q[rows.start * dims.q_in..rows.end * dims.q_in];
                let cache = &cache;
                let work = move || {
                    let (inputs, outputs) = (Inputs::query(q), outputs(y, scores));
                    *result = layer.attend(cache, rows.len(), inputs, outputs, scratch);
                };
                share(scope, part + 1 == parts, work);
            }
        });
        Ok(results.into_iter().collect::<Result<(), _>>()?)
    }
}

impl Contender for Ours<'_> {
    fn time(&mut self, calls: u32) -> Result<Duration> {
        time(calls, || self.call())
    }
}

impl Case {
    /// Scores of a query, all heads together.
    fn scores_columns(&self) -> usize {
        self.config.attention.heads * self.shape.kv_len
    }
}

/// Gives the work to the pool, or does it here where it is the last part.
pub(crate) fn share<'s>(scope: &rayon::Scope<'s>, last: bool, work: impl FnOnce() + Send + 's) {
    if last {
        work();
    } else {
        scope.spawn(|_| work());
    }
}

fn outputs<'y>(y: &'y mut [f32], scores: Option<&'y mut [f32]>) -> Outputs<'y> {
    match scores {
        Some(scores) => Outputs::new(y).scores(scores),
        None => Outputs::new(y),
    }
}

/// Cuts the first `len` elements off.
fn cut<'r>(rest: &mut &'r mut [f32], len: usize) -> &'r mut [f32] {
    let (part, left) = std::mem::take(rest).split_at_mut(len);
    *rest = left;
    part
}
