//! One connection. Requests are begun in their order and answered in their order, as clients
//! of Kafka rely on. Only what Produce waits for is waited for beside the next requests: a
//! producer keeps several batches on their way.

use std::sync::Arc;
use std::time::Duration;

use baton_core::connection::ConnectionId;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::frame::{FrameError, FrameLimits, FrameReader};
use super::header;
use super::room::{Room, RoomError};
use super::service::{Answer, Call, Hangup, KafkaService};
use super::table::{API_VERSIONS, Api};
use crate::admission::{Admitted, ConnectionUse, Permit};
use crate::context::RequestContext;
use crate::net::Connection;

/// A response above this is sent before the next request is looked at, so that a client that
/// asks for much and reads little does not fill the memory.
const RESPONSE_BYTES: usize = 64 << 10;

/// What of an answer has to be taken by its client before another stall is over.
const PIECE_BYTES: usize = 64 << 10;

/// Answers that are owed when the broker stops are given within this time.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Room(RoomError),
    #[error(transparent)]
    Hangup(#[from] Hangup),
    #[error("the client does not read its answers")]
    Unread,
    #[error("the client is gone: {0}")]
    Gone(std::io::Error),
}

impl From<RoomError> for Ended {
    fn from(error: RoomError) -> Self {
        match error {
            RoomError::Frame(error) => Self::Frame(error),
            no_room @ RoomError::NoRoom(_) => Self::Room(no_room),
        }
    }
}

/// An answer in its turn.
struct Turn {
    answer: Answer,
    api: &'static Api,
    began: Instant,
    /// The request's bytes count until it is answered.
    _permit: Permit,
    /// Told when the answer is on its way.
    sent: oneshot::Sender<()>,
}

/// Serves a connection until its client goes, it does what it must not, or the broker stops.
pub(super) async fn serve(service: Arc<KafkaService>, connection: Connection, stop: CancellationToken) {
    let (peer, id) = (connection.remote_addr(), connection.id());
    let (read, write) = tokio::io::split(connection);
    let requests = usize::try_from(service.config.requests_in_flight).unwrap_or(1);
    let (turns, taken) = mpsc::channel(requests);
    let writing = write_answers(Arc::clone(&service), write, taken);
    tokio::pin!(writing);
    let reading = Reader { service: Arc::clone(&service), connection: ConnectionUse::default(), id, peer }
        .run(read, turns, &stop);
    let ended = tokio::select! {
        biased;
        written = &mut writing => written,
        read = reading => {
            // What was begun is answered.
            let patience = if stop.is_cancelled() { LAST_WORDS } else { service.stall() };
            match timeout(patience, writing).await {
                Ok(written) => read.and(written),
                Err(_) => read,
            }
        }
    };
    report(&service, peer, ended);
}

/// What a user can do something about is said; that clients go is everyday life.
fn report(service: &KafkaService, peer: Option<std::net::SocketAddr>, ended: Result<(), Ended>) {
    let listener = &*service.name;
    match ended {
        Ok(()) | Err(Ended::Gone(_) | Ended::Frame(FrameError::Io(_) | FrameError::Ended | FrameError::Idle(_))) => {
            tracing::debug!(listener, ?peer, "a client went");
        }
        Err(Ended::Hangup(why @ Hangup::Replaced(_))) => {
            tracing::info!(listener, ?peer, %why, "a connection was closed")
        }
        Err(Ended::Hangup(why @ Hangup::Unencodable(_))) => {
            tracing::error!(listener, ?peer, %why, "a connection was closed");
        }
        Err(why) => tracing::warn!(listener, ?peer, %why, "a connection was closed"),
    }
}

struct Reader {
    service: Arc<KafkaService>,
    connection: ConnectionUse,
    id: ConnectionId,
    peer: Option<std::net::SocketAddr>,
}

