//! Frames: four bytes of length, then so many bytes of a request. Read as they come, with a
//! deadline for every step and no room reserved for what a length merely claims.

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::time::{Instant, timeout};

/// Small requests of one connection arrive together and are read at once.
const BUFFER_BYTES: usize = 8 << 10;

/// A frame up to this is small: it is read before it is admitted. So is as much of any other.
pub const SMALL_BYTES: usize = 16 << 10;

/// Room that is reserved at most before bytes are there.
const CHUNK_BYTES: usize = 256 << 10;

/// A client that sends a frame slower than this for longer than a stall is not waited for.
const BYTES_PER_S_MIN: u64 = 64 << 10;

/// Why no further frame can be read from a connection.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the client said nothing for {0:?}")]
    Idle(Duration),
    #[error("the client stopped in the middle of a request, or was too slow, for {0:?}")]
    Stalled(Duration),
    #[error("a frame of {length} bytes; it has to be 1 to {max}")]
    BadLength { length: i32, max: usize },
    #[error("a TLS handshake on a listener without TLS: set `security.protocol=PLAINTEXT` in the client")]
    Tls,
    #[error("an HTTP request on the port of Kafka's protocol")]
    Http,
    #[error("the connection ended in the middle of a request")]
    Ended,
    #[error(transparent)]
    Io(io::Error),
}

/// What bounds the reading of one connection.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// The largest frame, without its length.
    pub bytes_max: usize,
    /// How long a client may stay silent between requests.
    pub idle: Duration,
    /// How long it may pause in the middle of one, or fall behind the least rate.
    pub stall: Duration,
}

/// Cuts a connection's bytes into frames.
pub struct FrameReader<R> {
    io: BufReader<R>,
    limits: FrameLimits,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(io: R, limits: FrameLimits) -> Self {
        Self { io: BufReader::with_capacity(BUFFER_BYTES, io), limits }
    }

    /// The length of the next frame; none at the orderly end of the connection.
    ///
    /// # Errors
    /// [`FrameError`]; nothing more can be read then.
    pub async fn length(&mut self) -> Result<Option<usize>, FrameError> {
        let FrameLimits { bytes_max, idle, stall } = self.limits;
        let mut prefix = [0; 4];
        let first = timeout(idle, self.io.read(&mut prefix)).await.map_err(|_| FrameError::Idle(idle))?;
        let mut got = first.map_err(FrameError::Io)?;
        if got == 0 {
            return Ok(None);
        }
        while got < prefix.len() {
            let read = timeout(stall, self.io.read(&mut prefix[got..])).await;
            match read.map_err(|_| FrameError::Stalled(stall))?.map_err(FrameError::Io)? {
                0 => return Err(FrameError::Ended),
                more => got += more,
            }
        }
        if let Some(other) = other_protocol(prefix) {
            return Err(other);
        }
        let length = i32::from_be_bytes(prefix);
        match usize::try_from(length) {
            Ok(bytes) if (1..=bytes_max).contains(&bytes) => Ok(Some(bytes)),
            _ => Err(FrameError::BadLength { length, max: bytes_max }),
        }
    }

    /// The next piece of a frame's bytes, after [`FrameReader::length`].
    ///
    /// # Errors
    /// [`FrameError`]; nothing more can be read then.
    pub async fn piece(&mut self, body: &mut Body) -> Result<(), FrameError> {
        let end = body.bytes.len() + body.next_piece();
        body.bytes.reserve(end - body.bytes.len());
        while body.bytes.len() < end {
            let missing = end - body.bytes.len();
            let mut room = (&mut body.bytes).limit(missing);
            let began = Instant::now();
            let read = timeout(body.patience, self.io.read_buf(&mut room)).await;
            match read.map_err(|_| FrameError::Stalled(self.limits.stall))?.map_err(FrameError::Io)? {
                0 => return Err(FrameError::Ended),
                bytes => body.came(bytes, began.elapsed(), self.limits.stall),
            }
        }
        Ok(())
    }

    /// What [`FrameReader::piece`] fills.
    #[must_use]
    pub fn body(&self, length: usize) -> Body {
        Body { bytes: BytesMut::new(), length, patience: self.limits.stall }
    }
}

/// A frame of which a part has come.
pub struct Body {
    bytes: BytesMut,
    length: usize,
    /// How much longer its client may take for the next bytes.
    patience: Duration,
}

impl Body {
    /// Bytes of the next piece, zero once all are there: no more than came before, so that
    /// what is taken for a frame is in proportion to what its client did for it.
    #[must_use]
    pub fn next_piece(&self) -> usize {
        let come = self.bytes.len();
        (self.length - come).min(come.clamp(SMALL_BYTES, CHUNK_BYTES))
    }

