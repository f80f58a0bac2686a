//! How a call travels to a door in another process, and how the answer comes back.
//!
//! A door program reads requests on its standard input and answers on its standard output until the
//! input ends. Integers are 64-bit, floats are f32, all little-endian.
//!
//! A request is [`MAGIC`], the number of header words that follow, those words (each is one of
//! [`Word`], in that order), then the payload. A door that meets more words than it knows, and one of
//! those not zero, answers [`NEWER`] and ends, since it cannot know how long the payload is. What a
//! plain layer does not have is zero, so a door that knows [`PLAIN_WORDS`] words serves plain calls.
//!
//! The payload, each part only where the header says that it is there, without gaps:
//!
//! | part | size | there when |
//! |---|---|---|
//! | q | `[batch, q_len, q_in]` floats; for a rotation x, `[batch, heads, q_len, qk / heads]` | always |
//! | k | `[batch, kv_len, k_in]` floats | `kind` is 1 or 2 |
//! | v | `[batch, kv_len, v_in]` floats | `kind` is 1 or 2 |
//! | wq wk wv wo | `q_in·qk`, `k_in·kf`, `v_in·vf`, `v·out` floats | `kind` is 1 |
//! | bq bk bv bo | `qk`, `kf`, `vf`, `out` floats | the bit of `biases` |
//! | offsets | `[batch]` words, signed | `causal` is 2 |
//! | mask | the product of its extents, in bytes | `has_mask` |
//! | bias | the product of its extents, in floats | `has_bias` |
//! | positions of the first queries | `[batch]` words, signed | `position` is 2 |
//! | lens | `[batch]` words | `has_lens` |
//! | slopes | `[heads]` floats | `alibi` is 2 |
//! | sinks | `[heads]` floats | `has_sinks` |
//! | past keys | `[batch, past_len, kf]` floats | `past_len` is not 0 |
//! | past values | `[batch, past_len, vf]` floats | `past_len` is not 0 |
//! | dy | `[batch, q_len, out]` floats; `[batch, q_len, v]` where `kind` is 2 | `gradients` is not 0 |
//! | dscores | `[batch, heads, q_len, kv_len]` floats | `has_dscores` |
//! | rows of the table | `[batch, q_len]` words | `kind` is 3 |
//! | cosines, sines | `[table_rows, rope_dims / 2]` floats each | `kind` is 3 |
//!
//! Here `kf = kv_heads · qk / heads` and `vf = kv_heads · v / heads`, the widths of projected keys and
//! values; where `weights` are none (`kind` 2) `k_in = kf` and `v_in = vf`.
//!
//! An answer is a status word. 0 is followed by y (of a rotation: what has been rotated), then by the
//! scores `[batch, heads, q_len, past_len + kv_len]` where they were wanted, then, where `present` was
//! asked for, by the keys `[batch, kv_heads, past_len + kv_len, qk / heads]` and the values
//! `[batch, kv_heads, past_len + kv_len, v / heads]` that the cache holds in the end, then by the gradients
//! that were wanted, each as long as what it is the gradient of. Any other status is followed by a length and as many bytes of a message.

use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use mha::{Angles, Attention, Config, Dims, Rope, ScoresAt, Shape, WeightOrder};

use crate::call::{Answer, Call, Causality, Operation};
use crate::family::{Family, Slopes};
use crate::gradients::{Each, NAMES};
use crate::rotation::Rotation;

/// The first word of a request.
pub const MAGIC: u64 = 0x3143_414D_4148_4D31;

