//! What Kafka's clients send: frames out of a connection's bytes, and requests out of frames.

use std::time::Duration;

use baton_broker::kafka::frame::{FrameLimits, FrameReader};
use baton_broker::kafka::header;
use baton_broker::kafka::table::{APIS, Api};
use bytes::Bytes;

/// The largest frame: small, so that inputs reach it.
const FRAME_BYTES_MAX: usize = 1 << 16;

/// A connection's bytes, up to the headers of the requests in it.
pub fn frames(input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let second = Duration::from_secs(1);
        let mut frames =
            FrameReader::new(input, FrameLimits { bytes_max: FRAME_BYTES_MAX, idle: second, stall: second });
        while let Ok(Some(length)) = frames.length().await {
            assert!((1..=FRAME_BYTES_MAX).contains(&length), "a frame of {length} bytes");
            let mut body = frames.body(length);
            while body.next_piece() > 0 {
                if frames.piece(&mut body).await.is_err() {
                    return;
                }
            }
            let mut frame = body.freeze();
            assert_eq!(frame.len(), length);
            let flexible = |key, version| Api::find(key).is_some_and(|api| api.layout.is_flexible(version));
            if let Ok(header) = header::read(&mut frame, flexible) {
                assert!(frame.len() + 8 <= length, "{header:?} took nothing");
            }
        }
    });
}

/// A request's body. The first byte is the key of its API, as far as there is one, the second
/// its version. What the guard lets through costs no more than it deserves, and where both the
/// guard and the decoder see an end it is the same.
pub fn requests(input: &[u8]) {
    let &[key, version, ref body @ ..] = input else { return };
    let api = Api::find(i16::from(key)).unwrap_or(&APIS[usize::from(key) % APIS.len()]);
    let versions = api.max - api.min + 1;
    let version = api.min + i16::from(version) % versions;
    let body = Bytes::copy_from_slice(body);
    if let Ok((walked, Ok(decoded))) = api.measure(version, &body) {
        assert_eq!(walked, decoded, "{} {version}: the guard and the decoder differ", api.name);
    }
}
