//! The session's messages, to and from their wire form.

use super::{
    Assignment, ControlMessage, GoAway, Hello, Rejection, Removal, TakeOver, Update, Welcome, WorkerMessage,
};
use crate::grant::{GrantId, Malformed};
use crate::names::{Generation, Term};
use crate::secret_reference::SdkKeySource;
use crate::spec::EnvironmentSpec;
use crate::store_url::StoreUrl;
use crate::time::{duration_from_proto, duration_to_proto};
use crate::v1;
use crate::v1::session_request::Message as Up;
use crate::v1::session_response::Message as Down;

impl From<&Assignment> for v1::Assignment {
    fn from(assignment: &Assignment) -> Self {
        Self {
            environment: assignment.environment.to_string(),
            uid: assignment.uid.to_string(),
            generation: assignment.generation.0,
            grant: Some((&assignment.grant).into()),
            spec: Some((&assignment.spec).into()),
            sdk_key: assignment.sdk_key.as_ref().map(|key| key.expose().to_owned()).unwrap_or_default(),
            store_url: assignment.store_url.expose().to_owned(),
            resync: assignment.resync,
            take_over: assignment.take_over.as_ref().map(|leave| match leave {
                TakeOver::Any => v1::TakeOver { any: true, value: String::new() },
                TakeOver::Value(value) => v1::TakeOver { any: false, value: value.clone() },
            }),
            accept_regression: assignment.accept_regression,
        }
    }
}

impl TryFrom<&v1::Assignment> for Assignment {
    type Error = Rejection;

