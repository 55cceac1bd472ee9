//! Tokens, and the files of their hashes.

use std::fmt::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flotilla_proto::access::{Role, TokenHash, WorkerPattern};
use zeroize::Zeroizing;

use super::{Existing, NewFile, write_all};
use crate::arguments::InitTokens;
use crate::failure::{ExitStatus, Failure};

/// By this, programs that look for secrets in the wrong place know a token.
const PREFIX: &str = "flotilla_";

/// Makes them. Returns what was written, and what to do with it.
pub(super) fn make(options: &InitTokens) -> Result<(Vec<PathBuf>, String), Failure> {
    let directory = &options.directory;
    let mut api =
        "# Callers of the API: names, roles, and SHA-256 hashes of their tokens. Read by flotilla-control \
                   --token-file.\n"
            .to_owned();
    let mut workers = "# Workers: names, and SHA-256 hashes of their tokens. Read by flotilla-control \
                       --worker-token-file.\n"
        .to_owned();
    let mut files = Vec::new();
    for role in Role::ALL {
        let token = token()?;
        push(&mut api, &format!("\n[[token]]\nname = \"{role}\"\nrole = \"{role}\"\n"), &token);
        files.push(NewFile { path: directory.join(format!("{role}.token")), text: token });
    }
    if let Some(twice) = (1..).zip(&options.worker).find(|(at, one)| options.worker[*at..].contains(one)) {
        return Err(Failure::usage(format!("--worker {} is there twice; each has one token", twice.1)));
    }
    let mut first_worker = None;
    for pattern in &options.worker {
        let token = token()?;
        push(&mut workers, &format!("\n[[token]]\nname = \"{pattern}\"\n"), &token);
        let path = directory.join(match pattern {
            WorkerPattern::Name(name) => format!("worker-{name}.token"),
            WorkerPattern::Prefix(prefix) => format!("workers-{prefix}.token"),
        });
        first_worker.get_or_insert_with(|| path.clone());
        files.push(NewFile { path, text: token });
    }
    files.push(NewFile { path: directory.join("tokens.toml"), text: Zeroizing::new(api) });
    files.push(NewFile { path: directory.join("workers.toml"), text: Zeroizing::new(workers) });
    let written = write_all(directory, &files, Existing::Refuse)?;
    let shown = |name: &str| directory.join(name).display().to_string();
    let advice = format!(
        "Control tells callers apart with:\n  flotilla-control --token-file {} --worker-token-file {} …\n\
         A worker shows who it is with:\n  flotilla-worker --token-file {} …\n\
         And so do you:\n  flotilla --token-file {} status\n\
         Tokens go over TLS only, or within one machine: see `flotilla init tls`.\n",
        shown("tokens.toml"),
        shown("workers.toml"),
        first_worker.unwrap_or_default().display(),
        shown("admin.token"),
    );
    Ok((written, advice))
}

fn push(file: &mut String, entry: &str, token: &str) {
    file.push_str(entry);
    writeln!(file, "sha256 = \"{}\"", TokenHash::of(token.trim_end())).expect("writing to a string does not fail");
}

/// 256 random bits, and a line end.
fn token() -> Result<Zeroizing<String>, Failure> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|error| {
        Failure::new(ExitStatus::Failed, format!("the system gives no random numbers: {error}"))
    })?;
    Ok(Zeroizing::new(format!("{PREFIX}{}\n", URL_SAFE_NO_PAD.encode(bytes.as_slice()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_hold_hashes_and_each_token_has_its_own_file() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("tokens");
        let worker = ["w1", "edge-*"].map(|text| WorkerPattern::parse(text).unwrap()).to_vec();
        let (written, advice) = make(&InitTokens { directory: directory.clone(), worker }).unwrap();
        let names: Vec<_> = written.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "viewer.token",
                "operator.token",
                "admin.token",
                "worker-w1.token",
                "workers-edge-.token",
                "tokens.toml",
                "workers.toml"
            ]
        );
        let text = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
        let both = text("tokens.toml") + &text("workers.toml");
        for name in &names[..5] {
            let token = text(name);
            let token = token.trim();
            assert_eq!(token.len(), PREFIX.len() + 43);
            assert!(!both.contains(token) && !advice.contains(token));
        }
        assert!(both.contains("name = \"edge-*\"") && both.contains("role = \"operator\""));
    }
}
