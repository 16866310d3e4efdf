//! Lines of the standard input as bytes, read on a thread of their own: a read that blocks
//! must not hold up acknowledgements.

use std::{
    io::{self, BufRead, BufReader, Read},
    thread,
};

use tokio::sync::mpsc;

/// Lines are handed over in groups, so that short lines do not cost a wake-up each.
const GROUP_LINES: usize = 256;
const GROUP_BYTES: usize = 256 << 10;
const GROUPS: usize = 8;
/// A line above this size is an error, rather than all of the memory.
const LINE_BYTES_MAX: usize = 64 << 20;

pub type Group = io::Result<Vec<Vec<u8>>>;

/// Reads until the end; an error is the last thing that comes.
pub fn read(input: impl Read + Send + 'static) -> mpsc::Receiver<Group> {
    let (groups, received) = mpsc::channel(GROUPS);
    thread::spawn(move || {
        let mut input = BufReader::with_capacity(GROUP_BYTES, input);
        loop {
            match group(&mut input) {
                Ok(lines) if lines.is_empty() => return,
                group => {
                    let failed = group.is_err();
                    if groups.blocking_send(group).is_err() || failed {
                        return;
                    }
                }
            }
        }
    });
    received
}

/// As many lines as are there already, at least one unless the input has ended.
fn group<R: Read>(input: &mut BufReader<R>) -> Group {
    let (mut lines, mut bytes) = (Vec::new(), 0);
    while let Some(line) = line(input)? {
        bytes += line.len();
        lines.push(line);
        // What is typed, or trickles in, is sent line by line.
        if input.buffer().is_empty() || lines.len() >= GROUP_LINES || bytes >= GROUP_BYTES {
            break;
        }
    }
    Ok(lines)
}

/// One line without its line feed; nothing else is taken off. The last one may lack it.
fn line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = u64::try_from(LINE_BYTES_MAX + 1).unwrap_or(u64::MAX);
    let read = input.take(limit).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > LINE_BYTES_MAX {
        let message = format!("a line is longer than {LINE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &'static [u8]) -> Vec<Vec<u8>> {
        let mut groups = read(input);
        let mut lines = Vec::new();
        while let Some(group) = groups.blocking_recv() {
            lines.extend(group.unwrap());
        }
        lines
    }

    #[test]
    fn lines_keep_every_byte_but_the_line_feed() {
        assert_eq!(lines(b"a\n\xff\x00\r\n\nlast"), [&b"a"[..], b"\xff\x00\r", b"", b"last"]);
        assert!(lines(b"").is_empty());
        assert_eq!(lines(b"\n"), [b""]);
    }

    #[test]
    fn many_lines_come_in_order() {
        let text: Vec<u8> = (0..10_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let read = lines(text.leak());
        assert_eq!(read.len(), 10_000);
        assert!(read.iter().enumerate().all(|(n, line)| *line == n.to_string().into_bytes()));
    }

    #[test]
    fn a_line_without_end_is_an_error() {
        let mut groups = read(io::repeat(b'x'));
        assert!(groups.blocking_recv().unwrap().is_err());
        assert!(groups.blocking_recv().is_none());
    }
}
