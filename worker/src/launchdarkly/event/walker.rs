//! Steps through JSON text, from one value to the next. serde_json reads every value, once, in its place, and it is known
//! where each ends.

use std::ops::Range;

use memchr::{memchr_iter, memrchr};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// What is not as expected, and where. Lines and columns begin at 1.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("{reason} at line {line} column {column}")]
    Text { reason: String, line: usize, column: usize },
    #[error("{0}")]
    Shape(&'static str),
}

/// A place in a text.
#[derive(Debug)]
pub(crate) struct Walker<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Walker<'a> {
    /// At the beginning of a text.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// At a place within the same text.
    pub(super) fn back_to(&self, at: usize) -> Self {
        Self { text: self.text, at }
    }

    /// Reads the value that begins here, and tells where it stands. After an error the place is as before.
    pub(crate) fn value<T: Deserialize<'a>>(&mut self) -> Result<(T, Range<usize>), Malformed> {
        let begin = self.skip_blanks();
        let mut values = serde_json::Deserializer::from_str(&self.text[begin..]).into_iter();
        match values.next() {
            Some(Ok(value)) => {
                self.at = begin + values.byte_offset();
                Ok((value, begin..self.at))
            }
            Some(Err(error)) => Err(self.not_a_value(&error)),
            None => Err(self.not_here("a value")),
        }
    }

    /// Steps over the value that begins here.
    pub(super) fn skip(&mut self) -> Result<Range<usize>, Malformed> {
        self.value::<IgnoredAny>().map(|(_, place)| place)
    }

    /// Steps through an object: `member` is told each name, and has to take the value.
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Box<str>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.token(b'{', "an object")?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let (name, _) = self.value()?;
            self.token(b':', "a colon")?;
            member(self, name)?;
            if !self.take(b',') {
                return self.token(b'}', "a comma or the end of the object");
            }
        }
    }

    /// Whether an object begins here.
    pub(super) fn is_at_object(&mut self) -> bool {
        let at = self.skip_blanks();
        self.text.as_bytes().get(at) == Some(&b'{')
    }

    /// Nothing but blanks may follow.
    pub(super) fn end(mut self) -> Result<(), Malformed> {
        let at = self.skip_blanks();
        if at == self.text.len() { Ok(()) } else { Err(self.not_here("the end")) }
    }

    fn token(&mut self, token: u8, expected: &'static str) -> Result<(), Malformed> {
        if self.take(token) { Ok(()) } else { Err(self.not_here(expected)) }
    }

    fn not_here(&self, expected: &str) -> Malformed {
        let (line, before) = self.place();
        Malformed::Text { reason: format!("expected {expected}"), line, column: before + 1 }
    }

    /// serde_json counts from where the value begins, which is here.
    fn not_a_value(&self, error: &serde_json::Error) -> Malformed {
        let (line, before) = self.place();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let reason = error.to_string().trim_end_matches(&place).to_owned();
        let column = if error.line() > 1 { error.column() } else { before + error.column() };
        Malformed::Text { reason, line: line + error.line().saturating_sub(1), column }
    }

    /// The line of this place, and how many bytes stand before it there.
    fn place(&self) -> (usize, usize) {
        let before = &self.text.as_bytes()[..self.at];
        let line_begin = memrchr(b'\n', before).map_or(0, |end| end + 1);
        (1 + memchr_iter(b'\n', before).count(), before.len() - line_begin)
    }

    fn take(&mut self, token: u8) -> bool {
        let at = self.skip_blanks();
        let is_here = self.text.as_bytes().get(at) == Some(&token);
        self.at += usize::from(is_here);
        is_here
    }

    fn skip_blanks(&mut self) -> usize {
        let rest = &self.text.as_bytes()[self.at..];
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.at += rest.iter().position(|byte| !is_blank(byte)).unwrap_or(rest.len());
        self.at
    }
}
