//! Images of the test split: some in flash, all from a file.

use mha_nets::digits::Image;

use crate::host::File;

/// Those in flash, in the form of the file: for each its label and its blocks.
static FLASH: &[u8] = include_bytes!("../items/images.bin");

/// Bytes of one in a file.
const STRIDE: usize = 1 + size_of::<Image>();

/// Images in flash.
pub const IN_FLASH: usize = FLASH.len() / STRIDE;

/// An image with its label.
#[derive(Clone, Copy, Debug)]
pub struct Labelled {
    /// The blocks.
    pub image: Image,
    /// The digit, 0 to 9.
    pub label: usize,
}

impl Labelled {
    fn new(&[label, ref image @ ..]: &[u8; STRIDE]) -> Self {
        Self { image: *image, label: label.into() }
    }
}

/// The images in flash.
pub fn in_flash() -> impl Iterator<Item = Labelled> {
    FLASH.as_chunks::<STRIDE>().0.iter().map(Labelled::new)
}

/// The name of the file that more images are read from, in the same form.
pub const NAME: &core::ffi::CStr = c"images.bin";

/// Reads the next image; `None` at the end.
pub fn next(file: &mut File) -> Option<Labelled> {
    let mut bytes = [0; STRIDE];
    file.read(&mut bytes).then(|| Labelled::new(&bytes))
}
