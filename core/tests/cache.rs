//! A cache gives the bits of one call over everything, however it was filled: in one go or in
//! pieces, rolled back, reset, resumed, gone round, for one sequence or several side by side.

mod support;

use mha::{
    Alibi, Cache, CacheConfig, Causal, Config, Dims, Error, Inputs, Isa, Mask, MultiHeadAttention,
    Norm, NormKind, Options, Outputs, Plain, Rope, Select, Shape, Weights, Window,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::{bits, floats};

/// A layer with random sizes and options, owned.
struct Model {
    config: Config,
    w: Vec<f32>,
    sinks: Vec<f32>,
    gain: Vec<f32>,
    seed: u64,
}

impl Model {
    fn random(seed: u64) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed);
        let (kv_heads, sharing) = (rng.random_range(1..=3), rng.random_range(1..=3));
        let (d, d_v) = (2 * rng.random_range(1..=9), rng.random_range(1..=17));
        let heads = kv_heads * sharing;
        let inputs = (rng.random_range(1..=9), rng.random_range(1..=9), rng.random_range(1..=9));
        let dims = Dims::new(inputs, (heads * d, heads * d_v), rng.random_range(1..=9));
        let config = Config::new(dims).heads(heads).kv_heads(kv_heads);
        let w = floats(rng, config.weights_len() + config.biases_len(), 1.0);
        Self { config, w, sinks: floats(rng, heads, 2.0), gain: floats(rng, d, 2.0), seed }
    }

    fn layer(&self) -> MultiHeadAttention<'_> {
        let weights = Weights::from_flat(&self.config, &self.w).unwrap();
        MultiHeadAttention::new(self.config, weights).unwrap()
    }

    fn options(&self) -> Options<'_> {
        let rng = &mut StdRng::seed_from_u64(self.seed + 1_000_000);
        let mut options = Options::new();
        if rng.random_bool(0.5) {
            options.window = Window::left(rng.random_range(0..40));
        }
        if rng.random_bool(0.3) {
            options.softcap = Some(rng.random_range(1.0..20.0));
        }
        if rng.random_bool(0.3) {
            options.alibi = Some(Alibi::Standard);
        }
        if rng.random_bool(0.5) {
            let interleaved = rng.random();
            options.rope = Some(Rope { interleaved, ..Rope::new(10_000.0) });
        }
        if rng.random_bool(0.3) {
            options.sinks = Some(&self.sinks);
        }
        if rng.random_bool(0.3) {
            let kind = if rng.random() { NormKind::Rms } else { NormKind::L2 };
            let gain = Some(self.gain.as_slice());
            options.norm = Some(Norm { kind, epsilon: 1e-6, q_gain: gain, k_gain: gain });
        }
        options
    }
}

/// A stream of positions: what has been appended and not forgotten.
#[derive(Clone, Default)]
struct Stream {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    len: usize,
}

impl Stream {
    fn push(&mut self, dims: &Dims, n: usize, rng: &mut StdRng) {
        self.q.extend(floats(rng, n * dims.q_in, 1.0));
        self.k.extend(floats(rng, n * dims.k_in, 1.0));
        self.v.extend(floats(rng, n * dims.v_in, 1.0));
        self.len += n;
    }

    fn truncate(&mut self, dims: &Dims, len: usize) {
        self.q.truncate(len * dims.q_in);
        self.k.truncate(len * dims.k_in);
        self.v.truncate(len * dims.v_in);
        self.len = len;
    }
}