/// A word of a request's header, by its place. A flag is 0 or 1; a float is the low half of its word;
/// a word whose flag is 0 is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// 1: the layer. 2: attention without projections. 3: rotation alone, of plain tensors: row `i` of
    /// every head of x is rotated by a row of the table, which has `rope_dims / 2` columns.
    Kind,
    /// Features of a query input.
    QIn,
    /// Features of a key input.
    KIn,
    /// Features of a value input.
    VIn,
    /// Features of queries, all heads together.
    Qk,
    /// Features of mixed values, all heads together.
    V,
    /// Features of the output.
    Out,
    /// Query heads.
    Heads,
    /// 0: weights are `[in, out]`. 1: `[out, in]`.
    WeightOrder,
    /// Flag: `scale` counts.
    HasScale,
    /// Float: the factor on q·kᵀ.
    Scale,
    /// Sequences.
    Batch,
    /// Queries of each.
    QLen,
    /// Keys of each that the call brings, those of the past not among them.
    KvLen,
    /// 0: no causal rule. 1: one offset. 2: an offset for each sequence.
    Causal,
    /// Signed: the offset where `causal` is 1.
    Offset,
    /// Flag: scores are wanted.
    Scores,
    /// 0: after the softmax. 1: logits. 2: masked. 3: capped.
    ScoresAt,
    /// Flag: there is dropout.
    HasDropout,
    /// Float: its probability.
    P,
    /// Its seed.
    Seed,
    /// Flag: there is a mask.
    HasMask,
    /// The mask's extent along the batch.
    MaskBatch,
    /// Along the heads.
    MaskHeads,
    /// Along the queries.
    MaskQueries,
    /// Along the keys, those of the past among them.
    MaskKeys,
    /// Flag: there is a bias on the logits.
    HasBias,
    /// The bias's extent along the batch.
    BiasBatch,
    /// Along the heads.
    BiasHeads,
    /// Along the queries.
    BiasQueries,
    /// Along the keys, those of the past among them.
    BiasKeys,
    /// Bits: 1 bq, 2 bk, 4 bv, 8 bo are there.
    Biases,
    /// Key/value heads; 0: as many as query heads.
    KvHeads,
    /// Position of the first query among the keys, where there is no causal rule to say it. 0: not
    /// said. 1: one for the batch. 2: one for each sequence.
    Position,
    /// Signed: that position where `position` is 1.
    PositionOffset,
    /// Flag: the window ends on the left.
    HasLeft,
    /// Keys before its own position that a query sees.
    Left,
    /// Flag: the window ends on the right.
    HasRight,
    /// Keys after its own position that a query sees.
    Right,
    /// Flag: there are lengths, of the past and the new keys together.
    HasLens,
    /// Flag: `softcap` counts.
    HasSoftcap,
    /// Float: the cap of the logits.
    Softcap,
    /// 0: no ALiBi. 1: the usual slopes. 2: a slope for each head.
    Alibi,
    /// Flag: queries and keys are rotated after their projection.
    HasRope,
    /// Features of a head that are rotated, 0 for all; in a rotation alone never 0.
    RopeDims,
    /// Flag: pairs lie side by side.
    RopeInterleaved,
    /// Float: the base of the angles; in a rotation alone 0, the angles being a table.
    RopeBase,
    /// Flag: `rope_q` counts.
    HasRopeQ,
    /// Position by which the first query is rotated.
    RopeQ,
    /// Flag: `rope_k` counts.
    HasRopeK,
    /// Position by which the first new key is rotated.
    RopeK,
    /// Flag: there are sinks.
    HasSinks,
    /// Flag: the call goes through a linear cache of `past_len + kv_len` positions: the past is
    /// appended as it is, k and v are appended with the options, q attends.
    Cache,
    /// Positions of the past of each sequence.
    PastLen,
    /// Flag: what the cache holds in the end is wanted.
    Present,
    /// Rows of the table of a rotation alone.
    TableRows,
    /// Bits, from 1 on, in the order of [`NAMES`]: the gradients that are wanted.
    Gradients,
    /// Flag: there is a gradient with respect to the scores.
    HasDscores,
}

/// Header words that a plain call needs: the rest of its header is zero.
pub const PLAIN_WORDS: usize = Word::Biases as usize + 1;

/// Header words of a request.
pub const WORDS: usize = Word::HasDscores as usize + 1;

/// The status of a door that does not know the protocol's version.
pub const NEWER: i64 = -100;

/// A longer message than any door writes: what follows is no message.
const LONGEST_MESSAGE: u64 = 1 << 16;

/// The bytes of a request.
#[must_use]
pub fn request(call: &Call) -> Vec<u8> {
    let header = header(call);
    let mut bytes = Bytes(Vec::new());
    bytes.word(MAGIC);
    bytes.word(WORDS as u64);
    header.0.iter().for_each(|&word| bytes.word(word));

    bytes.floats(&call.q);
    if let Operation::Rotate(Rotation { positions, cos, sin, .. }) = &call.operation {
        bytes.sizes(positions);
        bytes.floats(cos);
        bytes.floats(sin);
        return bytes.0;
    }
    bytes.floats(call.keys());
    bytes.floats(call.values());
    if let Operation::Layer(_, parameters) = &call.operation {
        parameters.weights.iter().for_each(|weight| bytes.floats(weight));
        parameters.biases.iter().flatten().for_each(|bias| bytes.floats(bias));
    }
    bytes.offsets(&call.causal);
    if let Some(mask) = &call.mask {
        bytes.0.extend(&mask.data);
    }
    if let Some(bias) = &call.bias {
        bytes.floats(&bias.data);
    }
    let Family { offset, lens, alibi, sinks, past, .. } = &call.family;
    if let Some(offset) = offset {
        bytes.offsets(offset);
    }
    lens.iter().for_each(|lens| bytes.sizes(lens));
    if let Some(Slopes::Given(slopes)) = alibi {
        bytes.floats(slopes);
    }
    sinks.iter().for_each(|sinks| bytes.floats(sinks));
    if let Some(past) = past {
        bytes.floats(&past.k);
        bytes.floats(&past.v);
    }
    if let Some(above) = &call.above {
        bytes.floats(&above.dy);
        above.dscores.iter().for_each(|dscores| bytes.floats(dscores));
    }
    bytes.0
}