    /// The frame, once no piece is missing.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        self.bytes.freeze()
    }

    /// Time that bytes took is made good by bytes, at a least rate; never beyond one stall, so
    /// that who was fast cannot stop for long.
    fn came(&mut self, bytes: usize, took: Duration, stall: Duration) {
        let earned = Duration::from_micros(bytes as u64 * 1_000_000 / BYTES_PER_S_MIN);
        self.patience = (self.patience.saturating_sub(took) + earned).min(stall);
    }
}

/// Clients of other protocols make lengths that no frame has; their users are told what is wrong.
fn other_protocol(prefix: [u8; 4]) -> Option<FrameError> {
    match &prefix {
        [0x16, 0x03, ..] => Some(FrameError::Tls),
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"PRI " | b"DELE" | b"OPTI" | b"CONN" | b"PATC" => {
            Some(FrameError::Http)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    const LIMITS: FrameLimits =
        FrameLimits { bytes_max: 1 << 20, idle: Duration::from_secs(60), stall: Duration::from_secs(5) };

    async fn whole<R: AsyncRead + Unpin>(reader: &mut FrameReader<R>, length: usize) -> Result<Bytes, FrameError> {
        let mut body = reader.body(length);
        while body.next_piece() > 0 {
            reader.piece(&mut body).await?;
        }
        Ok(body.freeze())
    }

    async fn first(bytes: &[u8]) -> Result<Option<Bytes>, FrameError> {
        let mut reader = FrameReader::new(bytes, LIMITS);
        match reader.length().await? {
            None => Ok(None),
            Some(length) => whole(&mut reader, length).await.map(Some),
        }
    }

    #[tokio::test]
    async fn frames_are_cut() {
        assert!(first(b"").await.unwrap().is_none());
        assert_eq!(first(b"\0\0\0\x03abcd").await.unwrap().unwrap(), "abc");
    }

    #[tokio::test]
    async fn lengths_that_no_frame_has_end_the_connection() {
        for length in [0, -1, i32::MIN, i32::MAX, (1 << 20) + 1] {
            let bytes = [&length.to_be_bytes()[..], b"xxxxxxxx"].concat();
            assert!(matches!(first(&bytes).await, Err(FrameError::BadLength { .. })), "{length}");
        }
    }

    #[tokio::test]
    async fn other_protocols_are_named() {
        assert!(matches!(first(b"\x16\x03\x01\x02\x00\x01").await, Err(FrameError::Tls)));
        assert!(matches!(first(b"GET / HTTP/1.1\r\n").await, Err(FrameError::Http)));
        assert!(matches!(first(b"PRI * HTTP/2.0\r\n").await, Err(FrameError::Http)));
    }

    #[tokio::test]
    async fn an_end_in_the_middle_is_an_error() {
        assert!(matches!(first(b"\0\0").await, Err(FrameError::Ended)));
        assert!(matches!(first(b"\0\0\0\x09abc").await, Err(FrameError::Ended)));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_after_its_time() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut reader = FrameReader::new(near, LIMITS);
        assert!(matches!(reader.length().await, Err(FrameError::Idle(_))));
        far.write_all(b"\0\0\0\x09abc").await.unwrap();
        assert_eq!(reader.length().await.unwrap(), Some(9));
        assert!(matches!(whole(&mut reader, 9).await, Err(FrameError::Stalled(_))));
    }

    #[tokio::test]
    async fn a_large_frame_arrives_whole() {
        let body: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let bytes = [&1_000_000_i32.to_be_bytes()[..], &body[..], b"rest"].concat();
        assert_eq!(first(&bytes).await.unwrap().unwrap(), body);
    }

    /// Sends a frame of 1 MiB in pieces with a pause after each; how its reading ended, and when.
    async fn dribbled(bytes: usize, pause: Duration) -> (Result<Bytes, FrameError>, Duration) {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut reader = FrameReader::new(near, LIMITS);
        let began = Instant::now();
        let sending = async {
            for _ in 0..(1_usize << 20).div_ceil(bytes) {
                if far.write_all(&vec![7; bytes]).await.is_err() {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = whole(&mut reader, 1 << 20) => ended,
            () = sending => Err(FrameError::Ended),
        };
        (ended, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_gets_on_and_a_dribbling_one_is_ended() {
        let (slow, took) = dribbled(128 << 10, Duration::from_secs(2)).await;
        assert_eq!(slow.unwrap().len(), 1 << 20);
        assert!(took > LIMITS.stall * 2, "{took:?}");
        let (dribbling, took) = dribbled(4, Duration::from_secs(1)).await;
        assert!(matches!(dribbling, Err(FrameError::Stalled(_))));
        assert!(took < LIMITS.stall + Duration::from_secs(1), "{took:?}");
    }
}
