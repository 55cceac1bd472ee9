//! placeholder

/// The pure heart.
pub mod fleet;
