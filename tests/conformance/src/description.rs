//! The description in a case's metadata: a JSON object, every key of which is understood or refused
//! by name.

use anyhow::{Context, Result, anyhow, bail, ensure};
use mha::{Attention, Dims, Rope, ScoresAt, WeightOrder, Window};
use serde_json::{Map, Value};

use crate::call::Drop;
use crate::case::Tolerance;
use crate::family::Slopes;

/// How the weights lie, or that there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WeightsAre {
    /// `[in, out]` or `[out, in]`.
    Stored(WeightOrder),
    /// No projections.
    Absent,
}

/// What `causal_offset` says.
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
    pub(crate) causal: bool,
    pub(crate) offset: Option<Offsets>,
    pub(crate) window: Option<Window>,
    pub(crate) softcap: Option<f32>,
    pub(crate) alibi: Option<Slopes>,
    pub(crate) rope: Option<Rope<'static>>,
    pub(crate) scores_at: ScoresAt,
    pub(crate) dropout: Option<Drop>,
    pub(crate) y_tol: Tolerance,
    pub(crate) scores_tol: Tolerance,
    pub(crate) grad_tol: Tolerance,
    pub(crate) source: String,
}

impl Description {
    /// Understands the whole text or refuses it.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut keys = Keys(serde_json::from_str(text).context("mha: not a JSON object")?);
        if let Some(kind) = keys.take("kind") {
            bail!("kind: {kind} is no kind of case");
        }
        let dims = dims(&keys.required("dims")?)?;
        let heads = size("heads", &keys.required("heads")?)?;
        let mut attention = Attention::new(heads, dims.qk, dims.v);
        if let Some(value) = keys.take("kv_heads") {
            let kv_heads = size("kv_heads", &value)?;
            let divide = kv_heads > 0 && heads.is_multiple_of(kv_heads);
            ensure!(divide, "kv_heads: {kv_heads} for {heads} heads");
            attention = attention.kv_heads(kv_heads);
        }
        if let Some(scale) = keys.take("scale") {
            attention = attention.scale(number("scale", &scale)? as f32);
        }
        attention.check()?;
        let softcap = softcap(keys.take("softcap"))?;
        let description = Self {
            dims,
            attention,
            weights: weights(keys.take("weights"))?,
            causal: causal(keys.take("causal"))?,
            offset: keys.take("causal_offset").map(|value| offsets(&value)).transpose()?,
            scores_at: scores_at(keys.take("scores_at"), softcap)?,
            window: keys.take("window").map(|value| window(&value)).transpose()?,
            softcap,
            alibi: alibi(keys.take("alibi"), heads)?,
            rope: keys.take("rope").map(|value| rope(&value, dims.qk / heads)).transpose()?,
            dropout: keys.take("dropout").map(|value| dropout(&value)).transpose()?,
            y_tol: tolerance("y_tol", keys.take("y_tol"))?,
            scores_tol: tolerance("scores_tol", keys.take("scores_tol"))?,
            grad_tol: tolerance("grad_tol", keys.take("grad_tol"))?,
            source: source(keys.take("source"))?,
        };
        keys.finish()?;
        Ok(description)
    }
}

/// The keys that are not understood yet.
struct Keys(Map<String, Value>);

