//! How much work a broker takes on. Every request passes here before it costs memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baton_core::{Error, ErrorCode};

use crate::authorizer::Verb;
use crate::context::RequestContext;

/// What a request is about to use.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    pub verb: Verb,
    pub topic: Option<&'a str>,
    /// The hash of the key that the request is about, where it is about one.
    pub key_hash: Option<u64>,
    /// Bytes that it holds in the broker until it is answered.
    pub bytes: u64,
}

/// A request was let in. Its bytes count until the permit is dropped.
#[derive(Debug)]
pub struct Admitted {
    pub permit: Permit,
    /// What the answer tells the client to wait before its next request; zero is nothing.
    pub throttle: Duration,
}

/// A request was not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `THROTTLED`, or `FRAME_TOO_LARGE` for what can never be let in.
    pub error: Error,
    /// When to try again.
    pub throttle: Duration,
}

/// Decides whether a request is let in now.
pub trait Admission: Send + Sync + 'static {
    /// # Errors
    /// [`Refused`], with the time to wait.
    fn admit(&self, context: &RequestContext, demand: Demand<'_>) -> Result<Admitted, Refused> {
        self.admit_leaving(context, demand, 0)
    }

    /// The same, if so many bytes of the whole bound stay free for others.
    ///
    /// # Errors
    /// [`Refused`], with the time to wait.
    fn admit_leaving(&self, context: &RequestContext, demand: Demand<'_>, free: u64) -> Result<Admitted, Refused>;
}

/// What one connection has in the broker; clones share it. A listener makes one for each
/// connection and hands it on in every [`RequestContext`].
#[derive(Clone, Debug, Default)]
pub struct ConnectionUse(Counted);

impl ConnectionUse {
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

/// Bytes that are in use now.
#[derive(Clone, Debug, Default)]
struct Counted(Arc<AtomicU64>);

impl Counted {
    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes `bytes` if the sum stays within `max`; the sum before them.
    fn take(&self, bytes: u64, max: u64) -> Result<u64, u64> {
        let sum = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= max);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum)
    }

    fn give_back(&self, bytes: u64) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The bytes of one request; given back when it is dropped.
#[derive(Debug, Default)]
pub struct Permit {
    taken: Vec<(Counted, u64)>,
}

impl Permit {
    /// Takes over what another permit of the same request holds.
    pub fn join(&mut self, mut other: Self) {
        for (counted, bytes) in std::mem::take(&mut other.taken) {
            match self.taken.iter_mut().find(|(mine, _)| Arc::ptr_eq(&mine.0, &counted.0)) {
                Some((_, sum)) => *sum += bytes,
                None => self.taken.push((counted, bytes)),
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        for (counted, bytes) in &self.taken {
            counted.give_back(*bytes);
        }
    }
}

/// The bounds of a [`ByteBudget`]: `soft ≤ max`, and both `max` and `connection_max` hold
/// the largest request (the configuration sees to it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteLimits {
    /// Above it, clients are told to wait.
    pub soft: u64,
    /// Above it, requests are refused.
    pub max: u64,
    /// The same for one connection.
    pub connection_max: u64,
    pub throttle_max: Duration,
}

/// Bounds the bytes of all requests in the broker, and those of each connection, so that one
/// client cannot take everything.
#[derive(Debug)]
pub struct ByteBudget {
    limits: ByteLimits,
    used: Counted,
}

impl ByteBudget {
    #[must_use]
    pub fn new(limits: ByteLimits) -> Self {
        Self { limits, used: Counted::default() }
    }

    /// Bytes of the requests in the broker.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.used.bytes()
    }

    /// Nothing at the soft limit, the whole time at the hard one, and evenly in between.
    fn throttle(&self, used: u64) -> Duration {
        let ByteLimits { soft, max, throttle_max, .. } = self.limits;
        let (over, span) = (used.saturating_sub(soft), max.saturating_sub(soft));
        if over == 0 {
            return Duration::ZERO;
        }
        let whole_ms = throttle_max.as_millis();
        let ms = whole_ms * u128::from(over.min(span)) / u128::from(span.max(1));
        Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX).max(1))
    }

    fn refuse(&self, cause: String) -> Refused {
        Refused { error: Error::new(ErrorCode::Throttled, cause), throttle: self.limits.throttle_max }
    }
}

