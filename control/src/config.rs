//! The command line of `flotilla-control`, and what it means once checked.

// Who may connect.
mod access;
// Who asked for what.
mod audit;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, error::ErrorKind};
use flotilla_proto::StoreUrl;
use flotilla_proto::access::AccessSettings;
use flotilla_proto::process::{LogOptions, Sealing, parse_duration};
use flotilla_proto::spec::parse_service_uri;
use url::Url;

pub use access::{AccessOptions, ClientCerts};
pub use audit::AuditOptions;

use crate::audit::AuditLog;

/// Where LaunchDarkly streams.
pub(crate) const DEFAULT_STREAM_URI: &str = "https://stream.launchdarkly.com";
/// Where LaunchDarkly is polled.
pub(crate) const DEFAULT_BASE_URI: &str = "https://sdk.launchdarkly.com";
/// The store named `default`, unless told otherwise.
pub(crate) const DEFAULT_REDIS_URL: &str = "redis://127.0.0.1:6379";

const EXAMPLES: &str = "\
EXAMPLES
  Serve on loopback, with the data in ./flotilla-data and Redis on this machine:
    flotilla-control

  Another Redis, its URL with the password kept off the command line:
    FLOTILLA_REDIS_URL_FILE=/run/secrets/redis-url flotilla-control --data-dir /var/lib/flotilla

  Options from a file, one overridden, logs for a machine:
    flotilla-control --config /etc/flotilla/control.toml --lease-duration 30s --log-format json

  For workers on other machines, with the files that `flotilla init tls` and `flotilla init tokens` make:
    flotilla-control --listen 0.0.0.0:7400 --tls-cert tls/control.pem --tls-key tls/control.key \\
      --token-file tokens/tokens.toml --worker-token-file tokens/workers.toml

  Who asked for what, kept for a year, and as lines of JSON for a collector:
    flotilla-control --audit-retention 1y --audit-log /var/log/flotilla/audit.jsonl

  Environments as a mounted file says:
    flotilla-control --environments /etc/flotilla/environments.yaml

  A fleet for tests, on free ports, against a simulator:
    flotilla-control --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 --stream-uri http://127.0.0.1:8030

Every option can also be set by the variable shown with it, and by its name as a key in the --config file (TOML);
a flag wins over a variable, a variable over the file.";

