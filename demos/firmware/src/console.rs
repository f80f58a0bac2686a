//! Words and numbers to the console, without `core::fmt`: that would bring kilobytes of code, and
//! panics with it.

use crate::host::File;

/// A line under way. Its methods chain; a console that cannot be written to is silent.
pub struct Console(Option<File>);

impl Console {
    /// The console of the machine that the board hangs on.
    #[must_use]
    pub fn new() -> Self {
        Self(File::console())
    }

    /// Text as it is.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        if let Some(file) = &mut self.0 {
            file.write(bytes);
        }
        self
    }

    /// A space, then a number.
    pub fn number(&mut self, number: usize) -> &mut Self {
        // A 64-bit number has twenty digits.
        let mut digits = [b'0'; 20];
        let (mut left, mut length) = (number, 0);
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            (left, length) = (left / 10, length + 1);
            if left == 0 {
                break;
            }
        }
        let (_, digits) = digits.split_at_checked(digits.len() - length).unwrap_or_default();
        self.text(" ").bytes(digits)
    }

    /// A space, then a word in hexadecimal, eight digits.
    pub fn hex(&mut self, word: u32) -> &mut Self {
        let mut digits = [0; 8];
        for (i, digit) in digits.iter_mut().rev().enumerate() {
            *digit = match (word >> (4 * i as u32)) as u8 & 15 {
                low @ 0..10 => b'0' + low,
                high => b'a' - 10 + high,
            };
        }
        self.text(" ").bytes(&digits)
    }

    /// Ends the line.
    pub fn end(&mut self) {
        self.text("\n");
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

/// The bits of results, gathered to one word: FNV-1a over the words.
#[derive(Clone, Copy)]
pub struct Digest(u32);

impl Digest {
    /// Of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(0x811c_9dc5)
    }

    /// Takes more words in.
    #[must_use]
    pub fn floats(mut self, floats: &[f32]) -> Self {
        for float in floats {
            for byte in float.to_bits().to_le_bytes() {
                self.0 = (self.0 ^ u32::from(byte)).wrapping_mul(0x0100_0193);
            }
        }
        self
    }

    /// The word.
    #[must_use]
    pub const fn word(self) -> u32 {
        self.0
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}
