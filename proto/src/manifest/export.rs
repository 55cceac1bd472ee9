//! What is there, written down: applied again it changes nothing.

use super::document::{Document, EnvironmentDocument, GuardWord};
use super::secret::SecretSource;
use crate::secret_reference::SecretReference;
use crate::spec::{DEFAULT_INITIAL_RETRY_DELAY, DEFAULT_POLL_INTERVAL, EnvironmentSpec, Guard, Source};
use crate::time::duration_text;
use crate::{EnvironmentName, StoreName, v1};

/// An environment that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Its name.
    pub name: EnvironmentName,
    /// What it is.
    pub spec: EnvironmentSpec,
    /// Where workers find its key; `None`: control has it, or there is none.
    pub sdk_key: Option<SecretReference>,
}

/// The document of environments, without their keys, but for references to them, and without what is the default.
pub fn export(environments: &[Exported]) -> Document {
    Document { stores: Vec::new(), environments: environments.iter().map(document_of).collect() }
}

fn document_of(Exported { name, spec, sdk_key }: &Exported) -> EnvironmentDocument {
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
        sdk_key: sdk_key.clone().map(SecretSource::Worker),
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
