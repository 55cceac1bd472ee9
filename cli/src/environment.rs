//! `flotilla env …`.

// From options to a spec: pure.
mod spec;
// Tables and pairs: pure.
pub(crate) mod view;
// add, update, pause, resume, resync, rotate-key.
mod mutate;
// remove.
mod remove;
// list, get, status, wait.
mod read;

use flotilla_proto::v1::Environment;

pub(crate) use mutate::Run;
pub(crate) use read::list_all;

use crate::arguments::EnvCommand;
use crate::failure::{ExitStatus, Failure};
use crate::session::Session;

/// Runs `flotilla env …`.
pub async fn run(session: &mut Session, command: EnvCommand) -> Result<ExitStatus, Failure> {
    match command {
        EnvCommand::Add(options) => mutate::add(session, &options).await,
        EnvCommand::Remove(options) => remove::remove(session, &options).await,
        EnvCommand::Update(options) => mutate::update(session, &options).await,
        EnvCommand::List(options) => read::list(session, &options).await,
        EnvCommand::Get { name } => read::get(session, name.as_str()).await,
        EnvCommand::Status { name: Some(name) } => read::status(session, name.as_str()).await,
        EnvCommand::Status { name: None } => read::list(session, &crate::arguments::List::default()).await,
        EnvCommand::Wait(options) => read::wait(session, &options).await,
        EnvCommand::Pause(options) => mutate::pause(session, &options).await,
        EnvCommand::Resume(options) => mutate::resume(session, &options).await,
        EnvCommand::Resync(options) => mutate::resync(session, &options).await,
        EnvCommand::RotateKey(options) => mutate::rotate_key(session, &options).await,
    }?;
    Ok(ExitStatus::Done)
}

/// The environment that control sends with its answer.
fn in_answer(environment: Option<Environment>) -> Result<Environment, Failure> {
    environment.ok_or_else(|| Failure::new(ExitStatus::Failed, "control's answer holds no environment"))
}
