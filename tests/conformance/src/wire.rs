//! How a call travels to a door in another process, and how the answer comes back.
//!
//! A door program reads requests on its standard input and answers on its standard output until the
//! input ends. Integers are 64-bit, floats are f32, all little-endian.
//!
//! A request is [`MAGIC`], the number of header words that follow, those words (in the order that
//! [`request`] writes them, which is the only place that knows it), then the payload: q, k, v; for a
//! layer wq, wk, wv, wo and such of bq, bk, bv, bo as there are; an offset for each sequence where
//! causal is 2; the mask's bytes; the bias. A door that meets more words than it knows, and one of
//! those not zero, answers [`NEWER`].
//!
//! An answer is a status word. 0 is followed by y, then the scores where they were wanted; anything
//! else by a length and as many bytes of a message.

use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use mha::{Config, Dims, ScoresAt, Shape, WeightOrder};

use crate::call::{Answer, Call, Causality, Operation};

/// The first word of a request.
pub const MAGIC: u64 = 0x3143_414D_4148_4D31;

/// Header words of a request.
pub const WORDS: usize = 32;

/// The status of a door that does not know the protocol's version.
pub const NEWER: i64 = -100;

/// A longer message than any door writes: what follows is no message.
const LONGEST_MESSAGE: u64 = 1 << 16;

