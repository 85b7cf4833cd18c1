//! A rate limit: so many bytes a second, one second's worth at once.

use skerry_wire::Millis;

/// A token bucket. Its level may sink below nothing: then whoever took waits until it is paid back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes a second; at least 1.
    rate: u64,
    /// Thousandths of bytes that may be taken at once; less than nothing while a debt is paid back.
    level: i128,
    /// When that was so, in milliseconds.
    at: u64,
}

impl Pace {
    /// A full bucket of this many bytes a second.
    pub fn new(rate: u64, now: u64) -> Self {
        let rate = rate.max(1);
        Self { rate, level: i128::from(rate) * 1000, at: now }
    }

    /// Bytes were taken; how long to wait before more are.
    pub fn took(&mut self, bytes: u64, now: u64) -> Millis {
        // A clock that stands still or goes back gives nothing.
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let full = i128::from(self.rate) * 1000;
        self.level = (self.level + i128::from(self.rate) * i128::from(passed)).min(full) - i128::from(bytes) * 1000;
        let debt = u128::try_from(-self.level).unwrap_or(0);
        Millis(u64::try_from(debt.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX))
    }
}
