//! `flotilla worker …`.

// Tables and words.
mod view;
// Waiting until a worker has nothing left.
mod progress;

use flotilla_proto::v1::{
    CordonWorkerRequest, DeleteWorkerRequest, DrainWorkerRequest, GetWorkerRequest, ListWorkersRequest,
    UncordonWorkerRequest, Worker,
};

use crate::arguments::{Drain, Forget, Member, WorkerCommand};
use crate::failure::{ExitStatus, Failure};
use crate::output::Shown;
use crate::output::document::{RemovedWorkerDocument, WorkerDocument, WorkersDocument};
use crate::session::Session;
use view::{worker_pairs, worker_table};

const PAGE_SIZE: u32 = 500;

/// Runs `flotilla worker …`.
pub(crate) async fn run(session: &mut Session, command: WorkerCommand) -> Result<ExitStatus, Failure> {
    match command {
        WorkerCommand::List => list(session).await?,
        WorkerCommand::Get { name } => get(session, name.as_str()).await?,
        WorkerCommand::Cordon(member) => cordon(session, &member).await?,
        WorkerCommand::Uncordon(member) => uncordon(session, &member).await?,
        WorkerCommand::Drain(options) => drain(session, &options).await?,
        WorkerCommand::Forget(options) => forget(session, &options).await?,
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
    let worker = in_answer(session.client.answer(answer)?.worker)?;
    let now = session.now();
    session.show(&Shown {
        document: &WorkerDocument::with_environments(&worker),
        names: vec![format!("worker/{name}")],
        table: &|_| worker_pairs(&worker, now),
    })
}

fn in_answer(worker: Option<Worker>) -> Result<Worker, Failure> {
    worker.ok_or_else(|| Failure::new(ExitStatus::Failed, "control's answer holds no worker"))
}

async fn cordon(session: &mut Session, member: &Member) -> Result<(), Failure> {
    let Member { name, dry_run } = member;
    let request = CordonWorkerRequest { name: name.to_string(), validate_only: *dry_run };
    let answer = session.client.fleet().cordon_worker(session.client.request(request)).await;
    let worker = in_answer(session.client.answer(answer)?.worker)?;
    tell(session, &worker, &done("cordoned", *dry_run))
}

async fn uncordon(session: &mut Session, member: &Member) -> Result<(), Failure> {
    let Member { name, dry_run } = member;
    let request = UncordonWorkerRequest { name: name.to_string(), validate_only: *dry_run };
    let answer = session.client.fleet().uncordon_worker(session.client.request(request)).await;
    let worker = in_answer(session.client.answer(answer)?.worker)?;
    tell(session, &worker, &done("uncordoned", *dry_run))
}

async fn drain(session: &mut Session, options: &Drain) -> Result<(), Failure> {
    let Drain { name, wait, timeout, dry_run } = options;
    let request = DrainWorkerRequest { name: name.to_string(), validate_only: *dry_run };
    let answer = session.client.fleet().drain_worker(session.client.request(request)).await;
    let worker = in_answer(session.client.answer(answer)?.worker)?;
    if !wait {
        return tell(session, &worker, &done("draining", *dry_run));
    }
    // One document only, and then that of the end.
    if !session.wants_document() {
        tell(session, &worker, "draining")?;
    }
    let drained = progress::until_drained(session, worker, *timeout).await?;
    tell(session, &drained, "drained")
}

async fn forget(session: &mut Session, options: &Forget) -> Result<(), Failure> {
    let Forget { name, yes, dry_run } = options;
    let question = format!("Forget worker {name} and move what it has?");
    if !yes && !dry_run && !session.confirm(&question)? {
        return Err(Failure::new(ExitStatus::Failed, "nothing was changed"));
    }
    let request = DeleteWorkerRequest { name: name.to_string(), validate_only: *dry_run };
    let answer = session.client.fleet().delete_worker(session.client.request(request)).await;
    session.client.answer(answer)?;
    let line = format!("worker/{name} {}\n", done("forgotten", *dry_run));
    session.show(&Shown {
        document: &RemovedWorkerDocument { name: name.to_string(), removed: !dry_run },
        names: vec![format!("worker/{name}")],
        table: &|_| line.clone(),
    })
}

fn done(word: &str, dry_run: bool) -> String {
    if dry_run { format!("{word} (dry run)") } else { word.to_owned() }
}

/// What is said of a mutation: on one line, or the document as it is afterwards.
fn tell(session: &mut Session, worker: &Worker, done: &str) -> Result<(), Failure> {
    let name = format!("worker/{}", worker.name);
    let line = format!("{name} {done}\n");
    session.show(&Shown { document: &WorkerDocument::from(worker), names: vec![name], table: &|_| line.clone() })
}