impl Admission for ByteBudget {
    fn admit_leaving(&self, context: &RequestContext, demand: Demand<'_>, free: u64) -> Result<Admitted, Refused> {
        let (bytes, limits) = (demand.bytes, self.limits);
        let fits = limits.max.min(limits.connection_max);
        if bytes > fits {
            let cause = format!("the request holds {bytes} bytes; at most {fits} are taken");
            return Err(Refused { error: Error::new(ErrorCode::FrameTooLarge, cause), throttle: Duration::ZERO });
        }
        let connection = &context.connection.0;
        if let Err(used) = connection.take(bytes, limits.connection_max) {
            let max = limits.connection_max;
            return Err(self.refuse(format!("the connection has {used} bytes in the broker; at most {max} are taken")));
        }
        // From here on the permit gives back what was taken, whatever happens.
        let mut permit = Permit { taken: vec![(connection.clone(), bytes)] };
        match self.used.take(bytes, limits.max.saturating_sub(free)) {
            Err(used) => {
                let max = limits.max;
                Err(self.refuse(format!("{used} bytes of requests are in the broker; at most {max} are taken")))
            }
            Ok(before) => {
                permit.taken.push((self.used.clone(), bytes));
                Ok(Admitted { permit, throttle: self.throttle(before + bytes) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: ByteLimits =
        ByteLimits { soft: 100, max: 200, connection_max: 150, throttle_max: Duration::from_secs(1) };

    fn connection() -> RequestContext {
        RequestContext::new(Arc::from("grpc"), None, Duration::from_secs(1))
    }

    fn produce(bytes: u64) -> Demand<'static> {
        Demand { verb: Verb::Produce, topic: Some("t"), key_hash: None, bytes }
    }

    #[test]
    fn below_the_soft_limit_nobody_waits() {
        let budget = ByteBudget::new(LIMITS);
        let admitted = budget.admit(&connection(), produce(100)).unwrap();
        assert_eq!((admitted.throttle, budget.bytes()), (Duration::ZERO, 100));
        drop(admitted);
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn above_the_soft_limit_the_wait_grows() {
        let budget = ByteBudget::new(LIMITS);
        let _held = budget.admit(&connection(), produce(100)).unwrap();
        let little = budget.admit(&connection(), produce(1)).unwrap().throttle;
        let half = budget.admit(&connection(), produce(50)).unwrap().throttle;
        let whole = budget.admit(&connection(), produce(100)).unwrap().throttle;
        assert_eq!(little, Duration::from_millis(10));
        assert_eq!(half, Duration::from_millis(500));
        assert_eq!(whole, Duration::from_secs(1));
    }

    #[test]
    fn above_the_hard_limit_requests_are_refused_until_others_end() {
        let budget = ByteBudget::new(LIMITS);
        let held = budget.admit(&connection(), produce(150)).unwrap();
        let context = connection();
        let refused = budget.admit(&context, produce(51)).unwrap_err();
        assert_eq!(refused.error.code, ErrorCode::Throttled);
        assert_eq!(refused.throttle, Duration::from_secs(1));
        assert_eq!(context.connection.bytes(), 0, "a refused request was charged to its connection");
        drop(held);
        budget.admit(&context, produce(51)).unwrap();
    }

    #[test]
    fn one_connection_cannot_take_everything() {
        let budget = ByteBudget::new(LIMITS);
        let (greedy, modest) = (connection(), connection());
        let _held = budget.admit(&greedy, produce(140)).unwrap();
        let refused = budget.admit(&greedy, produce(20)).unwrap_err();
        assert!(refused.error.cause.contains("connection"), "{refused:?}");
        budget.admit(&modest, produce(20)).unwrap();
        assert_eq!(greedy.connection.bytes(), 140);
    }

    #[test]
    fn what_can_never_fit_is_not_worth_a_retry() {
        let budget = ByteBudget::new(LIMITS);
        for bytes in [151, u64::MAX] {
            let refused = budget.admit(&connection(), produce(bytes)).unwrap_err();
            assert_eq!(refused.error.code, ErrorCode::FrameTooLarge);
        }
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn what_others_need_stays_free() {
        let (budget, context) = (ByteBudget::new(LIMITS), connection());
        let mut permit = budget.admit_leaving(&context, produce(100), 90).unwrap().permit;
        let refused = budget.admit_leaving(&context, produce(11), 90).unwrap_err();
        assert_eq!(refused.error.code, ErrorCode::Throttled);
        permit.join(budget.admit_leaving(&context, produce(10), 90).unwrap().permit);
        permit.join(budget.admit(&context, produce(40)).unwrap().permit);
        assert_eq!((budget.bytes(), context.connection.bytes()), (150, 150));
        drop(permit);
        assert_eq!((budget.bytes(), context.connection.bytes()), (0, 0));
    }

    proptest! {
        /// Whatever comes and goes, the sum is that of the live permits and within the bounds.
        #[test]
        fn the_sum_is_that_of_the_live_permits(steps in prop::collection::vec((0..3_usize, 0..180_u64, any::<bool>()), 0..200)) {
            let budget = ByteBudget::new(LIMITS);
            let connections = [connection(), connection(), connection()];
            let mut live: Vec<(usize, u64, Permit)> = Vec::new();
            for (who, bytes, end) in steps {
                if end && !live.is_empty() {
                    live.remove(who % live.len());
                } else if let Ok(admitted) = budget.admit(&connections[who], produce(bytes)) {
                    live.push((who, bytes, admitted.permit));
                }
                prop_assert_eq!(budget.bytes(), live.iter().map(|(_, bytes, _)| bytes).sum::<u64>());
                prop_assert!(budget.bytes() <= LIMITS.max);
                for (i, context) in connections.iter().enumerate() {
                    let of_it: u64 = live.iter().filter(|(who, ..)| *who == i).map(|(_, bytes, _)| bytes).sum();
                    prop_assert_eq!(context.connection.bytes(), of_it);
                    prop_assert!(of_it <= LIMITS.connection_max);
                }
            }
        }
    }
}
