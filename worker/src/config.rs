//! The worker's options, checked.

// The way to control, and who may ask this worker.
mod access;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Error, Parser};
use flotilla_proto::access::AccessSettings;
use flotilla_proto::connect::ConnectOptions;
use flotilla_proto::process::{LogOptions, Sealing, parse_arguments, parse_duration};
use flotilla_proto::{Labels, WorkerName};
use url::Url;

pub use access::AccessOptions;

use crate::secrets::Secrets;

const EXAMPLES: &str = "\
Examples:
  One worker beside a control on the same machine:
    flotilla-worker

  A second one on that machine:
    flotilla-worker --name w2 --state-dir ./w2 --http-listen 127.0.0.1:7412

  With labels for environments that select their workers, and a limit:
    flotilla-worker --control http://127.0.0.1:7400 --label zone=eu-1 --capacity 500

  Towards a control that wants to know who it is, with the files that `flotilla init` makes:
    flotilla-worker --control https://control:7400 --ca ca.pem --name w1 --token-file worker-w1.token

  Every option is also a variable (FLOTILLA_STATE_DIR) and a key in the file given by --config (state-dir).";

/// Whoever ends processes has less patience.
const LONGEST_DRAIN_TIMEOUT: Duration = Duration::from_hours(1);

/// Streams environments from LaunchDarkly and writes them to Redis, as control says
#[derive(Debug, Parser)]
#[command(name = "flotilla-worker", version, after_long_help = EXAMPLES)]
pub struct Options {
    /// Address of control; may be repeated, they are tried in turn
    #[arg(
        long,
        env = "FLOTILLA_CONTROL",
        value_name = "URL",
        value_delimiter = ',',
        value_parser = parse_control,
        default_value = "http://127.0.0.1:7400"
    )]
    control: Vec<Url>,
    /// Stable name of this worker, unique in the fleet [default: the host's name]
    #[arg(long, env = "FLOTILLA_NAME", value_name = "NAME", value_parser = parse_name)]
    name: Option<WorkerName>,
    /// How many environments this worker accepts [default: unlimited]
    #[arg(long, env = "FLOTILLA_CAPACITY", value_name = "NUMBER", value_parser = parse_count::<NonZeroU32>)]
    capacity: Option<NonZeroU32>,
    /// A label of this worker; may be repeated
    #[arg(
        long,
        env = "FLOTILLA_LABEL",
        value_name = "KEY=VALUE",
        value_delimiter = ',',
        value_parser = parse_label
    )]
    label: Vec<(String, String)>,
    /// Where /livez, /readyz and /metrics are served
    #[arg(long, env = "FLOTILLA_HTTP_LISTEN", value_name = "ADDRESS:PORT", value_parser = parse_address, default_value = "127.0.0.1:7402")]
    http_listen: SocketAddr,
    /// Directory of this worker alone, for its identity and its last assignments
    #[arg(long, env = "FLOTILLA_STATE_DIR", value_name = "DIR", default_value = "./flotilla-worker-data")]
    state_dir: PathBuf,
    /// Seal the last assignments, which hold SDK keys and store passwords, with the first key of this file
    ///
    /// A key is 64 hexadecimal digits on a line (`openssl rand -hex 32`); the others of the file open what was sealed before.
    #[arg(long, env = "FLOTILLA_ENCRYPTION_KEY_FILE", value_name = "FILE")]
    encryption_key_file: Option<PathBuf>,
    /// How many connections to LaunchDarkly may be under way at once
    #[arg(long, env = "FLOTILLA_MAX_CONNECTING", value_name = "NUMBER", value_parser = parse_count::<NonZeroUsize>, default_value = "32")]
    max_connecting: NonZeroUsize,
    /// Directory of the flag-data files that environments with a file source read [default: none may]
    #[arg(long, env = "FLOTILLA_FILE_SOURCE_DIR", value_name = "DIR")]
    file_source_dir: Option<PathBuf>,
    /// Directory of the secrets that environments and stores refer to by file:NAME, and control never has [default: none may]
    ///
    /// Such as a mounted Kubernetes secret. SDK keys are read from it for every connection to LaunchDarkly, passwords for every
    /// connection to a store, so files can be replaced in place. Whoever may add environments or stores can have any of them
    /// sent anywhere: have nothing else there. References env:NAME need no directory: they mean the variable
    /// FLOTILLA_SECRET_NAME.
    #[arg(long, env = "FLOTILLA_SECRETS_DIR", value_name = "DIR")]
    secrets_dir: Option<PathBuf>,
    /// How long environments may be handed over to other workers before this one leaves
    #[arg(long, env = "FLOTILLA_DRAIN_TIMEOUT", value_name = "DURATION", value_parser = parse_drain_timeout, default_value = "25s")]
    drain_timeout: Duration,
    /// The way to control, and who may ask.
    #[command(flatten)]
    access: AccessOptions,
    /// A TOML file with more options
    #[arg(long, env = "FLOTILLA_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to log.
    #[command(flatten)]
    pub log: LogOptions,
}

