//! list, get, status, wait.

use std::collections::BTreeMap;
use std::io::Write as _;

use flotilla_proto::client::{Departure, EnvironmentWatch, Event};
use flotilla_proto::v1::{
    Environment, EnvironmentFilter, GetEnvironmentRequest, Initialization, ListEnvironmentsRequest,
};

use super::{in_answer, view};
use crate::arguments::{List, OutputFormat, Wait, WaitGoal};
use crate::client::Client;
use crate::failure::{ExitStatus, Failure};
use crate::output::document::{EnvironmentDocument, EnvironmentsDocument, RemovedDocument};
use crate::output::table::GrowingTable;
use crate::output::{Notation, Shown, Width, write_streamed};
use crate::session::Session;
use crate::wait::{Goal, Waited, check_names};

const PAGE_SIZE: u32 = 500;

/// One environment.
pub(super) async fn fetch(session: &Session, name: &str) -> Result<Environment, Failure> {
    let request = session.client.request(GetEnvironmentRequest { name: name.to_owned() });
    let answer = session.client.environments().get_environment(request).await;
    let environment = session.client.answer(answer)?.environment;
    in_answer(environment)
}

/// All environments that match, page by page.
pub(crate) async fn list_all(client: &Client, filter: EnvironmentFilter) -> Result<Vec<Environment>, Failure> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = client.request(ListEnvironmentsRequest {
            page_size: PAGE_SIZE,
            page_token,
            filter: Some(filter.clone()),
        });
        let page = client.answer(client.environments().list_environments(request).await)?;
        all.extend(page.environments);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        page_token = page.next_page_token;
    }
}

pub(super) async fn list(session: &mut Session, options: &List) -> Result<(), Failure> {
    let filter = EnvironmentFilter {
        labels: options.labels.iter().cloned().collect(),
        initializations: options.state.iter().map(|state| Initialization::from(*state).into()).collect(),
        names: Vec::new(),
    };
    if options.watch {
        return watch(session, filter).await;
    }
    let any = filter == EnvironmentFilter::default();
    let environments = list_all(&session.client, filter).await?;
    if environments.is_empty() && !session.wants_document() {
        session.note(if any {
            "no environments\nhint: add one with `flotilla env add NAME --prefix PREFIX --sdk-key-file FILE`"
        } else {
            "no environment matches"
        });
        return Ok(());
    }
    let now = session.now();
    session.show(&Shown {
        document: &EnvironmentsDocument { environments: environments.iter().map(Into::into).collect() },
        names: environments.iter().map(|one| format!("environment/{}", one.name)).collect(),
        table: &|width| view::list(&environments, now, width),
    })
}

pub(super) async fn get(session: &mut Session, name: &str) -> Result<(), Failure> {
    let environment = fetch(session, name).await?;
    session.show(&Shown {
        document: &EnvironmentDocument::from(&environment),
        names: vec![format!("environment/{name}")],
        table: &|_| view::spec(&environment),
    })
}

pub(super) async fn status(session: &mut Session, name: &str) -> Result<(), Failure> {
    let environment = fetch(session, name).await?;
    let now = session.now();
    session.show(&Shown {
        document: &EnvironmentDocument::from(&environment),
        names: vec![format!("environment/{name}")],
        table: &|_| view::status(&environment, now),
    })
}

pub(super) async fn wait(session: &mut Session, options: &Wait) -> Result<(), Failure> {
    let mut names: Vec<String> = options.selected.names.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names.dedup();
    check_names(&names)?;
    let word = match options.goal {
        WaitGoal::Initialized => "initialized",
        WaitGoal::Current => "current",
        WaitGoal::Removed => "removed",
    };
    let goal = Goal::from(options.goal);
    let Waited { names, environments } = crate::wait::wait(&session.client, names, goal, options.timeout).await?;
    match (names.is_empty(), environments.is_empty()) {
        (true, true) => session.note("no environments"),
        (true, false) => session.note("no environments but paused ones"),
        (false, _) => {}
    }
    let lines: Vec<String> = names.iter().map(|name| format!("environment/{name} {word}\n")).collect();
    session.show(&Shown {
        document: &EnvironmentsDocument { environments: environments.iter().map(Into::into).collect() },
        names: names.iter().map(|name| format!("environment/{name}")).collect(),
        table: &|_| lines.concat(),
    })
}