/// What the last `n` positions see of the whole stream, by one call without a cache, less what is
/// hidden. Gives y and scores.
fn whole(model: &Model, stream: &Stream, n: usize, hidden: &[bool]) -> (Vec<f32>, Vec<f32>) {
    let (config, dims) = (&model.config, &model.config.dims);
    let shape = Shape::new(1, n, stream.len);
    let mut y = vec![f32::NAN; config.y_len(shape)];
    let mut scores = vec![f32::NAN; config.scores_len(shape)];
    let mut scratch = vec![f32::NAN; config.scratch_len(shape)];
    let options = model.options();
    let mask: Vec<bool> = hidden.iter().map(|hidden| !hidden).collect();
    let offset = Causal::Offset((stream.len - n) as isize);
    let q = &stream.q[(stream.len - n) * dims.q_in..];
    let inputs = Inputs::new(q, &stream.k, &stream.v)
        .causal_from(offset)
        .mask(Mask::bools(&mask, [1, 1, 1, stream.len]))
        .options(&options);
    let outputs = Outputs::new(&mut y).scores(&mut scores);
    model.layer().forward(shape, inputs, outputs, &mut scratch).unwrap();
    (y, scores)
}

/// Scores without those so small that the maximum which they were taken against decides whether they
/// are 0 (docs/numerics.md): those of a ring are taken against the last one.
fn certain(scores: &[f32]) -> Vec<f32> {
    let least = 2f32.powi(-124);
    scores.iter().map(|&score| if score < least { 0.0 } else { score }).collect()
}

#[test]
fn random_operations_give_the_bits_of_one_call() {
    let (mut rounds, mut resumed, mut batches) = (0, 0, [0; 4]);
    for seed in 0..250 {
        let model = Model::random(seed);
        let (config, dims, layer) = (&model.config, &model.config.dims, model.layer());
        let options = model.options();
        let rng = &mut StdRng::seed_from_u64(seed + 7);
        let ring = rng.random_bool(0.6);
        let cache_config = if ring {
            let pinned = 16 * rng.random_range(0..=1usize);
            CacheConfig::ring(16 * rng.random_range(2..=5)).pinned(pinned)
        } else {
            CacheConfig::linear(rng.random_range(20..=150))
        };
        let batch = rng.random_range(1..=3);
        batches[batch] += 1;
        let cache_config = cache_config.batch(batch);
        let mut keys = vec![f32::NAN; cache_config.keys_len(&config.attention)];
        let mut values = vec![f32::NAN; cache_config.values_len(&config.attention)];
        let mut cache =
            Cache::new(cache_config, &config.attention, &mut keys, &mut values).unwrap();
        // One a sequence, all of the same length.
        let mut streams = vec![Stream::default(); batch];
        for _ in 0..30 {
            let len = streams[0].len;
            match rng.random_range(0..11) {
                0 => {
                    cache.reset();
                    streams.fill(Stream::default());
                }
                10 => {
                    // As after a loss of power: the slices and two numbers are all there is.
                    let state = cache.state();
                    cache = Cache::resume(
                        cache_config,
                        &config.attention,
                        &mut keys,
                        &mut values,
                        state,
                    )
                    .unwrap();
                    resumed += 1;
                }
                1 | 2 => {
                    let len = rng.random_range(0..=len);
                    let oldest = cache.state().oldest;
                    match cache.rollback(len) {
                        Ok(()) => streams.iter_mut().for_each(|s| s.truncate(dims, len)),
                        Err(error) => {
                            assert!(matches!(error, Error::Range { .. }));
                            assert!(ring && len < oldest, "{error}");
                        }
                    }
                }
                _ => {
                    let n = rng.random_range(1..=20);
                    let state = cache.state();
                    streams.iter_mut().for_each(|stream| stream.push(dims, n, rng));
                    let new = |part: fn(&Stream) -> &Vec<f32>, width| -> Vec<f32> {
                        streams.iter().flat_map(|s| &part(s)[len * width..]).copied().collect()
                    };
                    let (k, v) = (new(|s| &s.k, dims.k_in), new(|s| &s.v, dims.v_in));
                    if let Err(error) = layer.append(&mut cache, &k, &v, &options) {
                        assert!(matches!(error, Error::CacheFull { .. }));
                        assert_eq!(cache.state(), state);
                        streams.iter_mut().for_each(|stream| stream.truncate(dims, len));
                    }
                }
            }
            let len = streams[0].len;
            assert_eq!(cache.len(), len);
            let pinned = cache_config.ring.unwrap_or(0).min(len);
            let oldest = if ring { cache.state().oldest.min(len) } else { 0 };
            let hidden: Vec<bool> = (0..len).map(|j| (pinned..oldest).contains(&j)).collect();
            rounds += usize::from(oldest > pinned);
            let n = rng.random_range(1..=len.clamp(1, 9)).min(len);
            if n == 0 {
                continue;
            }
            let (mut y, mut scores, mut q) = (Vec::new(), Vec::new(), Vec::new());
            for stream in &streams {
                let (its_y, its_scores) = whole(&model, stream, n, &hidden);
                y.extend(its_y);
                // Columns of what has been overwritten are not there.
                scores.extend(its_scores.chunks(len).flat_map(|row| {
                    row.iter().zip(&hidden).filter(|(_, h)| !**h).map(|(s, _)| *s)
                }));
                q.extend_from_slice(&stream.q[(len - n) * dims.q_in..]);
            }
            for len in [config.cached_scratch_len(n), config.min_cached_scratch_len()] {
                let mut got = vec![f32::NAN; batch * n * dims.out];
                let rows = batch * config.attention.heads * n;
                let mut got_scores = vec![f32::NAN; rows * cache.stored()];
                let mut scratch = vec![f32::NAN; len];
                let inputs = Inputs::query(&q).causal().options(&options);
                let outputs = Outputs::new(&mut got).scores(&mut got_scores);
                layer.attend(&cache, n, inputs, outputs, &mut scratch).unwrap();
                assert_eq!(bits(&got), bits(&y), "model {seed}, {cache_config:?}");
                let same = bits(&certain(&got_scores)) == bits(&certain(&scores));
                assert!(same, "the scores of model {seed}, {cache_config:?}");
            }
        }
    }
    assert!(rounds > 500, "rings have gone round {rounds} times only");
    assert!(resumed > 300, "{resumed} times resumed only");
    assert!(batches[1..].iter().all(|&count| count > 50), "{batches:?}");
}

