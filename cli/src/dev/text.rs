//! What is said at start. No I/O.

use super::{DATA_DIRECTORY, PREFIX};
use crate::fleet::VERSION;
use crate::output::table::pairs;

/// What there is to say.
#[derive(Debug)]
pub(super) struct StartUp {
    /// Where Redis is, without a password.
    pub(super) redis_url: String,
    /// The version of a Redis of our own; `None`: somebody else's.
    pub(super) redis_version: Option<String>,
    /// Where the flags come from.
    pub(super) served: Served,
    /// Where control listens.
    pub(super) control: String,
    /// Where its status is shown.
    pub(super) status: String,
    /// Names of the workers and where they answer.
    pub(super) workers: Vec<(String, String)>,
}

/// Where the flags come from.
#[derive(Debug)]
pub(super) enum Served {
    /// This file.
    File(String),
    /// LaunchDarkly, for one environment.
    LaunchDarkly,
    /// LaunchDarkly, for those of a relay.
    Relay {
        /// Where they are said.
        source: String,
        /// Theirs; there is one at least.
        prefixes: Vec<String>,
    },
}

impl Served {
    fn flags(&self) -> String {
        match self {
            Self::File(path) => format!("{path}  (edit it, and Redis follows within a second)"),
            Self::LaunchDarkly => "streamed from LaunchDarkly".to_owned(),
            Self::Relay { source, .. } => format!("streamed from LaunchDarkly, as said in {source}"),
        }
    }

    fn prefixes(&self) -> Vec<&str> {
        match self {
            Self::File(_) | Self::LaunchDarkly => vec![PREFIX],
            Self::Relay { prefixes, .. } => prefixes.iter().map(String::as_str).collect(),
        }
    }

    /// A flag to ask for.
    fn flag(&self) -> &'static str {
        match self {
            Self::File(_) | Self::LaunchDarkly => "new-checkout",
            Self::Relay { .. } => "my-flag",
        }
    }
}

const DEFAULT_CONTROL: &str = "http://127.0.0.1:7400";

/// How titles look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Titles {
    /// In bold, on a terminal that can show it.
    Bold,
    /// Like the rest.
    Plain,
}

/// The start-up text.
pub(super) fn start_up(facts: &StartUp, titles: Titles) -> String {
    let title = |text: &str| match titles {
        Titles::Bold => format!("\u{1b}[1m{text}\u{1b}[0m\n\n"),
        Titles::Plain => format!("{text}\n\n"),
    };
    let prefixes = facts.served.prefixes();
    let redis = match &facts.redis_version {
        Some(version) => format!("{}  (version {version}, ends with this program)", facts.redis_url),
        None => facts.redis_url.clone(),
    };
    let workers: Vec<String> = facts.workers.iter().map(|(name, url)| format!("{name} {url}")).collect();
    let mut text = title(&format!("flotilla dev {VERSION}: the whole product in one process; Ctrl-C ends it"));
    text.push_str(&pairs(
        2,
        &[
            ("Flags", facts.served.flags()),
            ("Redis", redis),
            (if prefixes.len() == 1 { "Prefix" } else { "Prefixes" }, prefixes.join(", ")),
            ("Control", format!("{}  (status: {})", facts.control, facts.status)),
            (if facts.workers.len() == 1 { "Worker" } else { "Workers" }, workers.join(", ")),
            ("Data", format!("./{DATA_DIRECTORY}")),
        ],
    ));
    text.push('\n');
    text.push_str(&title("Read it with an SDK in daemon mode, here in Python"));
    text.push_str(&snippet(&facts.redis_url, prefixes[0], facts.served.flag()));
    text.push_str(&title("Add an environment of yours, from another terminal"));
    let control =
        if facts.control == DEFAULT_CONTROL { String::new() } else { format!(" --control {}", facts.control) };
    text.push_str(&indent(&format!(
        "flotilla{control} env add my-env --prefix my-env --sdk-key-file key.txt --wait\nflotilla{control} env status\n"
    )));
    text.push_str(&title("What happens"));
    text
}

/// Reads one flag.
fn snippet(redis_url: &str, prefix: &str, flag: &str) -> String {
    indent(&format!(
        r#"pip install "launchdarkly-server-sdk[redis]"

import ldclient
from ldclient import Config, Context
from ldclient.integrations import Redis

store = Redis.new_feature_store(url="{redis_url}", prefix="{prefix}")
ldclient.set_config(Config("any", feature_store=store, use_ldd=True, send_events=False))
print(ldclient.get().variation("{flag}", Context.create("ada"), False))
"#
    ))
}

fn indent(text: &str) -> String {
    let mut all = String::new();
    for line in text.lines() {
        if !line.is_empty() {
            all.push_str("    ");
            all.push_str(line);
        }
        all.push('\n');
    }
    all.push('\n');
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_where_everything_is() {
        let facts = StartUp {
            redis_url: "redis://127.0.0.1:40001".to_owned(),
            redis_version: Some("7.0.15".to_owned()),
            served: Served::File("flotilla-flags.json".to_owned()),
            control: DEFAULT_CONTROL.to_owned(),
            status: "http://127.0.0.1:7401/status".to_owned(),
            workers: vec![("dev-1".to_owned(), "http://127.0.0.1:7402".to_owned())],
        };
        insta::assert_snapshot!("with_a_flag_file", start_up(&facts, Titles::Plain).replace(VERSION, "VERSION"));
        let facts = StartUp {
            redis_version: None,
            served: Served::LaunchDarkly,
            control: "http://127.0.0.1:40002".to_owned(),
            workers: vec![
                ("dev-1".to_owned(), "http://127.0.0.1:7402".to_owned()),
                ("dev-2".to_owned(), "http://127.0.0.1:40003".to_owned()),
            ],
            ..facts
        };
        insta::assert_snapshot!("with_launchdarkly", start_up(&facts, Titles::Plain).replace(VERSION, "VERSION"));
        let prefixes = ["ld:spree:production", "ld:spree:test"].map(ToOwned::to_owned).to_vec();
        let facts = StartUp { served: Served::Relay { source: "ld-relay.conf".to_owned(), prefixes }, ..facts };
        insta::assert_snapshot!("with_a_relay", start_up(&facts, Titles::Plain).replace(VERSION, "VERSION"));
        assert!(start_up(&facts, Titles::Bold).contains("\u{1b}[1m"));
    }
}
