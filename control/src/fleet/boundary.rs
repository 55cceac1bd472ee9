//! What goes into the fleet and what comes out of it: closed sets of inputs and effects.
//!
//! `Fleet::step(now, input) -> Vec<Effect>`. The driver persists the step's [`Change`]s first, in one transaction
//! (several steps may share one), and only then carries out the other effects. Every effect is safe to repeat.

use std::time::Duration;

use flotilla_proto::session::{ControlMessage, Hello, TakeOver, WorkerMessage};
use flotilla_proto::store_url::StoreEndpoint;
use flotilla_proto::{
    EnvironmentName, EnvironmentSpec, Epoch, FieldViolation, Generation, Grant, GrantId, Prefix, Refusal,
    SdkKeySource, StoreName, StoreUrl, Term, Timestamp, Uid, WorkerName,
};

use super::apply::Batch;
use super::event::{EventRecord, Note};
use crate::audit::AuditRecord;

/// Names a command between the driver and the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CommandId(pub u64);

/// Names a session between the driver and the fleet. Never reused within a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub u64);

/// What the fleet is told.
#[expect(clippy::large_enum_variant, reason = "one at a time exists, and a box would be opened at once")]
#[derive(Debug)]
pub(crate) enum Input {
    /// A program or user asks for something; answered by one [`Effect::Reply`], perhaps later.
    Command { id: CommandId, command: Command },
    /// The caller of a command is no longer there: nobody waits for its reply.
    CommandAbandoned { id: CommandId },
    /// A worker connected and said hello.
    SessionOpened { session: SessionId, address: String, hello: Hello },
    /// A worker said something.
    SessionMessage { session: SessionId, message: WorkerMessage },
    /// A session's connection is gone.
    SessionClosed { session: SessionId },
    /// Time passed. Sent at least every 250 ms.
    Tick,
}

/// What programs and users ask for.
#[expect(clippy::large_enum_variant, reason = "one at a time exists, and a box would be opened at once")]
#[derive(Debug)]
pub(crate) enum Command {
    /// A change of an environment.
    Mutate(Mutation),
    /// What many environments shall be.
    Apply(Batch),
    /// Whether a worker takes part.
    Worker(WorkerCommand),
    /// A store comes, goes, or is reached in another way.
    Store(StoreCommand),
    /// A worker is to look a store over.
    CheckStore(StoreCheck),
    /// A question to the worker that serves the environment.
    Ask { environment: EnvironmentName, question: flotilla_proto::session::Question, timeout: Duration },
}

/// What users decide about a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkerCommand {
    /// The worker.
    pub(crate) worker: WorkerName,
    /// What to do.
    pub(crate) action: WorkerAction,
    /// Check everything, change nothing.
    pub(crate) validate_only: bool,
}

/// What users decide about a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerAction {
    /// It shall be scheduled so.
    Schedule(Scheduling),
    /// It will not come back: forget it.
    Forget,
}

/// What users decide about a store.
#[derive(Debug)]
pub(crate) struct StoreCommand {
    /// The store.
    pub(crate) store: StoreName,
    /// What to do.
    pub(crate) action: StoreAction,
    /// Makes a retry safe: the id, and a digest of the whole request.
    pub(crate) request: Option<RequestId>,
    /// Check everything, change nothing.
    pub(crate) validate_only: bool,
}

/// What users decide about a store.
#[derive(Debug)]
pub(crate) enum StoreAction {
    /// It is there.
    Create(Box<StoreUrl>),
    /// It is reached in another way.
    Update(StoreChange),
    /// It is no more.
    Delete,
}

/// Who is to look a store over, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreCheck {
    /// The store.
    pub(crate) store: StoreName,
    /// The worker; `None`: any that is connected.
    pub(crate) worker: Option<WorkerName>,
    /// The prefix to write under; `None`: that of an environment there, or one that nobody has.
    pub(crate) prefix: Option<Prefix>,
    /// How long it may take.
    pub(crate) timeout: Duration,
}

/// What a request was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// An environment.
    Environment(EnvironmentName),
    /// A store.
    Store(StoreName),
    /// Many environments.
    Batch,
}

