//! Frames: four bytes of length, then so many bytes of a request. Read as they come, with a
//! deadline for every step and no room reserved for what a length merely claims.

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::time::timeout;

/// Small requests of one connection arrive together and are read at once.
const BUFFER_BYTES: usize = 8 << 10;

/// Room that is reserved before bytes are there.
const CHUNK_BYTES: usize = 256 << 10;

/// Why no further frame can be read from a connection.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the client said nothing for {0:?}")]
    Idle(Duration),
    #[error("the client stopped in the middle of a request for {0:?}")]
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
    /// How long it may pause in the middle of one.
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

    /// The frame's bytes, after [`FrameReader::length`].
    ///
    /// # Errors
    /// [`FrameError`]; nothing more can be read then.
    pub async fn body(&mut self, length: usize) -> Result<Bytes, FrameError> {
        let stall = self.limits.stall;
        let mut body = BytesMut::with_capacity(length.min(CHUNK_BYTES));
        while body.len() < length {
            let missing = length - body.len();
            if body.capacity() == body.len() {
                // Room grows with what has arrived.
                body.reserve(missing.min(body.len().max(CHUNK_BYTES)));
            }
            let mut room = (&mut body).limit(missing);
            let read = timeout(stall, self.io.read_buf(&mut room)).await;
            if read.map_err(|_| FrameError::Stalled(stall))?.map_err(FrameError::Io)? == 0 {
                return Err(FrameError::Ended);
            }
        }
        Ok(body.freeze())
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

    async fn first(bytes: &[u8]) -> Result<Option<Bytes>, FrameError> {
        let mut reader = FrameReader::new(bytes, LIMITS);
        match reader.length().await? {
            None => Ok(None),
            Some(length) => reader.body(length).await.map(Some),
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
        assert!(matches!(reader.body(9).await, Err(FrameError::Stalled(_))));
    }

    #[tokio::test]
    async fn a_large_frame_arrives_whole() {
        let body: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let bytes = [&1_000_000_i32.to_be_bytes()[..], &body[..], b"rest"].concat();
        assert_eq!(first(&bytes).await.unwrap().unwrap(), body);
    }
}
