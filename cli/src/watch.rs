//! Follows environments: a snapshot, then every change, across lost connections and restarts of control.

// What the messages of a watch mean: pure.
mod cursor;
// The stream itself.
mod stream;

pub(crate) use cursor::{Departure, Event};
pub(crate) use stream::{EnvironmentWatch, is_transient};
