//! Where a process takes its random numbers from.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// A source of random numbers: the system's, or, in a simulation, one that gives the same ones again.
#[derive(Clone)]
pub struct Chance(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Chance {
    /// The system's. Should it fail, the numbers are merely less spread.
    pub fn system() -> Self {
        Self::from_fn(|| getrandom::u64().unwrap_or(u64::MAX / 2))
    }

    /// Another one.
    pub fn from_fn(next: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(next))
    }

    /// The next number.
    pub fn u64(&self) -> u64 {
        (self.0)()
    }

    /// The next number, 32 bits of it.
    pub fn u32(&self) -> u32 {
        u32::try_from(self.u64() >> 32).expect("32 bits are left")
    }

    /// A fresh random id.
    pub fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes((u128::from(self.u64()) << 64 | u128::from(self.u64())).to_be_bytes())
            .into_uuid()
    }
}

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chance")
    }
}
