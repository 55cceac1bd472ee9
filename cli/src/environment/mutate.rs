//! add, update, pause, resume, resync, rotate-key.

use std::io;

use flotilla_proto::v1::{
    CreateEnvironmentRequest, Environment, PauseEnvironmentRequest, ResumeEnvironmentRequest,
    ResyncEnvironmentRequest, RotateSdkKeyRequest, UpdateEnvironmentRequest,
};

use super::spec::{changed_spec, needs_present, new_spec};
use super::{in_answer, view};
use crate::arguments::{Add, Pause, Resync, RotateKey, Update, WaitGoal};
use crate::failure::Failure;
use crate::output::Shown;
use crate::output::document::EnvironmentDocument;
use crate::sdk_key;
use crate::session::Session;
use crate::wait::{Goal, RotationState, rotation_state, wait};

/// How often an update is made anew because somebody else changed the environment between reading and writing.
const UPDATE_ATTEMPTS: u32 = 5;

/// Whether a mutation is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// It is.
    Real,
    /// It is only checked: `--dry-run`.
    Dry,
}

impl From<bool> for Run {
    fn from(dry_run: bool) -> Self {
        if dry_run { Self::Dry } else { Self::Real }
    }
}

impl Run {
    /// What follows the words of what was done.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Real => "",
            Self::Dry => " (dry run)",
        }
    }
}

/// What is said of a mutation: on one line, or the document as it is afterwards.
fn tell(session: &mut Session, environment: &Environment, done: &str, run: Run) -> Result<(), Failure> {
    let name = format!("environment/{}", environment.name);
    let line = format!("{name} {done}{}\n", run.suffix());
    session.show(&Shown {
        document: &EnvironmentDocument::from(environment),
        names: vec![name],
        table: &|_| line.clone(),
    })
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
    let environment = in_answer(session.client.answer(answer)?.environment)?;
    let Some(goal) = options.wait.filter(|_| !options.dry_run) else {
        return tell(session, &environment, "created", options.dry_run.into());
    };
    // One document only, and then that of the end.
    if !session.wants_document() {
        tell(session, &environment, "created", Run::Real)?;
    }
    let goal = Goal::from(WaitGoal::from(goal));
    let waited = wait(&session.client, vec![environment.name.clone()], goal, options.timeout).await?;
    let environment = waited.environments.into_iter().next().unwrap_or(environment);
    if session.format == crate::arguments::OutputFormat::Name {
        return Ok(());
    }
    let state = view::state(&environment);
    tell(session, &environment, &state, Run::Real)
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
                let environment = in_answer(session.client.answer(answer)?.environment)?;
                return tell(session, &environment, "updated", options.dry_run.into());
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
    let environment = in_answer(session.client.answer(answer)?.environment)?;
    tell(session, &environment, "paused", options.dry_run.into())
}

pub(super) async fn resume(session: &mut Session, options: &Pause) -> Result<(), Failure> {
    let request = session.client.request(ResumeEnvironmentRequest {
        name: options.name.to_string(),
        validate_only: options.dry_run,
        ..ResumeEnvironmentRequest::default()
    });
    let answer = session.client.environments().resume_environment(request).await;
    let environment = in_answer(session.client.answer(answer)?.environment)?;
    tell(session, &environment, "resumed", options.dry_run.into())
}

pub(super) async fn resync(session: &mut Session, options: &Resync) -> Result<(), Failure> {
    let request = session.client.request(ResyncEnvironmentRequest {
        name: options.name.to_string(),
        take_over: options.take_over,
        accept_regression: options.accept_regression,
        validate_only: options.dry_run,
        ..ResyncEnvironmentRequest::default()
    });
    let answer = session.client.environments().resync_environment(request).await;
    let environment = in_answer(session.client.answer(answer)?.environment)?;
    tell(session, &environment, "resync started", options.dry_run.into())
}

pub(super) async fn rotate_key(session: &mut Session, options: &RotateKey) -> Result<(), Failure> {
    let key = sdk_key::read_required(&options.key, io::stdin(), &mut session.err)?;
    let before = super::read::fetch(session, options.name.as_str()).await?;
    let request = session.client.request(RotateSdkKeyRequest {
        name: options.name.to_string(),
        sdk_key: key.expose().to_owned(),
        force: options.force,
        etag: String::new(),
        request_id: String::new(),
        validate_only: options.dry_run,
    });
    let answer = session.client.environments().rotate_sdk_key(request).await;
    let environment = in_answer(session.client.answer(answer)?.environment)?;
    let run = Run::from(options.dry_run);
    match at_once(&before, &environment, run) {
        AtOnce::Rotated => return tell(session, &environment, "key rotated", run),
        AtOnce::InForce => return tell(session, &environment, "key is in force already", run),
        AtOnce::Begun if options.no_wait || options.dry_run => {
            return tell(session, &environment, "key rotation started", run);
        }
        AtOnce::Begun => {}
    }
    let goal = Goal::KeyRotated { begun_at: environment.generation };
    let waited = wait(&session.client, vec![environment.name.clone()], goal, options.timeout).await?;
    let environment = waited.environments.into_iter().next().unwrap_or(environment);
    tell(session, &environment, "key rotated", run)
}

/// What is true as soon as control has answered the request for a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtOnce {
    /// The new key is to be proved.
    Begun,
    /// The new key is in force: by `--force`, or because the old one was being refused.
    Rotated,
    /// There was nothing to do.
    InForce,
}

/// A key that is put in force makes the generation grow. A dry run is answered with the rotation as it is, not as it
/// would be; there the etag tells whether anything would change.
fn at_once(before: &Environment, after: &Environment, run: Run) -> AtOnce {
    let has_grown = after.generation > before.generation;
    match (run, rotation_state(after)) {
        (Run::Real, RotationState::Pending) => AtOnce::Begun,
        (Run::Real | Run::Dry, _) if has_grown => AtOnce::Rotated,
        (Run::Dry, RotationState::Pending) => AtOnce::Begun,
        (Run::Dry, _) if before.etag != after.etag => AtOnce::Begun,
        (
            Run::Real | Run::Dry,
            RotationState::Replaced | RotationState::Rejected { .. } | RotationState::Absent,
        ) => AtOnce::InForce,
    }
}