/// The header of a request.
fn header(call: &Call) -> Header {
    let attention = call.attention();
    let Attention { heads, kv_heads, qk, v, scale } = attention;
    let (kind, dims, order) = match &call.operation {
        Operation::Layer(Config { dims, weight_order, .. }, _) => (1, *dims, *weight_order),
        Operation::DotProduct(_) => {
            let inputs = (qk, attention.key_features(), attention.value_features());
            (2, Dims::new(inputs, (qk, v), v), WeightOrder::InOut)
        }
        Operation::Rotate(_) => (3, Dims::new((qk, qk, v), (qk, v), v), WeightOrder::InOut),
    };
    let Shape { batch, q_len, kv_len } = call.shape;
    let mut header = Header([0; WORDS]);
    header.set(Word::Kind, kind);
    let Dims { q_in, k_in, v_in, qk, v, out } = dims;
    header.sizes(Word::QIn, &[q_in, k_in, v_in, qk, v, out, heads]);
    header.set(Word::WeightOrder, u64::from(order == WeightOrder::OutIn));
    header.float(Word::HasScale, scale);
    header.sizes(Word::Batch, &[batch, q_len, kv_len]);
    header.offset(Word::Causal, &call.causal);
    if let Some(at) = call.scores {
        header.set(Word::Scores, 1);
        header.set(
            Word::ScoresAt,
            match at {
                ScoresAt::Softmax => 0,
                ScoresAt::Logits => 1,
                ScoresAt::Masked => 2,
                ScoresAt::Capped => 3,
            },
        );
    }
    if let Some(dropout) = call.dropout {
        header.float(Word::HasDropout, Some(dropout.p));
        header.set(Word::Seed, dropout.seed);
    }
    if let Some(mask) = &call.mask {
        header.set(Word::HasMask, 1);
        header.sizes(Word::MaskBatch, &mask.extents);
    }
    if let Some(bias) = &call.bias {
        header.set(Word::HasBias, 1);
        header.sizes(Word::BiasBatch, &bias.extents);
    }
    if let Operation::Layer(_, parameters) = &call.operation {
        let biases = parameters.biases.iter().enumerate();
        let biases = biases.map(|(bit, bias)| u64::from(bias.is_some()) << bit).sum();
        header.set(Word::Biases, biases);
    }
    header.set(Word::KvHeads, if kv_heads == heads { 0 } else { kv_heads as u64 });
    family(&mut header, call);
    header
}

/// The words that a plain call does not need.
fn family(header: &mut Header, call: &Call) {
    let Family { offset, window, lens, softcap, alibi, rope, sinks, past: _, present } =
        &call.family;
    if let Some(offset) = offset {
        header.offset(Word::Position, offset);
    }
    header.size(Word::HasLeft, window.left);
    header.size(Word::HasRight, window.right);
    header.set(Word::HasLens, u64::from(lens.is_some()));
    header.float(Word::HasSoftcap, *softcap);
    header.set(
        Word::Alibi,
        match alibi {
            None => 0,
            Some(Slopes::Standard) => 1,
            Some(Slopes::Given(_)) => 2,
        },
    );
    if let Some(Rope { dims, interleaved, angles, q_offset, k_offset }) = rope {
        // Cases have no tables but for a rotation alone.
        let base = if let Angles::Base(base) = angles { *base } else { 0.0 };
        header.set(Word::HasRope, 1);
        header.set(Word::RopeDims, *dims as u64);
        header.set(Word::RopeInterleaved, u64::from(*interleaved));
        header.set(Word::RopeBase, u64::from(base.to_bits()));
        header.size(Word::HasRopeQ, *q_offset);
        header.size(Word::HasRopeK, *k_offset);
    }
    header.set(Word::HasSinks, u64::from(sinks.is_some()));
    header.set(Word::Cache, u64::from(call.takes_a_cache()));
    header.set(Word::PastLen, call.past_len() as u64);
    header.set(Word::Present, u64::from(*present));
    if let Some(above) = &call.above {
        let bits = above.wanted.iter().enumerate().map(|(bit, &wanted)| u64::from(wanted) << bit);
        header.set(Word::Gradients, bits.sum());
        header.set(Word::HasDscores, u64::from(above.dscores.is_some()));
    }
    if let Operation::Rotate(rotation) = &call.operation {
        header.set(Word::RopeDims, rotation.dims as u64);
        header.set(Word::RopeInterleaved, u64::from(rotation.interleaved));
        let rows = rotation.cos.len().checked_div(rotation.dims / 2).unwrap_or(0);
        header.set(Word::TableRows, rows as u64);
    }
}