/// The bytes of a request.
#[must_use]
pub fn request(call: &Call) -> Vec<u8> {
    let attention = call.attention();
    let (kind, dims, order) = match &call.operation {
        Operation::Layer(Config { dims, weight_order, .. }, _) => (1, *dims, *weight_order),
        Operation::DotProduct(mha::Attention { qk, v, .. }) => {
            (2, Dims::new((*qk, *qk, *v), (*qk, *v), *v), WeightOrder::InOut)
        }
        // Nobody sends it: see `Call::beyond_the_wire`.
        Operation::Rotate(_) => (0, Dims::square(0), WeightOrder::InOut),
    };
    let Dims { q_in, k_in, v_in, qk, v, out } = dims;
    let Shape { batch, q_len, kv_len } = call.shape;
    let float = |x: Option<f32>| u64::from(x.unwrap_or(0.0).to_bits());
    let (causal, offset) = match call.causal {
        Causality::None => (0, 0),
        Causality::Offset(offset) => (1, offset as i64),
        Causality::PerSequence(_) => (2, 0),
    };
    let scores_at = match call.scores {
        None | Some(ScoresAt::Softmax) => 0,
        Some(ScoresAt::Logits | ScoresAt::Capped) => 1,
        Some(ScoresAt::Masked) => 2,
    };
    let mask = call.mask.as_ref().map_or([0; 4], |mask| mask.extents);
    let bias = call.bias.as_ref().map_or([0; 4], |bias| bias.extents);
    let mut biases = 0;
    if let Operation::Layer(_, parameters) = &call.operation {
        for (bit, bias) in parameters.biases.iter().enumerate() {
            biases |= u64::from(bias.is_some()) << bit;
        }
    }

    let mut bytes = Bytes(Vec::new());
    bytes.word(MAGIC);
    bytes.word(WORDS as u64);
    bytes.word(kind);
    bytes.sizes(&[q_in, k_in, v_in, qk, v, out, attention.heads]);
    bytes.word(u64::from(order == WeightOrder::OutIn));
    bytes.word(u64::from(attention.scale.is_some()));
    bytes.word(float(attention.scale));
    bytes.sizes(&[batch, q_len, kv_len]);
    bytes.word(causal);
    bytes.word(offset as u64);
    bytes.word(u64::from(call.scores.is_some()));
    bytes.word(scores_at);
    bytes.word(u64::from(call.dropout.is_some()));
    bytes.word(float(call.dropout.map(|dropout| dropout.p)));
    bytes.word(call.dropout.map_or(0, |dropout| dropout.seed));
    bytes.word(u64::from(call.mask.is_some()));
    bytes.sizes(&mask);
    bytes.word(u64::from(call.bias.is_some()));
    bytes.sizes(&bias);
    bytes.word(biases);

    bytes.floats(&call.q);
    bytes.floats(call.keys());
    bytes.floats(call.values());
    if let Operation::Layer(_, parameters) = &call.operation {
        parameters.weights.iter().for_each(|weight| bytes.floats(weight));
        parameters.biases.iter().flatten().for_each(|bias| bytes.floats(bias));
    }
    if let Causality::PerSequence(offsets) = &call.causal {
        offsets.iter().for_each(|&offset| bytes.word(offset as i64 as u64));
    }
    if let Some(mask) = &call.mask {
        bytes.0.extend(&mask.data);
    }
    if let Some(bias) = &call.bias {
        bytes.floats(&bias.data);
    }
    bytes.0
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
        return Ok(Answer { y, scores, present: None });
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
mod tests {
    use mha::{Attention, Config, Dims, ScoresAt, Shape};

    use super::{MAGIC, WORDS, answer, request};
    use crate::call::{Answer, Call, Causality, Drop, Grid, Operation, Parameters};

    fn words(bytes: &[u8]) -> Vec<u64> {
        bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
    }

    /// Every word by its place, so that a change of order is seen here and not in a door.
    #[test]
    fn a_request_has_every_word_in_its_place() {
        let dims = Dims::new((1, 2, 3), (4, 6), 5);
        let config = Config::new(dims).heads(2).scale(0.5);
        let parameters = Parameters {
            weights: [vec![1.0; 4], vec![2.0; 8], vec![3.0; 18], vec![4.0; 30]],
            biases: [None, Some(vec![5.0; 4]), None, Some(vec![6.0; 5])],
        };
        let operation = Operation::Layer(config, parameters);
        let call = Call {
            k: Some(vec![8.0; 2]),
            v: Some(vec![9.0; 3]),
            mask: Some(Grid { data: vec![1, 0, 1, 1], extents: [1, 2, 2, 1] }),
            bias: Some(Grid { data: vec![0.25; 2], extents: [1, 1, 2, 1] }),
            causal: Causality::PerSequence(vec![-3]),
            dropout: Some(Drop { p: 0.5, seed: 77 }),
            scores: Some(ScoresAt::Masked),
            ..Call::new(operation, Shape::new(1, 2, 1), vec![7.0; 2])
        };
        let bytes = request(&call);
        let (header, payload) = bytes.split_at((2 + WORDS) * 8);
        let half = u64::from(0.5f32.to_bits());
        let expected = [
            MAGIC, 32, // then the header
            1, 1, 2, 3, 4, 6, 5, 2, // kind, dims, heads
            0, 1, half, // weight order, scale
            1, 2, 1, // shape
            2, 0, // causal
            1, 2, // scores
            1, half, 77, // dropout
            1, 1, 2, 2, 1, // mask
            1, 1, 1, 2, 1,      // bias
            0b1010, // the biases that there are
        ];
        assert_eq!(words(header), expected);

        let mut floats = vec![7.0f32; 2];
        for (value, count) in
            [(8.0, 2), (9.0, 3), (1.0, 4), (2.0, 8), (3.0, 18), (4.0, 30), (5.0, 4), (6.0, 5)]
        {
            floats.extend(std::iter::repeat_n(value, count));
        }
        let mut expected: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
        expected.extend((-3i64).to_le_bytes());
        expected.extend([1, 0, 1, 1]);
        expected.extend([0.25f32; 2].iter().flat_map(|float| float.to_le_bytes()));
        assert_eq!(payload, expected);
    }

    fn attention() -> Call {
        let operation = Operation::DotProduct(Attention::new(1, 2, 2));
        Call {
            scores: Some(ScoresAt::Softmax),
            causal: Causality::Offset(-1),
            ..Call::new(operation, Shape::new(1, 1, 1), vec![7.0; 2])
        }
    }

    #[test]
    fn attention_alone_travels_without_weights() {
        let bytes = request(&attention());
        let header = words(&bytes[..34 * 8]);
        assert_eq!(header[2..10], [2, 2, 2, 2, 2, 2, 2, 1]);
        assert_eq!(header[16..18], [1, -1i64 as u64]);
        assert_eq!(bytes.len(), (2 + WORDS) * 8 + 3 * 2 * 4);
    }

    #[test]
    fn answers_are_read() {
        let mut ok = 0u64.to_le_bytes().to_vec();
        ok.extend([1.0f32, 2.0, 3.0].iter().flat_map(|float| float.to_le_bytes()));
        let expected = Answer { y: vec![1.0, 2.0], scores: vec![3.0], present: None };
        assert_eq!(answer(&mut ok.as_slice(), &attention()).unwrap(), expected);

        let short = &ok[..16];
        let error = answer(&mut &*short, &attention()).unwrap_err();
        assert!(error.to_string().contains("scores"), "{error}");

        let mut refused = (-100i64).to_le_bytes().to_vec();
        refused.extend(5u64.to_le_bytes());
        refused.extend(b"newer");
        let error = answer(&mut refused.as_slice(), &attention()).unwrap_err();
        assert_eq!(error.to_string(), "newer (status -100)");
    }
}
