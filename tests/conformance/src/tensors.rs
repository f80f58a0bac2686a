//! The tensors of a case file: taken out by name, so that those nobody asked for can be refused.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail, ensure};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::call::Grid;

/// The tensors that have not been taken yet.
pub(crate) struct Tensors<'data>(BTreeMap<String, TensorView<'data>>);

/// Elements and the size of every axis.
pub(crate) struct Floats {
    pub(crate) data: Vec<f32>,
    pub(crate) shape: Vec<usize>,
}

impl<'data> Tensors<'data> {
    /// Takes a file apart into the text under `mha` and the tensors.
    pub(crate) fn parse(bytes: &'data [u8]) -> Result<(String, Self)> {
        let wrong = |error| anyhow!("not a safetensors file: {error}");
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(wrong)?;
        let text = header.metadata().as_ref().and_then(|entries| entries.get("mha"));
        let text = text.context("__metadata__: the entry mha is missing")?.clone();
        let tensors = SafeTensors::deserialize(bytes).map_err(wrong)?;
        Ok((text, Self(tensors.tensors().into_iter().collect())))
    }

    /// Refuses what nobody has taken.
    pub(crate) fn finish(self) -> Result<()> {
        match self.0.keys().next() {
            Some(name) => bail!("{name}: unknown tensor"),
            None => Ok(()),
        }
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Takes a tensor of floats; 16-bit ones are widened.
    pub(crate) fn floats(&mut self, name: &str) -> Result<Option<Floats>> {
        let Some(view) = self.0.remove(name) else { return Ok(None) };
        let data = match view.dtype() {
            Dtype::F32 => words(view.data(), f32::from_le_bytes),
            Dtype::F16 => words(view.data(), |two| widen_f16(u16::from_le_bytes(two))),
            Dtype::BF16 => {
                words(view.data(), |two| f32::from_bits(u32::from(u16::from_le_bytes(two)) << 16))
            }
            other => bail!("{name}: {other:?} where F32, F16 or BF16 is expected"),
        };
        Ok(Some(Floats { data, shape: view.shape().to_vec() }))
    }

    /// Takes a tensor of floats that must be there.
    pub(crate) fn required(&mut self, name: &str) -> Result<Floats> {
        self.floats(name)?.with_context(|| format!("{name}: missing"))
    }

    /// Takes a tensor of floats that must be there and have this shape.
    pub(crate) fn exact(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let floats = self.required(name)?;
        ensure!(floats.shape == shape, "{name}: {:?} where {shape:?} is expected", floats.shape);
        Ok(floats.data)
    }

    /// Takes a tensor of sizes, and its shape.
    pub(crate) fn sizes(&mut self, name: &str) -> Result<Option<(Vec<usize>, Vec<usize>)>> {
        let Some(view) = self.0.remove(name) else { return Ok(None) };
        ensure!(view.dtype() == Dtype::I64, "{name}: {:?} where I64 is expected", view.dtype());
        let words = view.data().as_chunks().0.iter().map(|word| i64::from_le_bytes(*word));
        let size = |n| usize::try_from(n).ok().with_context(|| format!("{name}: {n} is negative"));
        Ok(Some((words.map(size).collect::<Result<_>>()?, view.shape().to_vec())))
    }

    /// Takes a tensor of floats that is broadcast.
    pub(crate) fn grid(&mut self, name: &str) -> Result<Option<Grid<f32>>> {
        let Some(Floats { data, shape }) = self.floats(name)? else { return Ok(None) };
        Ok(Some(Grid { data, extents: extents(name, &shape)? }))
    }

    /// Takes a tensor of booleans that is broadcast.
    pub(crate) fn bools(&mut self, name: &str) -> Result<Option<Grid<u8>>> {
        let Some(view) = self.0.remove(name) else { return Ok(None) };
        ensure!(
            matches!(view.dtype(), Dtype::BOOL | Dtype::U8),
            "{name}: {:?} where BOOL or U8 is expected",
            view.dtype()
        );
        Ok(Some(Grid { data: view.data().to_vec(), extents: extents(name, view.shape())? }))
    }
}

/// Up to four axes, aligned to the right.
fn extents(name: &str, shape: &[usize]) -> Result<[usize; 4]> {
    let missing = 4usize.checked_sub(shape.len());
    let missing = missing.with_context(|| format!("{name}: {shape:?} has more than four axes"))?;
    let mut extents = [1; 4];
    extents[missing..].copy_from_slice(shape);
    Ok(extents)
}

fn words<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|word| read(*word)).collect()
}

/// Exact: every 16-bit float is a 32-bit one.
fn widen_f16(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    sign * magnitude
}

#[cfg(test)]
mod tests {
    use super::widen_f16;

    /// One of each kind, from IEEE 754's table of binary16.
    #[test]
    fn sixteen_bits_are_widened_exactly() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x0001, 2f32.powi(-24)),
            (0x03ff, 1023.0 * 2f32.powi(-24)),
            (0x0400, 2f32.powi(-14)),
            (0x3555, 0.333_251_95),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(widen_f16(bits), value, "{bits:#06x}");
        }
        assert!(widen_f16(0x7e00).is_nan());
        assert_eq!(widen_f16(0x8000).to_bits(), (-0.0f32).to_bits());
    }
}