#[test]
fn decoding_one_by_one_gives_the_bits_of_one_causal_call() {
    for seed in 0..60 {
        let model = Model::random(seed);
        let (config, dims, layer) = (&model.config, &model.config.dims, model.layer());
        let options = model.options();
        let rng = &mut StdRng::seed_from_u64(seed);
        let len = rng.random_range(1..=90);
        let mut stream = Stream::default();
        stream.push(dims, len, rng);
        let (all, _) = whole(&model, &stream, len, &vec![false; len]);
        let cache_config = CacheConfig::linear(len);
        let mut keys = vec![f32::NAN; cache_config.keys_len(&config.attention)];
        let mut values = vec![f32::NAN; cache_config.values_len(&config.attention)];
        let mut cache =
            Cache::new(cache_config, &config.attention, &mut keys, &mut values).unwrap();
        let mut scratch = vec![f32::NAN; config.cached_scratch_len(1)];
        for t in 0..len {
            let row = |x: &[f32], width: usize| x[t * width..][..width].to_vec();
            let (k, v) = (row(&stream.k, dims.k_in), row(&stream.v, dims.v_in));
            layer.append(&mut cache, &k, &v, &options).unwrap();
            let q = row(&stream.q, dims.q_in);
            let mut y = vec![f32::NAN; dims.out];
            let inputs = Inputs::query(&q).causal().options(&options);
            layer.attend(&cache, 1, inputs, Outputs::new(&mut y), &mut scratch).unwrap();
            assert_eq!(bits(&y), bits(&all[t * dims.out..][..dims.out]), "model {seed}, step {t}");
        }
    }
}

