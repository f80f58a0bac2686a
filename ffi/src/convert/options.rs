//! How the options become their twins in Rust.

use core::cell::Cell;

use mha::{Alibi, Angles, Causal, Extra, Norm, NormKind, Options, Rope, Segments, Select, Window};

use crate::buffer::{Buffer, Written};
use crate::convert::read;
use crate::options::*;
use crate::status::{Fault, mha_argument as A, mha_kind as K};
use crate::types::{mha_causal, mha_slice};

/// The options that a call was given: perhaps none.
pub(crate) struct Given<'a> {
    options: Option<&'a mha_options>,
    /// Where the log-sum-exps go, checked but not yet a slice.
    pub(crate) lse: Buffer<f32>,
}

impl<'a> Given<'a> {
    /// Reads the struct; a null pointer is no options.
    ///
    /// # Safety
    /// If the pointer is neither null nor misaligned, the struct is there and nobody writes to it
    /// during `'a`.
    pub(crate) unsafe fn new(options: *const mha_options) -> Result<Self, Fault> {
        if options.is_null() {
            return Ok(Self { options: None, lse: Buffer::none() });
        }
        // SAFETY: the caller's promise.
        let options = unsafe { read(options, A::Options)? };
        Ok(Self { options: Some(options), lse: options.lse.buffer(A::Lse)? })
    }

    /// Those that matter to keys on their way into a cache.
    ///
    /// # Safety
    /// Every buffer whose pointer passes the checks is as long as it says, and nobody writes it
    /// during `'o`.
    pub(crate) unsafe fn for_keys<'o>(self, written: &Written) -> Result<Options<'o>, Fault> {
        let Some(given) = self.options else { return Ok(Options::new()) };
        // SAFETY: the caller's promise.
        let (rope, norm) = unsafe { (given.rope.get(written)?, given.norm.get(written)?) };
        Ok(Options { rope, norm, ..Options::new() })
    }

    /// The crate's options.
    ///
    /// # Safety
    /// Every buffer whose pointer passes the checks is as long as it says; nobody writes those that
    /// are read, and nobody else touches the log-sum-exps during `'o`.
    pub(crate) unsafe fn get<'o>(self, written: &Written) -> Result<Options<'o>, Fault> {
        let Some(given) = self.options else { return Ok(Options::new()) };
        // SAFETY: the caller's promise.
        let mut options = unsafe { given.get(written)? };
        if !given.lse.is_absent() {
            // SAFETY: as above, and it lies apart from all that is read.
            let lse: &'o mut [f32] = unsafe { self.lse.slice_mut() };
            options.lse = Some(Cell::from_mut(lse).as_slice_of_cells());
        }
        Ok(options)
    }
}

impl mha_options {
    /// All but the log-sum-exps.
    ///
    /// # Safety
    /// Every buffer whose pointer passes the checks is as long as it says, and nobody writes it
    /// during `'o`.
    unsafe fn get<'o>(&self, written: &Written) -> Result<Options<'o>, Fault> {
        // SAFETY: the caller's promise, in every block below.
        let floats = |slice: &mha_slice, argument| unsafe { slice.optional(written, argument) };
        // SAFETY: as above.
        let offset = unsafe { self.offset.get(written)? };
        let lens = if self.lens.is_null() && self.lens_len == 0 {
            None
        } else {
            // SAFETY: as above.
            Some(unsafe { written.read(self.lens, self.lens_len, A::Lens)? })
        };
        let alibi = match self.alibi.kind {
            0 => None,
            1 => Some(Alibi::Standard),
            // SAFETY: as above.
            2 => Some(Alibi::Slopes(unsafe { self.alibi.slopes.get(written, A::Alibi)? })),
            _ => return Err(Fault::new(K::Value, A::Alibi)),
        };
        let scores = match self.scores {
            0 => Select::All,
            1 => Select::Head(self.score_head),
            2 => Select::Mean,
            _ => return Err(Fault::new(K::Value, A::Scores)),
        };
        let softcap = (self.softcap != 0.0).then_some(self.softcap);
        let sinks = floats(&self.sinks, A::Sinks)?;
        // SAFETY: as above.
        let (rope, norm) = unsafe { (self.rope.get(written)?, self.norm.get(written)?) };
        // SAFETY: as above.
        let segments = unsafe { self.segments.get(written)? };
        let (k, v) = (floats(&self.extra.k, A::Extra)?, floats(&self.extra.v, A::Extra)?);
        let extra = match (k, v) {
            (None, None) => None,
            (k, v) => Some(Extra { k: k.unwrap_or(&[]), v: v.unwrap_or(&[]) }),
        };
        let window = self.window.get();
        let queries = [self.score_queries_start, self.score_queries_end];
        let score_queries = (queries != [0, 0]).then_some(queries);
        Ok(Options {
            offset,
            window,
            lens,
            softcap,
            alibi,
            rope,
            sinks,
            norm,
            segments,
            extra,
            scores,
            score_queries,
            lse: None,
        })
    }
}