/// Whether a worker is given environments, as users said. Nothing but a user changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheduling {
    /// It is.
    Active,
    /// It keeps what it has, and gets no more.
    Cordoned,
    /// What it has moves away, and it gets no more.
    Draining,
}

impl Scheduling {
    /// As a message.
    pub(super) fn to_proto(self) -> flotilla_proto::v1::WorkerScheduling {
        match self {
            Self::Active => flotilla_proto::v1::WorkerScheduling::Active,
            Self::Cordoned => flotilla_proto::v1::WorkerScheduling::Cordoned,
            Self::Draining => flotilla_proto::v1::WorkerScheduling::Draining,
        }
    }
}

/// A change of one environment.
#[derive(Debug)]
pub(crate) struct Mutation {
    /// The environment's name.
    pub(crate) environment: EnvironmentName,
    /// What to change.
    pub(crate) action: Action,
    /// Only if it still has this etag.
    pub(crate) etag: Option<String>,
    /// Makes a retry safe: the id, and a digest of the whole request.
    pub(crate) request: Option<RequestId>,
    /// Check everything, change nothing.
    pub(crate) validate_only: bool,
}

/// A caller's request id and the digest of what was asked under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId {
    /// The caller's id, 1 to 128 characters.
    pub(crate) id: String,
    /// SHA-256 of the request's kind and body, in hex.
    pub(crate) digest: String,
}

/// What to change in an environment.
#[expect(clippy::large_enum_variant, reason = "one at a time exists, and a box would be opened at once")]
#[derive(Debug)]
pub(crate) enum Action {
    /// Add it. `uid` is a fresh random one.
    Create { uid: Uid, spec: EnvironmentSpec, sdk_key: Option<SdkKeySource>, claim: Claim },
    /// Remove it.
    Delete(RemovalRequest),
    /// Change it. Not possible while it is being removed.
    Edit(Edit),
}

/// What to do with a foreign fence under the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Leave it, and show the conflict.
    Respect,
    /// Overwrite it, once.
    TakeOver,
}

/// What to do with what LaunchDarkly's next payload takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Regression {
    /// Doubt it, until it says so again.
    Doubt,
    /// Believe it.
    Accept,
}

/// How an environment shall be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RemovalRequest {
    /// Its worker gives the prefix up; the data stays.
    Release,
    /// Its worker deletes the data and gives the prefix up.
    Purge,
    /// It is forgotten at once, and its data not touched.
    Abandon,
}

/// A change of an environment that goes on.
#[derive(Debug)]
pub(crate) enum Edit {
    /// Apply a partial change to its spec.
    Update { change: SpecChange, sdk_key: Option<SdkKeySource> },
    /// Stop streaming and writing.
    Pause,
    /// Take streaming and writing up again.
    Resume,
    /// Connect anew and compare in full.
    Resync { claim: Claim, regression: Regression },
    /// Replace the SDK key.
    RotateSdkKey { sdk_key: SdkKeySource, proof: Proof },
}

/// Whether a new SDK key is tried before it replaces the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// It is, unless the old one is refused anyway.
    Required,
    /// It is in force at once.
    Skipped,
}

impl Action {
    /// One word for it, for the log.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Delete(_) => "delete",
            Self::Edit(Edit::Update { .. }) => "update",
            Self::Edit(Edit::Pause) => "pause",
            Self::Edit(Edit::Resume) => "resume",
            Self::Edit(Edit::Resync { .. }) => "resync",
            Self::Edit(Edit::RotateSdkKey { .. }) => "rotate",
        }
    }
}

impl From<Edit> for Action {
    fn from(edit: Edit) -> Self {
        Self::Edit(edit)
    }
}

/// Makes the new spec from the present one, or says which fields are wrong.
pub(crate) type SpecFunction = dyn FnOnce(&EnvironmentSpec) -> Result<EnvironmentSpec, Vec<FieldViolation>> + Send;

/// A change of a spec, given as a function of the present one.
pub(crate) struct SpecChange(pub Box<SpecFunction>);

impl std::fmt::Debug for SpecChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SpecChange")
    }
}

/// Makes the new URL from the present one, or says what is wrong with it.
pub(crate) type UrlFunction = dyn FnOnce(&StoreUrl) -> Result<StoreUrl, FieldViolation> + Send;

