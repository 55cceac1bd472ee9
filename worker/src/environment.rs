//! One environment on this worker: a pure state machine, and the task that drives it.
//!
//! [`EnvironmentHandle::start`] runs the task; the supervisor talks to it through [`EnvironmentInput`] and hears
//! [`EnvironmentUpdate`]s. Within: `machine` decides, `task` does.

// Decides: what to ask of the source and the store, and what the status is.
mod machine;
// Decides about the store: claim, compare, write, settle.
mod writer;
// Answers control's questions about one environment.
mod questions;
// Does: the task that drives the machine.
mod task;
// How LaunchDarkly is reached.
mod settings;
// When what has been quiet is packed.
mod packing;
// How long changes are on their way.
mod propagation;
// What the log is told of an environment.
mod log;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::process::{Chance, Clock};
use flotilla_proto::session::{Answer, Assignment, Question};
use flotilla_proto::{EnvironmentName, EnvironmentReport, FleetId, HeldGrant, Incarnation, Timestamp};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::launchdarkly::Sources;
use crate::metrics::Metrics;
use crate::store::{OpenStore, StoreError};

/// What all environments of a worker share.
#[derive(Debug)]
pub struct EnvironmentContext {
    /// The clock of the process.
    pub clock: Clock,
    /// Its random numbers.
    pub chance: Chance,
    /// The fleet, known since the first welcome or from the cache.
    pub fleet: FleetId,
    /// This run of the worker.
    pub incarnation: Incarnation,
    /// Where stores come from.
    pub stores: Arc<dyn OpenStore>,
    /// Where sources come from.
    pub sources: Arc<dyn Sources>,
    /// Where file sources may read; `None`: nowhere.
    pub file_source_dir: Option<PathBuf>,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// One environment at a time packs what has been quiet.
    pub packing: Arc<Semaphore>,
}

/// What an environment is told.
#[derive(Debug)]
pub enum EnvironmentInput {
    /// A new grant, spec, key or resync number. The uid is the same.
    Assigned(Box<Assignment>),
    /// Control's answer to [`EnvironmentUpdate::Confirm`].
    Confirmed {
        /// Whether the grant is still ours.
        valid: bool,
    },
    /// Control came or went.
    Control(ControlState),
    /// A question from control.
    Ask {
        /// The question.
        question: Question,
        /// How long an answer is of use.
        deadline: Duration,
        /// Takes the answer.
        answer: oneshot::Sender<Answer>,
    },
}

/// What an environment needs to know about control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlState {
    /// Whether a session is alive.
    pub connected: bool,
    /// The lease that control gave at the last welcome.
    pub lease: Duration,
    /// When control last said that the assignments stand.
    pub confirmed_at: Timestamp,
}

/// What an environment says.
#[derive(Debug)]
pub enum EnvironmentUpdate {
    /// Its status changed.
    Report(Box<EnvironmentReport>),
    /// Ask control whether this grant is still ours; ask again at a reconnect. Answered by [`EnvironmentInput::Confirmed`].
    Confirm(HeldGrant),
}

/// How many inputs may wait for an environment.
const INPUT_QUEUE: usize = 16;

/// A running environment. Dropping it ends its task at once; nothing is lost by that, for the store is fenced.
#[derive(Debug)]
pub struct EnvironmentHandle {
    inputs: mpsc::Sender<EnvironmentInput>,
    /// The one task, which is aborted when this is dropped.
    task: JoinSet<()>,
}

impl EnvironmentHandle {
    /// Starts an environment. `first_write_number` is above every number that an earlier task of this process may have
    /// used for the environment. `ended` is dropped when the task ends, also by a fault of its own. An error names what
    /// makes the store's URL unusable.
    pub fn start(
        assignment: Assignment,
        context: Arc<EnvironmentContext>,
        control: ControlState,
        updates: mpsc::Sender<(EnvironmentName, EnvironmentUpdate)>,
        first_write_number: u64,
        ended: oneshot::Sender<Infallible>,
    ) -> Result<Self, StoreError> {
        let (inputs, receiver) = mpsc::channel(INPUT_QUEUE);
        let running = task::prepare(assignment, context, control, receiver, updates, first_write_number)?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            let _ended = ended;
            running.await;
        });
        Ok(Self { inputs, task })
    }

    /// Tells it something; waits while its queue is full. Without effect when the task has ended.
    pub async fn tell(&self, input: EnvironmentInput) {
        // A closed queue means that the task has failed. Its owner knows, and starts another with the present state.
        let _ = self.inputs.send(input).await;
    }

    /// Stops it after the store operation under way, which is given 1.5 s.
    pub async fn stop(self) {
        let Self { inputs, mut task } = self;
        drop(inputs);
        if let Some(Err(error)) = task.join_next().await {
            tracing::error!(%error, "an environment's task failed");
        }
    }
}