/// Flotilla's control plane: holds the environments, assigns them to workers, serves the API.
#[derive(Debug, Clone, Parser)]
#[command(name = "flotilla-control", version, after_long_help = EXAMPLES)]
pub struct Options {
    /// Options from this TOML file; its keys are the names of the options
    #[arg(long, env = "FLOTILLA_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address of the gRPC API, for the CLI and the workers; port 0 takes a free one
    #[arg(long, env = "FLOTILLA_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7400",
          value_parser = parse_address)]
    pub listen: SocketAddr,

    /// Address of /livez, /readyz, /metrics and /status; port 0 takes a free one
    #[arg(long, env = "FLOTILLA_HTTP_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7401",
          value_parser = parse_address)]
    pub http_listen: SocketAddr,

    /// Directory of the database, readable by its owner only; it is created if it is not there
    #[arg(long, env = "FLOTILLA_DATA_DIR", value_name = "DIRECTORY", default_value = "./flotilla-data")]
    pub data_dir: PathBuf,

    /// URL of the Redis store named "default", as the workers reach it [default: redis://127.0.0.1:6379]
    ///
    /// redis://, rediss:// or redis+unix://. It may hold a password: prefer FLOTILLA_REDIS_URL_FILE, which names a file
    /// that holds the URL.
    #[arg(long, env = "FLOTILLA_REDIS_URL", value_name = "URL", default_value = DEFAULT_REDIS_URL,
          hide_default_value = true, hide_env_values = true)]
    pub redis_url: SecretText,

    /// Keep environments and stores as this file says (YAML or JSON); it is applied at start and whenever it changes
    ///
    /// What carries the same label managed-by as the file's environments and is not in the file is removed, unless that
    /// would be too much for `flotilla apply --prune` without --yes; then nothing is removed, and the log says so. A wrong
    /// file changes nothing. Secrets that it names ({file: PATH}, {env: VARIABLE}) are read where control runs; a relative
    /// path begins at the file's directory. See docs/manifests.md.
    #[arg(long, env = "FLOTILLA_ENVIRONMENTS", value_name = "FILE")]
    pub environments: Option<PathBuf>,

    /// Let --redis-url lead elsewhere than before although environments use the store "default"
    ///
    /// Their data is written anew to the new place; what is in the old one stays there.
    #[arg(long, env = "FLOTILLA_REPLACE_DEFAULT_STORE")]
    pub replace_default_store: bool,

    /// Seal SDK keys and store passwords in the database with the first key of this file
    ///
    /// A key is 64 hexadecimal digits on a line (`openssl rand -hex 32`). What was not sealed, or with one of the other
    /// keys of the file, is sealed with the first at start: so a key is changed by putting the new one before the old one.
    #[arg(long, env = "FLOTILLA_ENCRYPTION_KEY_FILE", value_name = "FILE")]
    pub encryption_key_file: Option<PathBuf>,

    /// LaunchDarkly's streaming service, for environments that name none
    #[arg(long, env = "FLOTILLA_STREAM_URI", value_name = "URL", default_value = DEFAULT_STREAM_URI,
          value_parser = parse_uri)]
    pub stream_uri: Url,

    /// LaunchDarkly's polling service, for environments that name none
    #[arg(long, env = "FLOTILLA_BASE_URI", value_name = "URL", default_value = DEFAULT_BASE_URI,
          value_parser = parse_uri)]
    pub base_uri: Url,

    /// How often workers say that they are there
    #[arg(long, env = "FLOTILLA_HEARTBEAT_INTERVAL", value_name = "DURATION", default_value = "3s",
          value_parser = parse_duration)]
    pub heartbeat_interval: Duration,

    /// After how long without a heartbeat a worker's environments move
    #[arg(long, env = "FLOTILLA_LEASE_DURATION", value_name = "DURATION", default_value = "15s",
          value_parser = parse_duration)]
    pub lease_duration: Duration,

    /// After how long they move when a worker's connection closed without a goodbye
    #[arg(long, env = "FLOTILLA_REASSIGN_GRACE", value_name = "DURATION", default_value = "1s",
          value_parser = parse_duration)]
    pub reassign_grace: Duration,

    /// How many environments are handed over from worker to worker at a time, at most
    ///
    /// What a lost worker had is not counted: it gets other workers at once.
    #[arg(long, env = "FLOTILLA_MAX_HANDOVERS", value_name = "N", default_value = "4",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_handovers: u16,

    /// application-id in X-LaunchDarkly-Tags, for environments that name none
    #[arg(long, env = "FLOTILLA_APPLICATION_ID", value_name = "ID", value_parser = parse_tag)]
    pub application_id: Option<String>,

    /// application-version in X-LaunchDarkly-Tags, for environments that name none
    #[arg(long, env = "FLOTILLA_APPLICATION_VERSION", value_name = "VERSION", value_parser = parse_tag)]
    pub application_version: Option<String>,

    /// Who may connect
    #[command(flatten)]
    pub access: AccessOptions,

    /// Who asked for what
    #[command(flatten)]
    pub audit: AuditOptions,

    /// The log
    #[command(flatten)]
    pub log: LogOptions,
}

/// What control is to do, checked. Built from [`Options`], or in code for a control inside another program.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of the gRPC API; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address of the HTTP endpoints; port 0 takes a free one.
    pub http_listen: SocketAddr,
    /// Directory of the database.
    pub data_dir: PathBuf,
    /// The store named `default`.
    pub redis_url: StoreUrl,
    /// Who may connect, and as whom.
    pub access: AccessSettings,
    /// How long records of who asked for what are kept.
    pub audit_retention: Duration,
    /// Where they go besides, as lines of JSON.
    pub audit_log: Option<AuditLog>,
    /// The file that environments and stores are kept in line with.
    pub environments: Option<PathBuf>,
    /// Whether `redis_url` may lead elsewhere than before while environments use it.
    pub replace_default_store: bool,
    /// How secrets lie in the database.
    pub sealing: Sealing,
    /// Streaming service of environments that name none.
    pub stream_uri: Url,
    /// Polling service of environments that name none.
    pub base_uri: Url,
    /// How often workers send a heartbeat.
    pub heartbeat_interval: Duration,
    /// After how long without one a worker's environments move.
    pub lease_duration: Duration,
    /// After how long they move when a session closes without a goodbye.
    pub reassign_grace: Duration,
    /// How many environments are handed over at a time, at most. At least 1.
    pub max_handovers: usize,
    /// `application-id` of environments that name none.
    pub application_id: Option<String>,
    /// `application-version` of environments that name none.
    pub application_version: Option<String>,
}