impl Reader {
    async fn run(
        self,
        io: impl AsyncRead + Unpin,
        turns: mpsc::Sender<Turn>,
        stop: &CancellationToken,
    ) -> Result<(), Ended> {
        let limits = FrameLimits {
            bytes_max: usize::try_from(self.service.parts.limits.frame_bytes_max).unwrap_or(usize::MAX),
            idle: Duration::from_millis(self.service.config.idle_ms),
            stall: self.service.stall(),
        };
        let mut frames = FrameReader::new(io, limits);
        loop {
            let length = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                length = frames.length() => length?,
            };
            let Some(length) = length else { return Ok(()) };
            let context = self.service.context(self.peer, &self.connection).connection_id(Some(self.id));
            let (frame, permit) = self.body(&mut frames, length, &context).await?;
            let began = Instant::now();
            // The time that it took to come is not taken from its own.
            let (api, answer) = self.begin(context.within(self.service.stall()), frame).await?;
            let large = matches!(&answer, Answer::Now(bytes) if bytes.len() > RESPONSE_BYTES);
            let (sent, was_sent) = oneshot::channel();
            if turns.send(Turn { answer, api, began, _permit: permit, sent }).await.is_err() {
                return Ok(());
            }
            if large {
                // The other end says so as well when it is gone.
                let _ = was_sent.await;
            }
        }
    }

    /// The body of a request, once the broker has room for it.
    async fn body<R: AsyncRead + Unpin>(
        &self,
        frames: &mut FrameReader<R>,
        length: usize,
        context: &RequestContext,
    ) -> Result<(Bytes, Permit), Ended> {
        let room = Room {
            bodies: &self.service.bodies,
            admission: &*self.service.parts.admission,
            context,
            patience: self.service.stall(),
            refused: &|| self.service.parts.metrics.request_refused(),
        };
        let (body, Admitted { permit, throttle }) = room.read(frames, length).await?;
        if !throttle.is_zero() {
            self.service.parts.metrics.throttled();
            sleep(throttle).await;
        }
        Ok((body, permit))
    }

    async fn begin(&self, context: RequestContext, mut frame: Bytes) -> Result<(&'static Api, Answer), Hangup> {
        let flexible = |key, version| Api::find(key).is_some_and(|api| api.layout.is_flexible(version));
        let header = header::read(&mut frame, flexible)?;
        let api = Api::find(header.key).ok_or(Hangup::UnknownApi(header.key))?;
        if !api.serves(header.version) {
            if api.key == API_VERSIONS {
                return Ok((api, super::api_versions::unsupported(header.correlation)?));
            }
            let Api { name, min, max, .. } = *api;
            return Err(Hangup::UnsupportedVersion { name, min, max, version: header.version });
        }
        let context = match &header.client_id {
            Some(client_id) => context.client_id(client_id),
            None => context,
        };
        let call = Call {
            service: Arc::clone(&self.service),
            api,
            context,
            version: header.version,
            correlation: header.correlation,
        };
        Ok((api, (api.serve)(call, frame).await?))
    }
}

async fn write_answers(
    service: Arc<KafkaService>,
    mut io: impl AsyncWrite + Unpin,
    mut turns: mpsc::Receiver<Turn>,
) -> Result<(), Ended> {
    while let Some(Turn { answer, api, began, _permit, sent }) = turns.recv().await {
        let bytes = match answer {
            Answer::Now(bytes) => bytes,
            Answer::Later(answer) => answer.await?,
            Answer::Never => Bytes::new(),
        };
        service.metrics.answered(api.name, began.elapsed());
        write(&mut io, &bytes, service.stall()).await?;
        let _ = sent.send(());
    }
    // The client sees an end rather than a reset.
    let _ = timeout(LAST_WORDS, io.shutdown()).await;
    Ok(())
}

/// Writes an answer to a client that takes a piece of it within `stall`, however long all takes.
async fn write(io: &mut (impl AsyncWrite + Unpin), bytes: &[u8], stall: Duration) -> Result<(), Ended> {
    for piece in bytes.chunks(PIECE_BYTES) {
        timeout(stall, io.write_all(piece)).await.map_err(|_| Ended::Unread)?.map_err(Ended::Gone)?;
    }
    timeout(stall, io.flush()).await.map_err(|_| Ended::Unread)?.map_err(Ended::Gone)
}

impl KafkaService {
    /// How long a connection may stand still in the middle of a request or an answer.
    fn stall(&self) -> Duration {
        Duration::from_millis(self.parts.timing.request_ms)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    const STALL: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_gets_its_answer() {
        let (mut near, mut far) = duplex(4 << 10);
        let reading = tokio::spawn(async move {
            let (mut piece, mut sum) = (vec![0; 32 << 10], 0);
            while far.read_exact(&mut piece).await.is_ok() {
                sum += piece.len();
                sleep(Duration::from_secs(1)).await;
            }
            sum
        });
        let began = Instant::now();
        write(&mut near, &vec![7; 1 << 20], STALL).await.unwrap();
        assert!(began.elapsed() > STALL * 4);
        drop(near);
        assert_eq!(reading.await.unwrap(), 1 << 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_left() {
        let (mut near, _far) = duplex(4 << 10);
        let began = Instant::now();
        assert!(matches!(write(&mut near, &vec![7; 1 << 20], STALL).await, Err(Ended::Unread)));
        assert_eq!(began.elapsed(), STALL);
    }
}
