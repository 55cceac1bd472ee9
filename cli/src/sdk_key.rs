//! Reads an SDK key from where the command line says. It is never shown, not even by an error.

use std::io::{Read, Write};

use flotilla_proto::{SdkKey, SdkKeySource};

use crate::arguments::KeyOptions;
use crate::failure::{ExitStatus, Failure};

/// Longest text that is read; a key has at most 8192 characters and a line end.
const LONGEST_INPUT: u64 = 16 * 1024;

/// Reads the key, if one is given, or takes the reference to it. A key in `--sdk-key` is warned about on `warnings`.
pub(crate) fn read(
    options: &KeyOptions,
    stdin: impl Read,
    warnings: &mut impl Write,
) -> Result<Option<SdkKeySource>, Failure> {
    let (option, text) = if let Some(key) = &options.sdk_key {
        let key = SdkKeySource::parse("--sdk-key", key)?;
        match key {
            SdkKeySource::Reference(_) => {}
            // Best effort: a closed standard error does not stop what was asked for.
            SdkKeySource::Key(_) => {
                let _ = writeln!(
                    warnings,
                    "warning: --sdk-key shows the key in process lists and shell history; --sdk-key-file, --sdk-key-env and \
                     --sdk-key-stdin do not"
                );
            }
        }
        return Ok(Some(key));
    } else if let Some(path) = &options.sdk_key_file {
        let file = std::fs::File::open(path).and_then(read_text).map_err(|error| {
            Failure::new(ExitStatus::Usage, format!("--sdk-key-file: cannot read {}: {error}", path.display()))
        })?;
        ("--sdk-key-file", file)
    } else if let Some(variable) = &options.sdk_key_env {
        let Some(value) = std::env::var_os(variable) else {
            return Err(Failure::usage(format!("--sdk-key-env: the environment variable {variable} is not set")));
        };
        ("--sdk-key-env", value.to_string_lossy().into_owned())
    } else if options.sdk_key_stdin {
        let text = read_text(stdin)
            .map_err(|error| Failure::usage(format!("--sdk-key-stdin: cannot read standard input: {error}")))?;
        ("--sdk-key-stdin", text)
    } else {
        return Ok(None);
    };
    Ok(Some(SdkKey::parse(option, &text)?.into()))
}

/// Reads the key; it is an error if none is given.
pub(crate) fn read_required(
    options: &KeyOptions,
    stdin: impl Read,
    warnings: &mut impl Write,
) -> Result<SdkKeySource, Failure> {
    read(options, stdin, warnings)?.ok_or_else(|| {
        Failure::usage("an SDK key is needed")
            .hint("give it with --sdk-key-file FILE, --sdk-key-env VARIABLE or --sdk-key-stdin, or where workers find it: --sdk-key file:NAME or env:NAME")
    })
}

fn read_text(reader: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    reader.take(LONGEST_INPUT).read_to_string(&mut text)?;
    Ok(text)
}

/// Takes SDK keys, and passwords within URLs, out of a text that repeats the command line, as a usage error does.
pub(crate) fn redact(text: &str, arguments: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets(arguments) {
        text = text.replace(secret, "********");
    }
    text
}

