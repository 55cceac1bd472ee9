//! In what two specs differ, field by field, in the words of the manifest.

use std::time::Duration;

use super::{DEFAULT_INITIAL_RETRY_DELAY, DEFAULT_POLL_INTERVAL, EnvironmentSpec, Guard, Source};
use crate::time::duration_text;

/// What is not worth telling of an environment that is new.
const DEFAULTS: [(&str, &str); 3] = [("store", "default"), ("source", "stream"), ("guard", "confirm")];

/// One field that differs. It never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDifference {
    /// What the manifest calls it, as `displayName` or `labels.team`.
    pub path: String,
    /// What it was; `None`: nothing.
    pub before: Option<String>,
    /// What it is; `None`: nothing.
    pub after: Option<String>,
}

impl EnvironmentSpec {
    /// In what it differs from what was there before: what is set now, in the order of the manifest, then what is no
    /// longer. Without anything before, all that is not the default.
    pub fn differences_from(&self, before: Option<&Self>) -> Vec<FieldDifference> {
        let (old, new) = (before.map(Self::fields).unwrap_or_default(), self.fields());
        let value = |fields: &[(String, String)], path: &str| {
            fields.iter().find(|(other, _)| other == path).map(|(_, value)| value.clone())
        };
        let gone = old.iter().filter(|(path, _)| value(&new, path).is_none());
        let told = |(path, after): &(String, String)| {
            before.is_some() || !DEFAULTS.contains(&(path.as_str(), after.as_str()))
        };
        let paths = new.iter().filter(|field| told(field)).chain(gone).map(|(path, _)| path);
        let differences = paths.map(|path| FieldDifference {
            path: path.clone(),
            before: value(&old, path),
            after: value(&new, path),
        });
        differences.filter(|difference| difference.before != difference.after).collect()
    }

    /// What is set, by the manifest's names and in its order. Times that are the default are not.
    fn fields(&self) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let mut field = |path: &str, value: &str| {
            if !value.is_empty() {
                fields.push((path.to_owned(), value.to_owned()));
            }
        };
        field("displayName", &self.display_name);
        field("prefix", self.prefix.as_str());
        field("store", self.store.as_str());
        match &self.source {
            Source::Stream { initial_retry_delay } => {
                field("source", "stream");
                field("initialRetryDelay", &unless_default(*initial_retry_delay, DEFAULT_INITIAL_RETRY_DELAY));
            }
            Source::Poll { interval } => {
                field("source", "poll");
                field("pollInterval", &unless_default(*interval, DEFAULT_POLL_INTERVAL));
            }
            Source::File { path } => field("source", &format!("file:{path}")),
        }
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        field("filter", &optional(&self.filter));
        let shown = crate::v1::EnvironmentSpec::from(self);
        field("streamUri", &shown.stream_uri);
        field("baseUri", &shown.base_uri);
        field("applicationId", &optional(&self.application_id));
        field("applicationVersion", &optional(&self.application_version));
        let labels = self.labels.iter().map(|label| ("labels", label));
        for (map, (key, value)) in labels.chain(self.worker_selector.iter().map(|label| ("workerSelector", label)))
        {
            // One without a value is there all the same.
            fields.push((format!("{map}.{key}"), value.clone()));
        }
        let guard = match self.guard {
            Guard::Confirm => "confirm",
            Guard::Off => "off",
        };
        fields.push(("guard".to_owned(), guard.to_owned()));
        fields
    }
}

fn unless_default(given: Duration, default: Duration) -> String {
    if given == default { String::new() } else { duration_text(given) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    fn spec(change: impl FnOnce(&mut v1::EnvironmentSpec)) -> EnvironmentSpec {
        let mut message = v1::EnvironmentSpec { prefix: "p".to_owned(), ..Default::default() };
        change(&mut message);
        EnvironmentSpec::parse(&message, "spec").unwrap()
    }

    fn shown(before: Option<&EnvironmentSpec>, after: &EnvironmentSpec) -> Vec<String> {
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let differences = after.differences_from(before).into_iter();
        differences.map(|one| format!("{} {} {}", one.path, text(one.before), text(one.after))).collect()
    }

    #[test]
    fn what_was_set_unset_and_changed_is_told_by_name() {
        let before = spec(|spec| {
            spec.filter = "mobile".to_owned();
            spec.labels = [("team", "a"), ("empty", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        });
        let after = spec(|spec| {
            spec.display_name = "Spree".to_owned();
            spec.labels = [("team".to_owned(), "b".to_owned())].into();
            let interval = Some(crate::time::duration_to_proto(Duration::from_secs(90)));
            spec.source = Some(v1::Source { kind: Some(v1::source::Kind::Poll(v1::PollSource { interval })) });
            spec.guard = v1::GuardPolicy::Off.into();
        });
        let expected = [
            "displayName - Spree",
            "source stream poll",
            "pollInterval - 1m30s",
            "labels.team a b",
            "guard confirm off",
            "filter mobile -",
            "labels.empty  -",
        ];
        assert_eq!(shown(Some(&before), &after), expected);
        assert!(shown(Some(&after), &after).is_empty());
    }

    #[test]
    fn of_a_new_one_the_defaults_are_not_told() {
        assert_eq!(shown(None, &spec(|_| {})), ["prefix - p"]);
    }
}
