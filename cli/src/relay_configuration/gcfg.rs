//! The dialect of the relay's file: that of `gopkg.in/gcfg.v1`, which resembles Git's.

use std::iter::Peekable;
use std::str::Chars;

use super::Hidden;

/// `[name]` or `[name "subsection"]`, and what follows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// From 1.
    pub(super) line: usize,
    /// As it is written; its case does not matter.
    pub(super) name: String,
    /// Its case does.
    pub(super) subsection: Option<String>,
    pub(super) entries: Vec<Entry>,
}

/// `key = value`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// From 1.
    pub(super) line: usize,
    /// As it is written; its case does not matter.
    pub(super) key: String,
    /// `None`: there is no `=`, which switches something on.
    pub(super) value: Option<Hidden>,
}

/// Why a text is no such file. It repeats no value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// From 1.
    pub(super) line: usize,
    pub(super) problem: &'static str,
}

/// Reads a file.
pub(super) fn parse(text: &str) -> Result<Vec<Section>, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut scanner = Scanner { rest: text.chars().peekable(), line: 1 };
    let mut sections: Vec<Section> = Vec::new();
    loop {
        scanner.skip_blanks();
        match scanner.rest.peek() {
            None => return Ok(sections),
            Some('\n' | ';' | '#') => {}
            Some('[') => sections.push(scanner.section()?),
            Some(_) => {
                let entry = scanner.entry()?;
                let Some(section) = sections.last_mut() else {
                    return scanner.wrong("a key stands before the first [Section]");
                };
                section.entries.push(entry);
            }
        }
        scanner.end_of_line()?;
    }
}

