//! add, update, pause, resume, resync, rotate-key.

use std::io;

use flotilla_proto::v1::{
    CreateEnvironmentRequest, Environment, PauseEnvironmentRequest, ResumeEnvironmentRequest,
    ResyncEnvironmentRequest, RotateSdkKeyRequest, UpdateEnvironmentRequest,
};

use super::spec::{changed_spec, needs_present, new_spec};
use super::view;
use crate::arguments::{Add, Pause, Resync, RotateKey, Update, WaitGoal};
use crate::failure::{ExitStatus, Failure};
use crate::output::Shown;
use crate::output::document::EnvironmentDocument;
use crate::sdk_key;
use crate::session::Session;
use crate::wait::{Goal, RotationState, rotation_state, wait};

/// How often an update is made anew because somebody else changed the environment between reading and writing.
const UPDATE_ATTEMPTS: u32 = 5;

/// What is said of a mutation: on one line, or the document as it is afterwards.
pub(super) fn tell(
    session: &mut Session,
    environment: &Environment,
    done: &str,
    dry_run: bool,
) -> Result<(), Failure> {
    let suffix = if dry_run { " (dry run)" } else { "" };
    let name = format!("environment/{}", environment.name);
    let line = format!("{name} {done}{suffix}\n");
    session.show(&Shown {
        document: &EnvironmentDocument::from(environment),
        names: vec![name],
        table: &|_| line.clone(),
    })
}

/// Control always sends the environment with these answers.
fn expect(environment: Option<Environment>) -> Result<Environment, Failure> {
    environment.ok_or_else(|| Failure::new(ExitStatus::Failed, "control's answer holds no environment"))
}

pub(super) async fn add(session: &mut Session, options: &Add) -> Result<(), Failure> {
    let spec = new_spec(options)?;
    let key = sdk_key::read(&options.key, io::stdin(), &mut session.err)?;
    let request = session.client.request(CreateEnvironmentRequest {
        name: options.name.to_string(),
        spec: Some(spec),
        sdk_key: key.map(|key| key.expose().to_owned()).unwrap_or_default(),
        take_over: options.take_over,
        request_id: String::new(),
        validate_only: options.dry_run,
    });
    let answer = session.client.environments().create_environment(request).await;
    let environment = expect(session.client.answer(answer)?.environment)?;
    let Some(goal) = options.wait.filter(|_| !options.dry_run) else {
        return tell(session, &environment, "created", options.dry_run);
    };
    // One document only, and then that of the end.
    if !session.wants_document() {
        tell(session, &environment, "created", false)?;
    }
    let goal = match WaitGoal::from(goal) {
        WaitGoal::Initialized => Goal::Initialized,
        WaitGoal::Current => Goal::Current,
        WaitGoal::Removed => Goal::Removed,
    };
    let environments = wait(&session.client, vec![environment.name.clone()], goal, options.timeout).await?;
    let environment = environments.into_iter().next().unwrap_or(environment);
    if session.format == crate::arguments::OutputFormat::Name {
        return Ok(());
    }
    let state = view::state(&environment);
    tell(session, &environment, &state, false)
}

pub(super) async fn update(session: &mut Session, options: &Update) -> Result<(), Failure> {
    let key = sdk_key::read(&options.key, io::stdin(), &mut session.err)?;
    let key = key.map(|key| key.expose().to_owned()).unwrap_or_default();
    let mut attempt = 1;
    loop {
        let present = if needs_present(options) {
            super::read::fetch(session, options.name.as_str()).await?
        } else {
            Environment::default()
        };
        let (spec, paths) = changed_spec(present.spec.unwrap_or_default(), options)?;
        let request = session.client.request(UpdateEnvironmentRequest {
            name: options.name.to_string(),
            spec: Some(spec),
            update_mask: Some(prost_types::FieldMask { paths }),
            sdk_key: key.clone(),
            etag: present.etag.clone(),
            request_id: String::new(),
            validate_only: options.dry_run,
        });
        let answer = session.client.environments().update_environment(request).await;
        match answer {
            Err(status)
                if status.code() == tonic::Code::Aborted
                    && !present.etag.is_empty()
                    && attempt < UPDATE_ATTEMPTS =>
            {
                attempt += 1;
            }
            answer => {
                let environment = expect(session.client.answer(answer)?.environment)?;
                return tell(session, &environment, "updated", options.dry_run);
            }
        }
    }
}

pub(super) async fn pause(session: &mut Session, options: &Pause) -> Result<(), Failure> {
    let request = session.client.request(PauseEnvironmentRequest {
        name: options.name.to_string(),
        validate_only: options.dry_run,
        ..PauseEnvironmentRequest::default()
    });
    let answer = session.client.environments().pause_environment(request).await;
    let environment = expect(session.client.answer(answer)?.environment)?;
    tell(session, &environment, "paused", options.dry_run)
}

pub(super) async fn resume(session: &mut Session, options: &Pause) -> Result<(), Failure> {
    let request = session.client.request(ResumeEnvironmentRequest {
        name: options.name.to_string(),
        validate_only: options.dry_run,
        ..ResumeEnvironmentRequest::default()
    });
    let answer = session.client.environments().resume_environment(request).await;
    let environment = expect(session.client.answer(answer)?.environment)?;
    tell(session, &environment, "resumed", options.dry_run)
}

pub(super) async fn resync(session: &mut Session, options: &Resync) -> Result<(), Failure> {
    let request = session.client.request(ResyncEnvironmentRequest {
        name: options.name.to_string(),
        take_over: options.take_over,
        validate_only: options.dry_run,
        ..ResyncEnvironmentRequest::default()
    });
    let answer = session.client.environments().resync_environment(request).await;
    let environment = expect(session.client.answer(answer)?.environment)?;
    tell(session, &environment, "resync started", options.dry_run)
}

pub(super) async fn rotate_key(session: &mut Session, options: &RotateKey) -> Result<(), Failure> {
    let key = sdk_key::read_required(&options.key, io::stdin(), &mut session.err)?;
    let request = session.client.request(RotateSdkKeyRequest {
        name: options.name.to_string(),
        sdk_key: key.expose().to_owned(),
        force: options.force,
        etag: String::new(),
        request_id: String::new(),
        validate_only: options.dry_run,
    });
    let answer = session.client.environments().rotate_sdk_key(request).await;
    let environment = expect(session.client.answer(answer)?.environment)?;
    if options.no_wait || options.dry_run {
        return tell(session, &environment, "key rotation started", options.dry_run);
    }
    match rotation_state(&environment) {
        RotationState::Pending => {}
        // By force, or because the old key is being refused.
        RotationState::Done => return tell(session, &environment, "key rotated", false),
        // That was an earlier rotation: this one had nothing to do.
        RotationState::Rejected { .. } => return tell(session, &environment, "key is in force already", false),
    }
    let names = vec![environment.name.clone()];
    let environments = wait(&session.client, names, Goal::KeyRotated, options.timeout).await?;
    let environment = environments.into_iter().next().unwrap_or(environment);
    tell(session, &environment, "key rotated", false)
}
