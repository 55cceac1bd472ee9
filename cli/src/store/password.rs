//! Reads passwords from where the command line says. They are never shown, not even by an error. Those that workers read
//! are not read here.

use std::io::Read;

use flotilla_proto::SecretReference;

use crate::arguments::SecretOptions;
use crate::failure::Failure;

/// Longest text that is read.
const LONGEST_INPUT: u64 = 16 * 1024;

/// What was given.
pub(super) struct Passwords {
    /// Towards Redis.
    pub(super) redis: Password,
    /// Towards the Sentinels.
    pub(super) sentinel: Password,
}

/// A password, or where workers find it. Either may be empty: it was not given.
#[derive(Default)]
pub(super) struct Password {
    /// The password itself.
    pub(super) text: String,
    /// Where workers find it.
    pub(super) from: String,
}

impl Password {
    fn new(text: String, from: Option<&SecretReference>) -> Self {
        Self { text, from: from.map(ToString::to_string).unwrap_or_default() }
    }
}

/// Reads the passwords that are given.
pub(super) fn read(options: &SecretOptions, stdin: impl Read) -> Result<Passwords, Failure> {
    let redis = if let Some(path) = &options.password_file {
        from_file("--password-file", path)?
    } else if let Some(variable) = &options.password_env {
        from_variable("--password-env", variable)?
    } else if options.password_stdin {
        let text = read_text(stdin)
            .map_err(|error| Failure::usage(format!("--password-stdin: cannot read standard input: {error}")))?;
        checked("--password-stdin", &text)?
    } else {
        String::new()
    };
    let sentinel = if let Some(path) = &options.sentinel_password_file {
        from_file("--sentinel-password-file", path)?
    } else if let Some(variable) = &options.sentinel_password_env {
        from_variable("--sentinel-password-env", variable)?
    } else {
        String::new()
    };
    let SecretOptions { password_from, sentinel_password_from, .. } = options;
    Ok(Passwords {
        redis: Password::new(redis, password_from.as_ref()),
        sentinel: Password::new(sentinel, sentinel_password_from.as_ref()),
    })
}

fn from_file(option: &str, path: &std::path::Path) -> Result<String, Failure> {
    let text = std::fs::File::open(path)
        .and_then(read_text)
        .map_err(|error| Failure::usage(format!("{option}: cannot read {}: {error}", path.display())))?;
    checked(option, &text)
}

fn from_variable(option: &str, variable: &str) -> Result<String, Failure> {
    match std::env::var_os(variable) {
        Some(value) => checked(option, &value.to_string_lossy()),
        None => Err(Failure::usage(format!("{option}: the environment variable {variable} is not set"))),
    }
}

fn read_text(reader: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    reader.take(LONGEST_INPUT).read_to_string(&mut text)?;
    Ok(text)
}

/// A line end is no part of a password.
fn checked(option: &str, text: &str) -> Result<String, Failure> {
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Failure::usage(format!("{option}: the password is empty")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_read_and_what_is_empty_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "p w\r\n").unwrap();
        let options = SecretOptions {
            password_stdin: true,
            sentinel_password_file: Some(path.clone()),
            ..SecretOptions::default()
        };
        let passwords = read(&options, "hunter2\n".as_bytes()).unwrap();
        assert_eq!((passwords.redis.text.as_str(), passwords.sentinel.text.as_str()), ("hunter2", "p w"));
        let elsewhere = SecretOptions { password_from: "env:REDIS".parse().ok(), ..SecretOptions::default() };
        let Passwords { redis, sentinel } = read(&elsewhere, std::io::empty()).unwrap();
        assert_eq!((redis.text.as_str(), redis.from.as_str(), sentinel.from.as_str()), ("", "env:REDIS", ""));
        std::fs::write(&path, "\n").unwrap();
        for options in [
            SecretOptions { password_file: Some(path), ..SecretOptions::default() },
            SecretOptions { password_file: Some("/nonexistent/p".into()), ..SecretOptions::default() },
            SecretOptions { password_env: Some("FLOTILLA_TEST_UNSET".to_owned()), ..SecretOptions::default() },
        ] {
            assert_eq!(read(&options, std::io::empty()).err().unwrap().status().code(), 2);
        }
    }
}