/// Shows what there is, and then every change, until the reader or the user has enough.
async fn watch(session: &mut Session, filter: EnvironmentFilter) -> Result<(), Failure> {
    let mut watch = EnvironmentWatch::new(session.client.program(), filter.clone());
    let mut table = None;
    // The uids of those that the reader has been shown and not been told to be gone.
    let mut shown = BTreeMap::new();
    loop {
        match watch.next().await? {
            Event::Snapshot(mut environments) => {
                environments.sort_unstable_by(|one, other| one.name.cmp(&other.name));
                let present = environments.iter().map(|one| (one.name.clone(), one.uid.clone())).collect();
                // A snapshot that is not the first ends a gap, in which some perhaps left.
                for (name, uid) in std::mem::replace(&mut shown, present) {
                    let departure = match shown.get(&name) {
                        Some(present) if *present == uid => continue,
                        Some(_) => Departure::Gone,
                        None => departure_of(session, &filter, &name, &uid).await,
                    };
                    show_departure(session, Left { name, uid, departure }, table.as_ref())?;
                }
                show_snapshot(session, &environments, &mut table)?;
            }
            Event::Changed(environment) => {
                shown.insert(environment.name.clone(), environment.uid.clone());
                show_change(session, &environment, table.as_ref())?;
            }
            // After a gap it may be one that was never shown.
            Event::Removed { name, uid, departure } => {
                if shown.remove(&name).is_some() {
                    show_departure(session, Left { name, uid, departure }, table.as_ref())?;
                }
            }
        }
        session.out.flush()?;
    }
}

/// An environment that the reader was shown, and that a watch tells no more of.
struct Left {
    name: String,
    uid: String,
    departure: Departure,
}

/// Why an environment is missing in a later snapshot. What is gone no longer matches either, so that is said in doubt.
async fn departure_of(session: &Session, filter: &EnvironmentFilter, name: &str, uid: &str) -> Departure {
    if *filter == EnvironmentFilter::default() {
        return Departure::Gone;
    }
    match fetch(session, name).await {
        Ok(present) if present.uid == uid => Departure::Unmatched,
        Ok(_) => Departure::Gone,
        Err(failure) if failure.status() == ExitStatus::NotFound => Departure::Gone,
        Err(_) => Departure::Unmatched,
    }
}

fn width_of(format: OutputFormat) -> Width {
    match format {
        OutputFormat::Wide => Width::Wide,
        OutputFormat::Table | OutputFormat::Json | OutputFormat::Yaml | OutputFormat::Name => Width::Normal,
    }
}

fn show_snapshot(
    session: &mut Session,
    environments: &[Environment],
    table: &mut Option<GrowingTable>,
) -> Result<(), Failure> {
    match session.format {
        OutputFormat::Table | OutputFormat::Wide => {
            let width = width_of(session.format);
            let now = session.now();
            let rows: Vec<_> = environments.iter().map(|one| view::row(one, now, width)).collect();
            let (growing, text) = GrowingTable::begin(&view::headers(width), &rows);
            *table = Some(growing);
            session.out.write_all(text.as_bytes())?;
        }
        OutputFormat::Json | OutputFormat::Yaml | OutputFormat::Name => {
            for environment in environments {
                show_change(session, environment, None)?;
            }
        }
    }
    Ok(())
}

fn show_change(
    session: &mut Session,
    environment: &Environment,
    table: Option<&GrowingTable>,
) -> Result<(), Failure> {
    match session.format {
        OutputFormat::Json => {
            write_streamed(&mut session.out, Notation::Json, &EnvironmentDocument::from(environment))?;
        }
        OutputFormat::Yaml => {
            write_streamed(&mut session.out, Notation::Yaml, &EnvironmentDocument::from(environment))?;
        }
        OutputFormat::Name => writeln!(session.out, "environment/{}", environment.name)?,
        OutputFormat::Table | OutputFormat::Wide => {
            let row = view::row(environment, session.now(), width_of(session.format));
            write_row(session, &row, table)?;
        }
    }
    Ok(())
}

fn show_departure(session: &mut Session, left: Left, table: Option<&GrowingTable>) -> Result<(), Failure> {
    let Left { name, uid, departure } = left;
    let document = |name| {
        let removed = departure == Departure::Gone;
        RemovedDocument { name, uid: Some(uid), removed, matches: Some(false) }
    };
    match session.format {
        OutputFormat::Json => write_streamed(&mut session.out, Notation::Json, &document(name))?,
        OutputFormat::Yaml => write_streamed(&mut session.out, Notation::Yaml, &document(name))?,
        OutputFormat::Name => writeln!(session.out, "environment/{name}")?,
        OutputFormat::Table | OutputFormat::Wide => {
            let row = view::removed_row(&name, departure, width_of(session.format));
            write_row(session, &row, table)?;
        }
    }
    Ok(())
}

fn write_row(session: &mut Session, row: &[String], table: Option<&GrowingTable>) -> Result<(), Failure> {
    let line = table.map_or_else(|| format!("{}\n", row.join("  ")), |table| table.row(row));
    Ok(session.out.write_all(line.as_bytes())?)
}
