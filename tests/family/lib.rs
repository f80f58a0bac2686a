//! The attention family in `f64`, for tests: [`oracle`] is attention itself, [`steps`] what stands
//! around it. Nothing here knows the library.
#![allow(
    missing_docs,
    reason = "most fields say it by their names, and the oracle is to be read whole"
)]

pub mod oracle;
pub mod steps;
