//! Secrets that only workers read: files below `--secrets-dir`, as Kubernetes, systemd and agents of vaults put them there,
//! and environment variables that are there for it.
//!
//! They are read whenever they are needed and not kept, so that a file can be replaced in place.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use flotilla_proto::SecretReference;
use flotilla_proto::process::{Stamp, below, open_regular};
use flotilla_proto::secret_reference::SecretPlace;
use zeroize::Zeroizing;

/// Longest secret, in bytes; an SDK key has at most 8192 characters and a line end.
const LONGEST: usize = 16 * 1024;
/// What mounts secrets replaces a link and removes what it led to, perhaps while somebody follows it.
const ATTEMPTS: usize = 3;

/// Where this worker's secrets are. Holds none.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    directory: Option<PathBuf>,
}

/// Why a secret cannot be read. Never holds what was read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A file is referred to, and there is no directory for files.
    #[error("the worker was started without --secrets-dir")]
    NoDirectory,
    /// The directory is not there, or nobody may look into it.
    #[error("--secrets-dir {directory} cannot be read: {source}")]
    Directory {
        /// Which.
        directory: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such file.
    #[error("no such file below --secrets-dir ({directory})")]
    Missing {
        /// Below which.
        directory: String,
    },
    /// A link leads out of the directory.
    #[error("it is a link that leads out of --secrets-dir ({directory}); put the file itself there")]
    Outside {
        /// Out of which.
        directory: String,
    },
    /// The file is there.
    #[error("the file below --secrets-dir ({directory}) cannot be used: {source}")]
    Unreadable {
        /// Below which.
        directory: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The variable is not there.
    #[error("the worker's environment variable {variable} is not set")]
    Unset {
        /// Which.
        variable: String,
    },
    /// Longer than anything that is a secret.
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
    /// Not even text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// Nothing but ends of lines.
    #[error("it is empty")]
    Empty,
}

impl Secrets {
    /// Files are read below this directory; without one, none are.
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self { directory }
    }

    /// Reads a secret, without ends of lines after it. It waits for the disk.
    pub fn read(&self, reference: &SecretReference) -> Result<Zeroizing<String>, SecretError> {
        let text = match reference.place() {
            SecretPlace::File(name) => self.read_file(name)?,
            SecretPlace::Variable(name) => match std::env::var(&name) {
                Ok(text) => Zeroizing::new(text),
                Err(std::env::VarError::NotPresent) => return Err(SecretError::Unset { variable: name }),
                Err(std::env::VarError::NotUnicode(_)) => return Err(SecretError::NotText),
            },
        };
        if text.len() > LONGEST {
            return Err(SecretError::TooLong);
        }
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(SecretError::Empty),
            trimmed => Ok(Zeroizing::new(trimmed.to_owned())),
        }
    }

    /// What tells a file from what it was before, without reading it. `None`: it cannot be looked at, or is none. It waits for
    /// the disk.
    pub(crate) fn stamp(&self, reference: &SecretReference) -> Option<Stamp> {
        match (reference.place(), &self.directory) {
            (SecretPlace::File(name), Some(directory)) => Stamp::of_file(&directory.join(name)),
            (SecretPlace::File(_), None) | (SecretPlace::Variable(_), _) => None,
        }
    }

    fn read_file(&self, name: &str) -> Result<Zeroizing<String>, SecretError> {
        let directory = self.directory.as_deref().ok_or(SecretError::NoDirectory)?;
        let mut result = read_below(directory, name);
        for _ in 1..ATTEMPTS {
            if !matches!(result, Err(SecretError::Missing { .. })) {
                break;
            }
            result = read_below(directory, name);
        }
        result
    }
}

/// Links are followed within the directory: a mounted secret is one.
fn read_below(directory: &Path, name: &str) -> Result<Zeroizing<String>, SecretError> {
    let shown = || directory.display().to_string();
    let failed = |source: io::Error| match source.kind() {
        // A file in a directory's place is none either.
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => SecretError::Missing { directory: shown() },
        _ => SecretError::Unreadable { directory: shown(), source },
    };
    let canonical =
        directory.canonicalize().map_err(|source| SecretError::Directory { directory: shown(), source })?;
    let path = below(&canonical, name.as_ref()).map_err(failed)?;
    let path = path.ok_or_else(|| SecretError::Outside { directory: shown() })?;
    let file = open_regular(&path).map_err(failed)?;
    read_text(file).map_err(failed)?
}

