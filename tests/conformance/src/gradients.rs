//! Gradients: what a case brings from above, what it expects, and which of a call's gradients that takes.

use anyhow::{Result, bail, ensure};
use mha::{Attention, Config, Dims, Gradients, WeightOrder};

use crate::call::{Call, Operation};
use crate::tensors::{Floats, Tensors};

/// How many gradients there can be.
pub const COUNT: usize = 12;

/// Their names in a case, in the order in which they travel.
pub const NAMES: [&str; COUNT] =
    ["dq", "dk", "dv", "dwq", "dwk", "dwv", "dwo", "dbq", "dbk", "dbv", "dbo", "dbias"];

/// What a call goes back from.
#[derive(Clone, Debug, PartialEq)]
pub struct Above {
    /// The gradient with respect to the output.
    pub dy: Vec<f32>,
    /// That with respect to the scores, where there is one.
    pub dscores: Option<Vec<f32>>,
    /// Which gradients are wanted, in the order of [`NAMES`].
    pub wanted: [bool; COUNT],
}

/// Gradients in the order of [`NAMES`]; empty where none was wanted.
pub type Each = [Vec<f32>; COUNT];

impl Call {
    /// Elements of each gradient that the call can have.
    #[must_use]
    pub fn gradient_lens(&self) -> [usize; COUNT] {
        let mut lens = [0; COUNT];
        lens[..3].copy_from_slice(&[self.q.len(), self.keys().len(), self.values().len()]);
        if let Operation::Layer(_, parameters) = &self.operation {
            for i in 0..4 {
                lens[3 + i] = parameters.weights[i].len();
                lens[7 + i] = parameters.biases[i].as_ref().map_or(0, Vec::len);
            }
        }
        lens[11] = self.bias.as_ref().map_or(0, |bias| bias.data.len());
        lens
    }

    /// Which gradients add up to that of an array: an array can be queries, keys and values at once.
    fn uses(&self, gradient: usize) -> Vec<usize> {
        match (gradient, &self.k, &self.v) {
            (0, None, None) => vec![0, 1, 2],
            (0, None, Some(_)) => vec![0, 1],
            (1, Some(_), None) => vec![1, 2],
            _ => vec![gradient],
        }
    }

    /// The gradient of an array that a case names, of those of its uses.
    pub(crate) fn added(&self, gradient: usize, each: &Each) -> Vec<f32> {
        let mut sum = Vec::new();
        for used in self.uses(gradient) {
            if sum.is_empty() {
                sum.clone_from(&each[used]);
            } else {
                sum.iter_mut().zip(&each[used]).for_each(|(sum, x)| *sum += x);
            }
        }
        sum
    }
}

/// Takes `dy`, `dscores` and the gradients expected; sets what the call goes back from.
pub(crate) fn take(
    call: &mut Call,
    batch: &[usize],
    tensors: &mut Tensors<'_>,
) -> Result<[Option<Vec<f32>>; COUNT]> {
    let mut expected: [Option<Vec<f32>>; COUNT] = Default::default();
    let Some(first) = NAMES.into_iter().chain(["dscores"]).find(|name| tensors.has(name)) else {
        ensure!(!tensors.has("dy"), "dy: there, but no gradient is expected");
        return Ok(expected);
    };
    ensure!(tensors.has("dy"), "dy: missing, though {first} is there");
    ensure!(call.family.past.is_none(), "{first}: there is no way back into a past");
    ensure!(!call.family.present, "{first}: there is no way back through a cache");
    let attention = call.attention();
    let (q_len, kv_len) = (call.shape.q_len, call.shape.kv_len);
    let (dims, order) = match &call.operation {
        Operation::Layer(Config { dims, weight_order, .. }, _) => (*dims, *weight_order),
        _ => (bare(&attention), WeightOrder::InOut),
    };
    let heads = attention.heads;
    let mut sequences = |name: &str, rest: &[usize]| -> Result<Option<Vec<f32>>> {
        let Some(Floats { data, shape }) = tensors.floats(name)? else { return Ok(None) };
        let wanted = [batch, rest].concat();
        let flat = [&[batch.iter().product()], rest].concat();
        ensure!(shape == wanted || shape == flat, "{name}: {shape:?} where {wanted:?} is expected");
        Ok(Some(data))
    };
    // 1. From above.
    let Some(dy) = sequences("dy", &[q_len, dims.out])? else { bail!("dy: missing") };
    let dscores = sequences("dscores", &[heads, q_len, kv_len])?;
    // 2. Of the inputs.
    expected[0] = sequences("dq", &[q_len, dims.q_in])?;
    expected[1] = sequences("dk", &[kv_len, dims.k_in])?;
    expected[2] = sequences("dv", &[kv_len, dims.v_in])?;
    ensure!(expected[1].is_none() || call.k.is_some(), "dk: there, but k is not");
    ensure!(expected[2].is_none() || call.v.is_some(), "dv: there, but v is not");
    // 3. Of the weights and biases.
    let Dims { q_in, k_in, v_in, qk, v, out } = dims;
    let (key_features, value_features) = (attention.key_features(), attention.value_features());
    let layout = [(q_in, qk), (k_in, key_features), (v_in, value_features), (v, out)];
    for (i, (fan_in, fan_out)) in layout.into_iter().enumerate() {
        let shape = match order {
            WeightOrder::InOut => [fan_in, fan_out],
            WeightOrder::OutIn => [fan_out, fan_in],
        };
        let (weight, bias) = (NAMES[3 + i], NAMES[7 + i]);
        let lens = call.gradient_lens();
        if tensors.has(weight) {
            ensure!(lens[3 + i] > 0, "{weight}: there, but the weight is not");
            expected[3 + i] = Some(tensors.exact(weight, &shape)?);
        }
        if tensors.has(bias) {
            ensure!(lens[7 + i] > 0, "{bias}: there, but the bias is not");
            expected[7 + i] = Some(tensors.exact(bias, &[fan_out])?);
        }
    }
    // 4. Of the bias on the logits.
    if let Some(grid) = tensors.grid("dbias")? {
        let extents = call.bias.as_ref().map(|bias| bias.extents);
        ensure!(extents.is_some(), "dbias: there, but bias is not");
        ensure!(extents == Some(grid.extents), "dbias: not of the shape of bias");
        expected[11] = Some(grid.data);
    }
    let mut wanted = [false; COUNT];
    for (gradient, _) in expected.iter().enumerate().filter(|(_, expected)| expected.is_some()) {
        call.uses(gradient).into_iter().for_each(|used| wanted[used] = true);
    }
    ensure!(wanted.contains(&true), "dy: there, but no gradient is expected");
    call.above = Some(Above { dy, dscores, wanted });
    Ok(expected)
}

/// The widths of attention without projections.
pub(crate) fn bare(attention: &Attention) -> Dims {
    let (qk, v) = (attention.qk, attention.v);
    Dims::new((qk, attention.key_features(), attention.value_features()), (qk, v), v)
}

/// Room for what is wanted, lent to the library.
pub(crate) fn lend<'a>(each: &'a mut Each, wanted: &[bool; COUNT]) -> Gradients<'a> {
    let mut rest = each.iter_mut().zip(wanted);
    let mut next = || match rest.next() {
        Some((gradient, true)) => Some(gradient.as_mut_slice()),
        _ => None,
    };
    Gradients {
        q: next(),
        k: next(),
        v: next(),
        wq: next(),
        wk: next(),
        wv: next(),
        wo: next(),
        bq: next(),
        bk: next(),
        bv: next(),
        bo: next(),
        bias: next(),
        accumulate: false,
    }
}
