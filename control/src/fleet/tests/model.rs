//! A search through the states of control, two workers and a fenced store, for one in which a promise is broken.
//!
//! The fleet is the real one, and so is the judgement of a found fence. Workers are abstract: see [`writer`]. First every
//! state near some that matter, breadth first; then long random histories, each ended by healing everything.
//! `FLOTILLA_SEED=n` plays one of those histories again; `FLOTILLA_HISTORIES=n` and `FLOTILLA_TRANSITIONS=n` search longer.

// A prefix of the store.
mod place;
// One environment at a worker.
mod writer;
// A worker.
mod node;
// What can happen.
mod act;
// All of it, and what comes of that.
mod state;
// What must hold.
mod properties;
// What tells states apart.
mod digest;
// Breadth first, and at random.
mod search;

use super::*;
