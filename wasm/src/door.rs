//! The functions that JavaScript calls, over handles: addresses of what lies in the module's memory. Numbers go
//! in and out and nothing else, so that neither side has code for anything else.

use alloc::boxed::Box;

use wasm_bindgen::prelude::wasm_bindgen;

use crate::call::Call;
use crate::layer::Layer;

/// Keeps a value, and gives its handle.
pub(crate) fn keep<T>(value: T) -> usize {
    Box::into_raw(Box::new(value)).expose_provenance()
}

/// What a handle stands for.
///
/// # Safety
/// [`keep`] has given it for a `T`, it has not been freed, and nothing else refers to the value.
pub(crate) unsafe fn at<'a, T>(handle: usize) -> &'a mut T {
    // SAFETY: passed on.
    unsafe { &mut *core::ptr::with_exposed_provenance_mut(handle) }
}

/// Frees a value.
///
/// # Safety
/// That of [`at`]; the handle stands for nothing any more.
pub(crate) unsafe fn free<T>(handle: usize) {
    // SAFETY: passed on.
    drop(unsafe { Box::from_raw(core::ptr::with_exposed_provenance_mut::<T>(handle)) });
}

/// Functions over handles, `[…]`, and numbers, `(…)`, that are methods of the first handle's value.
macro_rules! doors {
    ($($(#[$doc:meta])* fn $name:ident [$($handle:ident: $type:ty),*] ($($number:ident: $kind:ty),*) $(-> $result:ty)? = $method:path;)*) => {
        $(
            $(#[$doc])*
            #[wasm_bindgen::prelude::wasm_bindgen]
            pub fn $name($($handle: usize,)* $($number: $kind),*) $(-> $result)? {
                // SAFETY: the TypeScript hands over what `keep` has given it for such a value, each once, and
                // nothing after it has freed it.
                unsafe { $method($($crate::door::at::<$type>($handle),)* $($number),*) }
            }
        )*
    };
}

/// Functions that free.
macro_rules! frees {
    ($($(#[$doc:meta])* fn $name:ident [$type:ty];)*) => {
        $(
            $(#[$doc])*
            #[wasm_bindgen::prelude::wasm_bindgen]
            pub fn $name(handle: usize) {
                // SAFETY: as above; the TypeScript forgets the handle.
                unsafe { $crate::door::free::<$type>(handle) }
            }
        )*
    };
}

#[cfg(feature = "family")]
pub(crate) use {doors, frees};

/// A layer without weights yet. `scale`: none is the default; `out_in`: the weights' order.
#[wasm_bindgen]
#[must_use]
pub fn layer_new(
    q_in: usize,
    k_in: usize,
    v_in: usize,
    qk: usize,
    v: usize,
    out: usize,
    heads: usize,
    kv_heads: usize,
    scale: Option<f32>,
    out_in: bool,
) -> usize {
    keep(Layer::new((q_in, k_in, v_in), (qk, v), out, heads, kv_heads, scale, out_in))
}

/// A call without room.
#[wasm_bindgen]
#[must_use]
pub fn call_new() -> usize {
    keep(Call::new())
}

doors! {
    /// Checks the configuration and the lengths of the weights, and makes room for them, one after the other
    /// from [`layer_data`] on. Lengths are one more than they are, 0 for what there is not; `wq` alone: all of
    /// them in one array.
    fn layer_weights[layer: Layer](
        wq: usize, wk: usize, wv: usize, wo: usize, bq: usize, bk: usize, bv: usize, bo: usize
    ) -> i32 = Layer::weights;
    /// Where the weights lie.
    fn layer_data[layer: Layer]() -> *mut f32 = Layer::data;
    /// Where the layer says what is wrong.
    fn layer_problem[layer: Layer]() -> *const usize = Layer::problem;
    /// Makes room for a call that is described.
    fn layer_reserve[layer: Layer, call: Call]() -> i32 = Layer::reserve;
    /// Computes a call that has room.
    fn layer_forward[layer: Layer, call: Call]() -> i32 = Layer::forward;
    /// Where the description of a call goes.
    fn call_words[call: Call]() -> *mut usize = Call::words;
    /// Where it says where the arrays lie.
    fn call_places[call: Call]() -> *const usize = Call::places;
    /// Where it says what is wrong.
    fn call_problem[call: Call]() -> *const usize = Call::problem;
}

frees! {
    /// Frees a layer.
    fn layer_free[Layer];
    /// Frees a call.
    fn call_free[Call];
}

/// Where the name of the instructions that calls run on lies.
#[wasm_bindgen]
#[must_use]
pub fn isa() -> *const u8 {
    mha::Isa::detect().name().as_ptr()
}

/// How long it is.
#[wasm_bindgen]
#[must_use]
pub fn isa_len() -> usize {
    mha::Isa::detect().name().len()
}
