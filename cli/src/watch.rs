//! Watches across lost connections and restarts of control; of environments: a snapshot, then every change.

// What the messages of a watch mean: pure.
mod cursor;
// The streams themselves.
mod stream;

pub(crate) use cursor::{Departure, Event};
pub(crate) use stream::{Broken, EnvironmentWatch, Messages};
