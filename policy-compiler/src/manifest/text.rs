//! The text of a file, decoded, and never more of it in memory than is needed.

use std::io::{self, Read};

use encoding_rs::{Decoder, UTF_8};

use super::meter::Meter;

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// Bytes of a character in UTF-8.
const LONGEST_CHARACTER: usize = 4;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// The text that a source holds, decoded as `kubectl` does: UTF-16 by its byte order mark, everything else as UTF-8,
/// in which what is no UTF-8 becomes U+FFFD. Byte order marks at the beginnings of lines are left out: that is where
/// they stand when files are put together. As a [`Read`] it is the same text in UTF-8.
pub(super) struct Text<'m, R> {
    source: R,
    decoder: Decoder,
    raw: Vec<u8>,
    /// The first `taken` bytes of it have been taken.
    decoded: String,
    taken: usize,
    /// Whether the source has no more.
    ended: bool,
    /// Whether what is decoded next begins a line.
    at_line_start: bool,
    /// Whether what was taken last ends a line.
    line_ended: bool,
    meter: &'m Meter,
}

impl<'m, R: Read> Text<'m, R> {
    pub(super) fn new(source: R, meter: &'m Meter) -> Self {
        Self {
            source,
            decoder: UTF_8.new_decoder(),
            raw: vec![0; CHUNK],
            decoded: String::new(),
            taken: 0,
            ended: false,
            at_line_start: true,
            line_ended: false,
            meter,
        }
    }

    /// What is decoded and not taken yet.
    pub(super) fn rest(&self) -> &str {
        self.decoded.get(self.taken..).unwrap_or_default()
    }

    /// The next character, if it is decoded.
    #[inline]
    pub(super) fn next(&self) -> Option<char> {
        match self.decoded.as_bytes().get(self.taken)? {
            byte if byte.is_ascii() => Some(char::from(*byte)),
            _ => self.rest().chars().next(),
        }
    }

    /// Makes sure that so many characters are decoded, if there are as many.
    #[inline]
    pub(super) fn fill(&mut self, characters: usize) {
        let bytes = characters * LONGEST_CHARACTER;
        while self.decoded.len() - self.taken < bytes && !self.ended {
            self.fill_once();
        }
    }

    #[cold]
    fn fill_once(&mut self) {
        if let Err(message) = self.decode_more() {
            let breaks = self.rest().matches('\n').count() + usize::from(self.line_ended);
            self.meter.fail(self.meter.line() + breaks, message);
            self.ended = true;
        }
    }

    /// Whether all is decoded.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether all has been taken.
    pub(super) fn is_at_end(&self) -> bool {
        self.ended && self.taken == self.decoded.len()
    }

    /// Whether the source could not be read to its end; the meter has the reason.
    pub(super) fn has_failed(&self) -> bool {
        self.meter.has_failed()
    }

    /// The text of a line, if it is still in memory.
    pub(super) fn line(&self, line: usize) -> Option<&str> {
        let breaks = self.decoded.get(..self.taken)?.matches('\n').count();
        let first = self.meter.line() + usize::from(self.line_ended) - breaks;
        self.decoded.lines().nth(line.checked_sub(first)?)
    }

    /// The next two characters that are no white space; nothing is taken.
    pub(super) fn next_two(&mut self) -> (Option<char>, Option<char>) {
        loop {
            let mut characters = self.rest().chars().filter(|c| !c.is_ascii_whitespace());
            let two = (characters.next(), characters.next());
            if two.1.is_some() || self.ended {
                return two;
            }
            self.fill(self.rest().len() + 1);
        }
    }

    /// Takes the next `bytes`, which end with a character and of which at most the last ends a line.
    pub(super) fn take(&mut self, bytes: usize) -> &str {
        if bytes == 0 {
            return "";
        }
        let start = self.taken;
        if self.line_ended {
            self.meter.next_line();
        }
        self.taken = (self.taken + bytes).min(self.decoded.len());
        self.line_ended = self.decoded.as_bytes().get(self.taken.wrapping_sub(1)) == Some(&b'\n');
        self.decoded.get(start..self.taken).unwrap_or_default()
    }

    fn decode_more(&mut self) -> Result<(), String> {
        let read = loop {
            match self.source.read(&mut self.raw) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(|error| format!("cannot be read: {error}"))?,
            }
        };
        self.ended = read == 0;
        // The last character may have been taken in part.
        let whole =
            (0..=self.taken).rev().find(|end| self.decoded.is_char_boundary(*end)).unwrap_or_default();
        self.decoded.drain(..whole);
        self.taken -= whole;
        let start = self.decoded.len();
        let raw = self.raw.get(..read).unwrap_or_default();
        self.decoded.reserve(self.decoder.max_utf8_buffer_length(read).unwrap_or(3 * read + 16));
        let _ = self.decoder.decode_to_string(raw, &mut self.decoded, self.ended);
        self.meter.add_text(self.decoded.len() - start)?;
        self.remove_byte_order_marks(start);
        if let Some(nul) = self.decoded.bytes().skip(start).position(|byte| byte == 0) {
            self.decoded.truncate(start + nul);
            return Err("a NUL byte: the file is binary, or UTF-16 without a byte order mark".to_owned());
        }
        Ok(())
    }

    /// Leaves them out where lines begin, from an offset on.
    fn remove_byte_order_marks(&mut self, start: usize) {
        let fresh = self.decoded.get(start..).unwrap_or_default();
        if !fresh.contains(BYTE_ORDER_MARK) {
            self.at_line_start = fresh.chars().next_back().map_or(self.at_line_start, |last| last == '\n');
            return;
        }
        let fresh = self.decoded.split_off(start);
        let mut at_line_start = self.at_line_start;
        self.decoded.extend(fresh.chars().filter(|c| {
            let is_kept = *c != BYTE_ORDER_MARK || !at_line_start;
            at_line_start = *c == '\n' || !is_kept;
            is_kept
        }));
        self.at_line_start = at_line_start;
    }
}

impl<R: Read> Read for Text<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill(1);
        let byte = self.decoded.as_bytes().get(self.taken).copied();
        match (buffer.first_mut(), byte) {
            (Some(target), Some(byte)) => {
                *target = byte;
                self.take(1);
                Ok(1)
            }
            (Some(_), None) if self.meter.has_failed() => Err(io::ErrorKind::Other.into()),
            _ => Ok(0),
        }
    }
}
