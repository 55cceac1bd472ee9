//! What the store holds of an environment, asked of the worker that serves it.

use std::time::Duration;

use flotilla_proto::session::{Answer, Question};
use flotilla_proto::{FieldViolation, Reason, Refusal, v1};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::asked::{Changing as _, begin};
use super::guard::Caller;
use super::page::checked_size;
use super::{Api, environment_name};
use crate::access::REPAIR_ROLE;
use crate::audit::AuditEntry;
use crate::fleet::{Claim, Command, Edit, Mutation, Regression, Reply};

/// How long a worker has for its answer when the caller names no deadline.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// And at most, whatever the caller names.
const LONGEST_TIMEOUT: Duration = Duration::from_mins(5);
/// What is kept of the caller's time, at least and as one part in so many, for the answer to reach it: else it never
/// learns that it was the worker that did not answer.
const SHORTEST_WAY_BACK: Duration = Duration::from_millis(200);
const WAY_BACK_PART: u32 = 10;

/// Pause before a look at what a repair has done, and the shortest time that is worth one.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const SHORTEST_LOOK: Duration = Duration::from_secs(2);

/// The handler of `DataService`.
#[derive(Debug)]
pub(super) struct Handler(pub(super) Api);

impl Handler {
    async fn ask(&self, environment: &str, question: Question, timeout: Duration) -> Result<Answer, Refusal> {
        let environment = environment_name("environment", environment)?;
        let command = Command::Ask { environment, question, timeout };
        match self.0.driver.command(command).await? {
            Reply::Answer(answer) => Ok(answer),
            Reply::Environment(_) | Reply::Worker(_) | Reply::Store(_) | Reply::Checked(_) | Reply::Applied(_) => {
                Err(other_answer())
            }
        }
    }
}

impl Handler {
    async fn verify(
        &self,
        request: &v1::VerifyDataRequest,
        deadline: Deadline,
    ) -> Result<v1::VerifyDataResponse, Refusal> {
        let question = Question::VerifyData(v1::VerifyDataRequest { repair: false, ..request.clone() });
        match self.ask(&request.environment, question, deadline.left()).await? {
            Answer::VerifyData(answer) => Ok(answer),
            Answer::ListItems(_)
            | Answer::GetItem(_)
            | Answer::KeyProved(_)
            | Answer::StoreProbed(_)
            | Answer::Failure(_) => Err(other_answer()),
        }
    }

    /// Has the worker connect anew and compare everything with the store.
    async fn resync(&self, environment: &str, entry: Option<AuditEntry>) -> Result<(), Refusal> {
        let mutation = environment_name("environment", environment).map(|environment| Mutation {
            environment,
            action: Edit::Resync { claim: Claim::Respect, regression: Regression::Doubt }.into(),
            etag: None,
            request: None,
            validate_only: false,
        });
        self.0.carry_out(entry, mutation.map(Command::Mutate)).await.map(drop)
    }
}

/// Until when a caller waits.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

#[expect(clippy::disallowed_methods, reason = "several questions share the caller's time")]
impl Deadline {
    fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

fn other_answer() -> Refusal {
    tracing::warn!("a worker answered another question than it was asked");
    Refusal::new(Reason::Internal, "the worker answered another question")
}

/// The time that a worker has: what the caller has left, less the way back.
pub(super) fn timeout(metadata: &MetadataMap) -> Duration {
    let given = metadata.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse_timeout);
    given.map_or(DEFAULT_TIMEOUT, without_way_back).min(LONGEST_TIMEOUT)
}

fn without_way_back(given: Duration) -> Duration {
    // Of very little time the worker has half: there is hardly a good use of it.
    let way_back = (given / WAY_BACK_PART).max(SHORTEST_WAY_BACK).min(given / 2);
    given.saturating_sub(way_back)
}

/// As gRPC sends it: up to eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(count.checked_mul(3600)?)),
        'M' => Some(Duration::from_secs(count.checked_mul(60)?)),
        'S' => Some(Duration::from_secs(count)),
        'm' => Some(Duration::from_millis(count)),
        'u' => Some(Duration::from_micros(count)),
        'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[tonic::async_trait]
