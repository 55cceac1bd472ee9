//! How results are shown: documents for programs, tables for people. Data goes to standard output, the rest does not.

// The CLI's own schema, which programs depend on.
pub mod document;
// Columns, and pairs of name and value.
pub mod table;
// Times, ages and sizes in words.
pub mod text;

use std::io::Write;

use serde::Serialize;

use crate::arguments::OutputFormat;
use crate::failure::{ExitStatus, Failure};

/// Writes a document as JSON on several lines, or as YAML.
pub fn write_document(out: &mut impl Write, yaml: bool, document: &impl Serialize) -> Result<(), Failure> {
    let text = if yaml {
        serde_norway::to_string(document).map_err(unserializable)?
    } else {
        let mut text = serde_json::to_string_pretty(document).map_err(unserializable)?;
        text.push('\n');
        text
    };
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes one document of a stream: JSON on one line, or a YAML document with its separator.
pub fn write_streamed(out: &mut impl Write, yaml: bool, document: &impl Serialize) -> Result<(), Failure> {
    if yaml {
        let text = serde_norway::to_string(document).map_err(unserializable)?;
        write!(out, "---\n{text}")?;
    } else {
        let text = serde_json::to_string(document).map_err(unserializable)?;
        writeln!(out, "{text}")?;
    }
    Ok(out.flush()?)
}

/// What a result looks like in each format.
pub struct Shown<'a, D: Serialize> {
    /// For programs.
    pub document: &'a D,
    /// The names, one a line.
    pub names: Vec<String>,
    /// For people.
    pub table: &'a dyn Fn(Width) -> String,
}

impl<D: Serialize> std::fmt::Debug for Shown<'_, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").field("names", &self.names).finish_non_exhaustive()
    }
}

/// How many columns a table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// The most important ones.
    Normal,
    /// All.
    Wide,
}

/// Writes a result in the format asked for.
pub fn show<D: Serialize>(out: &mut impl Write, format: OutputFormat, shown: &Shown<'_, D>) -> Result<(), Failure> {
    match format {
        OutputFormat::Json => return write_document(out, false, shown.document),
        OutputFormat::Yaml => return write_document(out, true, shown.document),
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