impl Settings {
    /// The defaults, on free loopback ports.
    pub fn new(data_dir: impl Into<PathBuf>, redis_url: StoreUrl) -> Self {
        let free_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let uri = |text: &str| Url::parse(text).expect("a constant that is a URL");
        Self {
            listen: free_port,
            http_listen: free_port,
            data_dir: data_dir.into(),
            redis_url,
            access: AccessSettings::default(),
            audit_retention: audit::DEFAULT_RETENTION,
            audit_log: None,
            environments: None,
            replace_default_store: false,
            sealing: Sealing::default(),
            stream_uri: uri(DEFAULT_STREAM_URI),
            base_uri: uri(DEFAULT_BASE_URI),
            heartbeat_interval: Duration::from_secs(3),
            lease_duration: Duration::from_secs(15),
            reassign_grace: Duration::from_secs(1),
            max_handovers: 4,
            application_id: None,
            application_version: None,
        }
    }
}

impl Options {
    /// Checks what the parser alone cannot. The error is one of usage, and never shows a secret.
    pub fn check(self) -> Result<Settings, clap::Error> {
        let wrong = |message: String| Self::command().error(ErrorKind::ValueValidation, message);
        let redis_url =
            StoreUrl::parse("--redis-url", &self.redis_url.0).map_err(|violation| wrong(violation.to_string()))?;
        let listeners = [("--listen", self.listen), ("--http-listen", self.http_listen)];
        let access = self.access.check(listeners).map_err(wrong)?;
        let (audit_retention, audit_log) = self.audit.check().map_err(wrong)?;
        let sealing = match &self.encryption_key_file {
            Some(path) => Sealing::from_file(path).map_err(|error| wrong(error.to_string()))?,
            None => Sealing::default(),
        };
        let ranges = [
            ("--heartbeat-interval", self.heartbeat_interval, 100, "100ms to 1h"),
            ("--lease-duration", self.lease_duration, 200, "200ms to 1h"),
            ("--reassign-grace", self.reassign_grace, 0, "0s to 1h"),
        ];
        for (option, given, least, allowed) in ranges {
            if given < Duration::from_millis(least) || given > Duration::from_hours(1) {
                let given = humantime::format_duration(given);
                return Err(wrong(format!("{option} {given} is out of range: {allowed}")));
            }
        }
        if self.lease_duration < self.heartbeat_interval * 2 {
            return Err(wrong(format!(
                "--lease-duration {} is too short: a lease lasts at least two heartbeats, and --heartbeat-interval is {}",
                humantime::format_duration(self.lease_duration),
                humantime::format_duration(self.heartbeat_interval),
            )));
        }
        Ok(Settings {
            listen: self.listen,
            http_listen: self.http_listen,
            data_dir: self.data_dir,
            redis_url,
            access,
            audit_retention,
            audit_log,
            environments: self.environments,
            replace_default_store: self.replace_default_store,
            sealing,
            stream_uri: self.stream_uri,
            base_uri: self.base_uri,
            heartbeat_interval: self.heartbeat_interval,
            lease_duration: self.lease_duration,
            reassign_grace: self.reassign_grace,
            max_handovers: self.max_handovers.into(),
            application_id: self.application_id,
            application_version: self.application_version,
        })
    }
}

/// A text that may hold a password: `Debug` hides it.
#[derive(Clone)]
pub struct SecretText(String);

