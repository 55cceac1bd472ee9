//! All secrets of a run, and a search for them in everything that it leaves behind or shows.

use std::path::{Path, PathBuf};

/// Of a P-256 key in PKCS #8 the private part is in the first two lines.
const PRIVATE_LINES: usize = 2;

/// Secrets by what they are.
#[derive(Default)]
pub(super) struct SecretList(Vec<Secret>);

struct Secret {
    what: String,
    /// As it is, each byte a character.
    text: String,
    /// How it begins as a list of numbers, which is what `Debug` makes of bytes.
    numbers: String,
}

impl SecretList {
    pub(super) fn add(&mut self, what: &str, secret: &str) {
        self.add_bytes(what, secret.as_bytes());
    }

    fn add_bytes(&mut self, what: &str, secret: &[u8]) {
        assert!(secret.len() >= 8, "{what} is too short to be searched for");
        let numbers = format!("{:?}", &secret[..secret.len().min(12)]);
        let numbers = numbers.trim_matches(['[', ']']).to_owned();
        self.0.push(Secret { what: what.to_owned(), text: characters(secret), numbers });
    }

    /// A key of `--encryption-key-file`, as digits and as bytes.
    pub(super) fn add_sealing_key(&mut self, what: &str, digits: &str) {
        self.add(what, digits);
        let digits = digits.as_bytes().chunks(2).map(|two| str::from_utf8(two).unwrap());
        let bytes: Vec<_> = digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect();
        self.add_bytes(&format!("{what}, as bytes"), &bytes);
    }

    /// What is secret in a file that `flotilla init` has made: a token, or the lines of a private key.
    pub(super) fn add_file(&mut self, path: &Path) {
        let (what, text) = (path.display().to_string(), std::fs::read_to_string(path).unwrap());
        let lines = text.lines().filter(|line| !line.starts_with("-----"));
        lines.take(PRIVATE_LINES).for_each(|line| self.add(&what, line));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Which of them are in these bytes.
    pub(super) fn found_in(&self, bytes: &[u8]) -> Vec<&str> {
        let all = characters(bytes);
        let found = self.0.iter().filter(|secret| all.contains(&secret.text) || all.contains(&secret.numbers));
        found.map(|secret| secret.what.as_str()).collect()
    }

    pub(super) fn assert_none_in(&self, place: &str, bytes: &[u8]) {
        let found = self.found_in(bytes);
        assert!(found.is_empty(), "{place} holds {found:?}");
    }

    /// The search finds what there is.
    pub(super) fn assert_all_can_be_found(&self) {
        for Secret { what, text, .. } in &self.0 {
            let bytes: Vec<u8> = text.chars().map(|character| u8::try_from(character).unwrap()).collect();
            for place in [[b"\xff \0", bytes.as_slice(), b"\0"].concat(), format!("{bytes:?}").into_bytes()] {
                assert!(self.found_in(&place).contains(&what.as_str()), "{what}");
            }
        }
    }
}

/// Each byte a character, so that text is looked for and bytes that are none.
fn characters(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// All files below a directory, with what is in them.
pub(super) fn contents_below(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    // A file that is a draft of another one may be gone by now.
    let read = |path: PathBuf| std::fs::read(&path).ok().map(|content| (path, content));
    super::files_below(directory).into_iter().filter_map(read).collect()
}