impl v1::data_service_server::DataService for Handler {
    async fn list_items(
        &self,
        request: Request<v1::ListItemsRequest>,
    ) -> Result<Response<v1::ListItemsResponse>, Status> {
        let timeout = timeout(request.metadata());
        let mut request = request.into_inner();
        request.page_size = checked_size(request.page_size, 1000, 10_000)?;
        if v1::ItemKind::try_from(request.kind).is_err() {
            let description = format!("{} is not a kind of item", request.kind);
            return Err(Refusal::from(FieldViolation::new("kind", &description)).into());
        }
        let environment = request.environment.clone();
        match self.ask(&environment, Question::ListItems(request), timeout).await? {
            Answer::ListItems(answer) => Ok(Response::new(answer)),
            Answer::GetItem(_)
            | Answer::KeyProved(_)
            | Answer::StoreProbed(_)
            | Answer::VerifyData(_)
            | Answer::Failure(_) => Err(other_answer().into()),
        }
    }

    async fn get_item(
        &self,
        request: Request<v1::GetItemRequest>,
    ) -> Result<Response<v1::GetItemResponse>, Status> {
        let timeout = timeout(request.metadata());
        let request = request.into_inner();
        let mut violations = Vec::new();
        match v1::ItemKind::try_from(request.kind) {
            Ok(v1::ItemKind::Flag | v1::ItemKind::Segment) => {}
            Ok(v1::ItemKind::Unspecified) | Err(_) => {
                violations.push(FieldViolation::new("kind", "required: flag or segment"));
            }
        }
        if request.key.is_empty() {
            violations.push(FieldViolation::new("key", "required: the flag's or segment's key"));
        }
        if !violations.is_empty() {
            return Err(Refusal::fields(violations).into());
        }
        let environment = request.environment.clone();
        match self.ask(&environment, Question::GetItem(request), timeout).await? {
            Answer::GetItem(answer) => Ok(Response::new(answer)),
            Answer::ListItems(_)
            | Answer::KeyProved(_)
            | Answer::StoreProbed(_)
            | Answer::VerifyData(_)
            | Answer::Failure(_) => Err(other_answer().into()),
        }
    }

    async fn verify_data(
        &self,
        request: Request<v1::VerifyDataRequest>,
    ) -> Result<Response<v1::VerifyDataResponse>, Status> {
        let deadline = Deadline::after(timeout(request.metadata()));
        let caller = Caller::of(&request)?;
        let (request, entry) = begin(request)?;
        if request.repair {
            caller.require(REPAIR_ROLE, &request.asked())?;
        }
        let first = match self.verify(&request, deadline).await {
            Ok(first) => first,
            Err(refusal) => {
                self.0.note_refused(entry, &refusal).await;
                return Err(refusal.into());
            }
        };
        if !request.repair || (first.differing == 0 && first.initialized) {
            return Ok(Response::new(first));
        }
        // The record is that of the change. Where there is nothing to repair there is none.
        self.resync(&request.environment, entry).await?;
        let mut last = first.clone();
        while (last.differing > 0 || !last.initialized) && deadline.left() > SHORTEST_LOOK {
            tokio::time::sleep(LOOK_AGAIN).await;
            // What was found so far is worth more than that the last look took too long.
            let Ok(found) = self.verify(&request, deadline).await else { break };
            last = found;
        }
        Ok(Response::new(v1::VerifyDataResponse {
            repaired: first.differing.saturating_sub(last.differing),
            ..last
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_deadline_is_read() {
        let mut metadata = MetadataMap::new();
        assert_eq!(timeout(&metadata), DEFAULT_TIMEOUT);
        for (text, expected) in [
            ("5S", Duration::from_millis(4500)),
            ("1S", Duration::from_millis(800)),
            ("250m", Duration::from_millis(125)),
            ("1500000u", Duration::from_millis(1300)),
            ("5M", Duration::from_secs(270)),
            ("99H", LONGEST_TIMEOUT),
            ("soon", DEFAULT_TIMEOUT),
            ("", DEFAULT_TIMEOUT),
        ] {
            metadata.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(timeout(&metadata), expected, "{text}");
        }
    }
}