/// What a worker needs to know, all of it checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Addresses of control, tried in turn; at least one, `http` or `https` with a host.
    pub control: Vec<Url>,
    /// How they are connected to.
    pub connect: ConnectOptions,
    /// The worker's name.
    pub name: WorkerName,
    /// How many environments it accepts; `None`: any number.
    pub capacity: Option<NonZeroU32>,
    /// Its labels.
    pub labels: Labels,
    /// Where HTTP is served; port 0: any free one.
    pub http_listen: SocketAddr,
    /// Who may ask there.
    pub http_access: AccessSettings,
    /// The state directory; made if it is missing.
    pub state_dir: PathBuf,
    /// How the last assignments lie in the state directory.
    pub sealing: Sealing,
    /// How many upstream connects may be under way at once.
    pub max_connecting: NonZeroUsize,
    /// Where flag-data files are; `None`: file sources are rejected.
    pub file_source_dir: Option<PathBuf>,
    /// Where secrets are that control does not have.
    pub secrets: Secrets,
    /// How long environments may be handed over to others before the worker leaves.
    pub drain_timeout: Duration,
}

impl Options {
    /// Reads arguments, environment and file. Errors name the key, and have exit status 2 (help and version: 0).
    pub fn parse_from_process(arguments: impl IntoIterator<Item = OsString>) -> Result<(Self, Settings), Error> {
        let options: Self = parse_arguments(arguments)?;
        let settings = options.settings()?;
        Ok((options, settings))
    }

    fn settings(&self) -> Result<Settings, Error> {
        let refuse = |message: String| Options::command().error(ErrorKind::ValueValidation, message);
        let http_access = self.access.http(self.http_listen).map_err(refuse)?;
        // Refused here, for the parser's errors show the value.
        if self.control.iter().any(|url| !url.username().is_empty() || url.password().is_some()) {
            return Err(refuse(
                "the address in '--control <URL>' must not have a user or a password, for it is shown in logs; \
                 expected http://HOST:PORT"
                    .to_owned(),
            ));
        }
        let connect = self.access.connect(&self.control).map_err(refuse)?;
        let name = match &self.name {
            Some(name) => name.clone(),
            None => name_of_host(&rustix::system::uname().nodename().to_string_lossy()).map_err(refuse)?,
        };
        let mut labels = Labels::new();
        for (key, value) in &self.label {
            if labels.insert(key.clone(), value.clone()).is_some() {
                return Err(refuse(format!("'--label <KEY=VALUE>' gives the key '{key}' more than once")));
            }
        }
        let directories = [("--file-source-dir", &self.file_source_dir), ("--secrets-dir", &self.secrets_dir)];
        for (option, directory) in directories {
            if let Some(directory) = directory.as_ref().filter(|directory| !directory.is_dir()) {
                return Err(refuse(format!(
                    "invalid value '{}' for '{option} <DIR>': it is not a directory",
                    directory.display()
                )));
            }
        }
        self.check_secrets_apart().map_err(refuse)?;
        let sealing = match &self.encryption_key_file {
            Some(path) => Sealing::from_file(path).map_err(|error| refuse(error.to_string()))?,
            None => Sealing::default(),
        };
        Ok(Settings {
            control: self.control.clone(),
            connect,
            name,
            capacity: self.capacity,
            labels,
            http_listen: self.http_listen,
            http_access,
            state_dir: self.state_dir.clone(),
            sealing,
            max_connecting: self.max_connecting,
            file_source_dir: self.file_source_dir.clone(),
            secrets: Secrets::new(self.secrets_dir.clone()),
            drain_timeout: self.drain_timeout,
        })
    }
}

