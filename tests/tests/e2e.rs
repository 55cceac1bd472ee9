//! End to end: the shipped binaries, real Redis, real SDKs, and the simulator in LaunchDarkly's place.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

// The operations of the Redis store on a real server: the fence table, staged loads, foreign writes.
#[path = "e2e/redis_store.rs"]
mod redis_store;
// The readers agree with each other, without Flotilla.
#[path = "e2e/sdk_readers.rs"]
mod sdk_readers;
