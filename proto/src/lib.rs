//! The `flotilla.v1` API: generated code, the domain's own types, conversion both ways, and the error model.
//!
//! What arrives from outside is parsed here, once, into types that cannot be wrong: [`EnvironmentName`], [`Prefix`],
//! [`EnvironmentSpec`], [`Grant`] and the like. This crate does no I/O, but for the features `server`, which holds what
//! the programs share of the world around them, and `client`, for programs that call control. Feature `manifest` is the
//! format of files.
//!
//! Start reading at [`spec`] (what users say), then [`grant`] (who may write), then [`session`] (what control and
//! workers tell each other).

// Identifiers, each with its own type.
pub mod names;
// Values that are never printed.
pub mod secret;
// Secrets that only workers read.
pub mod secret_reference;
// Where a store is, and how one gets in.
pub mod store_url;
// Instants, for hearts that read no clock.
pub mod time;
// What users say about an environment.
pub mod spec;
// The right to write an environment, and who holds it.
pub mod grant;
// What workers observe of an environment.
pub mod status;
// What control and workers tell each other.
pub mod session;
// Reasons for refusals, and their way through gRPC.
pub mod error;
// Who asked for what, as documents.
pub mod audit;
// How messages are encoded and decoded.
mod codec;
// Regular files.
#[cfg(any(feature = "client", feature = "server"))]
mod files;
// Hexadecimal digits.
#[cfg(feature = "server")]
pub mod hex;
// The way to control: TLS, and who asks.
#[cfg(any(feature = "client", feature = "server"))]
pub mod connect;
// `Debug` of messages that hold secrets.
mod redact;
// Files that say what environments and stores shall be.
#[cfg(feature = "manifest")]
pub mod manifest;
// A client of control, for programs.
#[cfg(feature = "client")]
pub mod client;
// Start-up of the two servers.
#[cfg(feature = "server")]
pub mod process;
// Who may connect to the two servers, and as whom.
#[cfg(feature = "server")]
pub mod access;

pub use error::{Reason, Refusal};
pub use grant::{Epoch, Grant, GrantId, HeldGrant, Incarnation, Intent};
pub use names::{
    EnvironmentName, FleetId, Generation, InvalidName, ManagerName, Prefix, StoreName, Term, Uid, WorkerName,
};
pub use secret::SdkKey;
pub use secret_reference::{SdkKeySource, SecretReference};
pub use spec::{EnvironmentSpec, FieldViolation, Guard, Labels, Source};
pub use status::{
    Condition, ConditionStatus, EnvironmentReport, GrantState, Initialization, LastError, Marker, SourceState,
};
pub use store_url::StoreUrl;
pub use time::Timestamp;

/// The generated messages, clients and servers of package `flotilla.v1`.
#[expect(clippy::pedantic, clippy::allow_attributes, clippy::large_enum_variant, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("flotilla.v1");
}

/// The examples of `docs/embed.md` compile.
#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../../docs/embed.md")]
mod embed {}

/// The compiled descriptors of `flotilla.v1`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/flotilla.v1.bin"));