impl Options {
    /// Whoever may add environments can have the worker send what is below the directory of secrets: what makes the worker what
    /// it is must not be there.
    fn check_secrets_apart(&self) -> Result<(), String> {
        let Some(directory) = self.secrets_dir.as_ref().and_then(|directory| directory.canonicalize().ok()) else {
            return Ok(());
        };
        let state_dir = Some(self.state_dir.clone());
        let own = [("--encryption-key-file", &self.encryption_key_file), ("--state-dir", &state_dir)];
        let own = self.access.private_files().into_iter().chain(own);
        // What is not there yet will be where its directory is.
        let place =
            |path: &PathBuf| std::path::absolute(path).ok()?.ancestors().find_map(|part| part.canonicalize().ok());
        for (option, path) in own.filter_map(|(option, path)| Some((option, place(path.as_ref()?)?))) {
            if path.starts_with(&directory) {
                return Err(format!(
                    "'--secrets-dir <DIR>' holds what '{option}' names, which whoever may add environments could then have sent \
                     out; give the secrets a directory of their own"
                ));
            }
        }
        Ok(())
    }
}

fn parse_control(text: &str) -> Result<Url, String> {
    let expected = "expected http://HOST:PORT or https://HOST:PORT";
    let url = Url::parse(text).map_err(|error| format!("{error}; {expected}"))?;
    let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) || !is_bare {
        return Err(expected.to_owned());
    }
    Ok(url)
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected an IP address and a port, as in 127.0.0.1:7402".to_owned())
}

fn parse_count<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "expected a whole number from 1".to_owned())
}

fn parse_drain_timeout(text: &str) -> Result<Duration, String> {
    let given = parse_duration(text)?;
    if given > LONGEST_DRAIN_TIMEOUT { Err("expected 0s to 1h".to_owned()) } else { Ok(given) }
}

