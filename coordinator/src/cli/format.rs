//! How a record is printed: by a format for people, as an object for programs.

use base64::{Engine, engine::general_purpose::STANDARD};
use baton_client::{ConsumedRecord, Header};
use serde_json::{Value, json};

use super::when;

/// A format such as `{partition}:{offset} {key}={value}`. `\t`, `\n`, `\\`, `\{` stand for a
/// tab, a line feed, a backslash, a brace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Time,
    Key,
    Value,
    Headers,
}

const NAMES: &str = "{topic}, {partition}, {offset}, {timestamp}, {time}, {key}, {value}, {headers}";

impl Format {
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut pieces, mut plain) = (Vec::new(), Vec::new());
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match c {
                '\\' => match rest.next() {
                    Some('t') => plain.push(b'\t'),
                    Some('n') => plain.push(b'\n'),
                    Some('0') => plain.push(0),
                    Some(c @ ('\\' | '{' | '}')) => plain.extend(c.to_string().bytes()),
                    other => {
                        return Err(format!("`\\{}` means nothing here", other.map(String::from).unwrap_or_default()));
                    }
                },
                '{' => {
                    let (name, behind) =
                        rest.as_str().split_once('}').ok_or_else(|| "a `{` without its `}`".to_owned())?;
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(placeholder(name)?);
                    rest = behind.chars();
                }
                c => plain.extend(c.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// Appends a record and a line feed. Keys and values are printed as they are; absent ones
    /// as nothing.
    pub fn write(&self, record: &ConsumedRecord, out: &mut Vec<u8>) {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Topic => out.extend_from_slice(record.topic.as_bytes()),
                Piece::Partition => out.extend(record.partition.to_string().bytes()),
                Piece::Offset => out.extend(record.offset.to_string().bytes()),
                Piece::Timestamp => out.extend(record.timestamp_ms.to_string().bytes()),
                Piece::Time => out.extend(when::rfc3339(record.timestamp_ms).bytes()),
                Piece::Key => out.extend_from_slice(record.key.as_deref().unwrap_or_default()),
                Piece::Value => out.extend_from_slice(record.value.as_deref().unwrap_or_default()),
                Piece::Headers => headers(&record.headers, out),
            }
        }
        out.push(b'\n');
    }
}

fn placeholder(name: &str) -> Result<Piece, String> {
    Ok(match name {
        "topic" => Piece::Topic,
        "partition" => Piece::Partition,
        "offset" => Piece::Offset,
        "timestamp" => Piece::Timestamp,
        "time" => Piece::Time,
        "key" => Piece::Key,
        "value" => Piece::Value,
        "headers" => Piece::Headers,
        other => return Err(format!("{{{other}}} is none of {NAMES}")),
    })
}

/// `name=value,name=value`
fn headers(headers: &[Header], out: &mut Vec<u8>) {
    for (n, header) in headers.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&header.key);
        out.push(b'=');
        out.extend_from_slice(header.value.as_deref().unwrap_or_default());
    }
}

/// The shape that programs rely on. Bytes that are UTF-8 are a string, others
/// `{"base64":"…"}`; what is absent is null.
pub fn json(record: &ConsumedRecord) -> Value {
    let headers = record.headers.iter();
    let headers: Vec<Value> = headers
        .map(|header| json!({"key": bytes(Some(&header.key)), "value": bytes(header.value.as_deref())}))
        .collect();
    json!({
        "topic": &*record.topic,
        "partition": record.partition,
        "offset": record.offset.0,
        "timestamp_ms": record.timestamp_ms,
        "key": bytes(record.key.as_deref()),
        "value": bytes(record.value.as_deref()),
        "headers": headers,
        "epoch": record.epoch.0,
    })
}

fn bytes(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (bytes, str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => Value::from(text),
        Some((bytes, Err(_))) => json!({"base64": STANDARD.encode(bytes)}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_client::{Epoch, Offset};

    fn record() -> ConsumedRecord {
        let header =
            |key: &'static str, value: Option<&'static str>| Header { key: key.into(), value: value.map(Into::into) };
        ConsumedRecord {
            topic: "t".into(),
            partition: 3,
            offset: Offset(42),
            timestamp_ms: 86_400_000,
            key: None,
            value: Some(vec![0xff, b'v'].into()),
            headers: vec![header("a", Some("1")), header("a", None)],
            epoch: Epoch(7),
        }
    }

    fn written(format: &str) -> Vec<u8> {
        let mut out = Vec::new();
        Format::parse(format).unwrap().write(&record(), &mut out);
        out
    }

    #[test]
    fn every_placeholder_is_filled_in() {
        assert_eq!(written("{value}"), b"\xffv\n");
        assert_eq!(
            written(r"{topic}/{partition}@{offset}\t{timestamp} {time} \{é\}{key}|{headers}"),
            "t/3@42\t86400000 1970-01-02T00:00:00.000Z {é}|a=1,a=\n".as_bytes()
        );
        assert_eq!(written(""), b"\n");
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for bad in ["{", "{nothing}", "{}", r"\x", "\\"] {
            assert!(Format::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn objects_tell_text_bytes_and_nothing_apart() {
        let json = json(&record());
        assert_eq!(json["key"], Value::Null);
        assert_eq!(json["value"]["base64"], "/3Y=");
        assert_eq!(json["headers"][0]["value"], "1");
        assert_eq!(json["headers"][1]["value"], Value::Null);
        assert_eq!(json["offset"], 42);
    }
}