impl FromStr for SecretText {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| "expected ADDRESS:PORT, such as 127.0.0.1:7400 or [::1]:7400".to_owned())
}

fn parse_uri(text: &str) -> Result<Url, String> {
    parse_service_uri("URL", text).map_err(|violation| violation.description)
}

fn parse_tag(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len());
    if fits && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Ok(text.to_owned());
    }
    Err("expected 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-'".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str]) -> Result<Settings, clap::Error> {
        let arguments = ["flotilla-control"].iter().chain(arguments);
        Options::try_parse_from(arguments).and_then(Options::check)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Options::command().debug_assert();
        let help = Options::command().render_long_help().to_string();
        assert!(help.contains("EXAMPLES") && help.contains("--replace-default-store"));
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let settings = check(&[]).unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:7400");
        assert_eq!(settings.http_listen.to_string(), "127.0.0.1:7401");
        assert_eq!(settings.data_dir, PathBuf::from("./flotilla-data"));
        assert_eq!(settings.lease_duration, Duration::from_secs(15));
        assert_eq!(settings.audit_retention, Duration::from_hours(90 * 24));
        assert!(check(&["--audit-retention", "10y"]).is_ok());
        assert_eq!(settings.redis_url.endpoint().to_string(), "localhost:6379/0");
    }

    #[test]
    fn wrong_values_are_named_with_a_way_out() {
        for (arguments, words) in [
            (vec!["--listen", "7400"], vec!["--listen", "7400", "127.0.0.1:7400"]),
            (vec!["--listen", "0.0.0.0:7400"], vec!["0.0.0.0:7400", "TLS and tokens", "--insecure", "init tls"]),
            (vec!["--http-listen", "[::]:0"], vec!["--http-listen", "--insecure"]),
            (vec!["--listen", "0.0.0.0:0", "--tls-cert", "a", "--tls-key", "b"], vec!["without tokens"]),
            (vec!["--listen", "0.0.0.0:0", "--token-file", "a", "--worker-token-file", "b"], vec!["without TLS;"]),
            (vec!["--tls-cert", "a"], vec!["--tls-key"]),
            (vec!["--token-file", "a"], vec!["--worker-token-file"]),
            (vec!["--client-ca", "a"], vec!["--tls-cert"]),
            (
                vec!["--tls-cert", "a", "--tls-key", "b", "--client-ca", "c", "--client-certs", "optional"],
                vec!["--client-certs optional", "--token-file"],
            ),
            (vec!["--lease-duration", "soon"], vec!["--lease-duration", "soon", "3s"]),
            (vec!["--lease-duration", "4s"], vec!["--lease-duration", "4s", "--heartbeat-interval"]),
            (vec!["--heartbeat-interval", "1ms"], vec!["1ms", "100ms"]),
            (vec!["--stream-uri", "http://example.com"], vec!["--stream-uri", "https"]),
            (vec!["--application-id", "a b"], vec!["--application-id", "64 characters"]),
            (vec!["--redis-url", "http://x"], vec!["--redis-url", "redis://"]),
            (vec!["--audit-retention", "59m"], vec!["--audit-retention", "59m", "1h to 10y"]),
            (vec!["--audit-retention", "11y"], vec!["1h to 10y"]),
            (vec!["--encryption-key-file", "/nowhere"], vec!["--encryption-key-file", "/nowhere"]),
        ] {
            let error = check(&arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            for word in words {
                assert!(error.to_string().contains(word), "{word:?} in {error}");
            }
        }
        assert!(check(&["--listen", "0.0.0.0:7400", "--insecure"]).is_ok());
        let tls = ["--listen", "0.0.0.0:0", "--tls-cert", "a", "--tls-key", "b"];
        for more in [&["--client-ca", "c"][..], &["--token-file", "c", "--worker-token-file", "d"]] {
            assert!(check(&[&tls[..], more].concat()).is_ok(), "{more:?}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let arguments = ["flotilla-control", "--redis-url", "redis://u:hunter2@h:6379/nine"];
        let options = Options::try_parse_from(arguments).unwrap();
        assert!(!format!("{options:?}").contains("hunter2"));
        let error = options.check().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
