//! End to end: the shipped binaries, real Redis, real SDKs, and the simulator in LaunchDarkly's place.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

#[path = "e2e/sdk_readers.rs"]
mod sdk_readers;
