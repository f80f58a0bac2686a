//! What a program leaves for the other machine to compare: a line for each result on the console,
//! and every word of it in a file.

use mha::Error;

use crate::console::{Console, Digest};
use crate::host::File;

/// The console and the file.
pub struct Record {
    console: Console,
    words: Option<File>,
}

impl Record {
    /// Begins, with the words in `words.bin` of the working directory. A debugger that keeps no
    /// files leaves the console alone.
    #[must_use]
    pub fn new() -> Self {
        Self { console: Console::new(), words: File::create(c"words.bin") }
    }

    /// The console.
    pub fn console(&mut self) -> &mut Console {
        &mut self.console
    }

    /// `case <name> ok <digest> <digest>`, or what was wrong with the call.
    pub fn case(&mut self, name: &str, result: Result<(), Error>, outputs: [&[f32]; 2]) {
        self.console.text("case ").text(name);
        match result {
            Ok(()) => self.console.text(" ok"),
            Err(error) => {
                self.console.text(" refused").number(error.code() as usize);
                self.console.text(" ").text(error.argument().name())
            }
        };
        for output in outputs {
            self.console.hex(Digest::new().floats(output).word());
            self.words(output);
        }
        self.console.end();
    }

    /// `cost <name> <macs> <scratch bytes> <stack bytes>`: what may differ between machines.
    pub fn cost(&mut self, name: &str, macs: usize, scratch: usize, stack: usize) {
        let line = self.console.text("cost ").text(name);
        line.number(macs).number(size_of::<f32>() * scratch).number(stack).end();
    }

    /// Floats to the file, little-endian.
    pub fn words(&mut self, floats: &[f32]) {
        let Some(file) = &mut self.words else { return };
        for part in floats.chunks(32) {
            let mut bytes = [[0; 4]; 32];
            for (to, from) in bytes.iter_mut().zip(part) {
                *to = from.to_le_bytes();
            }
            let bytes = bytes.get(..part.len()).unwrap_or_default();
            file.write(bytes.as_flattened());
        }
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}
