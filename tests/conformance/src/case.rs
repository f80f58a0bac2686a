//! One case file, read whole: the call that it describes and the outputs that it expects.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use mha::{Attention, Config, Dims, Shape, WeightOrder, Window};

use crate::call::{Call, Causality, Operation, Parameters};
use crate::description::{Description, Offsets, RotationDescription, WeightsAre};
use crate::family::{Family, Past};
use crate::gradients;
use crate::rotation::Rotation;
use crate::tensors::{Floats, Tensors};

/// How far an element may be off: `|a − e| <= absolute + relative·|e|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// What is allowed of any element.
    pub absolute: f64,
    /// What is allowed for an element's size.
    pub relative: f64,
}

impl Tolerance {
    /// What the format allows where a case says nothing.
    pub const DEFAULT: Self = Self { absolute: 2e-5, relative: 2e-5 };

    /// What is allowed of an element that should be `expected`.
    #[must_use]
    pub fn allowed(&self, expected: f32) -> f64 {
        self.absolute + self.relative * f64::from(expected.abs())
    }
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What to compute.
    pub call: Call,
    /// The output expected (what is rotated, of rotation alone), where the file has it.
    pub y: Option<Vec<f32>>,
    /// The scores expected, where the file has them.
    pub scores: Option<Vec<f32>>,
    /// The keys and values that a cache should hold in the end, where the file has them.
    pub present: [Option<Vec<f32>>; 2],
    /// The gradients expected, in the order of [`gradients::NAMES`], where the file has them.
    pub gradients: [Option<Vec<f32>>; gradients::COUNT],
    /// How far the output may be off, and what a cache holds.
    pub y_tol: Tolerance,
    /// How far the scores may be off.
    pub scores_tol: Tolerance,
    /// How far the gradients may be off.
    pub grad_tol: Tolerance,
    /// Who computed the outputs.
    pub source: String,
}

impl Case {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, naming the key or the tensor at fault; or which key cannot be run yet.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        Self::parse(&bytes?)
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// Those of [`Case::read`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (text, mut tensors) = Tensors::parse(bytes)?;
        if let Some(rotation) = RotationDescription::parse(&text)? {
            return Self::rotation(rotation, tensors);
        }
        let description = Description::parse(&text)?;

        let operation = operation(&description, &mut tensors)?;
        let (sequences, mut call) = inputs(&description.dims, operation, &mut tensors)?;
        call.bias = tensors.grid("bias")?;
        call.mask = tensors.bools("mask")?;
        call.dropout = description.dropout;
        call.family = family(&description, &call, &mut tensors)?;
        let past_len = call.past_len();
        // The past is checked by now, and says how many keys there are.
        let kv_len = past_len + call.shape.kv_len;
        let present = present(&call, kv_len, &mut tensors)?;
        call.family.present = present.iter().any(Option::is_some);
        call.family.lens = lens(&call, kv_len, &mut tensors)?;
        let offset = match description.offset {
            None => Causality::Offset(isize::try_from(past_len)?),
            Some(Offsets::One(offset)) => Causality::Offset(offset),
            Some(Offsets::Each(offsets)) => {
                let (got, batch) = (offsets.len(), call.shape.batch);
                ensure!(got == batch, "causal_offset: {got} numbers for a batch of {batch}");
                Causality::PerSequence(offsets)
            }
        };
        // Without a causal rule it is the position that windows and ALiBi count from.
        if description.causal {
            call.causal = offset;
        } else if call.family.window != Window::default() || call.family.alibi.is_some() {
            call.family.offset = Some(offset);
        }

        let q_len = call.shape.q_len;
        let out = match &call.operation {
            Operation::Layer(config, _) => config.dims.out,
            Operation::DotProduct(attention) => attention.v,
            Operation::Rotate(_) => bail!("kind: rotation has no queries"),
        };
        let y = expected("y", &mut tensors, &sequences, &[q_len, out])?;
        let heads = call.attention().heads;
        let scores = expected("scores", &mut tensors, &sequences, &[heads, q_len, kv_len])?;
        let gradients = gradients::take(&mut call, &sequences, &mut tensors)?;
        let any = y.is_some() || scores.is_some() || call.above.is_some();
        ensure!(any, "y: missing, and so are scores");
        call.scores = scores.as_ref().map(|_| description.scores_at);
        tensors.finish()?;

