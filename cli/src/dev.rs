//! `flotilla dev`: control, workers and, where none is given, a Redis, in one process and on loopback.

// A Redis of our own.
mod redis;
// The flag file that is served without an SDK key.
mod flags;
// Control and workers.
mod fleet;
// The environment that is there from the start.
mod seed;
// Those of a relay.
mod relay;
// What is said at start: pure.
mod text;
// What is said as things happen.
mod narration;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use flotilla_proto::StoreUrl;
use flotilla_proto::process::{LogFormat, LogOptions, raise_file_limit, shutdown_requested};
use flotilla_proto::spec::parse_service_uri;

use crate::arguments::Dev;
use crate::client::Client;
use crate::failure::{ExitStatus, Failure};
use crate::import;
use crate::relay_configuration::RelayConfiguration;
use crate::sdk_key;
use fleet::{Fleet, FleetOptions};
use redis::OwnRedis;
use seed::SeedSource;
use text::{Served, StartUp, Titles, start_up};

/// The environment that is there from the start.
const ENVIRONMENT: &str = "dev";
/// Its prefix.
const PREFIX: &str = "flotilla-dev";
/// Where control and workers keep what they must not forget.
const DATA_DIRECTORY: &str = ".flotilla-dev";

/// Runs `flotilla dev` until it is interrupted, which is success.
pub(crate) async fn run(options: Dev) -> Result<ExitStatus, Failure> {
    LogOptions { log_format: LogFormat::Text, log_level: options.log_level }.start();
    raise_file_limit();
    let contents = contents(&options)?;
    let uri = |option, text: &Option<String>| {
        text.as_deref().map(|text| parse_service_uri(option, text).map_err(Failure::from)).transpose()
    };
    let (stream_uri, base_uri) = (uri("--stream-uri", &options.stream_uri)?, uri("--base-uri", &options.base_uri)?);
    let given = match &contents {
        Contents::Seed(_) => {
            options.redis_url.as_deref().map(|url| StoreUrl::parse("--redis-url", url)).transpose()?
        }
        Contents::Relay(configuration) => Some(configuration.redis.clone()),
    };

    // What was started is stopped in order, whether it is interrupted or fails, also half-way through the start.
    let mut own_redis = None;
    let mut fleet = None;
    let work = async {
        let redis_url = match given {
            Some(url) => url,
            None => own_redis.insert(OwnRedis::start().await?).url(),
        };
        let directory = Path::new(DATA_DIRECTORY);
        let fleet_options = FleetOptions {
            directory,
            redis_url: redis_url.clone(),
            stream_uri,
            base_uri,
            workers: options.workers,
            file_source_dir: contents.file_source_dir(),
        };
        let running = fleet.insert(Fleet::start_control(fleet_options).await?);
        let client = running.client()?;
        match &contents {
            Contents::Seed(source) => seed::settle(&client, source).await?,
            Contents::Relay(configuration) => relay::settle(&client, configuration).await?,
        }
        running.start_workers().await?;
        let start_up = StartUp {
            redis_url: redis_url.redacted(),
            redis_version: own_redis.as_ref().map(|redis| redis.version().to_owned()),
            served: contents.served(),
            control: running.control_url(),
            status: running.status_url(),
            workers: running.worker_urls(),
        };
        say(&start_up, &client, running, own_redis.as_mut()).await
    };
    let result = tokio::select! {
        signal = shutdown_requested() => {
            signal.map_err(|error| Failure::new(ExitStatus::Failed, format!("cannot listen for signals: {error}")))
        }
        result = work => result,
    };
    if result.is_ok() {
        // Whoever has closed standard output does not want to know.
        let _ = writeln!(io::stdout(), "\nstopping");
    }
    if let Some(fleet) = fleet {
        fleet.stop().await;
    }
    if let Some(redis) = own_redis {
        redis.stop().await;
    }
    result.map(|()| ExitStatus::Done)
}

/// What is kept.
#[derive(Debug)]
enum Contents {
    /// One environment of our own.
    Seed(SeedSource),
    /// Those of a relay.
    Relay(Box<RelayConfiguration>),
}

fn contents(options: &Dev) -> Result<Contents, Failure> {
    let key = sdk_key::read(&options.key, io::stdin(), &mut io::stderr())?;
    match (key, options.relay.is_given()) {
        (Some(_), true) => {
            Err(Failure::usage("an SDK key goes with no relay's configuration, which holds keys itself"))
        }
        (Some(key), false) => Ok(Contents::Seed(SeedSource::LaunchDarkly(key))),
        (None, false) => Ok(Contents::Seed(SeedSource::File(flags::prepare(&options.flags)?))),
        (None, true) => {
            let configuration = import::read(&options.relay)?;
            for note in import::notes(&configuration) {
                // A closed standard error stops nothing.
                let _ = writeln!(io::stderr(), "{note}");
            }
            Ok(Contents::Relay(Box::new(configuration)))
        }
    }
}

impl Contents {
    /// Where the workers read flag files.
    fn file_source_dir(&self) -> Option<PathBuf> {
        match self {
            Self::Seed(source) => source.directory(),
            Self::Relay(_) => None,
        }
    }

    fn served(&self) -> Served {
        match self {
            Self::Seed(SeedSource::File(file)) => Served::File(file.shown.clone()),
            Self::Seed(SeedSource::LaunchDarkly(_)) => Served::LaunchDarkly,
            Self::Relay(configuration) => Served::Relay {
                source: configuration.source.clone(),
                prefixes: configuration.environments.iter().map(|one| one.prefix.to_string()).collect(),
            },
        }
    }
}

/// Prints the start-up text, and then what happens, until a part ends that should not.
async fn say(
    start_up_facts: &StartUp,
    client: &Client,
    fleet: &mut Fleet<'_>,
    own_redis: Option<&mut OwnRedis>,
) -> Result<(), Failure> {
    let mut out = io::stdout();
    let bold = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let titles = if bold { Titles::Bold } else { Titles::Plain };
    out.write_all(start_up(start_up_facts, titles).as_bytes())?;
    out.flush()?;
    let redis_ended = async {
        match own_redis {
            Some(redis) => redis.ended().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = narration::narrate(client, &mut out) => result,
        failure = fleet.failed() => Err(failure),
        failure = redis_ended => Err(failure),
    }
}
