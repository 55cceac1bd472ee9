//! Values with a form of their own.

use std::path::Path;

/// Where the data comes from, as `--source` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceOption {
    /// `stream`
    Stream,
    /// `poll`
    Poll,
    /// `file:PATH`
    File(String),
}

/// A change of one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelChange {
    /// `k=v`
    Set(String, String),
    /// `k-`
    Remove(String),
}

/// Reads `stream`, `poll` or `file:PATH`.
pub fn parse_source(text: &str) -> Result<SourceOption, String> {
    match text {
        "stream" => Ok(SourceOption::Stream),
        "poll" => Ok(SourceOption::Poll),
        _ => match text.strip_prefix("file:") {
            Some(path) if !path.is_empty() && !Path::new(path).is_absolute() => {
                Ok(SourceOption::File(path.to_owned()))
            }
            Some(_) => Err("the path is relative to the workers' --file-source-dir; expected file:PATH".to_owned()),
            None => Err("expected stream, poll or file:PATH".to_owned()),
        },
    }
}

/// Reads `k=v`.
pub fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("expected KEY=VALUE".to_owned()),
    }
}

/// Reads `k=v` or `k-`.
pub fn parse_label_change(text: &str) -> Result<LabelChange, String> {
    if let Ok((key, value)) = parse_label(text) {
        return Ok(LabelChange::Set(key, value));
    }
    match text.strip_suffix('-') {
        Some(key) if !key.is_empty() => Ok(LabelChange::Remove(key.to_owned())),
        Some(_) | None => Err("expected KEY=VALUE, or KEY- to remove one".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_or_refused_with_what_is_allowed() {
        assert_eq!(parse_source("file:a/b.json"), Ok(SourceOption::File("a/b.json".to_owned())));
        for bad in ["", "sse", "file:", "file:/etc/passwd"] {
            assert!(parse_source(bad).unwrap_err().contains("expected"), "{bad}");
        }
        assert_eq!(parse_label("team=a=b"), Ok(("team".to_owned(), "a=b".to_owned())));
        assert!(parse_label("=b").is_err() && parse_label("team").is_err());
        assert_eq!(parse_label_change("team-"), Ok(LabelChange::Remove("team".to_owned())));
        assert_eq!(parse_label_change("a=b-"), Ok(LabelChange::Set("a".to_owned(), "b-".to_owned())));
        assert!(parse_label_change("-").is_err() && parse_label_change("team").is_err());
    }
}
