//! The doors: ways into the library.

use std::io::{BufReader, BufWriter};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use mha::{
    Inputs, Isa, MultiHeadAttention, Outputs, Rules, Upstream, Weights, dot_product_attention,
    dot_product_attention_backward,
};

use crate::call::{Answer, Call, Operation, Parameters};
use crate::gradients::{Above, Each, lend};
use crate::{cached, wire};

/// A way into the library.
pub trait Door {
    /// What it is called.
    fn name(&self) -> &str;

    /// Carries a call out.
    ///
    /// # Errors
    /// Why the library refused it, or why the door is out of order.
    fn run(&mut self, call: &Call) -> Result<Answer>;
}

/// How much working memory the library is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scratch {
    /// What it works fastest with.
    Recommended,
    /// The least that it works with.
    Minimum,
}

/// The library in this process.
#[derive(Clone, Debug)]
pub struct Rust {
    isa: Isa,
    scratch: Scratch,
    name: String,
}

impl Rust {
    /// On the given instructions.
    #[must_use]
    pub fn new(isa: Isa, scratch: Scratch) -> Self {
        Self { isa, scratch, name: format!("rust({})", isa.name()) }
    }
}

impl Door for Rust {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, call: &Call) -> Result<Answer> {
        if let Operation::Rotate(rotation) = &call.operation {
            let (y, gradients) = (rotation.run(&call.q)?, Default::default());
            return Ok(Answer { y, scores: Vec::new(), present: None, gradients });
        }
        let options = call.family.options();
        let mut answer = if call.takes_a_cache() {
            cached::run(call, self.isa, self.scratch)
        } else {
            match &options {
                Some(options) => self.plain(call, call.inputs().options(options)),
                None => self.plain(call, call.inputs()),
            }
        }?;
        if let Some(above) = &call.above {
            answer.gradients = match &options {
                Some(options) => self.back(call, call.inputs().options(options), above),
                None => self.back(call, call.inputs(), above),
            }?;
        }
        Ok(answer)
    }
}

impl Rust {
    /// A call without a cache.
    fn plain<R: Rules>(&self, call: &Call, inputs: Inputs<'_, R>) -> Result<Answer> {
        let attention = call.attention();
        let length = match (&call.operation, self.scratch) {
            (Operation::Layer(config, _), Scratch::Recommended) => config.scratch_len(call.shape),
            (Operation::Layer(config, _), Scratch::Minimum) => config.min_scratch_len(call.shape),
            (_, Scratch::Recommended) => attention.scratch_len(call.shape),
            (_, Scratch::Minimum) => attention.min_scratch_len(),
        };
        let mut scratch = buffer(length)?;
        let mut y = buffer(call.y_len())?;
        let mut scores = buffer(call.scores_len())?;
        let mut outputs = Outputs::new(&mut y);
        if let Some(at) = call.scores {
            outputs = outputs.scores(&mut scores).scores_at(at);
        }
        match &call.operation {
            Operation::Layer(config, parameters) => {
                MultiHeadAttention::with_isa(*config, weights(parameters), self.isa)?.forward(
                    call.shape,
                    inputs,
                    outputs,
                    &mut scratch,
                )?;
            }
            _ => dot_product_attention(
                attention,
                self.isa,
                call.shape,
                inputs,
                outputs,
                &mut scratch,
            )?,
        }
        Ok(Answer { y, scores, present: None, gradients: Default::default() })
    }

    /// The way back of a call.
    fn back<R: Rules>(&self, call: &Call, inputs: Inputs<'_, R>, above: &Above) -> Result<Each> {
        let attention = call.attention();
        let length = match self.scratch {
            Scratch::Recommended => attention.backward_scratch_len(call.shape),
            Scratch::Minimum => attention.min_backward_scratch_len(call.shape),
        };
        let mut scratch = buffer(length)?;
        let mut each = Each::default();
        let lens = call.gradient_lens().into_iter().zip(above.wanted);
        for (gradient, (len, _)) in each.iter_mut().zip(lens).filter(|(_, (_, wanted))| *wanted) {
            *gradient = buffer(len)?;
        }
        let gradients = lend(&mut each, &above.wanted);
        let upstream = Upstream::new(&above.dy);
        let upstream = above.dscores.iter().fold(upstream, |all, dscores| all.scores(dscores));
        let (isa, shape) = (self.isa, call.shape);
        match &call.operation {
            Operation::Layer(config, parameters) => {
                MultiHeadAttention::with_isa(*config, weights(parameters), isa)?.backward(
                    shape,
                    inputs,
                    upstream,
                    gradients,
                    &mut scratch,
                )?;
            }
            _ => dot_product_attention_backward(
                attention,
                isa,
                shape,
                inputs,
                upstream,
                gradients,
                &mut scratch,
            )?,
        }
        Ok(each)
    }
}

/// Full of NaN, so that an element that the library forgets to write is noticed.
pub(crate) fn buffer(length: usize) -> Result<Vec<f32>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(length).with_context(|| format!("{length} floats are too many"))?;
    buffer.resize(length, f32::NAN);
    Ok(buffer)
}

pub(crate) fn weights(parameters: &Parameters) -> Weights<'_> {
    let [wq, wk, wv, wo] = &parameters.weights;
    let [bq, bk, bv, bo] = &parameters.biases;
    Weights {
        bq: bq.as_deref(),
        bk: bk.as_deref(),
        bv: bv.as_deref(),
        bo: bo.as_deref(),
        ..Weights::new(wq, wk, wv, wo)
    }
}

/// The library behind a program that speaks the [`wire`] protocol.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    // Both are there until the process is dropped.
    requests: Option<BufWriter<ChildStdin>>,
    answers: BufReader<ChildStdout>,
}

impl Process {
    /// Starts the program.
    ///
    /// # Errors
    /// That it cannot be started.
    pub fn start(name: &str, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{program} has no pipes");
        };
        Ok(Self {
            name: name.into(),
            child,
            requests: Some(BufWriter::new(requests)),
            answers: BufReader::new(answers),
        })
    }
}

impl Door for Process {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, call: &Call) -> Result<Answer> {
        let requests = self.requests.as_mut().context("the door is closed")?;
        let answer = match wire::send(requests, call) {
            Ok(()) => wire::answer(&mut self.answers, call),
            Err(error) => Err(error).context("the door does not listen"),
        };
        match self.child.try_wait()? {
            Some(status) if answer.is_err() => {
                answer.with_context(|| format!("the door's program has ended: {status}"))
            }
            _ => answer,
        }
    }
}

impl std::ops::Drop for Process {
    fn drop(&mut self) {
        // The end of its input ends the program.
        self.requests = None;
        let _ = self.child.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::process::Command;

    use mha::{Attention, Shape};

    use super::{Door, Process};
    use crate::call::{Call, Operation};

    fn answer(program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(arguments);
        let mut door = Process::start(program, command).unwrap();
        let operation = Operation::DotProduct(Attention::new(1, 1, 1));
        let call = Call::new(operation, Shape::new(1, 1, 1), vec![1.0]);
        format!("{:#}", door.run(&call).unwrap_err())
    }

    #[test]
    fn a_program_that_is_no_door_is_an_error() {
        let ended = answer("false", &[]);
        assert!(ended.contains("no answer") || ended.contains("not listen"), "{ended}");
        // A word that is no status that a door has, then one that is no length of a message.
        let print =
            r"head -c 8 > /dev/null; printf '\377%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16";
        let stranger = answer("sh", &["-c", print]);
        assert!(stranger.contains("no message"), "{stranger}");
    }
}
