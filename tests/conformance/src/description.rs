//! The description in a case's metadata: a JSON object, every key of which is understood or refused
//! by name.

use anyhow::{Context, Result, anyhow, bail, ensure};
use mha::{Attention, Dims, ScoresAt, WeightOrder};
use serde_json::{Map, Value};

use crate::call::Drop;
use crate::case::Tolerance;

/// Keys that the format has and this program cannot run yet.
const UNSUPPORTED: [&str; 4] = ["window", "softcap", "alibi", "rope"];

/// How the weights lie, or that there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WeightsAre {
    /// `[in, out]` or `[out, in]`.
    Stored(WeightOrder),
    /// No projections.
    Absent,
}

/// What `causal` and `causal_offset` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Offsets {
    One(isize),
    Each(Vec<isize>),
}

/// The description, each key in its type.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub(crate) dims: Dims,
    pub(crate) attention: Attention,
    pub(crate) weights: WeightsAre,
    pub(crate) causal: Option<Offsets>,
    pub(crate) scores_at: ScoresAt,
    pub(crate) dropout: Option<Drop>,
    pub(crate) y_tol: Tolerance,
    pub(crate) scores_tol: Tolerance,
    pub(crate) source: String,
}

impl Description {
    /// Understands the whole text or refuses it.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut keys = Keys(serde_json::from_str(text).context("mha: not a JSON object")?);
        for key in UNSUPPORTED {
            // `false` is how a description says that it has no ALiBi.
            let off = key == "alibi" && keys.0.get(key) == Some(&Value::Bool(false));
            if keys.0.contains_key(key) && !off {
                bail!("{key}: not supported yet");
            }
            keys.0.remove(key);
        }
        let dims = dims(&keys.required("dims")?)?;
        let heads = size("heads", &keys.required("heads")?)?;
        if let Some(kv_heads) = keys.take("kv_heads")
            && size("kv_heads", &kv_heads)? != heads
        {
            bail!("kv_heads: not supported yet where it differs from heads");
        }
        let mut attention = Attention::new(heads, dims.qk, dims.v);
        if let Some(scale) = keys.take("scale") {
            attention = attention.scale(number("scale", &scale)? as f32);
        }
        attention.check()?;
        let description = Self {
            dims,
            attention,
            weights: weights(keys.take("weights"))?,
            causal: causal(keys.take("causal"), keys.take("causal_offset"))?,
            scores_at: scores_at(keys.take("scores_at"))?,
            dropout: keys.take("dropout").map(|value| dropout(&value)).transpose()?,
            y_tol: tolerance("y_tol", keys.take("y_tol"))?,
            scores_tol: tolerance("scores_tol", keys.take("scores_tol"))?,
            source: match keys.take("source") {
                None => "unnamed".into(),
                Some(value) => value.as_str().context("source: not a text")?.into(),
            },
        };
        // Understood, though nothing of this description's is compared by it.
        tolerance("grad_tol", keys.take("grad_tol"))?;
        match keys.0.keys().next() {
            Some(key) => bail!("{key}: unknown key"),
            None => Ok(description),
        }
    }
}

/// The keys that are not understood yet.
struct Keys(Map<String, Value>);

impl Keys {
    fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    fn required(&mut self, key: &str) -> Result<Value> {
        self.take(key).with_context(|| format!("{key}: missing"))
    }
}

fn size(key: &str, value: &Value) -> Result<usize> {
    let size = value.as_u64().and_then(|n| usize::try_from(n).ok());
    size.with_context(|| format!("{key}: {value} is not a size"))
}

fn number(key: &str, value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("{key}: {value} is not a number"))
}

