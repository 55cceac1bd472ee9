//! Regular files: opened, read within a bound, and told apart without reading.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Opens a file; opening a pipe would wait for ever.
pub fn open_regular(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path)?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}

/// The file of this name below a directory, whose own path is canonical, with all links followed; `None`: one of them leads
/// out of the directory.
pub fn below(directory: &Path, name: &Path) -> io::Result<Option<PathBuf>> {
    let path = directory.join(name).canonicalize()?;
    Ok(path.starts_with(directory).then_some(path))
}

/// Reads all of it, which must not be longer than so many bytes. It may be a secret, and is wiped from memory when dropped.
pub(crate) fn read_bounded(reader: impl Read, longest: u64) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let length = reader.take(longest + 1).read_to_string(&mut text)?;
    if u64::try_from(length).unwrap_or(u64::MAX) > longest {
        return Err(io::Error::other(format!("it is longer than {longest} bytes")));
    }
    Ok(text)
}

/// Where a TOML file is wrong. The error itself shows what stands there, which may be a secret.
pub(crate) fn line_of(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().map_or(0, |span| span.start.min(text.len()));
    format!("line {}", 1 + text.get(..before).unwrap_or_default().matches('\n').count())
}

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of a file.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Of the file at a path; `None` where there is none, or it cannot be looked at.
    pub fn of_file(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}
