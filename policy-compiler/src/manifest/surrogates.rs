//! Halves of surrogate pairs in JSON.

use std::io::{self, Read};

use super::text::Text;

/// What stands for a character that cannot be read.
const REPLACEMENT: &[u8] = br"\ufffd";

/// The text of JSON, in which `kubectl` reads half of a surrogate pair, such as `\ud83e` without `\udd80`, as U+FFFD.
pub(super) struct Surrogates<'t, 'm, R> {
    text: &'t mut Text<'m, R>,
    /// How many bytes of an escape are still to come,
    left: usize,
    /// and what is read instead of them.
    replacement: Option<&'static [u8]>,
}

impl<'t, 'm, R: Read> Surrogates<'t, 'm, R> {
    pub(super) fn new(text: &'t mut Text<'m, R>) -> Self {
        Self { text, left: 0, replacement: None }
    }

    /// The text goes on with a backslash.
    fn begin_escape(&mut self) {
        self.text.fill(2 * REPLACEMENT.len());
        let mut escapes = self.text.rest().as_bytes().chunks(REPLACEMENT.len()).map(code_unit);
        let units = (escapes.next().flatten(), escapes.next().flatten());
        (self.left, self.replacement) = match units {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (2 * REPLACEMENT.len(), None),
            (Some(0xd800..=0xdfff), _) => (REPLACEMENT.len(), Some(REPLACEMENT)),
            _ => (2, None),
        };
    }
}

/// The code unit of UTF-16 that an escape such as `\u00e9` stands for.
fn code_unit(escape: &[u8]) -> Option<u16> {
    let digits = escape.strip_prefix(br"\u").filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u16::from_str_radix(str::from_utf8(digits).ok().filter(|digits| digits.len() == 4)?, 16).ok()
}

impl<R: Read> Read for Surrogates<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.text.fill(1);
        if self.left == 0 && self.text.next() == Some('\\') {
            self.begin_escape();
        }
        let count = self.text.read(buffer)?;
        self.left = self.left.saturating_sub(count);
        if let (Some([first, rest @ ..]), Some(byte)) = (self.replacement, buffer.first_mut()) {
            *byte = *first;
            self.replacement = Some(rest);
        }
        Ok(count)
    }
}
