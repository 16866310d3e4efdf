//! The topics of one request, some at a time and all within the request's own time.

use std::time::Duration;

use baton_core::{Error, ErrorCode};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Refusal;

/// Topics of one request that the coordinator is asked about at once.
const AT_ONCE: usize = 16;

/// Who may ask, and until when.
pub(super) struct Turns {
    deadline: Instant,
    free: Semaphore,
}

impl Turns {
    /// Everything has to be over `within` this time.
    pub(super) fn new(within: Duration) -> Self {
        Self { deadline: Instant::now() + within, free: Semaphore::new(AT_ONCE) }
    }

    /// Does something once it is its turn, and tells it how much time is left.
    ///
    /// # Errors
    /// `REQUEST_TIMED_OUT` if none was left; else what the action says.
    pub(super) async fn run<T, F>(&self, action: impl FnOnce(Duration) -> F) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Refusal>>,
    {
        let late = || Error::new(ErrorCode::RequestTimedOut, "the time of the request was over before its turn came");
        // The semaphore is never closed.
        let turn = tokio::time::timeout_at(self.deadline, self.free.acquire()).await;
        let _turn = turn.map_err(|_| late())?;
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(late().into()),
            left => action(left).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_are_done_in_the_time_of_the_request() {
        let (turns, running, most) = (Turns::new(Duration::from_secs(10)), AtomicUsize::new(0), AtomicUsize::new(0));
        let began = Instant::now();
        let one = |_| {
            turns.run(|left| {
                let (running, most) = (&running, &most);
                async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let slow = Duration::from_secs(3);
                    tokio::time::sleep(slow.min(left)).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    if left < slow { Err(Refusal::invalid("not in time")) } else { Ok(()) }
                }
            })
        };
        let results = join_all((0..100).map(one)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(10), "one deadline for all of them");
        assert_eq!(most.into_inner(), AT_ONCE);
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3 * AT_ONCE);
        let timed_out = ErrorCode::RequestTimedOut.kafka();
        let late = results.iter().filter(|result| result.as_ref().is_err_and(|refusal| refusal.code == timed_out));
        assert_eq!(late.count(), 100 - 4 * AT_ONCE, "what had no turn was not begun");
    }
}
