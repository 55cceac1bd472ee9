//! Doors for a fuzzer: each takes whatever bytes there are, and panics where what always holds does not.

use clap::Parser as _;
use flotilla_proto::manifest::{Manifest, Text};
use flotilla_proto::{EnvironmentName, Prefix, SdkKeySource, StoreUrl};

use crate::arguments::Cli;
use crate::relay_configuration::{RelayConfiguration, SecretPlace, StoreChoice};

/// What is wrong with SDK keys, and references to them, that are none.
const KEY_FAULTS: [&str; 7] = [
    "is empty",
    "is a masked SDK key",
    "longer than 8192",
    "holds characters other than",
    "an SDK key holds no ':'",
    "in file:NAME the name is",
    "in env:NAME the name is",
];

/// A manifest. Asking for it is refused or says the same again.
pub fn manifest(input: &[u8]) {
    let text = String::from_utf8_lossy(input).into_owned();
    if let Ok(manifest) = Manifest::parse(&[Text { file: "fuzz.yaml".to_owned(), text }]) {
        // Secrets that it names are not there.
        let _ = manifest.request(|_, _| Err("there is none".to_owned()));
        let _ = manifest.manager();
    }
}

/// A relay's configuration: its file, or, where the first byte is odd, its variables, a line each. What it comes to is a
/// manifest that is understood.
pub fn relay_configuration(input: &[u8]) {
    let Some((&kind, text)) = input.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    let read = if kind.is_multiple_of(2) {
        RelayConfiguration::of_file("ld-relay.conf", &text)
    } else {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        RelayConfiguration::of_variables(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())))
    };
    match read {
        Ok(configuration) => {
            let store = StoreChoice::New(flotilla_proto::StoreName::default_store());
            let declared = configuration.declared(&store, &SecretPlace::Variables);
            if let Err(failure) = crate::import::request(&configuration, &declared) {
                panic!("{failure}");
            }
        }
        Err(errors) => assert!(!errors.is_empty()),
    }
}

/// A command line, a word a line.
pub fn command_line(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Err(error) = Cli::try_parse_from(std::iter::once("flotilla").chain(text.lines())) {
        assert!(matches!(error.exit_code(), 0 | 2));
    }
}

/// Values that users give. What is understood means the same when it is read again.
pub fn values(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(url) = StoreUrl::parse("url", &text) {
        let again = StoreUrl::parse("url", url.expose()).expect("what is written can be read");
        assert_eq!(again, url);
        assert_eq!(again.endpoint(), url.endpoint());
    }
    if let Ok(name) = text.parse::<EnvironmentName>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(prefix) = text.parse::<Prefix>() {
        assert_eq!(prefix.as_str(), text);
    }
    match SdkKeySource::parse("key", &text) {
        Ok(key) => assert_eq!(SdkKeySource::parse("key", key.expose()), Ok(key)),
        // Whatever is wrong with it, the same is said of every text: nothing of it is shown.
        Err(violation) => {
            assert!(KEY_FAULTS.iter().any(|fault| violation.description.contains(fault)), "{violation}");
        }
    }
    let _ = flotilla_proto::process::parse_duration(&text);
    let _ = flotilla_proto::spec::parse_service_uri("uri", &text);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    type Door = fn(&[u8]);

    /// What a fuzzer began with, and what it once found.
    #[test]
    fn kept_inputs_pass() {
        let doors: [(&str, Door); 4] = [
            ("manifest", super::manifest),
            ("relay_configuration", super::relay_configuration),
            ("command_line", super::command_line),
            ("values", super::values),
        ];
        for (name, door) in doors {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(name);
            let inputs: Vec<_> =
                std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(!inputs.is_empty(), "{}", directory.display());
            for path in inputs {
                door(&std::fs::read(path).unwrap());
            }
        }
    }
}
