use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Write { at: u64, length: usize },
    Length(u64),
    Sync,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..20_000_u64, 1..9_000_usize).prop_map(|(at, length)| Step::Write { at, length }),
        2 => (0..30_000_u64).prop_map(Step::Length),
        1 => Just(Step::Sync),
    ];
    vec(step, 0..14)
}

/// The content at each moment since the last sync.
fn moments(file: &File, unsynced: &mut Unsynced, steps: &[Step]) -> Vec<Vec<u8>> {
    let mut content: Vec<u8> = Vec::new();
    let mut moments = vec![content.clone()];
    for (step, mark) in steps.iter().zip(1_u8..) {
        match step {
            Step::Write { at, length } => {
                let (from, to) = (*at as usize, *at as usize + length);
                content.resize(content.len().max(to), 0);
                content[from..to].fill(mark);
                unsynced.write(file, *at, &vec![mark; *length]).unwrap();
            }
            Step::Length(length) => {
                content.resize(*length as usize, 0);
                unsynced.set_length(file, *length).unwrap();
            }
            Step::Sync => {
                unsynced.sync_all();
                moments.clear();
            }
        }
        moments.push(content.clone());
    }
    moments
}

fn sector(content: &[u8], at: usize, length: usize) -> Vec<u8> {
    let mut sector = content.get(at..content.len().min(at + length)).unwrap_or_default().to_vec();
    sector.resize(length, 0);
    sector
}

fn read(file: &File) -> Vec<u8> {
    let mut content = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut content, 0).unwrap();
    content
}

proptest! {
    #[test]
    fn every_sector_and_the_length_are_of_some_moment(steps in steps(), seed: u64) {
        let file = tempfile::tempfile().unwrap();
        let mut unsynced = Unsynced::default();
        let moments = moments(&file, &mut unsynced, &steps);
        prop_assert_eq!(&read(&file), moments.last().unwrap());
        let fate = Fate::draw(seed, 1, unsynced.len());
        unsynced.cut(&file, &fate).unwrap();
        let left = read(&file);
        prop_assert!(moments.iter().any(|m| m.len() == left.len()), "a length of no moment: {}", left.len());
        for at in (0..left.len()).step_by(SECTOR as usize) {
            let length = (left.len() - at).min(SECTOR as usize);
            let found = &left[at..at + length];
            prop_assert!(
                moments.iter().any(|m| sector(m, at, length) == found),
                "the sector at {} has the content of no moment", at
            );
        }
    }

    #[test]
    fn what_is_synced_is_there(steps in steps(), seed: u64) {
        let file = tempfile::tempfile().unwrap();
        let mut unsynced = Unsynced::default();
        let moments = moments(&file, &mut unsynced, &steps);
        unsynced.sync_all();
        unsynced.cut(&file, &Fate::draw(seed, 1, 0)).unwrap();
        prop_assert_eq!(&read(&file), moments.last().unwrap());
    }
}

/// All kinds of harm happen: a check that no seed could fail would say nothing.
#[test]
fn seeds_lose_keep_tear_and_reorder() {
    let (mut none, mut all, mut reordered, mut torn, mut zeros) = (0, 0, 0, 0, 0);
    for seed in 0..400 {
        let file = tempfile::tempfile().unwrap();
        let mut unsynced = Unsynced::default();
        for mark in 1..=4_u8 {
            unsynced.write(&file, u64::from(mark - 1) * 8192, &[mark; 8192]).unwrap();
        }
        unsynced.cut(&file, &Fate::draw(seed, 1, unsynced.len())).unwrap();
        let left = read(&file);
        let whole = |mark: u8| left.iter().filter(|byte| **byte == mark).count();
        none += u32::from(left.is_empty());
        all += u32::from((1..=4).all(|mark| whole(mark) == 8192));
        reordered += u32::from(whole(1) < 8192 && whole(3) > 0);
        torn += u32::from((1..=4).any(|mark| !matches!(whole(mark), 0 | 8192)));
        zeros += u32::from(left.len() == 4 * 8192 && left.iter().all(|byte| *byte == 0));
    }
    for (what, count) in [("none", none), ("all", all), ("reordered", reordered), ("torn", torn), ("zeros", zeros)] {
        assert!(count >= 4, "{what}: {count} of 400");
    }
}
