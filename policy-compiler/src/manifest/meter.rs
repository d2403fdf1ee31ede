//! How far the reading of a text has come, and the limits of what one object may cost.

use std::cell::{Cell, RefCell};

use super::error::SyntaxError;

/// Lists and objects inside one another, aliases counted as what they stand for.
const MAX_DEPTH: usize = 100;

/// Tests meet smaller limits, so that they are fast.
const SCALE: usize = if cfg!(test) { 50 } else { 1 };

/// Values in one object, long texts counted by their length. The largest that the API server takes, some MiB, have a
/// tenth.
const MAX_VALUES: usize = 1_000_000 / SCALE;

/// What the aliases of one file may stand for, in values.
const MAX_ALIASED: usize = 4_000_000 / SCALE;

/// The text of one object, in bytes.
const MAX_TEXT: usize = (64 << 20) / SCALE;

/// It is shared between those who take a text and those who make values of it.
#[derive(Debug)]
pub(super) struct Meter {
    line: Cell<usize>,
    values: Cell<usize>,
    /// Of the values, those that are kept until their document is complete.
    kept: Cell<usize>,
    aliased: Cell<usize>,
    text: Cell<usize>,
    failure: RefCell<Option<SyntaxError>>,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            line: Cell::new(1),
            values: Cell::default(),
            kept: Cell::default(),
            aliased: Cell::default(),
            text: Cell::default(),
            failure: RefCell::default(),
        }
    }

    /// The line of what was taken last.
    pub(super) fn line(&self) -> usize {
        self.line.get()
    }

    pub(super) fn next_line(&self) {
        self.line.set(self.line.get() + 1);
    }

    /// An item of a list stays with its document.
    pub(super) fn keep(&self) {
        self.kept.set(self.values.get());
    }

    /// An item of a list was handed on.
    pub(super) fn hand_on(&self) {
        self.values.set(self.kept.get());
        self.text.set(0);
    }

    /// A document is complete.
    pub(super) fn end_document(&self) {
        self.kept.set(0);
        self.hand_on();
    }

    pub(super) fn add_text(&self, bytes: usize) -> Result<(), String> {
        self.text.set(self.text.get() + bytes);
        if self.text.get() > MAX_TEXT {
            return Err(format!(
                "more than {} MiB in one object, or in a list of items that name no kind",
                MAX_TEXT >> 20
            ));
        }
        Ok(())
    }

    /// Counts a value and its own text.
    pub(super) fn add_value(&self, text: usize, line: usize) -> Result<(), SyntaxError> {
        self.values.set(self.values.get().saturating_add(cost(text)));
        if self.values.get() > MAX_VALUES {
            return Err(SyntaxError::new(
                line,
                format!(
                    "more than {MAX_VALUES} values in one object, or in a list of items that name no kind"
                ),
            ));
        }
        Ok(())
    }

    /// Counts the values that are copied for an anchor or an alias.
    pub(super) fn add_copy(&self, values: usize, line: usize) -> Result<(), SyntaxError> {
        self.values.set(self.values.get().saturating_add(values));
        self.aliased.set(self.aliased.get().saturating_add(values));
        if self.values.get() > MAX_VALUES || self.aliased.get() > MAX_ALIASED {
            return Err(SyntaxError::new(line, "aliases that stand for too many values"));
        }
        Ok(())
    }

    pub(super) fn check_depth(depth: usize, line: usize) -> Result<(), SyntaxError> {
        if depth > MAX_DEPTH {
            return Err(SyntaxError::new(line, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }

    /// Notes why there is nothing more to read, for those who cannot be told directly.
    pub(super) fn fail(&self, line: usize, message: impl Into<String>) {
        self.failure.borrow_mut().get_or_insert_with(|| SyntaxError::new(line, message));
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    pub(super) fn failure(&self) -> Option<SyntaxError> {
        self.failure.borrow_mut().take()
    }
}

/// What a value with so much text counts.
pub(super) fn cost(text: usize) -> usize {
    1 + text / 64
}
