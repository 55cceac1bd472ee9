//! `flotilla init …`: the files of a small installation that listens on a network.

// An authority and certificates.
mod tls;
// Tokens and their hashes.
mod tokens;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::arguments::InitCommand;
use crate::failure::{ExitStatus, Failure};

/// Runs `flotilla init …`.
pub(crate) fn run(command: &InitCommand) -> Result<ExitStatus, Failure> {
    let (written, advice) = match command {
        InitCommand::Tls(options) => tls::make(options)?,
        InitCommand::Tokens(options) => tokens::make(options)?,
    };
    let mut out = io::stdout();
    for file in written {
        writeln!(out, "wrote {}", file.display())?;
    }
    write!(out, "\n{advice}")?;
    out.flush()?;
    Ok(ExitStatus::Done)
}

/// A file to write, for its owner alone.
struct NewFile {
    path: PathBuf,
    text: Zeroizing<String>,
}

/// What may become of a file that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    /// It is left alone, and nothing is written at all.
    Refuse,
    /// Another takes its place.
    Replace,
}

/// Writes them all. The directory is made if it is not there.
fn write_all(directory: &Path, files: &[NewFile], existing: Existing) -> Result<Vec<PathBuf>, Failure> {
    let failed = |path: &Path, error: io::Error| {
        Failure::new(ExitStatus::Failed, format!("cannot write {}: {error}", path.display()))
    };
    if existing == Existing::Refuse
        && let Some(file) = files.iter().find(|file| file.path.symlink_metadata().is_ok())
    {
        return Err(Failure::new(ExitStatus::Exists, format!("{} is there already", file.path.display()))
            .hint("nothing was written; name another directory, or remove it first"));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| failed(directory, error))?;
    for file in files {
        let written = match existing {
            Existing::Refuse => create_new(&file.path, &file.text),
            Existing::Replace => replace(&file.path, &file.text),
        };
        written.map_err(|error| failed(&file.path, error))?;
    }
    Ok(files.iter().map(|file| file.path.clone()).collect())
}

/// Written beside it and renamed: whoever reads it meanwhile finds the one or the other.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    create_new(&beside, text)?;
    fs::rename(&beside, path)
}

fn create_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_the_owners_alone_and_none_is_overwritten() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        let file =
            |name: &str, text: &str| NewFile { path: directory.join(name), text: Zeroizing::new(text.to_owned()) };
        write_all(&directory, &[file("x.pem", "1")], Existing::Refuse).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join("x.pem"))), (0o700, 0o600));
        let refused = write_all(&directory, &[file("y.pem", "2"), file("x.pem", "2")], Existing::Refuse);
        assert!(refused.unwrap_err().to_string().contains("x.pem is there already"));
        assert!(!directory.join("y.pem").exists());
        write_all(&directory, &[file("x.pem", "2")], Existing::Replace).unwrap();
        assert_eq!(fs::read_to_string(directory.join("x.pem")).unwrap(), "2");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }
}
