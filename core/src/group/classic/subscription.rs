//! What consumers say about themselves, as far as it is needed: the topics that they read.
//!
//! ```text
//! version i16 │ topics i32 │ { length i16 │ UTF-8 }… │ user data, and more in later versions
//! ```
//! (Kafka's ConsumerProtocolSubscription; later versions only append to it.)

use bytes::Buf;

/// The names of the topics; none if the bytes are something else.
pub fn topics(mut metadata: &[u8]) -> Option<Vec<String>> {
    let version = metadata.try_get_i16().ok()?;
    let count = usize::try_from(metadata.try_get_i32().ok()?).ok()?;
    // A name takes at least two bytes.
    if version < 0 || count > metadata.len() / 2 {
        return None;
    }
    (0..count).map(|_| topic(&mut metadata)).collect()
}

fn topic(rest: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(rest.try_get_i16().ok()?).ok()?;
    let (name, left) = rest.split_at_checked(length)?;
    *rest = left;
    String::from_utf8(name.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::topics;

    #[test]
    fn topics_of_every_version_are_found() {
        let bytes = b"\x00\x01\x00\x00\x00\x02\x00\x01a\x00\x02bc\xff\xff\xff\xff\x00\x00\x00\x00";
        assert_eq!(topics(bytes), Some(vec!["a".to_owned(), "bc".to_owned()]));
        assert_eq!(topics(b"\x00\x00\x00\x00\x00\x00"), Some(vec![]));
    }

    #[test]
    fn other_bytes_say_nothing() {
        for bytes in [&b""[..], b"\x00", b"\x00\x00\x7f\xff\xff\xff", b"\x00\x00\x00\x00\x00\x01\x00\x09a"] {
            assert_eq!(topics(bytes), None);
        }
    }
}
