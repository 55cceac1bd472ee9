//! `flotilla plan`, `apply` and `export`: what environments shall be, as files say it. All that is decided, control
//! decides.

// From files to a request.
mod files;
// Results in words.
mod view;

use std::io::Write as _;

use flotilla_proto::manifest::{Document, Exported, export as document_of};
use flotilla_proto::v1::{
    ApplyOutcome, BatchApplyEnvironmentsRequest, BatchApplyEnvironmentsResponse, Environment, EnvironmentFilter,
};
use flotilla_proto::{EnvironmentName, EnvironmentSpec, Reason, Refusal};

use crate::arguments::{Apply, Export, OutputFormat, Plan};
use crate::environment::{Run, list_all};
use crate::failure::{ExitStatus, Failure};
use crate::output::document::AppliedDocument;
use crate::output::{Notation, Shown, write_document};
use crate::session::Session;

/// Runs `flotilla plan`.
pub async fn plan(session: &mut Session, options: &Plan) -> Result<ExitStatus, Failure> {
    show_plan(session, files::request(&options.files)?).await
}

/// Shows what carrying a request out would change; `Failed` if that is something.
pub(crate) async fn show_plan(
    session: &mut Session,
    mut request: BatchApplyEnvironmentsRequest,
) -> Result<ExitStatus, Failure> {
    request.validate_only = true;
    let applied = match ask(session, &request).await? {
        Asked::Applied(applied) => applied,
        Asked::TooMuch(refusal) => {
            session.note(&format!("warning: {}; apply needs --yes for it", view::without_outcome(&refusal)));
            request.prune.get_or_insert_default().accept_blast_radius = true;
            asked_again(session, &request).await?
        }
    };
    session.show(&Shown {
        document: &AppliedDocument::new(&applied, Run::Dry),
        names: view::names(&applied),
        table: &|_| view::plan(&applied),
    })?;
    if let Some(failure) = view::failure(&applied) {
        return Err(failure);
    }
    Ok(if view::is_same(&applied) { ExitStatus::Done } else { ExitStatus::Failed })
}

/// Runs `flotilla apply`.
pub async fn apply(session: &mut Session, options: &Apply) -> Result<ExitStatus, Failure> {
    let run = Run::from(options.dry_run);
    let mut request = files::request(&options.files)?;
    request.validate_only = options.dry_run;
    if let Some(prune) = &mut request.prune {
        prune.accept_blast_radius = options.yes;
    }
    let applied = match ask(session, &request).await? {
        Asked::Applied(applied) => applied,
        Asked::TooMuch(refusal) => {
            let question = format!("{}. Apply, and remove them?", view::without_outcome(&refusal));
            let refused = Failure::from_status(session.client.url(), &refusal.into());
            if options.dry_run || !Session::can_ask() {
                // As wherever a yes is wanting: the command line is to be another.
                return Err(refused.where_failed_means_no());
            }
            if !session.confirm(&question)? {
                return Err(refused);
            }
            request.prune.get_or_insert_default().accept_blast_radius = true;
            asked_again(session, &request).await?
        }
    };
    show_applied(session, &applied, run)
}

/// Carries out a request that removes nothing.
pub(crate) async fn carry_out(
    session: &mut Session,
    request: &BatchApplyEnvironmentsRequest,
) -> Result<ExitStatus, Failure> {
    let applied = asked_again(session, request).await?;
    show_applied(session, &applied, Run::Real)
}

/// That some could not be applied: each with its reason.
pub(crate) fn failure(applied: &BatchApplyEnvironmentsResponse) -> Option<Failure> {
    view::failure(applied)
}

fn show_applied(
    session: &mut Session,
    applied: &BatchApplyEnvironmentsResponse,
    run: Run,
) -> Result<ExitStatus, Failure> {
    session.show(&Shown {
        document: &AppliedDocument::new(applied, run),
        names: view::names(applied),
        table: &|_| view::applied(applied, run),
    })?;
    if !session.wants_document() && session.format != OutputFormat::Name {
        session.note(&view::summary(applied, run));
    }
    match view::failure(applied) {
        Some(failure) => Err(failure),
        None => Ok(ExitStatus::Done),
    }
}

