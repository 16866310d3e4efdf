//! How much of a log is kept: for how long, and up to which size.

use crate::ids::Offset;

/// What a topic keeps; none: without a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// `retention.ms`: records whose batch is older than this go.
    pub age_ms: Option<u64>,
    /// `retention.bytes`: of one partition, as it is stored.
    pub bytes: Option<u64>,
}

impl Keep {
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// The size of a log, in pieces that end where batches end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pieces: Vec<(Offset, u64)>,
    total: u64,
}

impl Sizes {
    /// The pieces by the offset after each, ascending, with their bytes.
    #[must_use]
    pub fn new(pieces: impl IntoIterator<Item = (Offset, u64)>) -> Self {
        let pieces: Vec<_> = pieces.into_iter().collect();
        let total = pieces.iter().map(|(_, bytes)| bytes).sum();
        Self { pieces, total }
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Where a log of `start` has to begin so that it is not larger than `keep_bytes` by more
    /// than a piece. A piece goes only if what is left without it is still that large: less than
    /// what was asked for is never kept.
    #[must_use]
    pub fn start_for(&self, start: Offset, keep_bytes: u64) -> Offset {
        let mut left = self.total;
        let mut begin = start;
        for (end, bytes) in &self.pieces {
            if left - bytes < keep_bytes {
                break;
            }
            left -= bytes;
            begin = *end;
        }
        begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(bytes: &[u64]) -> Sizes {
        Sizes::new(bytes.iter().enumerate().map(|(n, bytes)| (Offset(n as u64 * 10 + 10), *bytes)))
    }

    #[test]
    fn a_log_is_cut_to_its_size_and_never_below() {
        let log = sizes(&[100, 100, 100, 50]);
        assert_eq!(log.total(), 350);
        for (keep, start) in
            [(1_000, 3), (350, 3), (349, 3), (250, 10), (249, 10), (150, 20), (51, 20), (50, 30), (0, 40)]
        {
            assert_eq!(log.start_for(Offset(3), keep), Offset(start), "keep {keep}");
        }
        assert_eq!(sizes(&[]).start_for(Offset(3), 0), Offset(3));
    }
}
