//! The coordinator's clock: the time of day when it began, and from then on no jumps.

use std::time::Duration;

use tokio::time::Instant;

/// Sessions are counted in it, so that a clock that is set forward ends none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timekeeper {
    began: Instant,
    began_ms: i64,
}

impl Timekeeper {
    /// Shows `now_ms` (since 1970) now.
    pub(crate) fn starting_at(now_ms: i64) -> Self {
        Self { began: Instant::now(), began_ms: now_ms }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        let since = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.began_ms.saturating_add(since)
    }

    /// The moment at which [`Timekeeper::now_ms`] will show `at_ms`.
    pub(crate) fn at(&self, at_ms: i64) -> Instant {
        let after = u64::try_from(at_ms.saturating_sub(self.began_ms)).unwrap_or(0);
        // A moment that the platform cannot name is never; a month is as good.
        const FAR: Duration = Duration::from_secs(30 * 24 * 3_600);
        self.began.checked_add(Duration::from_millis(after)).unwrap_or_else(|| self.began + FAR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_from_where_it_began() {
        let time = Timekeeper::starting_at(5_000);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(time.now_ms(), 5_250);
        assert_eq!(time.at(6_000), Instant::now() + Duration::from_millis(750));
        assert!(time.at(0) <= Instant::now());
        assert!(time.at(i64::MAX) > Instant::now());
    }
}
