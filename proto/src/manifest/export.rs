//! What is there, written down: applied again it changes nothing.

use super::document::{Document, EnvironmentDocument, GuardWord};
use crate::spec::{DEFAULT_INITIAL_RETRY_DELAY, DEFAULT_POLL_INTERVAL, EnvironmentSpec, Guard, Source};
use crate::time::duration_text;
use crate::{EnvironmentName, StoreName, v1};

/// The document of environments, without their keys and without what is the default.
pub fn export<'a>(environments: impl Iterator<Item = (&'a EnvironmentName, &'a EnvironmentSpec)>) -> Document {
    let environments = environments.map(|(name, spec)| document_of(name, spec)).collect();
    Document { stores: Vec::new(), environments }
}

fn document_of(name: &EnvironmentName, spec: &EnvironmentSpec) -> EnvironmentDocument {
    let shown = v1::EnvironmentSpec::from(spec);
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let duration = |given, default| (given != default).then(|| duration_text(given));
    let (source, initial_retry_delay, poll_interval) = match &spec.source {
        Source::Stream { initial_retry_delay } => {
            (None, duration(*initial_retry_delay, DEFAULT_INITIAL_RETRY_DELAY), None)
        }
        Source::Poll { interval } => (Some("poll".to_owned()), None, duration(*interval, DEFAULT_POLL_INTERVAL)),
        Source::File { path } => (Some(format!("file:{path}")), None, None),
    };
    EnvironmentDocument {
        name: name.to_string(),
        display_name: given(shown.display_name),
        prefix: shown.prefix,
        sdk_key: None,
        store: (spec.store != StoreName::default_store()).then_some(shown.store),
        source,
        initial_retry_delay,
        poll_interval,
        filter: given(shown.filter),
        stream_uri: given(shown.stream_uri),
        base_uri: given(shown.base_uri),
        application_id: given(shown.application_id),
        application_version: given(shown.application_version),
        labels: shown.labels,
        worker_selector: shown.worker_selector,
        guard: match spec.guard {
            Guard::Confirm => None,
            Guard::Off => Some(GuardWord::Off),
        },
    }
}
