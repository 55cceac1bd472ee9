//! placeholder

// What every source of flag data tells its environment.
pub mod source;
// LaunchDarkly as a source: its stream and its polls.
pub mod launchdarkly;
// A file of flag data as a source.
pub mod file_source;