impl Keys {
    fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    fn finish(self) -> Result<()> {
        match self.0.keys().next() {
            Some(key) => bail!("{key}: unknown key"),
            None => Ok(()),
        }
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

fn causal(value: Option<Value>) -> Result<bool> {
    let Some(value) = value else { return Ok(false) };
    value.as_bool().with_context(|| format!("causal: {value} is not a bool"))
}

fn offsets(value: &Value) -> Result<Offsets> {
    let one = |value: &Value| {
        let offset = value.as_i64().and_then(|n| isize::try_from(n).ok());
        offset.with_context(|| format!("causal_offset: {value} is not an offset"))
    };
    match value {
        Value::Array(each) => Ok(Offsets::Each(each.iter().map(one).collect::<Result<_>>()?)),
        value => Ok(Offsets::One(one(value)?)),
    }
}

/// `[left, right]`, −1 being unlimited.
fn window(value: &Value) -> Result<Window> {
    let wrong = || anyhow!("window: {value} is not [left, right]");
    let side = |value: &Value| match value.as_i64() {
        Some(-1) => Ok(None),
        Some(n) => usize::try_from(n).map(Some).map_err(|_| wrong()),
        None => Err(wrong()),
    };
    match value.as_array().map(Vec::as_slice) {
        Some([left, right]) => Ok(Window { left: side(left)?, right: side(right)? }),
        _ => Err(wrong()),
    }
}

fn softcap(value: Option<Value>) -> Result<Option<f32>> {
    let Some(value) = value else { return Ok(None) };
    let cap = number("softcap", &value)? as f32;
    ensure!(cap > 0.0, "softcap: {cap} caps nothing");
    Ok(Some(cap))
}

fn alibi(value: Option<Value>, heads: usize) -> Result<Option<Slopes>> {
    match value {
        None | Some(Value::Bool(false)) => Ok(None),
        Some(Value::Bool(true)) => Ok(Some(Slopes::Standard)),
        Some(Value::Array(each)) => {
            let slope = |value: &Value| Ok(number("alibi", value)? as f32);
            let slopes: Vec<f32> = each.iter().map(slope).collect::<Result<_>>()?;
            ensure!(slopes.len() == heads, "alibi: {} slopes for {heads} heads", slopes.len());
            Ok(Some(Slopes::Given(slopes)))
        }
        Some(value) => bail!("alibi: {value} is neither a bool nor a list of slopes"),
    }
}

/// Rotation of heads of `d` features.
fn rope(value: &Value, d: usize) -> Result<Rope<'static>> {
    let members = value.as_object().with_context(|| format!("rope: {value} is not an object"))?;
    let names = ["base", "dims", "interleaved", "q_offset", "k_offset"];
    if let Some(unknown) = members.keys().find(|name| !names.contains(&name.as_str())) {
        bail!("rope: unknown member {unknown}");
    }
    let member = |name: &str, default| {
        members.get(name).map_or(Ok(default), |value| size(&format!("rope: {name}"), value))
    };
    let base = members.get("base").map_or(Ok(10_000.0), |value| number("rope: base", value))?;
    ensure!(base > 0.0, "rope: base {base} has no powers");
    let dims = member("dims", d)?;
    let fits = dims > 0 && dims <= d && dims.is_multiple_of(2);
    ensure!(fits, "rope: dims {dims} of a head of {d} features");
    let interleaved = match members.get("interleaved") {
        None => false,
        Some(value) => {
            value.as_bool().with_context(|| format!("rope: interleaved: {value} is not a bool"))?
        }
    };
    Ok(Rope {
        dims,
        interleaved,
        q_offset: Some(member("q_offset", 0)?),
        k_offset: Some(member("k_offset", 0)?),
        ..Rope::new(base as f32)
    })
}

/// The description of a case of kind "rope".
#[derive(Clone, Debug)]
pub(crate) struct RotationDescription {
    pub(crate) interleaved: bool,
    pub(crate) tolerance: Tolerance,
    pub(crate) source: String,
}

impl RotationDescription {
    /// Understands the whole text or refuses it; gives nothing for a text of another kind.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>> {
        let mut keys = Keys(serde_json::from_str(text).context("mha: not a JSON object")?);
        if keys.0.get("kind").and_then(Value::as_str) != Some("rope") {
            return Ok(None);
        }
        keys.take("kind");
        let interleaved = match keys.take("interleaved") {
            None => false,
            Some(value) => {
                value.as_bool().with_context(|| format!("interleaved: {value} is not a bool"))?
            }
        };
        let tolerance = tolerance("rotated_tol", keys.take("rotated_tol"))?;
        let source = source(keys.take("source"))?;
        keys.finish()?;
        Ok(Some(Self { interleaved, tolerance, source }))
    }
}

fn source(value: Option<Value>) -> Result<String> {
    let Some(value) = value else { return Ok("unnamed".into()) };
    Ok(value.as_str().context("source: not a text")?.into())
}

fn scores_at(value: Option<Value>, softcap: Option<f32>) -> Result<ScoresAt> {
    let Some(value) = value else { return Ok(ScoresAt::Softmax) };
    match value.as_str() {
        Some("softmax") => Ok(ScoresAt::Softmax),
        Some("capped") if softcap.is_some() => Ok(ScoresAt::Capped),
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
