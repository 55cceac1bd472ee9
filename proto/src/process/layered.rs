//! Configuration in layers: a flag wins over its environment variable, that over the key in the `--config` file.
//!
//! The file's values become the defaults of the command line's own parser, so all layers are checked by the same
//! rules and complain in the same words.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, Command, Error, Parser};

use crate::files::line_of;

/// Reads a server's options from its arguments, the environment and the file named by `--config` or `FLOTILLA_CONFIG`.
///
/// An option marked `hide_env_values` is a secret: its variable may carry the suffix `_FILE` and name a file that holds
/// it. Errors name the key, the value and what is allowed, and end the process with status 2 when `exit` is called.
pub fn parse_arguments<T: Parser>(arguments: impl IntoIterator<Item = OsString>) -> Result<T, Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut command = T::command();
    if let Some(path) = config_path(&arguments) {
        command = with_file(command, &path)?;
    }
    command = with_secret_files(command)?;
    let matches = command.clone().try_get_matches_from(arguments)?;
    T::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// A duration as people write it: `3s`, `1m30s`, `250ms`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; expected a duration such as 500ms, 3s or 1m30s"))
}

fn config_path(arguments: &[OsString]) -> Option<PathBuf> {
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        if text == "--config" {
            return rest.next().map(PathBuf::from);
        }
        if let Some(path) = text.strip_prefix("--config=") {
            return Some(PathBuf::from(path));
        }
    }
    std::env::var_os("FLOTILLA_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn with_file(mut command: Command, path: &Path) -> Result<Command, Error> {
    let refuse = |command: &mut Command, message: String| command.error(ErrorKind::InvalidValue, message);
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| refuse(&mut command, format!("cannot read the configuration file {shown}: {error}")))?;
    let table: toml::Table = text.parse().map_err(|error| {
        // The error itself shows the line, and with it a password.
        refuse(
            &mut command,
            format!("the configuration file {shown} is not valid TOML: see {}", line_of(&text, &error)),
        )
    })?;
    for (key, value) in table {
        let known = command.get_arguments().find(|argument| argument.get_long() == Some(key.as_str()));
        let Some(argument) = known.filter(|_| !matches!(key.as_str(), "config" | "help" | "version")) else {
            let mut keys: Vec<_> = command.get_arguments().filter_map(|argument| argument.get_long()).collect();
            keys.retain(|key| !matches!(*key, "config" | "help" | "version"));
            keys.sort_unstable();
            let message = format!("unknown key '{key}' in {shown}; known keys: {}", keys.join(", "));
            return Err(command.error(ErrorKind::UnknownArgument, message));
        };
        let (id, many) = (argument.get_id().clone(), matches!(argument.get_action(), ArgAction::Append));
        let Some(values) = values_of(&value).filter(|values| many || values.len() == 1) else {
            let message = format!(
                "the value of key '{key}' in {shown} must be a string, a number or a boolean{}",
                if many { ", or a list" } else { "" }
            );
            return Err(refuse(&mut command, message));
        };
        command = command.mut_arg(id, |argument| argument.default_values(values).required(false));
    }
    Ok(command)
}

fn values_of(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(number) => Some(vec![number.to_string()]),
        toml::Value::Boolean(truth) => Some(vec![truth.to_string()]),
        toml::Value::Array(values) => values.iter().map(|value| values_of(value)?.pop()).collect(),
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

fn with_secret_files(mut command: Command) -> Result<Command, Error> {
    let secrets: Vec<_> = command
        .get_arguments()
        .filter(|argument| argument.is_hide_env_values_set())
        .filter_map(|argument| Some((argument.get_id().clone(), argument.get_env()?.to_owned())))
        .collect();
    for (id, variable) in secrets {
        let mut file_variable = variable;
        file_variable.push("_FILE");
        let Some(path) = std::env::var_os(&file_variable).filter(|path| !path.is_empty()) else {
            continue;
        };
        let value = std::fs::read_to_string(&path).map_err(|error| {
            let message = format!(
                "cannot read {}, named by {}: {error}",
                Path::new(&path).display(),
                file_variable.display()
            );
            command.error(ErrorKind::InvalidValue, message)
        })?;
        let value = value.trim_end_matches(['\r', '\n']).to_owned();
        command = command.mut_arg(id, |argument| argument.default_value(value).required(false));
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Options {
        #[arg(long, default_value = "a")]
        listen: String,
        #[arg(long, value_parser = parse_duration, default_value = "3s")]
        lease_duration: Duration,
        #[arg(long)]
        label: Vec<String>,
        #[arg(long)]
        config: Option<PathBuf>,
    }

    fn parse(file: &str, more: &[&str]) -> Result<Options, Error> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("flotilla-layered-{}-{number}.toml", std::process::id()));
        std::fs::write(&path, file).unwrap();
        let arguments = ["x", "--config", path.to_str().unwrap()].into_iter().chain(more.iter().copied());
        let result = parse_arguments::<Options>(arguments.map(OsString::from));
        std::fs::remove_file(&path).unwrap();
        result
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let options = parse("listen = 'file'\nlabel = ['x=1', 'y=2']", &["--lease-duration", "1m30s"]).unwrap();
        assert_eq!((options.listen.as_str(), options.lease_duration), ("file", Duration::from_secs(90)));
        assert_eq!(options.label, ["x=1", "y=2"]);
        assert!(options.config.is_some());
        assert_eq!(parse("listen = 'file'", &["--listen", "flag"]).unwrap().listen, "flag");
    }

    #[test]
    fn wrong_keys_and_values_are_named() {
        let unknown = parse("lisden = 'x'", &[]).unwrap_err();
        assert_eq!(unknown.exit_code(), 2);
        assert!(unknown.to_string().contains("unknown key 'lisden'") && unknown.to_string().contains("listen"));
        let bad = parse("lease-duration = 'soon'", &[]).unwrap_err();
        assert_eq!(bad.exit_code(), 2);
        assert!(bad.to_string().contains("soon") && bad.to_string().contains("lease-duration"), "{bad}");
        assert!(parse("listen = { a = 1 }", &[]).unwrap_err().to_string().contains("listen"));
    }
}