/// A change of how a store is reached, given as a function of the present URL.
pub(crate) struct StoreChange(pub Box<UrlFunction>);

impl std::fmt::Debug for StoreChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreChange")
    }
}

/// What the fleet wants done.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    /// Make this durable before any other effect of the step.
    Persist(Change),
    /// Answer a command.
    Reply { id: CommandId, result: Result<Reply, Refusal> },
    /// Say this to a worker.
    Send { session: SessionId, message: ControlMessage },
    /// Refuse a session that said hello, or end one, with this status.
    Refuse { session: SessionId, refusal: Refusal },
    /// End a session after what was sent.
    Close { session: SessionId },
    /// This environment's public view changed (not only counters or times): tell the watchers.
    EnvironmentChanged { environment: EnvironmentName },
    /// This environment is gone: tell the watchers.
    EnvironmentRemoved { environment: EnvironmentName, uid: Uid },
    /// This worker's public view changed (not only bytes or times): tell the watchers.
    WorkerChanged { worker: WorkerName },
    /// This worker is forgotten: tell the watchers.
    WorkerRemoved { worker: WorkerName },
    /// Something that operators ask about afterwards: for the log, and for the history of events.
    Note(Note),
}

/// The answer to a command that was not refused.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// The environment after the change; `None` when it is gone (deleted, abandoned).
    Environment(Option<Box<flotilla_proto::v1::Environment>>),
    /// The worker after the change; `None` when it is forgotten.
    Worker(Option<Box<flotilla_proto::v1::Worker>>),
    /// The store after the change; `None` when it is removed.
    Store(Option<Box<flotilla_proto::v1::Store>>),
    /// What became of many environments.
    Applied(Box<flotilla_proto::v1::BatchApplyEnvironmentsResponse>),
    /// What the worker answered.
    Answer(flotilla_proto::session::Answer),
    /// What a worker found in a store.
    Checked(flotilla_proto::v1::CheckStoreResponse),
}

/// A durable change. Each replaces what is stored under its key.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// An environment's record.
    PutEnvironment(Box<EnvironmentRecord>),
    /// No such environment any more.
    DeleteEnvironment { environment: EnvironmentName },
    /// The highest epoch ever granted for a prefix of a store. Survives the environment.
    PutEpoch { store: StoreName, prefix: Prefix, epoch: Epoch },
    /// A store.
    PutStore { store: StoreName, url: Box<StoreUrl> },
    /// No such store any more. What was granted there is remembered by its endpoint.
    DeleteStore { store: StoreName, endpoint: StoreEndpoint },
    /// An answered request id; forgotten after 1 h.
    PutRequest { request: RequestId, subject: Subject, at: Timestamp },
    /// Request ids older than this are forgotten.
    ForgetRequests { before: Timestamp },
    /// An environment that ended; forgotten after 7 days.
    PutEnded { uid: Uid, at: Timestamp },
    /// Ends older than this are forgotten.
    ForgetEnded { before: Timestamp },
    /// The term of control.
    PutTerm { term: Term },
    /// Whether a worker is given environments.
    PutWorker { worker: WorkerName, scheduling: Scheduling },
    /// Nothing is to be remembered of a worker.
    DeleteWorker { worker: WorkerName },
    /// Something happened. Of events only the last ones are kept.
    PutEvent(Box<EventRecord>),
    /// Somebody asked for something. Made by the driver, in the transaction of what was done.
    PutAudit(Box<AuditRecord>),
    /// Records older than this, and those that are too many, are deleted, some at a time.
    PruneAudit { before: Timestamp },
}

