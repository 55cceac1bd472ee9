//! Secrets, written to files that only their owner can read.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use flotilla_proto::manifest::SecretSource;

use crate::failure::{ExitStatus, Failure};
use crate::relay_configuration::Declared;

/// Writes all that are said to be in files. A file that is there and says something else is left alone, and an error.
pub(super) fn write(declared: &Declared) -> Result<(), Failure> {
    for (source, text) in declared.secrets() {
        match source {
            SecretSource::Env(_) | SecretSource::Worker(_) => {}
            SecretSource::File(path) => write_one(Path::new(path), text).map_err(|error| {
                Failure::new(ExitStatus::Usage, format!("--write-keys: cannot write {path}: {error}"))
            })?,
        }
    }
    Ok(())
}

fn write_one(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let text = format!("{text}\n");
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => file.write_all(text.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_same = fs::read_to_string(path)? == text;
            is_same.then_some(()).ok_or_else(|| io::Error::other("it is there already, with something else in it"))
        }
        Err(error) => Err(error),
    }
}
