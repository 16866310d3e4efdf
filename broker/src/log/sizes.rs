//! How old and how large a log is, batch by batch.

use baton_core::Offset;

use super::Piece;

/// Collects batches to pieces of a size.
pub(super) struct Pieces {
    piece_bytes: u64,
    pieces: Vec<Piece>,
    open: Option<Piece>,
}

impl Pieces {
    pub(super) fn new(piece_bytes: u64) -> Self {
        Self { piece_bytes, pieces: Vec::new(), open: None }
    }

    pub(super) fn add(&mut self, end: Offset, bytes: u64) {
        let sum = self.open.map_or(0, |piece| piece.bytes) + bytes;
        let piece = Piece { end, bytes: sum };
        if sum >= self.piece_bytes {
            self.pieces.push(piece);
            self.open = None;
        } else {
            self.open = Some(piece);
        }
    }

    pub(super) fn finish(mut self) -> Vec<Piece> {
        self.pieces.extend(self.open);
        self.pieces
    }
}

/// See [`super::Log::expired`]; `batches` are (end, max timestamp) from `start` on.
pub(super) fn expired_end(start: Offset, batches: impl Iterator<Item = (Offset, i64)>, before_ms: i64) -> Offset {
    let mut expired = start;
    for (end, time) in batches {
        if time >= before_ms {
            break;
        }
        // Nobody knows how old a batch without timestamps is; it goes with the next that has one.
        if time >= 0 {
            expired = end;
        }
    }
    expired
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_time_goes_with_what_follows() {
        let ends = |times: &[i64], before| {
            let batches = times.iter().enumerate().map(|(n, time)| (Offset(n as u64 + 11), *time));
            expired_end(Offset(10), batches, before).0
        };
        assert_eq!(ends(&[5, 6, 9], 7), 12);
        assert_eq!(ends(&[5, -1, 6, 9], 7), 13);
        assert_eq!(ends(&[5, -1, -1, 9], 7), 11);
        assert_eq!(ends(&[-1, -1], 7), 10);
        assert_eq!(ends(&[8, 1, 1], 7), 10, "in order, as the log is");
        assert_eq!(ends(&[], 7), 10);
    }

    #[test]
    fn pieces_add_up() {
        let mut pieces = Pieces::new(100);
        for n in 1..=10 {
            pieces.add(Offset(n), 30);
        }
        let found = pieces.finish();
        let ends: Vec<(u64, u64)> = found.iter().map(|p| (p.end.0, p.bytes)).collect();
        assert_eq!(ends, [(4, 120), (8, 120), (10, 60)]);
    }
}
