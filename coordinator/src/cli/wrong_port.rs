//! Whether an address that does not answer is a listener of Kafka's protocol: brokers have both,
//! and their ports are easily taken for each other.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// ApiVersions (18) in version 0: what brokers of every age answer.
const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, b'b', b't', b'o', b'n', 0xff, 0xff];

/// Where the number stands in the request by which its answer is known: after the length and two
/// numbers of 16 bits.
const CORRELATION: std::ops::Range<usize> = 8..12;

/// Whether somebody there answers as a broker of Kafka's protocol does, in this time.
pub async fn speaks_kafka(address: &str, within: Duration) -> bool {
    matches!(timeout(within, ask(address)).await, Ok(Ok(true)))
}

async fn ask(address: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&REQUEST).await?;
    // The length, and the number.
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).await?;
    Ok(answer[4..] == REQUEST[CORRELATION])
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    /// Reads one request, and answers with these bytes.
    async fn answering(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; REQUEST.len()]).await.unwrap();
            stream.write_all(answer).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn an_answer_with_the_number_of_the_request_is_kafkas() {
        assert!(speaks_kafka(&answering(b"\0\0\0\x0abton\0\0\0\0\0\0").await, WITHIN).await);
        for other in [&b"HTTP/1.1 400 Bad Request"[..], b"\0\0\0", b""] {
            assert!(!speaks_kafka(&answering(other).await, WITHIN).await, "{other:?}");
        }
        assert!(!speaks_kafka("127.0.0.1:1", WITHIN).await);
    }
}