/// Into memory that is wiped, and has room for all from the start: what grows leaves copies behind.
fn read_text(file: File) -> io::Result<Result<Zeroizing<String>, SecretError>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST + 1));
    file.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LONGEST {
        return Ok(Err(SecretError::TooLong));
    }
    Ok(match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(SecretError::NotText),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tempfile::TempDir;

    use super::*;

    const SECRET: &str = "hunter2";

    /// `secrets/` holds a secret, and so does what is beside it.
    struct Place {
        directory: TempDir,
        secrets: Secrets,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let below = directory.path().join("secrets");
            std::fs::create_dir_all(below.join("team")).unwrap();
            std::fs::write(directory.path().join("outside"), SECRET).unwrap();
            std::fs::write(below.join("key"), format!("{SECRET}\r\n\n")).unwrap();
            std::fs::write(below.join("team/key"), "in the team's\n").unwrap();
            Self { secrets: Secrets::new(Some(below)), directory }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join("secrets").join(name)
        }

        fn read(&self, reference: &str) -> Result<String, String> {
            let read = self.secrets.read(&reference.parse().unwrap());
            read.map(|text| text.to_string()).map_err(|error| error.to_string())
        }

        /// Why it cannot be read. That never shows a secret.
        fn complaint(&self, reference: &str) -> String {
            let complaint = self.read(reference).unwrap_err();
            assert!(!complaint.contains(SECRET), "{complaint}");
            complaint
        }
    }

    #[test]
    fn files_are_read_anew_each_time_without_the_end_of_the_line() {
        let place = Place::new();
        assert_eq!(place.read("file:key").as_deref(), Ok(SECRET));
        assert_eq!(place.read("file:team/key").as_deref(), Ok("in the team's"));
        let before = place.secrets.stamp(&"file:key".parse().unwrap());
        std::fs::write(place.path("new"), " a b ").unwrap();
        std::fs::rename(place.path("new"), place.path("key")).unwrap();
        assert_eq!(place.read("file:key").as_deref(), Ok(" a b "));
        assert_ne!(place.secrets.stamp(&"file:key".parse().unwrap()), before);
        std::fs::write(place.path("longest"), "k".repeat(LONGEST)).unwrap();
        assert_eq!(place.read("file:longest").unwrap().len(), LONGEST);
    }

    #[test]
    fn a_mounted_secret_is_a_link_that_is_replaced() {
        let place = Place::new();
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            std::fs::create_dir(place.path(version)).unwrap();
            std::fs::write(place.path(version).join("mounted"), text).unwrap();
        }
        symlink("..data/mounted", place.path("mounted")).unwrap();
        symlink("..1", place.path("..data")).unwrap();
        assert_eq!(place.read("file:mounted").as_deref(), Ok("one"));
        let before = place.secrets.stamp(&"file:mounted".parse().unwrap());
        symlink("..2", place.path("..tmp")).unwrap();
        std::fs::rename(place.path("..tmp"), place.path("..data")).unwrap();
        std::fs::remove_dir_all(place.path("..1")).unwrap();
        assert_eq!(place.read("file:mounted").as_deref(), Ok("two"));
        assert_ne!(place.secrets.stamp(&"file:mounted".parse().unwrap()), before);
    }

    #[test]
    fn no_link_leads_out_of_the_directory() {
        let place = Place::new();
        symlink("../outside", place.path("up")).unwrap();
        symlink(place.directory.path().join("outside"), place.path("away")).unwrap();
        symlink("..", place.path("parent")).unwrap();
        symlink("up", place.path("in-two-steps")).unwrap();
        for name in ["up", "away", "parent/outside", "in-two-steps"] {
            assert!(place.complaint(&format!("file:{name}")).contains("leads out of --secrets-dir"), "{name}");
        }
        // A directory that begins like the one of secrets is another one.
        std::fs::create_dir(place.directory.path().join("secrets-of-others")).unwrap();
        std::fs::write(place.directory.path().join("secrets-of-others/key"), SECRET).unwrap();
        symlink("../secrets-of-others/key", place.path("neighbour")).unwrap();
        assert!(place.complaint("file:neighbour").contains("leads out"));
        // The directory itself may be a link.
        let link = place.directory.path().join("link");
        symlink("secrets", &link).unwrap();
        let secrets = Secrets::new(Some(link));
        assert_eq!(secrets.read(&"file:key".parse().unwrap()).unwrap().as_str(), SECRET);
    }

    #[test]
    fn what_cannot_be_read_says_so_and_what_helps() {
        let place = Place::new();
        let directory = place.directory.path().join("secrets").display().to_string();
        let made = std::process::Command::new("mkfifo").arg(place.path("pipe")).status().unwrap();
        assert!(made.success());
        symlink("nowhere", place.path("dangling")).unwrap();
        symlink("loop", place.path("loop")).unwrap();
        std::fs::write(place.path("long"), SECRET.repeat(LONGEST)).unwrap();
        std::fs::write(place.path("binary"), b"hunter2\xff").unwrap();
        std::fs::write(place.path("empty"), "\r\n").unwrap();
        for (name, words) in [
            ("nope", &format!("no such file below --secrets-dir ({directory})")[..]),
            ("key/below-a-file", "no such file below"),
            ("dangling", "no such file below"),
            ("loop", &directory),
            ("team", "not a regular file"),
            ("pipe", "not a regular file"),
            ("long", "longer than 16384 bytes"),
            ("binary", "not UTF-8 text"),
            ("empty", "it is empty"),
        ] {
            let complaint = place.complaint(&format!("file:{name}"));
            assert!(complaint.contains(words), "{name}: {complaint}");
        }
        let nowhere = Secrets::new(Some(place.path("gone")));
        let complaint = nowhere.read(&"file:key".parse().unwrap()).unwrap_err().to_string();
        assert!(
            complaint.starts_with("--secrets-dir ") && complaint.contains("gone cannot be read"),
            "{complaint}"
        );
        let none = Secrets::default().read(&"file:key".parse().unwrap()).unwrap_err().to_string();
        assert_eq!(none, "the worker was started without --secrets-dir");
    }

    #[test]
    fn a_file_that_one_may_not_read_says_so() {
        let place = Place::new();
        std::fs::set_permissions(place.path("key"), std::fs::Permissions::from_mode(0o000)).unwrap();
        // Root may read everything.
        match place.read("file:key") {
            Ok(text) => assert_eq!(text, SECRET),
            Err(complaint) => assert!(complaint.contains("Permission denied"), "{complaint}"),
        }
    }

    #[test]
    fn only_variables_of_their_own_are_read() {
        // Those of a process cannot be set here; the tests of whole programs do.
        let unset = Secrets::default().read(&"env:TEST_UNSET".parse().unwrap()).unwrap_err().to_string();
        assert_eq!(unset, "the worker's environment variable FLOTILLA_SECRET_TEST_UNSET is not set");
        assert!(
            std::env::var_os("PATH").is_some() && Secrets::default().read(&"env:PATH".parse().unwrap()).is_err()
        );
    }
}