        let Description { y_tol, scores_tol, grad_tol, source, .. } = description;
        Ok(Self { call, y, scores, present, gradients, y_tol, scores_tol, grad_tol, source })
    }

    /// A case of kind "rope".
    fn rotation(description: RotationDescription, mut tensors: Tensors<'_>) -> Result<Self> {
        let RotationDescription { interleaved, tolerance, source } = description;
        let Floats { data: x, shape } = tensors.required("x")?;
        let sizes = <[usize; 4]>::try_from(shape.as_slice());
        let Ok(sizes) = sizes else { bail!("x: {shape:?} is not [batch, heads, length, d]") };
        let rotation = Rotation::take(&mut tensors, sizes, interleaved)?;
        let rotated = tensors.exact("rotated", &shape)?;
        tensors.finish()?;
        let [batch, _, length, _] = sizes;
        let shape = Shape::new(batch, length, 0);
        Ok(Self {
            call: Call::new(Operation::Rotate(rotation), shape, x),
            y: Some(rotated),
            scores: None,
            present: [None, None],
            gradients: Default::default(),
            y_tol: tolerance,
            scores_tol: tolerance,
            grad_tol: tolerance,
            source,
        })
    }
}

/// What is computed, with its weights.
fn operation(description: &Description, tensors: &mut Tensors<'_>) -> Result<Operation> {
    let Description { dims, attention, .. } = *description;
    let WeightsAre::Stored(order) = description.weights else {
        for (name, size, inner) in [
            ("q_in", dims.q_in, dims.qk),
            ("k_in", dims.k_in, attention.key_features()),
            ("v_in", dims.v_in, attention.value_features()),
        ] {
            ensure!(
                size == inner,
                "dims: without weights {name} cannot be {size} and {inner} inside"
            );
        }
        ensure!(dims.out == dims.v, "dims: without weights out cannot be {}", dims.out);
        for name in ["wq", "wk", "wv", "wo", "bq", "bk", "bv", "bo"] {
            ensure!(!tensors.has(name), "{name}: not expected with weights \"none\"");
        }
        return Ok(Operation::DotProduct(attention));
    };
    let Dims { q_in, k_in, v_in, qk, v, out } = dims;
    let mut parameters = Parameters::default();
    let (key_features, value_features) = (attention.key_features(), attention.value_features());
    let layout =
        [("q", q_in, qk), ("k", k_in, key_features), ("v", v_in, value_features), ("o", v, out)];
    for (i, (letter, fan_in, fan_out)) in layout.into_iter().enumerate() {
        let shape = match order {
            WeightOrder::InOut => [fan_in, fan_out],
            WeightOrder::OutIn => [fan_out, fan_in],
        };
        parameters.weights[i] = tensors.exact(&format!("w{letter}"), &shape)?;
        let name = format!("b{letter}");
        if tensors.has(&name) {
            parameters.biases[i] = Some(tensors.exact(&name, &[fan_out])?);
        }
    }
    let config = Config { dims, attention, weight_order: order };
    Ok(Operation::Layer(config, parameters))
}

/// The options that need nothing but themselves, and the past.
fn family(description: &Description, call: &Call, tensors: &mut Tensors<'_>) -> Result<Family> {
    let Attention { heads, kv_heads, qk, v, .. } = description.attention;
    let sinks = tensors.has("sinks").then(|| tensors.exact("sinks", &[heads])).transpose()?;
    let past = match (tensors.floats("past_k")?, tensors.floats("past_v")?) {
        (None, None) => None,
        (None, Some(_)) => bail!("past_k: missing, though past_v is there"),
        (Some(_), None) => bail!("past_v: missing, though past_k is there"),
        (Some(k), Some(past_v)) => {
            let batch = call.shape.batch;
            let len = k.shape.get(2).copied().unwrap_or(0);
            Some(Past {
                len,
                k: side_by_side("past_k", k, [batch, kv_heads, len, qk / heads])?,
                v: side_by_side("past_v", past_v, [batch, kv_heads, len, v / heads])?,
            })
        }
    };
    Ok(Family {
        window: description.window.unwrap_or_default(),
        softcap: description.softcap,
        alibi: description.alibi.clone(),
        rope: description.rope,
        sinks,
        past,
        ..Family::default()
    })
}

