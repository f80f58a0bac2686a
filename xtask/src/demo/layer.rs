//! Who computes the layer inside a network: the library in this process, or a door.

use anyhow::Result;
use mha::{Argument, Error, Isa, ScoresAt, Weights};
use mha_conformance::{Call, Door, Grid, Operation, Parameters};

use crate::doors::Name;

/// Who computes the layer.
pub(crate) struct Layer {
    name: String,
    place: Place,
    /// What a door said, for which the library has no error.
    said: Option<anyhow::Error>,
}

enum Place {
    Here(Isa),
    There(Box<dyn Door>),
}

impl Layer {
    /// The library in this process.
    pub(crate) fn here(isa: Isa) -> Self {
        let name = format!("rust ({})", isa.name());
        Self { name, place: Place::Here(isa), said: None }
    }

    /// A door; Rust on the given instructions.
    pub(crate) fn open(door: Name, isa: Isa) -> Result<Self> {
        if door == Name::Rust {
            return Ok(Self::here(isa));
        }
        Ok(Self { name: door.text().into(), place: Place::There(door.open(isa)?), said: None })
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether that is the library in this process.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self.place, Place::Here(_))
    }

    /// Computes the attention of a forward pass.
    pub(crate) fn attend(&mut self, call: mha_nets::Call<'_>) -> Result<(), Error> {
        let door = match &mut self.place {
            Place::Here(isa) => return call.run(*isa),
            Place::There(door) => door,
        };
        match door.run(&owned(&call)) {
            Ok(answer) => {
                call.y.copy_from_slice(&answer.y);
                if let Some(scores) = call.scores {
                    scores.copy_from_slice(&answer.scores);
                }
                Ok(())
            }
            Err(error) => {
                self.said = Some(error);
                Err(Error::Value { argument: Argument::Y })
            }
        }
    }

    /// The result of a forward pass, with what the door said where it failed.
    pub(crate) fn result(&mut self, result: Result<(), Error>) -> Result<()> {
        match self.said.take() {
            Some(said) => Err(said),
            None => Ok(result?),
        }
    }
}

/// The order as it travels.
fn owned(call: &mha_nets::Call<'_>) -> Call {
    let Weights { wq, wk, wv, wo, bq, bk, bv, bo } = call.weights;
    let parameters = Parameters {
        weights: [wq, wk, wv, wo].map(<[f32]>::to_vec),
        biases: [bq, bk, bv, bo].map(|bias| bias.map(<[f32]>::to_vec)),
    };
    let mask = call.mask.map(|mask| Grid {
        data: mask.iter().map(|&real| u8::from(real)).collect(),
        extents: [1, 1, 1, mask.len()],
    });
    Call {
        k: Some(call.kv.to_vec()),
        mask,
        scores: call.scores.as_ref().map(|_| ScoresAt::Softmax),
        ..Call::new(Operation::Layer(call.config, parameters), call.shape, call.q.to_vec())
    }
}
