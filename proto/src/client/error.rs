//! Why a call failed, by what the caller can do.

use std::error::Error as _;

use tonic::{Code, Status, TimeoutExpired};

use crate::connect::ConnectError;
use crate::error::Refusal;

/// There is no way to such a control.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// The address is not one of a control.
    #[error("{address:?} {reason}; expected http://HOST:PORT or https://HOST:PORT, such as http://127.0.0.1:7400")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Authority, certificate or token cannot be used with it.
    #[error(transparent)]
    Connect(ConnectError),
}

impl InvalidAddress {
    pub(super) fn new(address: &str, reason: impl Into<String>) -> Self {
        Self::Address { address: address.to_owned(), reason: reason.into() }
    }
}

/// Why a call failed. What passes was tried again before, as [`super::Retry`] says.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Control refused it: something has to be changed first, and the reason says what.
    #[error("{refusal}")]
    Refused {
        /// The reason, in words too, and the fields at fault.
        refusal: Refusal,
        /// As it came.
        #[source]
        status: Box<Status>,
    },
    /// Control is not there, or the connection broke. Whether a change was made is not known; asking again with the same
    /// `request_id` is safe.
    #[error("cannot reach control at {control}")]
    Unreachable {
        /// Where it should be.
        control: String,
        /// What went wrong.
        #[source]
        status: Box<Status>,
    },
    /// Control did not answer in time. As with [`ClientError::Unreachable`], asking again is safe.
    #[error("control at {control} did not answer in time")]
    TimedOut {
        /// Where it is.
        control: String,
        /// What went wrong.
        #[source]
        status: Box<Status>,
    },
    /// Anything else, such as an RPC that an older control does not have.
    #[error("control at {control}: {}", status.message())]
    Failed {
        /// Where it is.
        control: String,
        /// What it said.
        #[source]
        status: Box<Status>,
    },
}

impl ClientError {
    /// What a call of control at `control` ended in.
    pub fn new(control: &str, status: Status) -> Self {
        let (control, refusal) = (control.to_owned(), Refusal::from_status(&status));
        let (is_unreachable, timed_out) = (is_broken(&status), is_out_of_time(&status));
        let status = Box::new(status);
        match refusal {
            Some(refusal) => Self::Refused { refusal, status },
            None if timed_out => Self::TimedOut { control, status },
            None if is_unreachable => Self::Unreachable { control, status },
            None => Self::Failed { control, status },
        }
    }

    /// What gRPC said.
    pub fn status(&self) -> &Status {
        match self {
            Self::Refused { status, .. }
            | Self::Unreachable { status, .. }
            | Self::TimedOut { status, .. }
            | Self::Failed { status, .. } => status,
        }
    }
}

/// Nobody is there, or the connection broke on the way.
pub(super) fn is_broken(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => true,
        Code::Unknown | Code::Internal | Code::Cancelled => status.source().is_some(),
        Code::Ok
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// The deadline passed. What was cancelled for another reason is a connection that was lost before control had the whole
/// request.
pub(super) fn is_out_of_time(status: &Status) -> bool {
    let mut causes = std::iter::successors(status.source(), |&cause| cause.source());
    match status.code() {
        Code::DeadlineExceeded => true,
        Code::Cancelled => status.source().is_none() || causes.any(<dyn std::error::Error>::is::<TimeoutExpired>),
        _ => false,
    }
}