/// Turns `[batch, heads, length, d]` into `[batch, length, heads · d]`.
fn side_by_side(name: &str, floats: Floats, sizes: [usize; 4]) -> Result<Vec<f32>> {
    let Floats { data, shape } = floats;
    ensure!(shape == sizes, "{name}: {shape:?} where {sizes:?} is expected");
    let [batch, heads, length, d] = sizes;
    let rows = (0..batch).flat_map(|b| (0..length).map(move |i| (b, i)));
    let places = rows.flat_map(|(b, i)| (0..heads).map(move |h| (b * heads + h) * length + i));
    Ok(places.flat_map(|place| &data[place * d..][..d]).copied().collect())
}

/// What a cache of `kv_len` positions should hold in the end.
fn present(call: &Call, kv_len: usize, tensors: &mut Tensors<'_>) -> Result<[Option<Vec<f32>>; 2]> {
    let Attention { heads, kv_heads, qk, v, .. } = call.attention();
    let mut one = |name: &str, d| {
        let shape = [call.shape.batch, kv_heads, kv_len, d];
        tensors.has(name).then(|| tensors.exact(name, &shape)).transpose()
    };
    Ok([one("present_k", qk / heads)?, one("present_v", v / heads)?])
}

/// How many of the `kv_len` keys of each sequence are real.
fn lens(call: &Call, kv_len: usize, tensors: &mut Tensors<'_>) -> Result<Option<Vec<usize>>> {
    let Some((lens, shape)) = tensors.sizes("kv_lens")? else { return Ok(None) };
    let batch = call.shape.batch;
    ensure!(shape == [batch], "kv_lens: {shape:?} where [{batch}] is expected");
    match lens.iter().find(|len| **len > kv_len) {
        Some(len) => bail!("kv_lens: {len} of {kv_len} keys"),
        None => Ok(Some(lens)),
    }
}

/// Queries, keys and values; also the axes in front of the length, all of which are batch.
fn inputs(
    dims: &Dims,
    operation: Operation,
    tensors: &mut Tensors<'_>,
) -> Result<(Vec<usize>, Call)> {
    let (batch, q_len, q) = sequence("q", dims.q_in, tensors.required("q")?)?;
    let (mut kv_len, mut k, mut v) = (q_len, None, None);
    if tensors.has("k") {
        let (k_batch, k_len, data) = sequence("k", dims.k_in, tensors.required("k")?)?;
        ensure!(k_batch == batch, "k: batch {k_batch:?} where q has {batch:?}");
        (kv_len, k) = (k_len, Some(data));
    } else {
        ensure!(!tensors.has("v"), "k: missing, though v is there");
        ensure!(
            dims.k_in == dims.q_in,
            "k: missing, and q is {} wide, not {}",
            dims.q_in,
            dims.k_in
        );
    }
    if tensors.has("v") {
        let (v_batch, v_len, data) = sequence("v", dims.v_in, tensors.required("v")?)?;
        ensure!(v_batch == batch, "v: batch {v_batch:?} where q has {batch:?}");
        ensure!(v_len == kv_len, "v: length {v_len} where k has {kv_len}");
        v = Some(data);
    } else {
        ensure!(
            dims.v_in == dims.k_in,
            "v: missing, and k is {} wide, not {}",
            dims.k_in,
            dims.v_in
        );
    }
    let shape = Shape::new(batch.iter().product(), q_len, kv_len);
    let call = Call { k, v, ..Call::new(operation, shape, q) };
    Ok((batch, call))
}

/// Splits `[batch…, length, width]`.
fn sequence(name: &str, width: usize, floats: Floats) -> Result<(Vec<usize>, usize, Vec<f32>)> {
    let Floats { data, shape } = floats;
    let [batch @ .., length, got] = shape.as_slice() else {
        bail!("{name}: {shape:?} has no axes for length and features");
    };
    ensure!(*got == width, "{name}: {got} features where dims say {width}");
    Ok((batch.to_vec(), *length, data))
}

/// An expected output: the batch, in as many axes as q has or in one, then `rest`.
fn expected(
    name: &str,
    tensors: &mut Tensors<'_>,
    batch: &[usize],
    rest: &[usize],
) -> Result<Option<Vec<f32>>> {
    let Some(Floats { data, shape }) = tensors.floats(name)? else { return Ok(None) };
    let wanted = [batch, rest].concat();
    let flat = [&[batch.iter().product()], rest].concat();
    ensure!(shape == wanted || shape == flat, "{name}: {shape:?} where {wanted:?} is expected");
    Ok(Some(data))
}
