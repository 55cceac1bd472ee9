//! What can be wrong with LaunchDarkly, for one environment.

use std::time::Duration;

/// How requests for an environment are answered while the fault is set. Open streams go on as they are: close
/// or mute them to reach those too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status and an empty body: 401, 503, also 204.
    Status(u16),
    /// A redirect with this status (301, 307…) to this `Location`, which may be empty.
    Redirect {
        /// The status.
        status: u16,
        /// The header's value, as given.
        location: String,
    },
    /// The request is read and the connection closed without an answer. For a refused TCP connect see
    /// `Simulator::go_away`.
    Refuse,
    /// The request is accepted and never answered.
    HalfOpen,
    /// The first payload trickles, at this many bytes a second.
    SlowPayload(u32),
    /// The stream begins, sends half of the first payload, and then nothing.
    HangMidEvent,
    /// The answer (headers and payload) comes this much later.
    Delay(Duration),
}

/// A fault, and how often it still strikes.
#[derive(Clone, Debug)]
pub(super) struct PlannedFault {
    pub(super) fault: Fault,
    /// Requests left; `None` is for ever.
    pub(super) remaining: Option<u32>,
}
