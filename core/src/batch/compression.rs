//! The four compressions of a batch's records, with a cap while inflating.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use bytes::{Bytes, BytesMut};
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::BatchError;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// Every codec, in the order of its number.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The number in the attributes of a batch.
    #[must_use]
    pub fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// The name in configurations, as Kafka has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is not the name of a codec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the compression is one of none, gzip, snappy, lz4, zstd, not {0:?}")]
pub struct NotACodec(pub String);

impl FromStr for Codec {
    type Err = NotACodec;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|codec| codec.name() == text).ok_or_else(|| NotACodec(text.to_owned()))
    }
}

/// Compresses as Kafka's Java client does, so that every Kafka client can read it.
///
/// # Errors
/// The codec failed, which it has no reason to while it writes to memory.
pub fn compress(codec: Codec, plain: &[u8]) -> Result<Vec<u8>, BatchError> {
    let result = match codec {
        Codec::None => Ok(plain.to_vec()),
        Codec::Gzip => gzip(plain),
        Codec::Snappy => snappy_framed(plain),
        Codec::Lz4 => lz4(plain),
        Codec::Zstd => zstd::bulk::compress(plain, zstd::DEFAULT_COMPRESSION_LEVEL),
    };
    result.map_err(|error| BatchError::Compress(error.to_string()))
}

/// Decompresses to at most `max` bytes and stops as soon as more would come: a batch of a
/// kilobyte can claim gigabytes.
///
/// # Errors
/// [`BatchError::Bomb`] above `max`, [`BatchError::Decompress`] for broken input.
pub fn decompress(codec: Codec, packed: &Bytes, max: usize) -> Result<Bytes, BatchError> {
    match codec {
        Codec::None if packed.len() > max => Err(BatchError::Bomb { max }),
        Codec::None => Ok(packed.clone()),
        Codec::Gzip => read_capped(flate2::bufread::MultiGzDecoder::new(&packed[..]), max),
        Codec::Snappy => unsnappy(packed, max),
        Codec::Lz4 => unlz4(packed, max),
        Codec::Zstd => unzstd(packed, max),
    }
}

/// Reads to the end, but never more than one byte above `max`.
fn read_capped(reader: impl Read, max: usize) -> Result<Bytes, BatchError> {
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let mut plain = Vec::new();
    reader.take(limit).read_to_end(&mut plain).map_err(broken)?;
    if plain.len() > max {
        return Err(BatchError::Bomb { max });
    }
    Ok(plain.into())
}

fn broken(error: impl fmt::Display) -> BatchError {
    BatchError::Decompress(error.to_string())
}

fn gzip(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain)?;
    encoder.finish()
}

/// Independent blocks of 64 KiB: what Kafka's Java client writes and can read.
fn lz4(plain: &[u8]) -> io::Result<Vec<u8>> {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(plain)?;
    encoder.finish().map_err(io::Error::other)
}

/// How every frame begins. The older form of them, which Kafka's clients never write, has blocks of
/// 8 MiB whatever is in them: six bytes would take 16 MiB to find out that there is nothing.
const LZ4_MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();

fn unlz4(packed: &Bytes, max: usize) -> Result<Bytes, BatchError> {
    if !packed.starts_with(&LZ4_MAGIC) {
        return Err(broken("no LZ4 frame"));
    }
    read_capped(FrameDecoder::new(&packed[..]), max)
}

/// The largest window that a frame may ask for, as a power of two: 128 MiB, what zstd itself
/// allows by default and level 22 uses.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

fn unzstd(packed: &Bytes, max: usize) -> Result<Bytes, BatchError> {
    let mut decoder = zstd::Decoder::with_buffer(&packed[..]).map_err(broken)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(broken)?;
    read_capped(decoder, max)
}

/// The start of the stream that the Java library snappy-java ("xerial") writes: its magic,
/// then its version and the oldest version that can read it, both 1.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";

/// Plain bytes per block of such a stream.
const XERIAL_BLOCK: usize = 32 * 1024;

/// The most that snappy can gain: an element of three bytes copies 64.
const SNAPPY_RATIO_MAX: usize = 22;

fn snappy_framed(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = XERIAL_HEADER.to_vec();
    let mut encoder = snap::raw::Encoder::new();
    for block in plain.chunks(XERIAL_BLOCK) {
        let compressed = encoder.compress_vec(block).map_err(io::Error::other)?;
        let length = i32::try_from(compressed.len()).map_err(io::Error::other)?;
        packed.extend_from_slice(&length.to_be_bytes());
        packed.extend_from_slice(&compressed);
    }
    Ok(packed)
}

/// Reads both forms that are in use: the xerial stream of the Java client, and one bare
/// block, as librdkafka writes it.
fn unsnappy(packed: &Bytes, max: usize) -> Result<Bytes, BatchError> {
    let mut plain = BytesMut::new();
    if !packed.starts_with(XERIAL_MAGIC) {
        snappy_block(packed, max, &mut plain)?;
        return Ok(plain.freeze());
    }
    let mut rest = packed.get(XERIAL_HEADER.len()..).ok_or_else(|| broken("cut in its header"))?;
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk().ok_or_else(|| broken("cut in a length"))?;
        let block = usize::try_from(i32::from_be_bytes(*length))
            .ok()
            .and_then(|length| tail.get(..length))
            .ok_or_else(|| broken("a block is longer than what is there"))?;
        snappy_block(block, max, &mut plain)?;
        rest = &tail[block.len()..];
    }
    Ok(plain.freeze())
}

/// Appends one block to `plain`, which may grow to `max`. The length that the block claims
/// is believed only as far as a block of this size can hold.
fn snappy_block(block: &[u8], max: usize, plain: &mut BytesMut) -> Result<(), BatchError> {
    let claimed = snap::raw::decompress_len(block).map_err(broken)?;
    if claimed > max.saturating_sub(plain.len()) {
        return Err(BatchError::Bomb { max });
    }
    if claimed > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(broken("a block claims more than it can hold"));
    }
    let start = plain.len();
    plain.resize(start + claimed, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut plain[start..]).map_err(broken)?;
    plain.truncate(start + written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Zeros without end, and an error for whoever reads more than `left`.
    struct Endless {
        left: usize,
    }

    impl Read for Endless {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let left = self.left.checked_sub(buf.len());
            self.left = left.ok_or_else(|| io::Error::other("inflated beyond the cap"))?;
            buf.fill(0);
            Ok(buf.len())
        }
    }

    #[test]
    fn inflating_stops_one_byte_above_the_cap() {
        let max = 100_000;
        let bomb = read_capped(Endless { left: max + 1 }, max);
        assert_eq!(bomb, Err(BatchError::Bomb { max }));
    }
}
