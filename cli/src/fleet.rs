//! `flotilla worker …`, `flotilla status`, `flotilla version`.

use flotilla_proto::Timestamp;
use flotilla_proto::v1::{
    GetFleetStatusRequest, GetFleetStatusResponse, GetWorkerRequest, ListWorkersRequest, Worker,
};
use serde::Serialize;

use crate::arguments::WorkerCommand;
use crate::failure::{ExitStatus, Failure};
use crate::output::document::{FleetDocument, WorkerDocument, WorkersDocument, worker_state_text};
use crate::output::table::{Align, columns, pairs};
use crate::output::text::{age, ago, labels, or_dash, size};
use crate::output::{Shown, Width};
use crate::session::Session;

const PAGE_SIZE: u32 = 500;

/// Runs `flotilla worker …`.
pub(crate) async fn worker(session: &mut Session, command: WorkerCommand) -> Result<ExitStatus, Failure> {
    match command {
        WorkerCommand::List => list(session).await?,
        WorkerCommand::Get { name } => get(session, name.as_str()).await?,
    }
    Ok(ExitStatus::Done)
}

async fn list(session: &mut Session) -> Result<(), Failure> {
    let mut workers = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = session.client.request(ListWorkersRequest { page_size: PAGE_SIZE, page_token });
        let answer = session.client.fleet().list_workers(request).await;
        let page = session.client.answer(answer)?;
        workers.extend(page.workers);
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    if workers.is_empty() && !session.wants_document() {
        session.note("no workers\nhint: start one with `flotilla-worker --control URL`");
        return Ok(());
    }
    let now = session.now();
    session.show(&Shown {
        document: &WorkersDocument { workers: workers.iter().map(Into::into).collect() },
        names: workers.iter().map(|worker| format!("worker/{}", worker.name)).collect(),
        table: &|width| worker_table(&workers, now, width),
    })
}

async fn get(session: &mut Session, name: &str) -> Result<(), Failure> {
    let request = session.client.request(GetWorkerRequest { name: name.to_owned() });
    let answer = session.client.fleet().get_worker(request).await;
    let worker = session
        .client
        .answer(answer)?
        .worker
        .ok_or_else(|| Failure::new(ExitStatus::Failed, "control's answer holds no worker"))?;
    let now = session.now();
    session.show(&Shown {
        document: &WorkerDocument::with_environments(&worker),
        names: vec![format!("worker/{name}")],
        table: &|_| worker_pairs(&worker, now),
    })
}

fn capacity(worker: &Worker) -> String {
    if worker.capacity == 0 { "unlimited".to_owned() } else { worker.capacity.to_string() }
}

fn worker_table(workers: &[Worker], now: Timestamp, width: Width) -> String {
    let mut headers = vec![
        ("name", Align::Left),
        ("state", Align::Left),
        ("environments", Align::Right),
        ("capacity", Align::Right),
        ("size", Align::Right),
        ("connected", Align::Right),
        ("heard of", Align::Right),
        ("version", Align::Left),
    ];
    if width == Width::Wide {
        headers.extend([("address", Align::Left), ("labels", Align::Left)]);
    }
    let rows: Vec<Vec<String>> = workers
        .iter()
        .map(|worker| {
            let mut row = vec![
                worker.name.clone(),
                worker_state_text(worker.state()).to_owned(),
                worker.environments.to_string(),
                capacity(worker),
                size(worker.bytes),
                age(now, worker.connect_time.as_ref()),
                age(now, worker.last_heartbeat_time.as_ref()),
                or_dash(&worker.version),
            ];
            if width == Width::Wide {
                row.extend([or_dash(&worker.address), labels(&worker.labels)]);
            }
            row
        })
        .collect();
    columns(&headers, &rows)
}

fn worker_pairs(worker: &Worker, now: Timestamp) -> String {
    let mut text = pairs(
        0,
        &[
            ("Name", worker.name.clone()),
            ("State", worker_state_text(worker.state()).to_owned()),
            ("Address", or_dash(&worker.address)),
            ("Version", or_dash(&worker.version)),
            ("Labels", labels(&worker.labels)),
            ("Capacity", capacity(worker)),
            ("Data", size(worker.bytes)),
            ("Connected", ago(now, worker.connect_time.as_ref())),
            ("Heard of", ago(now, worker.last_heartbeat_time.as_ref())),
            ("Environments", worker.environments.to_string()),
        ],
    );
    for name in &worker.environment_names {
        text.push_str("  ");
        text.push_str(name);
        text.push('\n');
    }
    text
}

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
