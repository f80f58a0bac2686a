//! How many answers of a model were right.

use crate::record::Record;

/// How many answers were right.
#[derive(Default)]
pub struct Score {
    right: usize,
    all: usize,
}

impl Score {
    /// One more answer; none where the call was refused.
    pub fn add(&mut self, label: usize, answer: Option<usize>) {
        self.right += usize::from(answer == Some(label));
        self.all += 1;
    }

    /// `right <source> <right> <all>`.
    pub fn print(&self, source: &str, record: &mut Record) {
        record.console().text("right ").text(source).number(self.right).number(self.all).end();
    }
}
