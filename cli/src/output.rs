//! How results are shown: documents for programs, tables for people. Data goes to standard output, the rest does not.

// The CLI's own schema, which programs depend on.
pub(crate) mod document;
// Columns, and pairs of name and value.
pub(crate) mod table;
// Times, ages and sizes in words.
pub(crate) mod text;

use std::io::Write;

use serde::Serialize;

use crate::arguments::OutputFormat;
use crate::failure::{ExitStatus, Failure};

/// How a document is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notation {
    /// RFC 8259.
    Json,
    /// YAML 1.2.
    Yaml,
}

/// Writes a document as JSON on several lines, or as YAML.
pub(crate) fn write_document(
    out: &mut impl Write,
    notation: Notation,
    document: &impl Serialize,
) -> Result<(), Failure> {
    let text = match notation {
        Notation::Yaml => serde_norway::to_string(document).map_err(unserializable)?,
        Notation::Json => {
            let mut text = serde_json::to_string_pretty(document).map_err(unserializable)?;
            text.push('\n');
            text
        }
    };
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes one document of a stream: JSON on one line, or a YAML document with its separator.
pub(crate) fn write_streamed(
    out: &mut impl Write,
    notation: Notation,
    document: &impl Serialize,
) -> Result<(), Failure> {
    match notation {
        Notation::Yaml => {
            let text = serde_norway::to_string(document).map_err(unserializable)?;
            write!(out, "---\n{text}")?;
        }
        Notation::Json => {
            let text = serde_json::to_string(document).map_err(unserializable)?;
            writeln!(out, "{text}")?;
        }
    }
    Ok(out.flush()?)
}

/// What a result looks like in each format.
pub(crate) struct Shown<'a, D: Serialize> {
    /// For programs.
    pub(crate) document: &'a D,
    /// The names, one a line.
    pub(crate) names: Vec<String>,
    /// For people.
    pub(crate) table: &'a dyn Fn(Width) -> String,
}

impl<D: Serialize> std::fmt::Debug for Shown<'_, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").field("names", &self.names).finish_non_exhaustive()
    }
}

/// How many columns a table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// The most important ones.
    Normal,
    /// All.
    Wide,
}

/// Writes a result in the format asked for.
pub(crate) fn show<D: Serialize>(
    out: &mut impl Write,
    format: OutputFormat,
    shown: &Shown<'_, D>,
) -> Result<(), Failure> {
    match format {
        OutputFormat::Json => return write_document(out, Notation::Json, shown.document),
        OutputFormat::Yaml => return write_document(out, Notation::Yaml, shown.document),
        OutputFormat::Name => {
            for name in &shown.names {
                writeln!(out, "{name}")?;
            }
        }
        OutputFormat::Table => out.write_all((shown.table)(Width::Normal).as_bytes())?,
        OutputFormat::Wide => out.write_all((shown.table)(Width::Wide).as_bytes())?,
    }
    Ok(out.flush()?)
}

fn unserializable(error: impl std::fmt::Display) -> Failure {
    Failure::new(ExitStatus::Failed, format!("cannot write the document: {error}"))
}