#[test]
fn a_saved_cache_goes_on_where_it_was() {
    let model = Model::random(3);
    let (config, dims, layer) = (&model.config, &model.config.dims, model.layer());
    let rng = &mut StdRng::seed_from_u64(1);
    let mut stream = Stream::default();
    stream.push(dims, 40, rng);
    let ring = CacheConfig::ring(32);
    let (mut keys, mut values) = (
        vec![0.0; ring.keys_len(&config.attention)],
        vec![0.0; ring.values_len(&config.attention)],
    );
    let mut cache = Cache::new(ring, &config.attention, &mut keys, &mut values).unwrap();
    for (k, v) in stream.k.chunks(dims.k_in).zip(stream.v.chunks(dims.v_in)) {
        layer.append(&mut cache, k, v, Plain).unwrap();
    }
    let (q, mut scratch) = (&stream.q[..dims.q_in], vec![0.0; config.cached_scratch_len(1)]);
    let mut y = vec![0.0; dims.out];
    layer.attend(&cache, 1, Inputs::query(q), Outputs::new(&mut y), &mut scratch).unwrap();
    let state = cache.state();
    let (mut keys, mut values) = (keys.clone(), values.clone());
    let cache = Cache::resume(ring, &config.attention, &mut keys, &mut values, state).unwrap();
    let mut again = vec![0.0; dims.out];
    layer.attend(&cache, 1, Inputs::query(q), Outputs::new(&mut again), &mut scratch).unwrap();
    assert_eq!(bits(&again), bits(&y));
    let impossible = mha::CacheState { len: 90, oldest: 0 };
    assert!(Cache::resume(ring, &config.attention, &mut keys, &mut values, impossible).is_err());
}

#[test]
fn the_mean_and_one_head_of_the_scores_are_those_of_all() {
    for seed in 0..100 {
        let model = Model::random(seed);
        let (config, dims) = (&model.config, &model.config.dims);
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut stream = Stream::default();
        stream.push(dims, rng.random_range(1..=70), rng);
        let shape = Shape::new(1, stream.len, stream.len);
        let mut scratch = vec![f32::NAN; config.scratch_len(shape)];
        let heads = config.attention.heads;
        let mut run = |select: Select, len: usize| {
            let mut y = vec![f32::NAN; config.y_len(shape)];
            let mut scores = vec![f32::NAN; len];
            let options = Options { scores: select, ..model.options() };
            let inputs = Inputs::new(&stream.q, &stream.k, &stream.v).options(&options);
            let outputs = Outputs::new(&mut y).scores(&mut scores);
            model.layer().forward(shape, inputs, outputs, &mut scratch).unwrap();
            (y, scores)
        };
        let each = shape.q_len * shape.kv_len;
        let (y, all) = run(Select::All, heads * each);
        let (y_mean, mean) = run(Select::Mean, each);
        assert_eq!(bits(&y_mean), bits(&y));
        for (i, mean) in mean.iter().enumerate() {
            let expected: f32 = (0..heads).map(|h| all[h * each + i]).sum::<f32>() / heads as f32;
            assert!((mean - expected).abs() < 1e-6, "model {seed}");
        }
        for head in 0..heads {
            let (_, one) = run(Select::Head(head), each);
            assert_eq!(bits(&one), bits(&all[head * each..][..each]), "model {seed}");
        }
    }
}

