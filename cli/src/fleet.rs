//! `flotilla status`, `flotilla version`.

use flotilla_proto::Timestamp;
use flotilla_proto::v1::{GetFleetStatusRequest, GetFleetStatusResponse};
use serde::Serialize;

use crate::failure::{ExitStatus, Failure};
use crate::output::Shown;
use crate::output::document::FleetDocument;
use crate::output::table::pairs;
use crate::output::text::age;
use crate::session::Session;

/// `flotilla status`: the answer is no when an environment that is not paused is not current.
pub(crate) async fn status(session: &mut Session) -> Result<ExitStatus, Failure> {
    let status = fetch_status(session).await?;
    let now = session.now();
    session.show(&Shown {
        document: &FleetDocument::from(&status),
        names: vec![format!("fleet/{}", status.fleet_id)],
        table: &|_| status_pairs(&status, now),
    })?;
    Ok(if status.not_current == 0 { ExitStatus::Done } else { ExitStatus::Failed })
}

async fn fetch_status(session: &Session) -> Result<GetFleetStatusResponse, Failure> {
    let request = session.client.request(GetFleetStatusRequest {});
    session.client.answer(session.client.fleet().get_fleet_status(request).await)
}

fn status_pairs(status: &GetFleetStatusResponse, now: Timestamp) -> String {
    let oldest = if status.oldest_environment.is_empty() {
        "-".to_owned()
    } else {
        format!(
            "environment/{}, last byte {} ago",
            status.oldest_environment,
            age(now, status.oldest_byte_time.as_ref())
        )
    };
    pairs(
        0,
        &[
            ("Fleet", status.fleet_id.clone()),
            ("Control", format!("{} (term {})", status.version, status.term)),
            (
                "Environments",
                format!(
                    "{}: {} current, {} stale, {} uninitialized, {} unknown; {} paused",
                    status.environments,
                    status.current,
                    status.stale,
                    status.uninitialized,
                    status.unknown,
                    status.paused
                ),
            ),
            ("Not current", format!("{} of those not paused", status.not_current)),
            ("Workers", format!("{} of {} connected", status.workers_connected, status.workers)),
            ("Oldest lag", oldest),
        ],
    )
}

#[derive(Debug, Serialize)]
struct VersionDocument {
    client: &'static str,
    control: Option<ControlVersion>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ControlVersion {
    url: String,
    version: String,
    fleet_id: String,
}

/// The version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `flotilla version`: control's is shown when it can be reached.
pub(crate) async fn version(session: &mut Session) -> Result<ExitStatus, Failure> {
    let url = session.client.url().to_owned();
    let (control, line) = match fetch_status(session).await {
        Ok(status) => {
            let line = format!("{} at {url}, fleet {}", status.version, status.fleet_id);
            let control = ControlVersion { url, version: status.version, fleet_id: status.fleet_id };
            (Some(control), line)
        }
        Err(failure) => (None, format!("not known: {failure}")),
    };
    session.show(&Shown {
        document: &VersionDocument { client: VERSION, control },
        names: vec![format!("version/{VERSION}")],
        table: &|_| pairs(0, &[("flotilla", VERSION.to_owned()), ("control", line.clone())]),
    })?;
    Ok(ExitStatus::Done)
}

#[cfg(test)]
mod tests;