struct Scanner<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl Scanner<'_> {
    fn wrong<T>(&self, problem: &'static str) -> Result<T, SyntaxError> {
        Err(SyntaxError { line: self.line, problem })
    }

    fn skip_blanks(&mut self) {
        while self.rest.next_if(|c| matches!(c, ' ' | '\t' | '\r')).is_some() {}
    }

    /// A comment, if there is one, and the end of the line or of the text.
    fn end_of_line(&mut self) -> Result<(), SyntaxError> {
        self.skip_blanks();
        if matches!(self.rest.peek(), Some(';' | '#')) {
            while self.rest.next_if(|c| *c != '\n').is_some() {}
        }
        match self.rest.next() {
            None => {}
            Some('\n') => self.line += 1,
            Some(_) => return self.wrong("something follows that is neither a comment nor the end of the line"),
        }
        Ok(())
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_alphanumeric() || matches!(c, '-' | '_')) {
            name.push(c);
        }
        name
    }

    fn section(&mut self) -> Result<Section, SyntaxError> {
        const EXPECTED: &str = "not a valid section; expected [Section] or [Section \"name\"]";
        self.rest.next();
        self.skip_blanks();
        let name = self.name();
        self.skip_blanks();
        let subsection = match self.rest.next_if_eq(&'"') {
            Some(_) => Some(self.subsection()?),
            None => None,
        };
        self.skip_blanks();
        if name.is_empty() || subsection.as_deref() == Some("") || self.rest.next() != Some(']') {
            return self.wrong(EXPECTED);
        }
        Ok(Section { line: self.line, name, subsection, entries: Vec::new() })
    }

    fn subsection(&mut self) -> Result<String, SyntaxError> {
        let mut text = String::new();
        loop {
            match self.rest.next() {
                Some('"') => return Ok(text),
                Some('\\') => match self.rest.next() {
                    Some(c @ ('"' | '\\')) => text.push(c),
                    Some(_) | None => return self.wrong("unknown escape sequence in the name of a section"),
                },
                Some('\n') | None => return self.wrong("the name of a section has no closing '\"'"),
                Some(c) => text.push(c),
            }
        }
    }

    fn entry(&mut self) -> Result<Entry, SyntaxError> {
        let key = self.name();
        if key.is_empty() {
            return self.wrong("expected [Section], key = value, or a comment");
        }
        let line = self.line;
        self.skip_blanks();
        let value = match self.rest.next_if_eq(&'=') {
            Some(_) => Some(Hidden::new(self.value()?)),
            None => None,
        };
        Ok(Entry { line, key, value })
    }

    /// Quoted and other parts may alternate; blanks at the end count where they are quoted.
    fn value(&mut self) -> Result<String, SyntaxError> {
        self.skip_blanks();
        let mut value = String::new();
        let mut length = 0;
        while let Some(c) = self.rest.next_if(|c| !matches!(c, '\n' | ';' | '#')) {
            match c {
                '"' => self.quoted(&mut value)?,
                '\\' => match self.rest.next() {
                    Some('\n') => {
                        self.line += 1;
                        continue;
                    }
                    Some('"') => value.push('"'),
                    Some(_) | None => {
                        return self.wrong("unquoted '\\' must be followed by new line or double quote");
                    }
                },
                ' ' | '\t' | '\r' => {
                    value.push(c);
                    continue;
                }
                '\0' => return self.wrong("a NUL character is not allowed"),
                c => value.push(c),
            }
            length = value.len();
        }
        value.truncate(length);
        Ok(value)
    }

    fn quoted(&mut self, value: &mut String) -> Result<(), SyntaxError> {
        loop {
            match self.rest.next() {
                Some('"') => return Ok(()),
                Some('\\') => match self.rest.next() {
                    Some(c @ ('"' | '\\')) => value.push(c),
                    Some('n') => value.push('\n'),
                    Some('t') => value.push('\t'),
                    Some(_) | None => return self.wrong("unknown escape sequence"),
                },
                Some('\n') | None => return self.wrong("a quoted value has no closing '\"' on its line"),
                Some(c) => value.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first value of a file that has one.
    fn value(text: &str) -> Result<Option<String>, &'static str> {
        let sections = parse(&format!("[s]\nk {text}\n")).map_err(|error| error.problem)?;
        Ok(sections[0].entries[0].value.as_ref().map(|value| value.text().to_owned()))
    }

    #[test]
    fn values_are_read_as_the_relay_reads_them() {
        for (text, wanted) in [
            ("", None),
            ("= x", Some("x")),
            ("=", Some("")),
            ("= a b  ", Some("a b")),
            ("= abc#1", Some("abc")),
            ("= abc ; said", Some("abc")),
            ("= \"abc#1; \"", Some("abc#1; ")),
            ("= \"a\\\\b\\\"c\\n\\t\"", Some("a\\b\"c\n\t")),
            ("= a\" b \"c", Some("a b c")),
            ("= a\\\n b", Some("a b")),
            ("= a\\\"b", Some("a\"b")),
            ("# none", None),
        ] {
            assert_eq!(value(text).unwrap().as_deref(), wanted, "{text:?}");
        }
        for (text, words) in [
            ("= \"a", "no closing"),
            ("= \"a\\x\"", "unknown escape sequence"),
            ("= a\\b", "unquoted '\\' must be followed by"),
            ("x", "neither a comment"),
        ] {
            assert!(value(text).unwrap_err().contains(words), "{text:?}");
        }
    }

    #[test]
    fn sections_are_told_apart_and_lines_counted() {
        let text = "\u{feff}; said\r\n\r\n[Main]\r\n[Environment \"a \\\"b\\\" \\\\\"] # said\n  Prefix=x\n\\\n";
        assert_eq!(parse(text).unwrap_err().line, 6);
        let sections = parse(text.trim_end_matches("\\\n")).unwrap();
        let shown: Vec<_> = sections.iter().map(|one| (one.line, &*one.name, one.subsection.as_deref())).collect();
        assert_eq!(shown, [(3, "Main", None), (4, "Environment", Some("a \"b\" \\"))]);
        assert_eq!((sections[1].entries[0].line, &*sections[1].entries[0].key), (5, "Prefix"));
        for (text, line) in [("[a.b]", 1), ("\n[a \"\"]", 2), ("[a \"b]", 1), ("[]", 1), ("k=v", 1), ("[a", 1)] {
            assert_eq!(parse(text).unwrap_err().line, line, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "\\PC*|[\\[\\]\"\\\\;#= \n\ra-c]{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn whatever_is_quoted_comes_back(wanted in "[^\0\r\n]{0,30}") {
            let quoted = wanted.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(value(&format!("= \"{quoted}\"")).unwrap(), Some(wanted));
        }
    }
}
