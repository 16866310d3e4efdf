//! Room for the bodies of requests. What has come is charged, not what a length claims, and
//! large bodies that have come in part neither lock each other nor small requests out.

use std::sync::Arc;
use std::time::Duration;

use baton_core::ErrorCode;
use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use super::frame::{FrameError, FrameReader, SMALL_BYTES};
use crate::admission::{Admission, Admitted, Demand, Permit};
use crate::authorizer::Verb;
use crate::config::LimitsConfig;
use crate::context::RequestContext;

/// How often it is tried whether there is room for a request.
const ROOM_EVERY: Duration = Duration::from_millis(5);

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("there was no room for a request for {0:?}")]
    NoRoom(Duration),
}

/// How large bodies share the bytes that requests may hold. Each takes what it needs piece by
/// piece and waits while it holds pieces, so the last part of the room is for a few that can be
/// finished there whatever the others hold.
pub(super) struct Bodies {
    /// Bytes that only small requests may take: heartbeats must not wait behind large batches.
    small: u64,
    /// Bytes of the last part, and of those for small requests.
    last: u64,
    finishing: Arc<Semaphore>,
    bytes_max: u64,
}

impl Bodies {
    pub(super) fn new(limits: &LimitsConfig) -> Self {
        let (max, frame) = (limits.in_flight_bytes_max, limits.frame_bytes_max.max(1));
        let small = (max / 16).min(max.saturating_sub(frame));
        let finishing = ((max - small) / 2 / frame).clamp(1, 1_024);
        Self {
            small,
            last: small.saturating_add(finishing.saturating_mul(frame)),
            finishing: Arc::new(Semaphore::new(usize::try_from(finishing).unwrap_or(1))),
            bytes_max: max.min(limits.connection_bytes_max),
        }
    }
}

/// Reads one body.
pub(super) struct Room<'a> {
    pub(super) bodies: &'a Bodies,
    pub(super) admission: &'a dyn Admission,
    pub(super) context: &'a RequestContext,
    /// How long it is waited for the room of one piece.
    pub(super) patience: Duration,
    /// Told once when there is no room.
    pub(super) refused: &'a (dyn Fn() + Sync),
}

impl Room<'_> {
    /// The body of a frame. Nothing more is read from the connection while there is no room, so
    /// that its client slows down; an error would end its batches.
    pub(super) async fn read<R: AsyncRead + Unpin>(
        &self,
        frames: &mut FrameReader<R>,
        length: usize,
    ) -> Result<(Bytes, Admitted), RoomError> {
        let mut body = frames.body(length);
        let mut held = Held::default();
        frames.piece(&mut body).await?;
        let small = length <= SMALL_BYTES;
        self.take(&mut held, length.min(SMALL_BYTES), small).await?;
        loop {
            let next = body.next_piece();
            if next == 0 {
                return Ok((body.freeze(), Admitted { permit: held.permit, throttle: held.throttle }));
            }
            self.take(&mut held, next, small).await?;
            frames.piece(&mut body).await?;
        }
    }

    async fn take(&self, held: &mut Held, bytes: usize, small: bool) -> Result<(), RoomError> {
        let demand = Demand { verb: Verb::Produce, topic: None, key_hash: None, bytes: bytes as u64 };
        let deadline = Instant::now() + self.patience;
        let mut refused_before = held.refused;
        let turn = Arc::clone(&self.bodies.finishing).acquire_owned();
        tokio::pin!(turn);
        loop {
            let free = match held.finishing {
                _ if small => 0,
                Some(_) => self.bodies.small,
                None => self.bodies.last,
            };
            let refused = match self.admission.admit_leaving(self.context, demand, free) {
                Ok(Admitted { permit, throttle }) => {
                    held.permit.join(permit);
                    held.throttle = held.throttle.max(throttle);
                    return Ok(());
                }
                Err(refused) => refused,
            };
            if refused.error.code == ErrorCode::FrameTooLarge {
                let max = usize::try_from(self.bodies.bytes_max).unwrap_or(usize::MAX);
                return Err(FrameError::BadLength { length: i32::try_from(bytes).unwrap_or(i32::MAX), max }.into());
            }
            if !std::mem::replace(&mut refused_before, true) {
                held.refused = true;
                (self.refused)();
            }
            if Instant::now() >= deadline {
                return Err(RoomError::NoRoom(self.patience));
            }
            tokio::select! {
                biased;
                turn = &mut turn, if !small && held.finishing.is_none() => held.finishing = turn.ok(),
                () = sleep(ROOM_EVERY) => {}
            }
        }
    }
}