/// A header that is being written. Words that go together lie one after another.
struct Header([u64; WORDS]);

impl Header {
    fn set(&mut self, word: Word, value: u64) {
        self.0[word as usize] = value;
    }

    fn sizes(&mut self, first: Word, sizes: &[usize]) {
        let words = self.0[first as usize..].iter_mut();
        words.zip(sizes).for_each(|(word, &size)| *word = size as u64);
    }

    /// A flag and a size behind it.
    fn size(&mut self, flag: Word, size: Option<usize>) {
        self.sizes(flag, &[usize::from(size.is_some()), size.unwrap_or(0)]);
    }

    /// A flag and a float behind it.
    fn float(&mut self, flag: Word, float: Option<f32>) {
        self.size(flag, float.map(|float| float.to_bits() as usize));
    }

    /// Which rule, and its offset behind it.
    fn offset(&mut self, rule: Word, offset: &Causality) {
        let (number, offset) = match offset {
            Causality::None => (0, 0),
            Causality::Offset(offset) => (1, *offset),
            Causality::PerSequence(_) => (2, 0),
        };
        self.sizes(rule, &[number, offset as usize]);
    }
}

/// Reads the answer to a call.
///
/// # Errors
/// The door's own message where it refused the call; that the answer broke off.
pub fn answer(from: &mut impl Read, call: &Call) -> Result<Answer> {
    let status = word(from).context("the door gave no answer")? as i64;
    if status == 0 {
        let y = floats(from, call.y_len()).context("the answer broke off in y")?;
        let scores = floats(from, call.scores_len()).context("the answer broke off in scores")?;
        let mut present = None;
        if call.family.present {
            let [keys, values] = call.present_lens();
            let keys = floats(from, keys).context("the answer broke off in the keys")?;
            let values = floats(from, values).context("the answer broke off in the values")?;
            present = Some([keys, values]);
        }
        let mut gradients = Each::default();
        if let Some(above) = &call.above {
            let lens = call.gradient_lens();
            for i in (0..NAMES.len()).filter(|&i| above.wanted[i]) {
                gradients[i] = floats(from, lens[i])
                    .with_context(|| format!("the answer broke off in {}", NAMES[i]))?;
            }
        }
        return Ok(Answer { y, scores, present, gradients });
    }
    let length = word(from).context("the answer broke off in a message")?;
    ensure!(length <= LONGEST_MESSAGE, "status {status}, then {length}, which is no message");
    let mut message = vec![0; length as usize];
    from.read_exact(&mut message).context("the answer broke off in a message")?;
    bail!("{} (status {status})", String::from_utf8_lossy(&message));
}

/// Sends a request.
///
/// # Errors
/// That the door does not read it.
pub fn send(to: &mut impl Write, call: &Call) -> io::Result<()> {
    to.write_all(&request(call))?;
    to.flush()
}

struct Bytes(Vec<u8>);

impl Bytes {
    fn word(&mut self, word: u64) {
        self.0.extend(word.to_le_bytes());
    }

    fn sizes(&mut self, sizes: &[usize]) {
        sizes.iter().for_each(|&size| self.word(size as u64));
    }

    fn offsets(&mut self, offsets: &Causality) {
        if let Causality::PerSequence(offsets) = offsets {
            offsets.iter().for_each(|&offset| self.word(offset as i64 as u64));
        }
    }

    fn floats(&mut self, floats: &[f32]) {
        self.0.extend(floats.iter().flat_map(|float| float.to_le_bytes()));
    }
}

fn word(from: &mut impl Read) -> io::Result<u64> {
    let mut word = [0; 8];
    from.read_exact(&mut word)?;
    Ok(u64::from_le_bytes(word))
}

fn floats(from: &mut impl Read, count: usize) -> io::Result<Vec<f32>> {
    let mut bytes = vec![0; count * size_of::<f32>()];
    from.read_exact(&mut bytes)?;
    Ok(bytes.as_chunks().0.iter().map(|float| f32::from_le_bytes(*float)).collect())
}

#[cfg(test)]
mod tests;
