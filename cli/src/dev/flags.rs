//! The flag file that is served without an SDK key.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::failure::{ExitStatus, Failure};

/// What is written where there is no flag file yet.
const SAMPLE: &str = include_str!("../../../examples/flags.json");

/// A flag file that exists.
#[derive(Debug, Clone)]
pub(super) struct FlagFile {
    /// Its directory, absolute.
    pub(super) directory: PathBuf,
    /// Its name in there.
    pub(super) name: String,
    /// As the user named it.
    pub(super) shown: String,
}

/// Makes sure that the flag file is there; a file that exists is left alone.
pub(super) fn prepare(path: &Path) -> Result<FlagFile, Failure> {
    let refuse = |what: String| Failure::new(ExitStatus::Usage, format!("--flags: {what}"));
    let shown = path.display().to_string();
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => {
            file.write_all(SAMPLE.as_bytes()).map_err(|error| refuse(format!("cannot write {shown}: {error}")))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(refuse(format!("cannot write a sample to {shown}: {error}"))),
    }
    let absolute = path.canonicalize().map_err(|error| refuse(format!("cannot read {shown}: {error}")))?;
    if !absolute.is_file() {
        return Err(refuse(format!("{shown} is not a file")));
    }
    let name = absolute.file_name().and_then(|name| name.to_str());
    match (absolute.parent(), name) {
        (Some(directory), Some(name)) => {
            Ok(FlagFile { directory: directory.to_owned(), name: name.to_owned(), shown })
        }
        _ => Err(refuse(format!("the name of {shown} is not valid UTF-8"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_written_once_and_never_over_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flags.json");
        let file = prepare(&path).unwrap();
        assert_eq!(file.name, "flags.json");
        let written: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert!(written["flags"].is_object() && written["segments"].is_object());
        std::fs::write(&path, "{}").unwrap();
        prepare(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}");
    }

    #[test]
    fn what_cannot_be_a_flag_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        for bad in [directory.path().to_owned(), directory.path().join("missing/flags.json")] {
            let failure = prepare(&bad).unwrap_err();
            assert_eq!(failure.status().code(), 2);
            assert!(failure.to_string().contains(bad.to_str().unwrap()), "{failure}");
        }
    }
}