    fn try_from(message: &v1::Assignment) -> Result<Self, Rejection> {
        let reject = |why: String| Rejection {
            environment: message.environment.clone(),
            uid: message.uid.clone(),
            generation: Generation(message.generation),
            message: why,
        };
        let missing = |what: &str| reject(format!("{what} is missing"));
        let grant = message.grant.as_ref().ok_or_else(|| missing("the grant"))?;
        let spec = message.spec.as_ref().ok_or_else(|| missing("the spec"))?;
        let violations = |violations: Vec<crate::FieldViolation>| {
            reject(violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        };
        let one = |violation: crate::FieldViolation| reject(violation.to_string());
        Ok(Self {
            environment: message
                .environment
                .parse()
                .map_err(|error: crate::InvalidName| reject(error.to_string()))?,
            uid: message.uid.parse().map_err(|error: crate::InvalidName| reject(error.to_string()))?,
            generation: Generation(message.generation),
            grant: grant.try_into().map_err(|error: Malformed| reject(error.to_string()))?,
            spec: EnvironmentSpec::parse(spec, "spec").map_err(violations)?,
            sdk_key: match message.sdk_key.as_str() {
                "" => None,
                key => Some(SdkKeySource::parse("sdk_key", key).map_err(one)?),
            },
            store_url: StoreUrl::parse("store_url", &message.store_url).map_err(one)?,
            resync: message.resync,
            take_over: message.take_over.as_ref().map(|leave| match leave {
                v1::TakeOver { any: true, .. } => TakeOver::Any,
                v1::TakeOver { any: false, value } => TakeOver::Value(value.clone()),
            }),
            accept_regression: message.accept_regression,
        })
    }
}

impl From<&WorkerMessage> for v1::SessionRequest {
    fn from(message: &WorkerMessage) -> Self {
        let message = match message {
            WorkerMessage::Hello(hello) => Up::Hello(v1::Hello {
                worker: hello.worker.to_string(),
                incarnation: Some((&hello.incarnation).into()),
                version: hello.version.clone(),
                capacity: hello.capacity.unwrap_or_default(),
                labels: hello.labels.clone(),
                held: hello.held.iter().map(Into::into).collect(),
                highest_term: hello.highest_term.0,
                fleet_id: hello.fleet.as_ref().map(ToString::to_string).unwrap_or_default(),
            }),
            WorkerMessage::Ack { nonce } => Up::Ack(v1::Ack { nonce: *nonce }),
            WorkerMessage::Nack { nonce, rejections } => Up::Nack(v1::Nack {
                nonce: *nonce,
                rejections: rejections.iter().map(rejection_to_proto).collect(),
            }),
            WorkerMessage::Report(reports) => {
                Up::Report(v1::Report { environments: reports.iter().map(Into::into).collect() })
            }
            WorkerMessage::Heartbeat => Up::Heartbeat(v1::Heartbeat {}),
            WorkerMessage::Confirm { id, grants } => {
                Up::Confirm(v1::Confirm { id: *id, grants: grants.iter().map(Into::into).collect() })
            }
            WorkerMessage::Draining { deadline } => {
                Up::Draining(v1::Draining { deadline: Some(duration_to_proto(*deadline)) })
            }
            WorkerMessage::Reply { id, answer } => Up::Reply(v1::Reply { id: *id, answer: Some(answer.clone()) }),
            WorkerMessage::Goodbye => Up::Goodbye(v1::Goodbye {}),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<v1::SessionRequest> for WorkerMessage {
    type Error = Malformed;

    fn try_from(message: v1::SessionRequest) -> Result<Self, Malformed> {
        Ok(match message.message.ok_or(Malformed("message"))? {
            Up::Hello(hello) => Self::Hello(hello.try_into()?),
            Up::Ack(ack) => Self::Ack { nonce: ack.nonce },
            Up::Nack(nack) => Self::Nack {
                nonce: nack.nonce,
                rejections: nack.rejections.into_iter().map(rejection_from_proto).collect(),
            },
            Up::Report(report) => {
                Self::Report(report.environments.iter().map(TryInto::try_into).collect::<Result<_, _>>()?)
            }
            Up::Heartbeat(v1::Heartbeat {}) => Self::Heartbeat,
            Up::Confirm(confirm) => {
                let grants = confirm.grants.iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
                Self::Confirm { id: confirm.id, grants }
            }
            Up::Draining(draining) => {
                let deadline = draining
                    .deadline
                    .as_ref()
                    .and_then(duration_from_proto)
                    .ok_or(Malformed("draining.deadline"))?;
                Self::Draining { deadline }
            }
            Up::Reply(reply) => {
                Self::Reply { id: reply.id, answer: reply.answer.ok_or(Malformed("reply.answer"))? }
            }
            Up::Goodbye(v1::Goodbye {}) => Self::Goodbye,
        })
    }
}

impl TryFrom<v1::Hello> for Hello {
    type Error = Malformed;

    fn try_from(message: v1::Hello) -> Result<Self, Malformed> {
        Ok(Self {
            worker: message.worker.parse().map_err(|_| Malformed("hello.worker"))?,
            incarnation: message.incarnation.as_ref().ok_or(Malformed("hello.incarnation"))?.try_into()?,
            version: message.version,
            capacity: Some(message.capacity).filter(|capacity| *capacity != 0),
            labels: message.labels,
            held: message.held.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            highest_term: Term(message.highest_term),
            fleet: match message.fleet_id.as_str() {
                "" => None,
                id => Some(id.parse().map_err(|_| Malformed("hello.fleet_id"))?),
            },
        })
    }
}

impl From<&ControlMessage> for v1::SessionResponse {
    fn from(message: &ControlMessage) -> Self {
        let message = match message {
            ControlMessage::Welcome(welcome) => Down::Welcome(v1::Welcome {
                fleet_id: welcome.fleet.to_string(),
                term: welcome.term.0,
                heartbeat_interval: Some(duration_to_proto(welcome.heartbeat_interval)),
                lease_duration: Some(duration_to_proto(welcome.lease_duration)),
            }),
            ControlMessage::Update(update) => Down::Update(v1::Update {
                nonce: update.nonce,
                assignments: update
                    .assignments
                    .iter()
                    .filter_map(|assignment| assignment.as_ref().ok())
                    .map(Into::into)
                    .collect(),
                removals: update
                    .removals
                    .iter()
                    .map(|removal| v1::Removal {
                        environment: removal.environment.to_string(),
                        uid: removal.uid.to_string(),
                    })
                    .collect(),
            }),
            ControlMessage::InitialStateComplete => Down::InitialStateComplete(v1::InitialStateComplete {}),
            ControlMessage::Confirmed { id, grants } => Down::Confirmed(v1::Confirmed {
                id: *id,
                grant_ids: grants.iter().map(ToString::to_string).collect(),
            }),
            ControlMessage::HeartbeatReply => Down::HeartbeatReply(v1::HeartbeatReply {}),
            ControlMessage::NothingMoves => Down::NothingMoves(v1::NothingMoves {}),
            ControlMessage::Request { id, deadline, question } => Down::Request(v1::Request {
                id: *id,
                deadline: Some(duration_to_proto(*deadline)),
                question: Some(question.clone()),
            }),
            ControlMessage::GoAway { reason, message } => {
                Down::GoAway(v1::GoAway { reason: reason.as_str().to_owned(), message: message.clone() })
            }
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<v1::SessionResponse> for ControlMessage {
    type Error = Malformed;

    fn try_from(message: v1::SessionResponse) -> Result<Self, Malformed> {
        Ok(match message.message.ok_or(Malformed("message"))? {
            Down::Welcome(welcome) => Self::Welcome(Welcome {
                fleet: welcome.fleet_id.parse().map_err(|_| Malformed("welcome.fleet_id"))?,
                term: Term(welcome.term),
                heartbeat_interval: welcome
                    .heartbeat_interval
                    .as_ref()
                    .and_then(duration_from_proto)
                    .ok_or(Malformed("welcome.heartbeat_interval"))?,
                lease_duration: welcome
                    .lease_duration
                    .as_ref()
                    .and_then(duration_from_proto)
                    .ok_or(Malformed("welcome.lease_duration"))?,
            }),
            Down::Update(update) => Self::Update(Update {
                nonce: update.nonce,
                assignments: update.assignments.iter().map(TryInto::try_into).collect(),
                removals: update.removals.iter().map(removal_from_proto).collect::<Result<_, _>>()?,
            }),
            Down::InitialStateComplete(v1::InitialStateComplete {}) => Self::InitialStateComplete,
            Down::Confirmed(confirmed) => {
                let grants = confirmed.grant_ids.iter().map(|id| GrantId::parse(id)).collect::<Option<_>>();
                Self::Confirmed { id: confirmed.id, grants: grants.ok_or(Malformed("confirmed.grant_ids"))? }
            }
            Down::HeartbeatReply(v1::HeartbeatReply {}) => Self::HeartbeatReply,
            Down::NothingMoves(v1::NothingMoves {}) => Self::NothingMoves,
            Down::Request(request) => Self::Request {
                id: request.id,
                deadline: request
                    .deadline
                    .as_ref()
                    .and_then(duration_from_proto)
                    .ok_or(Malformed("request.deadline"))?,
                question: request.question.ok_or(Malformed("request.question"))?,
            },
            Down::GoAway(go_away) => Self::GoAway {
                reason: GoAway::parse(&go_away.reason).ok_or(Malformed("go_away.reason"))?,
                message: go_away.message,
            },
        })
    }
}

impl GoAway {
    const ALL: [Self; 5] =
        [Self::Superseded, Self::ShuttingDown, Self::LeaseExpired, Self::ProtocolError, Self::WrongFleet];

    fn as_str(self) -> &'static str {
        match self {
            Self::Superseded => "SUPERSEDED",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::LeaseExpired => "LEASE_EXPIRED",
            Self::ProtocolError => "PROTOCOL_ERROR",
            Self::WrongFleet => "WRONG_FLEET",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

fn removal_from_proto(message: &v1::Removal) -> Result<Removal, Malformed> {
    Ok(Removal {
        environment: message.environment.parse().map_err(|_| Malformed("removal.environment"))?,
        uid: message.uid.parse().map_err(|_| Malformed("removal.uid"))?,
    })
}

fn rejection_to_proto(rejection: &Rejection) -> v1::Rejection {
    v1::Rejection {
        environment: rejection.environment.clone(),
        uid: rejection.uid.clone(),
        generation: rejection.generation.0,
        message: rejection.message.clone(),
    }
}

fn rejection_from_proto(message: v1::Rejection) -> Rejection {
    Rejection {
        environment: message.environment,
        uid: message.uid,
        generation: Generation(message.generation),
        message: message.message,
    }
}