/// A number, or an object whose missing members are filled in as Flux's shorter forms would:
/// `k_in`, `v_in`, `qk` and `out` from `q_in`, `v` from `qk`.
fn dims(value: &Value) -> Result<Dims> {
    let width = |key: &str, value: &Value| match size(key, value) {
        Ok(0) => bail!("{key}: a width is zero"),
        width => width,
    };
    let Value::Object(members) = value else {
        return Ok(Dims::square(width("dims", value)?));
    };
    let names = ["q_in", "k_in", "v_in", "qk", "v", "out"];
    if let Some(unknown) = members.keys().find(|name| !names.contains(&name.as_str())) {
        bail!("dims: unknown member {unknown}");
    }
    let member = |name: &str| {
        members.get(name).map(|value| width(&format!("dims: {name}"), value)).transpose()
    };
    let q_in = member("q_in")?.context("dims: q_in is missing")?;
    let qk = member("qk")?.unwrap_or(q_in);
    Ok(Dims {
        q_in,
        k_in: member("k_in")?.unwrap_or(q_in),
        v_in: member("v_in")?.unwrap_or(q_in),
        qk,
        v: member("v")?.unwrap_or(qk),
        out: member("out")?.unwrap_or(q_in),
    })
}

fn weights(value: Option<Value>) -> Result<WeightsAre> {
    let Some(value) = value else { return Ok(WeightsAre::Stored(WeightOrder::InOut)) };
    match value.as_str() {
        Some("in_out") => Ok(WeightsAre::Stored(WeightOrder::InOut)),
        Some("out_in") => Ok(WeightsAre::Stored(WeightOrder::OutIn)),
        Some("none") => Ok(WeightsAre::Absent),
        _ => bail!("weights: {value} is neither \"in_out\" nor \"out_in\" nor \"none\""),
    }
}

fn causal(causal: Option<Value>, offset: Option<Value>) -> Result<Option<Offsets>> {
    let causal = match causal {
        None => false,
        Some(value) => value.as_bool().with_context(|| format!("causal: {value} is not a bool"))?,
    };
    let one = |value: &Value| {
        let offset = value.as_i64().and_then(|n| isize::try_from(n).ok());
        offset.with_context(|| format!("causal_offset: {value} is not an offset"))
    };
    let offset = match &offset {
        None => Offsets::One(0),
        Some(Value::Array(each)) => Offsets::Each(each.iter().map(one).collect::<Result<_>>()?),
        Some(value) => Offsets::One(one(value)?),
    };
    Ok(causal.then_some(offset))
}

fn scores_at(value: Option<Value>) -> Result<ScoresAt> {
    let Some(value) = value else { return Ok(ScoresAt::Softmax) };
    match value.as_str() {
        Some("softmax") => Ok(ScoresAt::Softmax),
        // Without a softcap they are the same.
        Some("logits" | "capped") => Ok(ScoresAt::Logits),
        Some("masked") => Ok(ScoresAt::Masked),
        _ => bail!("scores_at: {value} is not \"softmax\", \"logits\", \"capped\" or \"masked\""),
    }
}

fn dropout(value: &Value) -> Result<Drop> {
    let members = value.as_object().context("dropout: not an object")?;
    if let Some(unknown) = members.keys().find(|name| *name != "p" && *name != "seed") {
        bail!("dropout: unknown member {unknown}");
    }
    let p = members.get("p").context("dropout: p is missing")?;
    let seed = members.get("seed").context("dropout: seed is missing")?;
    let seed = seed.as_u64().with_context(|| format!("dropout: {seed} is not a seed"))?;
    Ok(Drop { p: number("dropout: p", p)? as f32, seed })
}

fn tolerance(key: &str, value: Option<Value>) -> Result<Tolerance> {
    let Some(value) = value else { return Ok(Tolerance::DEFAULT) };
    let wrong = || anyhow!("{key}: {value} is not [absolute, relative]");
    let [absolute, relative] = value.as_array().ok_or_else(wrong)?.as_slice() else {
        return Err(wrong());
    };
    let (absolute, relative) = (number(key, absolute)?, number(key, relative)?);
    ensure!(absolute >= 0.0 && relative >= 0.0, wrong());
    Ok(Tolerance { absolute, relative })
}
