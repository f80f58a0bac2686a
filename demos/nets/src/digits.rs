//! Which of ten digits is this 8×8 image? Sixteen tokens, one for each patch of 2×2 pixels.

use mha::{Error, Isa};

use crate::network::{Call, Extent, Network};
use crate::weights;

/// An image: how many of the 16 pixels of each block are ink, 0..=16, row by row.
pub type Image = [u8; 64];

/// Tokens of an image. Token `4·r + c` is the patch in patch row `r` and patch column `c`; its four features are the
/// patch's pixels in reading order, a sixteenth of each.
pub const TOKENS: usize = 16;

/// The classes: the digits 0 to 9.
pub const CLASSES: usize = 10;

/// Heads of the layer.
pub const HEADS: usize = 4;

/// Patches along a side of an image.
pub const SIDE: usize = 4;

/// The network under its own sizes.
pub type Net<'w> = Network<'w, 4, TOKENS, 24, HEADS, 48, CLASSES>;

/// The network for digits.
#[derive(Clone, Copy, Debug)]
pub struct Digits<'w> {
    network: Net<'w>,
    isa: Isa,
}

impl Digits<'static> {
    /// The network with the committed weights. In a `static` it lies in flash.
    #[must_use]
    pub const fn committed(isa: Isa) -> Self {
        const NETWORK: Net<'static> = match Net::from_flat(&weights::DIGITS) {
            Ok(network) => network,
            Err(_) => panic!("the committed weights have another length"), // while compiling
        };
        Self { network: NETWORK, isa }
    }
}

impl<'w> Digits<'w> {
    /// How many parameters there are.
    pub const PARAMETERS: usize = Net::PARAMETERS;
    /// Floats of scratch for full speed.
    pub const SCRATCH_LEN: usize = Net::scratch_len(TOKENS);
    /// The least floats of scratch; the logits have the same bits.
    pub const MIN_SCRATCH_LEN: usize = Net::min_scratch_len(TOKENS);
    /// Floats of the scores, `[HEADS, TOKENS, TOKENS]`.
    pub const SCORES_LEN: usize = HEADS * TOKENS * TOKENS;

    /// The network with other weights, flat as [`Network::from_flat`] takes them.
    ///
    /// # Errors
    /// Those of [`Network::from_flat`].
    pub const fn from_flat(flat: &'w [f32], isa: Isa) -> Result<Self, Error> {
        match Net::from_flat(flat) {
            Ok(network) => Ok(Self { network, isa }),
            Err(error) => Err(error),
        }
    }

    /// The weights of the layer at the centre.
    #[must_use]
    pub const fn layer(&self) -> &mha::Weights<'w> {
        self.network.layer()
    }

    /// Logits of an image and, if asked for, the scores of every head: how much patch `query`
    /// looks at patch `key`, `[HEADS, TOKENS, TOKENS]`.
    ///
    /// # Errors
    /// [`Error::Length`] for scores that are not [`Digits::SCORES_LEN`] long or scratch shorter than
    /// [`Digits::MIN_SCRATCH_LEN`]. Logits and scores are untouched then.
    pub fn classify(
        &self,
        image: &Image,
        logits: &mut [f32; CLASSES],
        scores: Option<&mut [f32]>,
        scratch: &mut [f32],
    ) -> Result<(), Error> {
        self.classify_with(image, logits, scores, scratch, |call| call.run(self.isa))
    }

    /// As [`Digits::classify`], with the layer computed by `attend`.
    ///
    /// # Errors
    /// Those of [`Digits::classify`] and of `attend`.
    pub fn classify_with(
        &self,
        image: &Image,
        logits: &mut [f32; CLASSES],
        scores: Option<&mut [f32]>,
        scratch: &mut [f32],
        attend: impl FnOnce(Call<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let extent = Extent { tokens: TOKENS, valid: TOKENS };
        self.network.forward(extent, |i| patch(image, i), logits, scores, scratch, attend)
    }
}

/// An image's tokens.
#[must_use]
pub fn tokens(image: &Image) -> [[f32; 4]; TOKENS] {
    core::array::from_fn(|i| patch(image, i))
}

/// The features of one patch.
fn patch(image: &Image, token: usize) -> [f32; 4] {
    let first = token / 4 * 16 + token % 4 * 2;
    let mut features = [0.0; 4];
    for (feature, at) in features.iter_mut().zip([first, first + 1, first + 8, first + 9]) {
        // Exact: a division by a power of two.
        *feature = f32::from(image.get(at).copied().unwrap_or(0)) / 16.0;
    }
    features
}