/// Everything that control remembers of one environment.
#[derive(Debug, Clone)]
pub(crate) struct EnvironmentRecord {
    /// The name.
    pub(crate) name: EnvironmentName,
    /// Tells it from an earlier or later one of the same name.
    pub(crate) uid: Uid,
    /// What users said.
    pub(crate) spec: EnvironmentSpec,
    /// The SDK key in force.
    pub(crate) sdk_key: Option<SdkKeySource>,
    /// A new key that is not proved yet.
    pub(crate) pending_key: Option<SdkKeySource>,
    /// How the last rotation failed; `None`: it did not, or another was asked for since.
    pub(crate) failed_rotation: Option<FailedRotation>,
    /// Whether it is paused.
    pub(crate) paused: bool,
    /// The removal under way, if there is one.
    pub(crate) removal: Option<RemovalKind>,
    /// Counts the changes of the spec (key and pause included).
    pub(crate) generation: Generation,
    /// Counts all changes by users; the etag is made of it and the uid.
    pub(crate) change_number: u64,
    /// Counts the user's resync requests.
    pub(crate) resync: u64,
    /// The last of them that said that LaunchDarkly is right, whatever its next payload takes back.
    pub(crate) accepted_resync: Option<u64>,
    /// Leave to overwrite a foreign fence, until it is spent.
    pub(crate) take_over: Option<TakeOver>,
    /// The present grant and the worker that has it. `None`: never granted, or given back.
    pub(crate) grant: Option<GrantRecord>,
    /// Who had it before a handover, until the new owner has reported serving.
    pub(crate) predecessor: Option<GrantRecord>,
    /// The epoch under which its released fence stands in the store; `None`: never granted, or served since.
    pub(crate) released: Option<Epoch>,
    /// When it was created.
    pub(crate) created: Timestamp,
    /// When a user last changed it.
    pub(crate) updated: Timestamp,
}

/// Why a new SDK key was dropped. Whoever waits for the end of a rotation must learn of it after a restart too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailedRotation {
    /// Why, for programs.
    pub(crate) reason: RotationFailure,
    /// Why, a sentence.
    pub(crate) message: String,
}

/// Why a new SDK key was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RotationFailure {
    /// It belongs to another LaunchDarkly environment.
    OtherEnvironment,
    /// It brings fewer items than the one in force.
    FewerItems,
    /// LaunchDarkly refused it.
    KeyRejected,
}

impl RotationFailure {
    /// The reason of the condition `KeyRotation`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::OtherEnvironment => "OtherEnvironment",
            Self::FewerItems => "FewerItems",
            Self::KeyRejected => "KeyRejected",
        }
    }
}

/// How an environment is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RemovalKind {
    /// The data stays; the released fence is put.
    Release,
    /// The data goes.
    Purge,
}

/// A grant and its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GrantRecord {
    /// The worker.
    pub(crate) worker: WorkerName,
    /// What it was granted.
    pub(crate) grant: Grant,
}

/// What control finds in its store at start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remembered {
    /// All environments.
    pub(crate) environments: Vec<EnvironmentRecord>,
    /// The highest epochs, by store and prefix.
    pub(crate) epochs: Vec<(StoreName, Prefix, Epoch)>,
    /// The same of stores that were removed.
    pub(crate) former_epochs: Vec<(StoreEndpoint, Prefix, Epoch)>,
    /// All stores.
    pub(crate) stores: Vec<(StoreName, StoreUrl)>,
    /// Request ids of the last hour.
    pub(crate) requests: Vec<(RequestId, Subject, Timestamp)>,
    /// Environments that ended in the last 7 days.
    pub(crate) ended: Vec<(Uid, Timestamp)>,
    /// Workers that users have cordoned or drained.
    pub(crate) workers: Vec<(WorkerName, Scheduling)>,
    /// The last events, oldest first.
    pub(crate) events: Vec<EventRecord>,
}

/// Makes grant ids that are unique across controls that share a cloned database: `<random of this start>-<number>`.
#[derive(Debug, Clone)]
pub(crate) struct GrantIds {
    /// Random text of this start, 1 to 32 characters of `[A-Za-z0-9]`.
    pub(crate) start: String,
    /// The last number given.
    pub(crate) last: u64,
}

impl GrantIds {
    /// Whether it was this start of control that gave an id.
    pub(crate) fn gave(&self, id: &GrantId) -> bool {
        id.as_str().strip_prefix(&self.start).is_some_and(|rest| rest.starts_with('-'))
    }

    /// The next id.
    pub(crate) fn next_id(&mut self) -> GrantId {
        self.last += 1;
        GrantId::parse(&format!("{}-{}", self.start, self.last)).expect("letters, digits and '-', shorter than 64")
    }
}