/// What control says to a request.
enum Asked {
    /// This was done, or would be.
    Applied(BatchApplyEnvironmentsResponse),
    /// It would remove more than goes without saying.
    TooMuch(Refusal),
}

async fn ask(session: &Session, request: &BatchApplyEnvironmentsRequest) -> Result<Asked, Failure> {
    let asked = session.client.request(request.clone());
    match session.client.environments().batch_apply_environments(asked).await {
        Ok(answer) => Ok(Asked::Applied(answer.into_inner())),
        Err(status) => match Refusal::from_status(&status) {
            Some(refusal) if refusal.reason == Reason::BlastRadius => Ok(Asked::TooMuch(refusal)),
            Some(_) | None => Err(session.client.failure(&status)),
        },
    }
}

/// The blast radius is accepted: it is not refused for that.
async fn asked_again(
    session: &Session,
    request: &BatchApplyEnvironmentsRequest,
) -> Result<BatchApplyEnvironmentsResponse, Failure> {
    match ask(session, request).await? {
        Asked::Applied(applied) => Ok(applied),
        Asked::TooMuch(refusal) => Err(Failure::from_status(session.client.url(), &refusal.into())),
    }
}

/// Runs `flotilla export`.
pub async fn export(session: &mut Session, options: &Export) -> Result<ExitStatus, Failure> {
    let filter = EnvironmentFilter { labels: options.labels.iter().cloned().collect(), ..Default::default() };
    let environments = list_all(&session.client, filter).await?;
    // What is being removed takes no changes.
    let staying = environments.iter().filter(|environment| !environment.removing);
    let exported = staying.map(read).collect::<Result<Vec<_>, _>>()?;
    print(session, &document_of(&exported))?;
    Ok(ExitStatus::Done)
}

fn print(session: &mut Session, document: &Document) -> Result<(), Failure> {
    const KEYS: &str = "SDK keys do not come out of control, but for references to them: an entry without sdkKey keeps the key \
        that is there";
    match session.format {
        OutputFormat::Name => {
            for environment in &document.environments {
                writeln!(session.out, "environment/{}", environment.name)?;
            }
            Ok(session.out.flush()?)
        }
        OutputFormat::Json => {
            session.note(&format!("hint: {KEYS}"));
            write_document(&mut session.out, Notation::Json, document)
        }
        OutputFormat::Table | OutputFormat::Wide | OutputFormat::Yaml => {
            let url = session.client.url().to_owned();
            writeln!(
                session.out,
                "# Environments of the control at {url}. {KEYS}.\n# To create them elsewhere, add to each: \
                 sdkKey: {{file: PATH}}, {{env: VARIABLE}} or {{worker: REFERENCE}}"
            )?;
            write_document(&mut session.out, Notation::Yaml, document)
        }
    }
}

fn read(environment: &Environment) -> Result<Exported, Failure> {
    let name: Option<EnvironmentName> = environment.name.parse().ok();
    let spec = environment.spec.as_ref().and_then(|spec| EnvironmentSpec::parse(spec, "spec").ok());
    // A masked key is no reference, and does not look like one.
    let sdk_key = environment.sdk_key_masked.parse().ok();
    name.zip(spec).map(|(name, spec)| Exported { name, spec, sdk_key }).ok_or_else(|| {
        Failure::new(ExitStatus::Failed, "control's answer holds an environment that is not understood")
            .hint("control may be newer than this command line: see `flotilla version`")
    })
}

/// Whether an environment is other than before.
fn is_change(outcome: ApplyOutcome) -> bool {
    match outcome {
        ApplyOutcome::Created | ApplyOutcome::Updated | ApplyOutcome::Removed => true,
        ApplyOutcome::Unchanged | ApplyOutcome::Failed | ApplyOutcome::Unspecified => false,
    }
}
