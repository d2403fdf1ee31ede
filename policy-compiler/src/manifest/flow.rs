//! Where the parser of YAML stands: in flow collections, quoted text, comments.

/// Follows the characters that the parser takes one by one. That is all of a text but what is plain,
/// a block scalar or a run of quoted text.
#[derive(Debug, Default)]
pub(super) struct Flow {
    now: State,
    /// Before the last character.
    before: State,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// The flow collections, `[…]` and `{…}`, that are open.
    depth: usize,
    within: Within,
    /// Whether the line has something else than white space so far.
    has_begun: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Within {
    #[default]
    Nothing,
    Comment,
    SingleQuotes,
    DoubleQuotes,
    /// Behind a backslash in double quotes.
    Escape,
}

impl Flow {
    /// The parser has taken a character.
    #[inline]
    pub(super) fn take(&mut self, c: char) {
        self.before = self.now;
        self.now = self.now.after(c);
    }

    /// The parser takes plain text. It took the first character of the word before.
    #[inline]
    pub(super) fn take_plain(&mut self) {
        self.before.has_begun = true;
        self.now = self.before;
    }

    /// The parser takes quoted text at once, up to white space, an escape or a quote.
    #[inline]
    pub(super) fn take_quoted(&mut self) {
        self.now.has_begun = true;
    }

    /// Whether white space here has no meaning: in flow collections lines are not indented.
    #[inline]
    pub(super) fn ignores_indentation(&self) -> bool {
        self.now.depth > 0 && !self.now.has_begun
    }

    /// Whether a backslash here begins an escape.
    #[inline]
    pub(super) fn has_escapes(&self) -> bool {
        self.now.within == Within::DoubleQuotes
    }
}

impl State {
    fn after(self, c: char) -> Self {
        let is_break = matches!(c, '\n' | '\r');
        let has_begun = !is_break && (self.has_begun || !matches!(c, ' ' | '\t'));
        let depth = match (self.within, c) {
            (Within::Nothing, '[' | '{') => self.depth + 1,
            (Within::Nothing, ']' | '}') => self.depth.saturating_sub(1),
            _ => self.depth,
        };
        let within = match (self.within, c) {
            (Within::Nothing, '#') => Within::Comment,
            (Within::Nothing, '\'') => Within::SingleQuotes,
            (Within::Nothing, '"') | (Within::Escape, _) => Within::DoubleQuotes,
            (Within::DoubleQuotes, '\\') => Within::Escape,
            (Within::SingleQuotes, '\'') | (Within::DoubleQuotes, '"') | (Within::Comment, '\n' | '\r') => {
                Within::Nothing
            }
            (within, _) => within,
        };
        Self { depth, within, has_begun }
    }
}