/// What a body has so far.
#[derive(Default)]
struct Held {
    permit: Permit,
    throttle: Duration,
    refused: bool,
    /// It is one of those that are finished in the last part of the room.
    finishing: Option<OwnedSemaphorePermit>,
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::super::frame::FrameLimits;
    use super::*;
    use crate::admission::{ByteBudget, ByteLimits, ConnectionUse};

    const MIB: usize = 1 << 20;
    const STALL: Duration = Duration::from_secs(5);

    struct Broker {
        bodies: Bodies,
        budget: ByteBudget,
    }

    impl Broker {
        /// With room for 16 MiB, and 4 MiB for one request.
        fn new() -> Arc<Self> {
            let limits = LimitsConfig {
                frame_bytes_max: 4 * MIB as u64,
                in_flight_bytes_max: 16 * MIB as u64,
                ..LimitsConfig::default()
            };
            let max = limits.in_flight_bytes_max;
            let bounds = ByteLimits { soft: max, max, connection_max: max, throttle_max: STALL };
            Arc::new(Self { bodies: Bodies::new(&limits), budget: ByteBudget::new(bounds) })
        }

        /// Reads one frame from a connection, whose length has been read.
        async fn read(self: Arc<Self>, io: DuplexStream, length: usize) -> Result<(Bytes, Admitted), RoomError> {
            let limits = FrameLimits { bytes_max: 4 * MIB, idle: STALL, stall: STALL };
            let mut frames = FrameReader::new(io, limits);
            let context = RequestContext::new("kafka".into(), None, STALL).connection(ConnectionUse::default());
            let room = Room {
                bodies: &self.bodies,
                admission: &self.budget,
                context: &context,
                patience: STALL,
                refused: &|| {},
            };
            room.read(&mut frames, length).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn claims_take_no_room() {
        let broker = Broker::new();
        let mut claiming = Vec::new();
        for _ in 0..52 {
            let (near, mut far) = duplex(64);
            far.write_all(b"four").await.unwrap();
            claiming.push((tokio::spawn(Arc::clone(&broker).read(near, 4 * MIB)), far));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(broker.budget.bytes(), 0);
        let (near, mut far) = duplex(4 * MIB);
        far.write_all(&vec![7; 4 * MIB]).await.unwrap();
        let (body, admitted) = Arc::clone(&broker).read(near, 4 * MIB).await.unwrap();
        assert_eq!((body.len(), broker.budget.bytes()), (4 * MIB, 4 * MIB as u64));
        drop(admitted);
        for (claim, _far) in claiming {
            assert!(matches!(claim.await.unwrap(), Err(RoomError::Frame(FrameError::Stalled(_)))));
        }
        assert_eq!(broker.budget.bytes(), 0);
    }

    /// Many bodies hold the half of themselves when the room is full: all get on, one after
    /// the other, without one that has to give up.
    #[tokio::test(start_paused = true)]
    async fn bodies_do_not_lock_each_other_out() {
        let broker = Broker::new();
        let mut bodies = Vec::new();
        for _ in 0..12 {
            let (near, mut far) = duplex(64 << 10);
            tokio::spawn(async move { far.write_all(&vec![7; 4 * MIB]).await });
            let reading = Arc::clone(&broker).read(near, 4 * MIB);
            bodies.push(tokio::spawn(async move {
                let (body, _admitted) = reading.await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok::<_, RoomError>(body.len())
            }));
        }
        for body in bodies {
            assert_eq!(body.await.unwrap().unwrap(), 4 * MIB);
        }
        assert_eq!(broker.budget.bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn small_requests_do_not_wait_behind_large_ones() {
        let broker = Broker::new();
        let mut large = Vec::new();
        for _ in 0..12 {
            let (near, mut far) = duplex(4 * MIB);
            // The last byte never comes.
            far.write_all(&vec![7; 4 * MIB - 1]).await.unwrap();
            large.push((tokio::spawn(Arc::clone(&broker).read(near, 4 * MIB)), far));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(broker.budget.bytes() > 8 * MIB as u64);
        let (near, mut far) = duplex(64);
        far.write_all(b"heartbeat").await.unwrap();
        let began = Instant::now();
        Arc::clone(&broker).read(near, 9).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        for (reading, _far) in large {
            assert!(reading.await.unwrap().is_err());
        }
        assert_eq!(broker.budget.bytes(), 0);
    }
}
