//! Damage at rest: one bit, or one block of 4 KiB, somewhere in the files of a directory.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};

const BLOCK: u64 = 4096;

/// How bytes go bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One bit is another one.
    Bit,
    /// A block of zeros.
    Zeros,
    /// A block of anything.
    Noise,
    /// A copy of another block of the same directory: a write that went to the wrong place.
    Misplaced,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Relative to the directory.
    pub file: PathBuf,
    /// Of the first byte that is different.
    pub offset: u64,
    pub kind: Kind,
    /// The bytes that are different lie within so many bytes from `offset` on.
    pub length: u64,
}

/// Damages one place that `seed` chooses among the files that `among` accepts (paths are
/// relative). None if no file has any content.
///
/// Half of the time every file is as likely as any other, so that small ones get their share;
/// else every block. Blocks that are all zeros are hit less often: they are mostly free space.
///
/// # Errors
/// The files cannot be read or written.
pub fn damage(root: &Path, seed: u64, among: impl Fn(&Path) -> bool) -> io::Result<Option<Damaged>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut files = files(root)?;
    files.retain(|file| among(file.strip_prefix(root).unwrap_or(file)));
    let mut places = Vec::new();
    for file in &files {
        places.push((file, blocks(file, &mut random)?));
    }
    places.retain(|(_, blocks)| !blocks.is_empty());
    let weight = if random.random_bool(0.5) {
        |_: &(&PathBuf, Vec<u64>)| 1
    } else {
        |(_, blocks): &(&PathBuf, Vec<u64>)| blocks.len()
    };
    let Ok((path, blocks)) = places.choose_weighted(&mut random, weight) else { return Ok(None) };
    let Some(at) = blocks.choose(&mut random).copied() else { return Ok(None) };
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut block = read_block(&file, at)?;
    let old = block.clone();
    let kind = *[Kind::Bit, Kind::Bit, Kind::Bit, Kind::Zeros, Kind::Noise, Kind::Misplaced]
        .choose(&mut random)
        .unwrap_or(&Kind::Bit);
    match kind {
        Kind::Bit => flip(&mut block, &mut random),
        Kind::Zeros => block.fill(0),
        Kind::Noise => random.fill_bytes(&mut block),
        Kind::Misplaced => {
            if let Some((path, blocks)) = places.choose(&mut random)
                && let Some(at) = blocks.choose(&mut random)
            {
                let other = read_block(&File::open(path)?, *at)?;
                let length = block.len().min(other.len());
                block[..length].copy_from_slice(&other[..length]);
            }
        }
    }
    // Zeros in the place of zeros are no damage.
    let kind = if block == old { Kind::Bit } else { kind };
    if block == old {
        flip(&mut block, &mut random);
    }
    file.write_all_at(&block, at)?;
    file.sync_all()?;
    let differs = |(a, b): (&u8, &u8)| a != b;
    let first = old.iter().zip(&block).position(differs).unwrap_or(0) as u64;
    let last = old.iter().zip(&block).rposition(differs).unwrap_or(0) as u64;
    let file = path.strip_prefix(root).unwrap_or(path).to_owned();
    Ok(Some(Damaged { file, offset: at + first, kind, length: last + 1 - first }))
}

fn flip(block: &mut [u8], random: &mut StdRng) {
    let bit = random.random_range(0..block.len() * 8);
    block[bit / 8] ^= 1 << (bit % 8);
}

/// All files below, in order.
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(directory)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        match entry.file_type()? {
            kind if kind.is_dir() => found.extend(files(&entry.path())?),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    Ok(found)
}

/// The blocks that may be hit: those that hold something, and sometimes all.
fn blocks(path: &Path, random: &mut StdRng) -> io::Result<Vec<u64>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let free_too = random.random_bool(0.1);
    let mut blocks = Vec::new();
    for at in (0..length).step_by(BLOCK as usize) {
        if free_too || read_block(&file, at)?.iter().any(|byte| *byte != 0) {
            blocks.push(at);
        }
    }
    Ok(blocks)
}

/// The last block of a file is shorter.
fn read_block(file: &File, at: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len().saturating_sub(at).min(BLOCK);
    let mut block = vec![0; length as usize];
    file.read_exact_at(&mut block, at)?;
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_is_damaged_and_named() {
        let mut kinds = Vec::new();
        for seed in 0..100 {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("inner")).unwrap();
            let contents = [("a", vec![1; 10_000]), ("inner/b", vec![2; 5]), ("inner/c", vec![0; 9_000])];
            for (name, content) in &contents {
                fs::write(dir.path().join(name), content).unwrap();
            }
            let damaged = damage(dir.path(), seed, |_| true).unwrap().unwrap();
            assert_eq!(damage(dir.path(), seed, |file| file == Path::new("none")).unwrap(), None);
            for (name, content) in &contents {
                let now = fs::read(dir.path().join(name)).unwrap();
                let differing: Vec<u64> =
                    (0_u64..).zip(content.iter().zip(&now)).filter(|(_, (a, b))| a != b).map(|(at, _)| at).collect();
                assert_eq!(now.len(), content.len());
                if damaged.file == Path::new(name) {
                    assert_eq!(differing.first(), Some(&damaged.offset));
                    assert_eq!(differing.last().unwrap() + 1, damaged.offset + damaged.length);
                } else {
                    assert!(differing.is_empty(), "{name}: {differing:?}, said {damaged:?}");
                }
            }
            kinds.push(damaged.kind);
        }
        for kind in [Kind::Bit, Kind::Zeros, Kind::Noise, Kind::Misplaced] {
            assert!(kinds.contains(&kind), "{kind:?}");
        }
    }

    #[test]
    fn the_same_seed_does_the_same() {
        let once = || {
            let dir = tempfile::tempdir().unwrap();
            (0..5_u8).for_each(|n| fs::write(dir.path().join(n.to_string()), vec![n; 9_000]).unwrap());
            damage(dir.path(), 7, |_| true).unwrap().unwrap()
        };
        assert_eq!(once(), once());
    }
}