/// What on a command line is, or may be, a key: what `--sdk-key` takes, and whatever looks like one.
fn secrets(arguments: &[String]) -> Vec<&str> {
    let mut found = Vec::new();
    let mut previous = "";
    for argument in arguments {
        let value = argument.split_once('=').map_or(argument.as_str(), |(_, value)| value);
        // Shorter ones are no keys; replacing them would garble the text.
        let given = previous == "--sdk-key" || argument.starts_with("--sdk-key=");
        if (given && value.len() >= 6) || (value.starts_with("sdk-") && value.len() >= 16) {
            found.push(value);
        }
        // A URL may hold a user and a password.
        if let Some((_, rest)) = argument.split_once("://") {
            let login = rest.rsplit_once('@').map(|(login, _)| login);
            let query = rest.split_once('?').map(|(_, query)| query);
            let values =
                query.into_iter().flat_map(|query| query.split('&')).filter_map(|pair| pair.split_once('='));
            let passwords = values.filter(|(name, _)| name.ends_with("pass") || name.ends_with("password"));
            found
                .extend(login.into_iter().chain(passwords.map(|(_, value)| value)).filter(|text| !text.is_empty()));
        }
        previous = argument;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sdk-01234567-89ab-cdef-0123-456789abcdef";

    fn options() -> KeyOptions {
        KeyOptions::default()
    }

    fn read_from(options: &KeyOptions, stdin: &str) -> (Result<Option<SdkKeySource>, Failure>, String) {
        let mut warnings = Vec::new();
        let result = read(options, stdin.as_bytes(), &mut warnings);
        (result, String::from_utf8(warnings).unwrap())
    }

    #[test]
    fn each_place_is_read_and_only_the_command_line_is_warned_about() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, format!("{KEY}\n")).unwrap();
        let expected = SdkKeySource::parse("x", KEY).unwrap();
        let quiet =
            [KeyOptions { sdk_key_file: Some(path), ..options() }, KeyOptions { sdk_key_stdin: true, ..options() }];
        for options in quiet {
            let (key, warnings) = read_from(&options, &format!("{KEY}\r\n"));
            assert_eq!(key.unwrap(), Some(expected.clone()));
            assert_eq!(warnings, "");
        }
        let (key, warnings) = read_from(&KeyOptions { sdk_key: Some(KEY.to_owned()), ..options() }, "");
        assert_eq!(key.unwrap(), Some(expected));
        assert!(warnings.starts_with("warning:") && warnings.lines().count() == 1 && !warnings.contains(KEY));
        assert_eq!(read_from(&options(), "").0.unwrap(), None);
    }

    #[test]
    fn a_reference_is_passed_on_and_not_warned_about() {
        let (key, warnings) = read_from(&KeyOptions { sdk_key: Some("file:team/a".to_owned()), ..options() }, "");
        assert_eq!((key.unwrap().unwrap().expose(), warnings.as_str()), ("file:team/a", ""));
        // What is read here is a key.
        let read_here = KeyOptions { sdk_key_stdin: true, ..options() };
        assert!(read_from(&read_here, "file:team/a").0.unwrap_err().to_string().contains("characters other"));
    }

    #[test]
    fn a_closed_standard_error_does_not_lose_the_key() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
        }
        let options = KeyOptions { sdk_key: Some(KEY.to_owned()), ..options() };
        assert!(read(&options, std::io::empty(), &mut Closed).unwrap().is_some());
    }

    #[test]
    fn what_cannot_be_a_key_is_refused_without_showing_it() {
        let cases = [
            (KeyOptions { sdk_key: Some(String::new()), ..options() }, "", "empty"),
            (KeyOptions { sdk_key_stdin: true, ..options() }, "\n", "empty"),
            (KeyOptions { sdk_key: Some(format!("{KEY} x")), ..options() }, "", "characters other"),
            (KeyOptions { sdk_key: Some(format!("key:{KEY}")), ..options() }, "", "file:NAME"),
            (KeyOptions { sdk_key: Some(format!("file:../{KEY}")), ..options() }, "", "--secrets-dir"),
            (KeyOptions { sdk_key_stdin: true, ..options() }, "sdk-***", "masked"),
            (
                KeyOptions { sdk_key_file: Some("/nonexistent/key.txt".into()), ..options() },
                "",
                "/nonexistent/key.txt",
            ),
            (
                KeyOptions { sdk_key_env: Some("FLOTILLA_TEST_UNSET".to_owned()), ..options() },
                "",
                "FLOTILLA_TEST_UNSET",
            ),
        ];
        for (options, stdin, part) in cases {
            let failure = read_from(&options, stdin).0.unwrap_err();
            assert_eq!(failure.status(), ExitStatus::Usage);
            assert!(failure.to_string().contains(part), "{failure}");
            assert!(!failure.to_string().contains(KEY), "{failure}");
        }
    }

    #[test]
    fn usage_errors_do_not_repeat_keys() {
        let arguments = |line: &str| line.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>();
        for line in [
            format!("flotilla env add x --sdkkey={KEY}"),
            format!("flotilla env add x {KEY}"),
            format!("flotilla env add x --sdk-key {KEY}"),
            format!("flotilla env add x --sdk-key={KEY}"),
            "flotilla env add x --sdk-key SPREE_PROD".to_owned(),
        ] {
            let shown = redact(&format!("error: {line}"), &arguments(&line));
            assert!(!shown.contains(KEY) && !shown.contains("SPREE_PROD"), "{shown}");
            assert!(shown.contains("env add x"), "{shown}");
        }
        let line = "flotilla store add redis://u:p@h";
        let shown = redact(&format!("error: {line}"), &arguments(line));
        assert_eq!(shown, "error: flotilla store add redis://********@h");
    }
}
