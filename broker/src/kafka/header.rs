//! What stands before every request.

use bytes::{Buf, Bytes};

use super::guard::{self, Malformed};

/// The header of a request, whatever its API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    pub key: i16,
    pub version: i16,
    /// The client finds its request again by it.
    pub correlation: i32,
    pub client_id: Option<String>,
}

/// Reads the header; `body` starts behind it afterwards. Whether the header ends with tagged
/// fields depends on the request: `flexible` says so by key and version.
///
/// # Errors
/// The header is not whole, or the client id is not UTF-8.
pub fn read(body: &mut Bytes, flexible: impl FnOnce(i16, i16) -> bool) -> Result<RequestHeader, Malformed> {
    if body.len() < 8 {
        return Err(Malformed::Truncated);
    }
    let (key, version, correlation) = (body.get_i16(), body.get_i16(), body.get_i32());
    // A client that speaks a version of its own still gets an answer to ApiVersions.
    if body.len() < 2 {
        return Ok(RequestHeader { key, version, correlation, client_id: None });
    }
    let client_id = match body.get_i16() {
        -1 => None,
        length => {
            let length = usize::try_from(length).map_err(|_| Malformed::BadLength)?;
            if length > body.len() {
                return Err(Malformed::Truncated);
            }
            Some(String::from_utf8(body.split_to(length).to_vec()).map_err(|_| Malformed::NotText)?)
        }
    };
    if flexible(key, version) {
        let tags = guard::skip_header_tags(body)?;
        body.advance(tags);
    }
    Ok(RequestHeader { key, version, correlation, client_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_with_and_without_tags() {
        let bytes = Bytes::from_static(b"\0\x12\0\x03\0\0\0\x07\0\x02me\x01\x05\x01xrest");
        let mut body = bytes.clone();
        let header = read(&mut body, |key, version| (key, version) == (18, 3)).unwrap();
        assert_eq!(header, RequestHeader { key: 18, version: 3, correlation: 7, client_id: Some("me".to_owned()) });
        assert_eq!(body, "rest");
        let mut body = bytes;
        read(&mut body, |_, _| false).unwrap();
        assert_eq!(body, "\x01\x05\x01xrest");
    }

    #[test]
    fn null_client_ids_and_bad_ones() {
        let mut body = Bytes::from_static(b"\0\x12\0\0\0\0\0\x07\xff\xff");
        assert_eq!(read(&mut body, |_, _| false).unwrap().client_id, None);
        for bad in [&b"\0\x12\0\0\0\0"[..], b"\0\x12\0\0\0\0\0\x07\0\x05ab", b"\0\x12\0\0\0\0\0\x07\x80\0"] {
            assert!(read(&mut Bytes::copy_from_slice(bad), |_, _| false).is_err(), "{bad:?}");
        }
        let mut body = Bytes::from_static(b"\0\x12\0\0\0\0\0\x07\0\x01\xff");
        assert_eq!(read(&mut body, |_, _| false), Err(Malformed::NotText));
    }
}
