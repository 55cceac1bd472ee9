//! Manifests, and what they refer to, as they stand on disk and in the environment.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::files::{open_regular, read_bounded};
use crate::manifest::{Place, SecretSource, Text};

/// Longest manifest, in bytes.
const LONGEST_MANIFEST: u64 = 16 << 20;
/// Longest secret, in bytes; an SDK key has at most 8192 characters and a line end.
const LONGEST_SECRET: u64 = 16 << 10;

/// Reads a manifest from an open file, or another place; `name` is what it is called in errors, and its directory is
/// where relative paths begin.
pub fn read_manifest_file(name: &Path, reader: impl Read) -> io::Result<Text> {
    Ok(Text { file: name.display().to_string(), text: read_bounded(reader, LONGEST_MANIFEST)?.to_string() })
}

/// The text of a secret that is said at `place`, or what is wrong with that; it never holds the secret.
pub fn resolve_secret(place: &Place, source: &SecretSource) -> Result<String, String> {
    match source {
        SecretSource::File(_) => {
            let path = secret_path(place, source).unwrap_or_default();
            let text = open_regular(&path).and_then(|file| read_bounded(file, LONGEST_SECRET));
            text.map(|text| text.to_string()).map_err(|error| format!("cannot read {}: {error}", path.display()))
        }
        SecretSource::Env(variable) => match std::env::var_os(variable) {
            Some(value) => Ok(value.to_string_lossy().into_owned()),
            None => Err(format!("the environment variable {variable} is not set")),
        },
        SecretSource::Worker(_) => Err("only workers can read it".to_owned()),
    }
}

/// The file that a secret is in, if it is in one. A relative path begins at the manifest's own directory.
pub fn secret_path(place: &Place, source: &SecretSource) -> Option<PathBuf> {
    match source {
        SecretSource::File(path) => Some(Path::new(&place.file).parent().unwrap_or(Path::new("")).join(path)),
        SecretSource::Env(_) | SecretSource::Worker(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_begins_at_the_manifest() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("keys")).unwrap();
        std::fs::write(directory.path().join("keys/a"), "sdk-1\n").unwrap();
        let place = |file: &Path| Place { file: file.display().to_string(), document: 1, subject: String::new() };
        let manifest = place(&directory.path().join("environments.yaml"));
        let source = SecretSource::File("keys/a".to_owned());
        assert_eq!(resolve_secret(&manifest, &source), Ok("sdk-1\n".to_owned()));
        let absolute = SecretSource::File(directory.path().join("keys/a").display().to_string());
        assert_eq!(resolve_secret(&place(Path::new("-")), &absolute), Ok("sdk-1\n".to_owned()));
        let missing = resolve_secret(&manifest, &SecretSource::File("keys/b".to_owned())).unwrap_err();
        assert!(missing.contains("keys/b: "), "{missing}");
        let unset = resolve_secret(&manifest, &SecretSource::Env("FLOTILLA_TEST_UNSET".to_owned())).unwrap_err();
        assert_eq!(unset, "the environment variable FLOTILLA_TEST_UNSET is not set");
        std::fs::write(directory.path().join("long"), "k".repeat(1 << 15)).unwrap();
        let long = resolve_secret(&manifest, &SecretSource::File("long".to_owned())).unwrap_err();
        assert!(long.contains("longer than 16384 bytes"), "{long}");
    }
}