impl mha_causal {
    /// The crate's causal rule, if there is one.
    ///
    /// # Safety
    /// Offsets whose pointer passes the checks are as many as they say, and nobody writes them
    /// during `'a`.
    pub(crate) unsafe fn get<'a>(&self, written: &Written) -> Result<Option<Causal<'a>>, Fault> {
        Ok(match self.mode {
            0 => None,
            1 => Some(Causal::Offset(self.offset)),
            2 => {
                // SAFETY: the caller's promise.
                let offsets = unsafe { written.read(self.offsets, self.offsets_len, A::Causal)? };
                Some(Causal::PerSequence(offsets))
            }
            3 => Some(Causal::Natural),
            _ => return Err(Fault::new(K::Value, A::Causal)),
        })
    }
}

impl mha_window {
    fn get(&self) -> Window {
        Window {
            left: (self.has_left != 0).then_some(self.left),
            right: (self.has_right != 0).then_some(self.right),
        }
    }
}

impl mha_rope {
    /// # Safety
    /// As for the options.
    unsafe fn get<'a>(&self, written: &Written) -> Result<Option<Rope<'a>>, Fault> {
        let angles = match self.kind {
            0 => return Ok(None),
            1 => Angles::Base(self.base),
            2 => Angles::Table {
                // SAFETY: the caller's promise.
                cos: unsafe { self.cos.get(written, A::Rope)? },
                // SAFETY: as above.
                sin: unsafe { self.sin.get(written, A::Rope)? },
            },
            _ => return Err(Fault::new(K::Value, A::Rope)),
        };
        Ok(Some(Rope {
            dims: self.dims,
            interleaved: self.interleaved != 0,
            angles,
            q_offset: (self.has_q_offset != 0).then_some(self.q_offset),
            k_offset: (self.has_k_offset != 0).then_some(self.k_offset),
        }))
    }
}

impl mha_norm {
    /// # Safety
    /// As for the options.
    unsafe fn get<'a>(&self, written: &Written) -> Result<Option<Norm<'a>>, Fault> {
        let kind = match self.kind {
            0 => return Ok(None),
            1 => NormKind::Rms,
            2 => NormKind::L2,
            _ => return Err(Fault::new(K::Value, A::Norm)),
        };
        // SAFETY: the caller's promise.
        let gain = |slice: &mha_slice| unsafe { slice.optional(written, A::Norm) };
        let (q_gain, k_gain) = (gain(&self.q_gain)?, gain(&self.k_gain)?);
        Ok(Some(Norm { kind, epsilon: self.epsilon, q_gain, k_gain }))
    }
}

impl mha_segments {
    /// # Safety
    /// As for the options.
    unsafe fn get<'a>(&self, written: &Written) -> Result<Option<Segments<'a>>, Fault> {
        if self.q.is_null() && self.kv.is_null() && self.q_len == 0 && self.kv_len == 0 {
            return Ok(None);
        }
        // SAFETY: the caller's promise.
        let q = unsafe { written.read(self.q, self.q_len, A::Segments)? };
        // SAFETY: as above.
        let kv = unsafe { written.read(self.kv, self.kv_len, A::Segments)? };
        Ok(Some(Segments { q, kv }))
    }
}