fn parse_name(text: &str) -> Result<WorkerName, String> {
    text.parse().map_err(|error: flotilla_proto::InvalidName| format!("allowed are {}", error.allowed()))
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let is_word = |text: &str, more: &[u8]| {
        text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    if key.is_empty() || !is_word(key, b"._/-") {
        return Err("a key has 1 to 63 characters of A-Z, a-z, 0-9, '.', '_', '/' and '-'".to_owned());
    }
    if !is_word(value, b"._-") {
        return Err("a value has up to 63 characters of A-Z, a-z, 0-9, '.', '_' and '-'".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// A host's name as a worker's: lower case, other characters as '-', at most 63.
fn name_of_host(host: &str) -> Result<WorkerName, String> {
    let valid = |byte: char| byte.is_ascii_alphanumeric() || matches!(byte, '.' | '_' | '-');
    let name: String = host
        .chars()
        .map(|character| if valid(character) { character.to_ascii_lowercase() } else { '-' })
        .skip_while(|character| !character.is_ascii_alphanumeric())
        .take(63)
        .collect();
    name.trim_end_matches(['.', '_', '-'])
        .parse()
        .map_err(|_| format!("no worker name can be made of the host name '{host}'; give one by '--name <NAME>'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, Error> {
        let arguments = std::iter::once(&"flotilla-worker").chain(arguments).map(OsString::from);
        Options::parse_from_process(arguments).map(|(_, settings)| settings)
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let settings = parse(&["--name", "w1"]).unwrap();
        assert_eq!(settings.control, ["http://127.0.0.1:7400".parse().unwrap()]);
        assert_eq!(settings.http_listen, "127.0.0.1:7402".parse().unwrap());
        assert_eq!(settings.state_dir, PathBuf::from("./flotilla-worker-data"));
        assert_eq!((settings.max_connecting.get(), settings.capacity), (32, None));
        assert!(settings.labels.is_empty() && settings.file_source_dir.is_none());
        assert_eq!(settings.drain_timeout, Duration::from_secs(25));
    }

    #[test]
    fn what_may_be_repeated_is_collected() {
        let settings = parse(&[
            "--control",
            "https://a:1",
            "--control",
            "https://b:2",
            "--label",
            "zone=eu",
            "--label",
            "a/b=",
        ])
        .unwrap();
        assert_eq!(settings.control.len(), 2);
        assert_eq!(settings.labels.len(), 2);
    }

    #[test]
    fn wrong_values_are_named_with_what_is_allowed() {
        for (arguments, words) in [
            (["--control", "ftp://a"], ["--control", "http://HOST:PORT"]),
            (["--control", "http://a/path"], ["--control", "http://HOST:PORT"]),
            (["--control", "http://user@a:1"], ["--control", "http://HOST:PORT"]),
            (["--control", "http://:hunter2@a:1"], ["--control", "password"]),
            (["--name", "W 1"], ["--name", "a-z"]),
            (["--capacity", "0"], ["--capacity", "from 1"]),
            (["--label", "zone"], ["--label", "KEY=VALUE"]),
            (["--label", "zone=a b"], ["--label", "63"]),
            (["--http-listen", "0.0.0.0:7402"], ["--http-listen", "--insecure"]),
            (["--client-cert", "a"], ["--client-key", "as well"]),
            (["--http-tls-key", "a"], ["--http-tls-cert", "as well"]),
            (["--ca", "ca.pem"], ["--ca needs TLS", "https://"]),
            (["--http-listen", "here"], ["--http-listen", "127.0.0.1:7402"]),
            (["--max-connecting", "x"], ["--max-connecting", "from 1"]),
            (["--drain-timeout", "25"], ["--drain-timeout", "1m30s"]),
            (["--drain-timeout", "2h"], ["--drain-timeout", "0s to 1h"]),
            (["--encryption-key-file", "/nowhere"], ["--encryption-key-file", "/nowhere"]),
            (["--file-source-dir", "/nowhere/at/all"], ["--file-source-dir", "not a directory"]),
            (["--secrets-dir", "/nowhere/at/all"], ["--secrets-dir", "not a directory"]),
        ] {
            let error = parse(&arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
            let text = error.to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{arguments:?}: {text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn what_makes_the_worker_what_it_is_lies_not_among_the_secrets() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        for name in ["secrets", "secrets/below", "state", "secrets-too"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::fs::write(path("secrets/below/token"), "t").unwrap();
        std::fs::write(path("secrets-too/token"), "t").unwrap();
        std::os::unix::fs::symlink(path("secrets/below/token"), path("state/link")).unwrap();
        let secrets = path("secrets");
        let parse = |option: &str, name: &str| {
            parse(&["--name", "w1", "--secrets-dir", &secrets, option, &path(name)])
                .map_err(|error| error.to_string())
        };
        for (option, name) in [
            ("--token-file", "secrets/below/token"),
            ("--token-file", "state/link"),
            ("--encryption-key-file", "secrets/below/token"),
            ("--state-dir", "secrets/below"),
            ("--state-dir", "secrets"),
            ("--state-dir", "secrets/not-yet/there"),
        ] {
            let error = parse(option, name).unwrap_err();
            assert!(error.contains(option) && error.contains("a directory of their own"), "{name}: {error}");
        }
        for (option, name) in
            [("--token-file", "secrets-too/token"), ("--state-dir", "state"), ("--state-dir", "not-yet")]
        {
            assert!(parse(option, name).is_ok(), "{name}");
        }
    }

    #[test]
    fn control_is_on_this_machine_or_has_tls() {
        for (control, fits) in [("http://127.0.0.1:1", true), ("https://control", true), ("http://control", false)]
        {
            let arguments = ["--name", "w1", "--control", control];
            assert_eq!(parse(&arguments).is_ok(), fits, "{control}");
            assert!(parse(&[&arguments[..], &["--insecure"]].concat()).is_ok());
        }
    }

    #[test]
    fn a_host_name_becomes_a_worker_name() {
        for (host, name) in [("Node_7.Example", "node_7.example"), ("-host-", "host"), ("a b", "a-b")] {
            assert_eq!(name_of_host(host).unwrap().as_str(), name);
        }
        assert!(name_of_host(&"x".repeat(200)).is_ok());
        assert!(name_of_host("-").unwrap_err().contains("--name"));
    }

    #[test]
    fn help_has_examples() {
        assert!(Options::command().render_long_help().to_string().contains("Examples:"));
    }
}
