//! What is said as things happen: one line for each change of an environment's state.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::SystemTime;

use flotilla_proto::client::{EnvironmentWatch, Event};
use flotilla_proto::process::Clock;
use flotilla_proto::v1::{
    ConditionStatus, Environment, EnvironmentFilter, Initialization, ResyncEnvironmentRequest,
};

use super::ENVIRONMENT;
use crate::client::Client;
use crate::environment::view::{data, state};
use crate::failure::Failure;
use crate::output::text::printable;
use crate::wait::blocking_condition;

/// Follows all environments and writes a line for each change of state. Ends only with an error.
pub(super) async fn narrate(client: &Client, out: &mut impl Write) -> Result<(), Failure> {
    let clock = Clock::start();
    let mut watch = EnvironmentWatch::new(client.program(), EnvironmentFilter::default());
    let mut narrator = Narrator::default();
    let mut has_taken_over = false;
    loop {
        let event = watch.next().await?;
        if !has_taken_over && shows_conflict(&event) {
            has_taken_over = true;
            take_over(client).await?;
            // The conflict itself is not news any more.
            narrator.lines(event);
            let time = time_of_day(clock);
            writeln!(out, "  {time}  environment/{ENVIRONMENT}  takes its prefix over from another fleet")?;
            continue;
        }
        for line in narrator.lines(event) {
            let time = time_of_day(clock);
            writeln!(out, "  {time}  {line}")?;
        }
        out.flush()?;
    }
}

/// In UTC.
fn time_of_day(clock: Clock) -> String {
    let time = humantime::format_rfc3339_seconds(SystemTime::from(clock.now())).to_string();
    time.split('T').next_back().unwrap_or_default().to_owned()
}

/// Whether another fleet's fence stands under the prefix of `flotilla dev`.
fn shows_conflict(event: &Event) -> bool {
    let is_parked = |environment: &Environment| {
        let conditions = environment.status.iter().flat_map(|status| &status.conditions);
        environment.name == ENVIRONMENT
            && conditions.into_iter().any(|one| one.r#type == "Conflict" && one.status() == ConditionStatus::True)
    };
    match event {
        Event::Snapshot(environments) => environments.iter().any(is_parked),
        Event::Changed(environment) => is_parked(environment),
        Event::Removed { .. } => false,
    }
}

/// The prefix is that of `flotilla dev`, whichever fleet wrote it last.
async fn take_over(client: &Client) -> Result<(), Failure> {
    let request = client.request(ResyncEnvironmentRequest {
        name: ENVIRONMENT.to_owned(),
        take_over: true,
        ..ResyncEnvironmentRequest::default()
    });
    match client.environments().resync_environment(request).await {
        Ok(_) => Ok(()),
        // The conflict has ended meanwhile.
        Err(status) if status.code() == tonic::Code::FailedPrecondition => Ok(()),
        Err(status) => Err(client.failure(&status)),
    }
}

/// Remembers what was said of each environment, to say only what is new.
#[derive(Debug, Default)]
struct Narrator {
    said: BTreeMap<String, String>,
}

impl Narrator {
    fn lines(&mut self, event: Event) -> Vec<String> {
        match event {
            Event::Snapshot(environments) => {
                let known: Vec<String> = self.said.keys().cloned().collect();
                let gone = known.into_iter().filter(|name| environments.iter().all(|one| one.name != *name));
                let mut lines: Vec<String> = gone.map(|name| self.removed(&name)).collect();
                lines.extend(environments.iter().filter_map(|environment| self.changed(environment)));
                lines
            }
            Event::Changed(environment) => self.changed(&environment).into_iter().collect(),
            Event::Removed { name, .. } => vec![self.removed(&name)],
        }
    }

    fn changed(&mut self, environment: &Environment) -> Option<String> {
        let status = environment.status.clone().unwrap_or_default();
        let state = state(environment);
        let (key, details) = if status.initialization() == Initialization::Current {
            let data = data(&status);
            (data.clone(), format!(": {data} in Redis, served by {}", status.worker))
        } else {
            match blocking_condition(&status.conditions) {
                // Nothing is known of what a worker has only just taken over.
                Some(condition) if condition.status() == ConditionStatus::Unknown => {
                    (String::new(), ": a worker is about to look".to_owned())
                }
                // The message counts attempts and seconds; it is said once.
                Some(condition) => {
                    (format!("{} {}", condition.r#type, condition.reason), format!(": {}", condition.message))
                }
                None => (String::new(), String::new()),
            }
        };
        let details = if environment.paused || environment.removing { String::new() } else { details };
        let key = if key.starts_with("Conflict") { key } else { format!("{state} {key}") };
        let before = self.said.insert(environment.name.clone(), key.clone());
        (before.as_ref() != Some(&key))
            .then(|| format!("environment/{}  {state}{}", environment.name, printable(&details)))
    }

    fn removed(&mut self, name: &str) -> String {
        self.said.remove(name);
        format!("environment/{name}  removed")
    }
}

#[cfg(test)]
mod tests {
    use flotilla_proto::v1::EnvironmentStatus;

    use super::*;

    fn environment(name: &str, initialization: Initialization) -> Environment {
        let status = EnvironmentStatus {
            initialization: initialization.into(),
            worker: "dev-1".to_owned(),
            flags: Some(4),
            segments: Some(1),
            bytes: Some(3000),
            ..EnvironmentStatus::default()
        };
        Environment { name: name.to_owned(), status: Some(status), ..Environment::default() }
    }

    #[test]
    fn only_what_is_new_is_said() {
        let mut narrator = Narrator::default();
        let unknown = environment("dev", Initialization::Unknown);
        let current = environment("dev", Initialization::Current);
        let mut said = narrator.lines(Event::Snapshot(vec![unknown.clone()]));
        said.extend(narrator.lines(Event::Changed(Box::new(unknown.clone()))));
        said.extend(narrator.lines(Event::Changed(Box::new(current.clone()))));
        said.extend(narrator.lines(Event::Snapshot(vec![current])));
        said.extend(narrator.lines(Event::Snapshot(Vec::new())));
        assert_eq!(
            said,
            [
                "environment/dev  unknown",
                "environment/dev  current: 4 flags, 1 segment, 2.9 KiB in Redis, served by dev-1",
                "environment/dev  removed",
            ]
        );
    }
}
