//! From options to a spec. No I/O: what is allowed in a spec is checked by control.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_proto::time::duration_to_proto;
use flotilla_proto::v1::{
    EnvironmentSpec, FileSource, GuardPolicy, PollSource, Source, StreamSource, source::Kind,
};

use crate::arguments::{Add, Changes, LabelChange, SourceOption, Update};
use crate::failure::Failure;

/// The spec of a new environment.
pub(super) fn new_spec(add: &Add) -> Result<EnvironmentSpec, Failure> {
    let mut spec = EnvironmentSpec {
        prefix: add.prefix.to_string(),
        store: add.store.to_string(),
        labels: add.labels.iter().cloned().collect(),
        worker_selector: add.worker_selector.iter().cloned().collect(),
        ..EnvironmentSpec::default()
    };
    apply(&mut spec, &add.changes)?;
    Ok(spec)
}

/// Whether the present spec must be known to make the change: only parts of a field are named.
pub(super) fn needs_present(update: &Update) -> bool {
    let partial_source = update.changes.source.is_none()
        && (update.changes.initial_retry_delay.is_some() || update.changes.poll_interval.is_some());
    partial_source || !update.labels.is_empty() || !update.worker_selector.is_empty()
}

/// Applies the changes to a spec; returns the names of the fields that change.
pub(super) fn changed_spec(
    mut spec: EnvironmentSpec,
    update: &Update,
) -> Result<(EnvironmentSpec, Vec<String>), Failure> {
    let mut paths = apply(&mut spec, &update.changes)?;
    change_labels(&mut spec.labels, &update.labels, "labels", &mut paths);
    change_labels(&mut spec.worker_selector, &update.worker_selector, "worker_selector", &mut paths);
    if paths.is_empty() {
        return Err(Failure::usage("nothing to change: name at least one option")
            .hint("an SDK key is replaced with `flotilla env rotate-key`"));
    }
    Ok((spec, paths.into_iter().map(ToOwned::to_owned).collect()))
}

fn change_labels(
    labels: &mut BTreeMap<String, String>,
    changes: &[LabelChange],
    path: &'static str,
    paths: &mut Vec<&'static str>,
) {
    for change in changes {
        match change {
            LabelChange::Set(key, value) => {
                labels.insert(key.clone(), value.clone());
            }
            LabelChange::Remove(key) => {
                labels.remove(key);
            }
        }
    }
    if !changes.is_empty() {
        paths.push(path);
    }
}

fn apply(spec: &mut EnvironmentSpec, changes: &Changes) -> Result<Vec<&'static str>, Failure> {
    let mut paths = Vec::new();
    let texts = [
        (&changes.display_name, &mut spec.display_name, "display_name"),
        (&changes.filter, &mut spec.filter, "filter"),
        (&changes.stream_uri, &mut spec.stream_uri, "stream_uri"),
        (&changes.base_uri, &mut spec.base_uri, "base_uri"),
        (&changes.application_id, &mut spec.application_id, "application_id"),
        (&changes.application_version, &mut spec.application_version, "application_version"),
    ];
    for (given, field, path) in texts {
        if let Some(given) = given {
            field.clone_from(given);
            paths.push(path);
        }
    }
    if let Some(guard) = changes.guard {
        spec.guard = GuardPolicy::from(guard).into();
        paths.push("guard");
    }
    if let Some(source) = changed_source(spec.source.as_ref(), changes)? {
        spec.source = Some(Source { kind: Some(source) });
        paths.push("source");
    }
    Ok(paths)
}

/// The new source; `None` if it stays. A duration goes with one kind only.
fn changed_source(present: Option<&Source>, changes: &Changes) -> Result<Option<Kind>, Failure> {
    let (delay, interval) = (changes.initial_retry_delay, changes.poll_interval);
    let kind = match (&changes.source, present.and_then(|source| source.kind.as_ref())) {
        (None, _) if delay.is_none() && interval.is_none() => return Ok(None),
        (Some(option), _) => option.clone(),
        (None, None | Some(Kind::Stream(_))) => SourceOption::Stream,
        (None, Some(Kind::Poll(_))) => SourceOption::Poll,
        (None, Some(Kind::File(file))) => SourceOption::File(file.path.clone()),
    };
    let refuse = |option: &str, value: Option<Duration>, needed: &str| match value {
        Some(_) => Err(Failure::usage(format!("{option} goes with --source {needed} only"))),
        None => Ok(()),
    };
    let to_proto = |duration: Option<Duration>| duration.map(duration_to_proto);
    Ok(Some(match kind {
        SourceOption::Stream => {
            refuse("--poll-interval", interval, "poll")?;
            Kind::Stream(StreamSource { initial_retry_delay: to_proto(delay) })
        }
        SourceOption::Poll => {
            refuse("--initial-retry-delay", delay, "stream")?;
            Kind::Poll(PollSource { interval: to_proto(interval) })
        }
        SourceOption::File(path) => {
            refuse("--poll-interval", interval, "poll")?;
            refuse("--initial-retry-delay", delay, "stream")?;
            Kind::File(FileSource { path })
        }
    }))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Cli, Command, EnvCommand};

    fn update(line: &str) -> Box<Update> {
        let words = ["flotilla", "env", "update", "x"].into_iter().chain(line.split(' '));
        let words = words.filter(|word| !word.is_empty()).map(|word| word.trim_matches('\''));
        let Command::Env(EnvCommand::Update(update)) = Cli::try_parse_from(words).unwrap().command else {
            panic!("an update");
        };
        update
    }

    #[test]
    fn only_what_is_named_changes() {
        let present = EnvironmentSpec {
            filter: "old".to_owned(),
            labels: BTreeMap::from([("team".to_owned(), "a".to_owned()), ("tier".to_owned(), "1".to_owned())]),
            ..EnvironmentSpec::default()
        };
        let update = update("--filter '' --label team- --label zone=eu");
        assert!(needs_present(&update));
        let (spec, paths) = changed_spec(present, &update).unwrap();
        assert_eq!(spec.filter, "");
        assert_eq!(
            spec.labels.into_iter().collect::<Vec<_>>(),
            [("tier".to_owned(), "1".to_owned()), ("zone".to_owned(), "eu".to_owned())]
        );
        assert_eq!(paths, ["filter", "labels"]);
    }

    #[test]
    fn a_duration_goes_with_its_source() {
        let poll = EnvironmentSpec {
            source: Some(Source { kind: Some(Kind::Poll(PollSource::default())) }),
            ..EnvironmentSpec::default()
        };
        let changed = update("--poll-interval 1m");
        assert!(needs_present(&changed));
        let (spec, paths) = changed_spec(poll.clone(), &changed).unwrap();
        assert_eq!(paths, ["source"]);
        let Some(Kind::Poll(source)) = spec.source.unwrap().kind else {
            panic!("still a poll source");
        };
        assert_eq!(source.interval.unwrap().seconds, 60);
        for line in [
            "--initial-retry-delay 2s",
            "--source file:a.json --poll-interval 1m",
            "--source stream --poll-interval 1m",
        ] {
            let failure = changed_spec(poll.clone(), &update(line)).unwrap_err();
            assert_eq!(failure.status().code(), 2, "{line}");
        }
        assert!(!needs_present(&update("--source poll --poll-interval 1m")));
    }

    #[test]
    fn nothing_to_change_is_a_usage_error() {
        let failure = changed_spec(EnvironmentSpec::default(), &update("")).unwrap_err();
        assert!(failure.to_string().contains("nothing to change"));
    }
}