#[test]
fn packed_sequences_give_the_bits_of_each_alone() {
    for seed in 0..60 {
        let model = Model::random(seed);
        let (config, dims, layer) = (&model.config, &model.config.dims, model.layer());
        let options = model.options();
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut stream = Stream::default();
        let mut starts = vec![0];
        for _ in 0..rng.random_range(0..=4) {
            stream.push(dims, rng.random_range(0..=40), rng);
            starts.push(stream.len);
        }
        let longest = starts.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
        let mut scratch = vec![f32::NAN; config.scratch_len(Shape::new(1, longest, longest))];
        let mut y = vec![f32::NAN; stream.len * dims.out];
        let inputs = Inputs::new(&stream.q, &stream.k, &stream.v).causal().options(&options);
        layer.forward_packed(&starts, &starts, inputs, Outputs::new(&mut y), &mut scratch).unwrap();
        for pair in starts.windows(2) {
            let (from, n) = (pair[0], pair[1] - pair[0]);
            let part = |x: &[f32], width: usize| x[from * width..][..n * width].to_vec();
            let (q, k, v) = (
                part(&stream.q, dims.q_in),
                part(&stream.k, dims.k_in),
                part(&stream.v, dims.v_in),
            );
            let mut one = vec![f32::NAN; n * dims.out];
            let inputs = Inputs::new(&q, &k, &v).causal().options(&options);
            layer
                .forward(Shape::new(1, n, n), inputs, Outputs::new(&mut one), &mut scratch)
                .unwrap();
            assert_eq!(bits(&one), bits(&y[from * dims.out..][..n * dims.out]), "model {seed}");
        }
    }
}

#[test]
fn partial_results_over_two_memories_merge() {
    // Two halves of the keys, merged by their log-sum-exps, are the whole.
    use core::cell::Cell;
    let rng = &mut StdRng::seed_from_u64(5);
    let attention = mha::Attention::new(2, 8, 6);
    let (q, k, v) = (floats(rng, 3 * 8, 2.0), floats(rng, 40 * 8, 2.0), floats(rng, 40 * 6, 1.0));
    let run = |from: usize, to: usize| {
        let shape = Shape::new(1, 3, to - from);
        let (mut y, mut lse) = (vec![0.0; 18], vec![0.0; 6]);
        let mut scratch = vec![0.0; attention.scratch_len(shape)];
        let cells = Cell::from_mut(lse.as_mut_slice()).as_slice_of_cells();
        let options = Options { lse: Some(cells), ..Options::new() };
        let inputs = Inputs::new(&q, &k[from * 8..to * 8], &v[from * 6..to * 6]).options(&options);
        let outputs = Outputs::new(&mut y);
        mha::dot_product_attention(attention, Isa::detect(), shape, inputs, outputs, &mut scratch)
            .unwrap();
        (y, lse)
    };
    let (whole, whole_lse) = run(0, 40);
    let ((a, a_lse), (b, b_lse)) = (run(0, 23), run(23, 40));
    let (mut merged, mut lse) = (a, a_lse);
    mha::merge(&attention, &mut merged, &mut lse, &b, &b_lse).unwrap();
    for (got, expected) in merged.iter().zip(&whole).chain(lse.iter().zip(&whole_lse)) {
        assert!((got - expected).abs() < 2e-6, "{got} for {expected}");
    }
}

/// Keys that cross the end of a ring go on counting from the offset that is said for the first.
#[test]
fn said_positions_count_on_over_the_end_of_a_ring() {
    for seed in 0..20 {
        let model = Model::random(seed);
        let (config, dims, layer) = (&model.config, &model.config.dims, model.layer());
        let mut stream = Stream::default();
        stream.push(dims, 40, &mut StdRng::seed_from_u64(seed));
        let ring = CacheConfig::ring(32);
        let run = |piece: usize| {
            let (mut keys, mut values) = (
                vec![f32::NAN; ring.keys_len(&config.attention)],
                vec![f32::NAN; ring.values_len(&config.attention)],
            );
            let mut cache = Cache::new(ring, &config.attention, &mut keys, &mut values).unwrap();
            for from in (0..40).step_by(piece) {
                let rope = Rope { k_offset: Some(100 + from), ..Rope::new(10_000.0) };
                let options = Options { rope: Some(rope), ..Options::new() };
                let k = &stream.k[from * dims.k_in..(from + piece) * dims.k_in];
                let v = &stream.v[from * dims.v_in..(from + piece) * dims.v_in];
                layer.append(&mut cache, k, v, &options).unwrap();
            }
            (bits(&keys), bits(&values))
        };
        assert_eq!(run(20), run(1), "model {seed}");
    }
}
