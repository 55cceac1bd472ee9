//! The files that say who may do what: names, roles and hashes, no token. Errors never show what a file holds.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::keys::{Keys, List, Listed, TokenHash};
use super::rights::{Role, WorkerPattern};
use crate::files::{line_of, open_regular, read_bounded};

/// Largest file, in bytes, and how many entries it may have.
const LONGEST_FILE: u64 = 1 << 20;
const MOST_ENTRIES: usize = 4096;
const LONGEST_NAME: usize = 253;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiFile {
    #[serde(default)]
    token: Vec<ApiToken>,
    #[serde(default)]
    certificate: Vec<ApiCertificate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiToken {
    name: String,
    role: Role,
    sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiCertificate {
    name: String,
    role: Role,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkerFile {
    #[serde(default)]
    token: Vec<WorkerToken>,
    #[serde(default)]
    certificate: Vec<WorkerCertificate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkerToken {
    name: String,
    sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkerCertificate {
    name: String,
}

/// Reads the file of callers and that of workers.
pub(super) fn load(api: &Path, workers: Option<&Path>) -> Result<Keys, String> {
    let told = |path: &Path, error: String| format!("{}: {error}", path.display());
    let api_list = read(api).and_then(|text| parse_api(&text)).map_err(|error| told(api, error))?;
    let worker_list = match workers {
        Some(path) => read(path).and_then(|text| parse_workers(&text)).map_err(|error| told(path, error))?,
        None => List::default(),
    };
    let mut both = api_list
        .tokens
        .iter()
        .filter(|(hash, ..)| worker_list.tokens.iter().any(|(other, ..)| hash.matches(other)));
    if let (Some((_, name, _)), Some(path)) = (both.next(), workers) {
        return Err(told(
            path,
            format!("a worker has the token of {name:?} in {}; give it its own", api.display()),
        ));
    }
    Ok(Keys::Listed(Listed { api: api_list, workers: worker_list }))
}

fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    match open_regular(path).and_then(|file| read_bounded(file, LONGEST_FILE)) {
        // A file that is being written is empty for a moment, and would send everybody away.
        Ok(text) if text.trim().is_empty() => Err("empty; a comment says that nobody shall be let in".to_owned()),
        Ok(text) => Ok(text),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        format!(
            "{} is wrong; expected [[token]] and [[certificate]] with the keys that docs/access.md lists",
            line_of(text, &error)
        )
    })
}

fn parse_api(text: &str) -> Result<List<Role>, String> {
    let file: ApiFile = parse(text)?;
    check_count(file.token.len() + file.certificate.len())?;
    let tokens =
        file.token.into_iter().map(|one| Ok((hash(&one.name, &one.sha256)?, checked_name(one.name)?, one.role)));
    let certificates = file.certificate.into_iter().map(|one| Ok((checked_name(one.name)?, one.role)));
    distinct(List {
        tokens: tokens.collect::<Result<_, String>>()?,
        certificates: certificates.collect::<Result<_, String>>()?,
    })
}

fn parse_workers(text: &str) -> Result<List<WorkerPattern>, String> {
    let file: WorkerFile = parse(text)?;
    check_count(file.token.len() + file.certificate.len())?;
    let tokens = file.token.into_iter().map(|one| {
        let pattern = WorkerPattern::parse(&one.name)?;
        Ok((hash(&one.name, &one.sha256)?, one.name, pattern))
    });
    let certificates = file.certificate.into_iter().map(|one| {
        let pattern = WorkerPattern::parse(&one.name)?;
        Ok((one.name, pattern))
    });
    distinct(List {
        tokens: tokens.collect::<Result<_, String>>()?,
        certificates: certificates.collect::<Result<_, String>>()?,
    })
}

fn check_count(count: usize) -> Result<(), String> {
    if count > MOST_ENTRIES { Err(format!("{count} entries are more than {MOST_ENTRIES}")) } else { Ok(()) }
}

fn checked_name(name: String) -> Result<String, String> {
    let fits = (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(name) } else { Err(format!("a name has 1 to {LONGEST_NAME} visible ASCII characters")) }
}

fn hash(name: &str, text: &str) -> Result<TokenHash, String> {
    let hash = TokenHash::parse(text).ok_or_else(|| {
        format!("the sha256 of {name:?} is not 64 hexadecimal digits; it is the hash of the token, never the token itself")
    })?;
    if hash.matches(&TokenHash::of("")) {
        return Err(format!(
            "the sha256 of {name:?} is that of an empty token; the file that it was made of was empty"
        ));
    }
    Ok(hash)
}

/// Two tokens may have one name, as they do while one is replaced, but one token has one entry.
fn distinct<G>(list: List<G>) -> Result<List<G>, String> {
    for (index, (hash, name, _)) in list.tokens.iter().enumerate() {
        if list.tokens[..index].iter().any(|(other, ..)| other.matches(hash)) {
            return Err(format!("the token of {name:?} is there twice"));
        }
    }
    let mut names = HashSet::new();
    match list.certificates.iter().find(|(name, _)| !names.insert(name.as_str())) {
        Some((name, _)) => Err(format!("the certificate {name:?} is there twice")),
        None => Ok(list),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_file_is_read() {
        let text = format!(
            "[[token]]\nname = \"ci\"\nrole = \"operator\"\nsha256 = \"{HASH}\"\n[[certificate]]\nname = \"a.example\"\nrole = \"admin\"\n"
        );
        let list = parse_api(&text).unwrap();
        assert_eq!((list.tokens[0].1.as_str(), list.tokens[0].2), ("ci", Role::Operator));
        assert_eq!(list.certificates, [("a.example".to_owned(), Role::Admin)]);
        let workers = parse_workers(&format!("[[token]]\nname = \"edge-*\"\nsha256 = \"{HASH}\"\n")).unwrap();
        assert_eq!(workers.tokens[0].2, WorkerPattern::Prefix("edge-".to_owned()));
        assert!(parse_api("# nobody\n").unwrap().tokens.is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_and_no_token_is_shown() {
        for (text, word) in [
            ("[[token]]\nname = \"ci\"\nrole = \"admin\"\ntoken = \"flotilla_hunter2\"\n".to_owned(), "line 4"),
            ("[[token]]\nname = \"ci\"\nrole = \"flotilla_hunter2\"\nsha256 = \"\"\n".to_owned(), "line 3"),
            (
                "[[token]]\nname = \"ci\"\nrole = \"admin\"\nsha256 = \"flotilla_hunter2\"\n".to_owned(),
                "64 hexadecimal",
            ),
            ("flotilla_hunter2".to_owned(), "line 1"),
            ("token = \"flotilla_hunter2\"".to_owned(), "line 1"),
            ("\ntoken = [\"flotilla_hunter2\"]".to_owned(), "line 2"),
            (format!("[[token]]\nname = \"ci\"\nrole = \"admin\"\nsha256 = \"{EMPTY}\"\n"), "empty token"),
            ("[[token]]\nname = \"\"\nrole = \"admin\"\nsha256 = \"".to_owned() + HASH + "\"", "1 to 253"),
            (format!("[[token]]\nname = \"a\"\nrole = \"admin\"\nsha256 = \"{HASH}\"\n").repeat(2), "twice"),
            ("[[certificate]]\nname = \"a\"\nrole = \"admin\"\n".repeat(2), "twice"),
        ] {
            let error = parse_api(&text).map(drop).unwrap_err();
            assert!(error.contains(word), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(parse_workers("[[token]]\nname = \"w1\"\nrole = \"admin\"\nsha256 = \"\"\n").is_err());
    }

    #[test]
    fn a_token_is_a_callers_or_a_workers() {
        let directory = tempfile::tempdir().unwrap();
        let (api, workers) = (directory.path().join("tokens.toml"), directory.path().join("workers.toml"));
        std::fs::write(&api, format!("[[token]]\nname = \"ci\"\nrole = \"admin\"\nsha256 = \"{HASH}\"\n")).unwrap();
        std::fs::write(&workers, format!("[[token]]\nname = \"w1\"\nsha256 = \"{HASH}\"\n")).unwrap();
        assert!(load(&api, Some(&workers)).unwrap_err().contains("workers.toml: a worker has the token of \"ci\""));
        std::fs::write(&workers, " \n").unwrap();
        assert!(load(&api, Some(&workers)).unwrap_err().contains("workers.toml: empty"));
        assert!(load(&api, Some(Path::new("/nowhere"))).unwrap_err().contains("/nowhere: cannot be read"));
    }
}
