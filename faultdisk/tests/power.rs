//! Random programs on a mounted layer, and power cuts: everything synced is there, and nothing
//! appears that never was.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use support::Bench;

const SECTOR: usize = 512;
const NAMES: [&str; 6] = ["a", "b", "c", "d/a", "d/b", "d/c"];
const DIRECTORIES: [&str; 2] = ["", "d"];

#[derive(Clone, Debug)]
enum Step {
    /// Creates the file if there is none.
    Write {
        name: usize,
        at: u64,
        length: usize,
    },
    Length {
        name: usize,
        length: u64,
    },
    Sync {
        name: usize,
    },
    Remove {
        name: usize,
    },
    Rename {
        from: usize,
        to: usize,
    },
    SyncDirectory {
        directory: usize,
    },
}

fn programs() -> impl Strategy<Value = Vec<Step>> {
    let name = || 0..NAMES.len();
    let step = prop_oneof![
        8 => (name(), 0..6_000_u64, 1..5_000_usize).prop_map(|(name, at, length)| Step::Write { name, at, length }),
        1 => (name(), 0..8_000_u64).prop_map(|(name, length)| Step::Length { name, length }),
        4 => name().prop_map(|name| Step::Sync { name }),
        1 => name().prop_map(|name| Step::Remove { name }),
        2 => (name(), name()).prop_map(|(from, to)| Step::Rename { from, to }),
        4 => (0..2_usize).prop_map(|directory| Step::SyncDirectory { directory }),
    ];
    vec(step, 1..40)
}

/// Which file has which name.
type Names = BTreeMap<usize, usize>;

/// What may be found after a cut.
struct Model {
    /// Of each file every content since its last sync.
    files: Vec<Vec<Vec<u8>>>,
    /// The names after each change that is not durable, the durable ones first; and the
    /// directories that the change concerns.
    names: Vec<(Names, Vec<usize>)>,
}

impl Model {
    fn new() -> Self {
        Self { files: Vec::new(), names: vec![(Names::new(), Vec::new())] }
    }

    fn now(&self) -> Names {
        self.names.last().unwrap().0.clone()
    }

    fn change(&mut self, names: Names, concerned: &[usize]) {
        self.names.push((names, concerned.iter().map(|name| name / 3).collect()));
    }

    fn write(&mut self, name: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let mut names = self.now();
        let file = *names.entry(name).or_insert_with(|| {
            self.files.push(vec![Vec::new()]);
            self.files.len() - 1
        });
        if names != self.now() {
            self.change(names, &[name]);
        }
        let mut content = self.files[file].last().unwrap().clone();
        change(&mut content);
        self.files[file].push(content);
    }

    fn sync_directory(&mut self, directory: usize) {
        if let Some(last) = self.names.iter().skip(1).rposition(|(_, concerned)| concerned.contains(&directory)) {
            self.names.drain(..=last);
        }
    }

    /// Whether what is found is possible; says what is not.
    fn check(&self, found: &BTreeMap<usize, Vec<u8>>) -> Result<(), String> {
        let named = |names: &Names| names.keys().eq(found.keys());
        let candidates: Vec<&Names> = self.names.iter().map(|(names, _)| names).filter(|names| named(names)).collect();
        let mut why = format!("the names {:?} were never there since the last sync", found.keys());
        for names in candidates {
            match names.iter().try_for_each(|(name, file)| self.check_file(*file, *name, &found[name])) {
                Ok(()) => return Ok(()),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    fn check_file(&self, file: usize, name: usize, found: &[u8]) -> Result<(), String> {
        let moments = &self.files[file];
        if !moments.iter().any(|moment| moment.len() == found.len()) {
            return Err(format!("{}: a length of no moment: {}", NAMES[name], found.len()));
        }
        for (sector, at) in found.chunks(SECTOR).zip((0..).step_by(SECTOR)) {
            let same = |moment: &Vec<u8>| (0..sector.len()).all(|n| moment.get(at + n).unwrap_or(&0) == &sector[n]);
            if !moments.iter().any(same) {
                return Err(format!("{}: the sector at {at} has the content of no moment", NAMES[name]));
            }
        }
        Ok(())
    }
}

fn write_to(path: &Path) -> File {
    OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap()
}

fn run(root: &Path, model: &mut Model, step: &Step, mark: u8) {
    match *step {
        Step::Write { name, at, length } => {
            write_to(&root.join(NAMES[name])).write_all_at(&vec![mark; length], at).unwrap();
            model.write(name, |content| {
                let end = at as usize + length;
                content.resize(content.len().max(end), 0);
                content[at as usize..end].fill(mark);
            });
        }
        Step::Length { name, length } => {
            write_to(&root.join(NAMES[name])).set_len(length).unwrap();
            model.write(name, |content| content.resize(length as usize, 0));
        }
        Step::Sync { name } => {
            let Some(file) = model.now().get(&name).copied() else { return };
            File::open(root.join(NAMES[name])).unwrap().sync_data().unwrap();
            let moments = &mut model.files[file];
            moments.drain(..moments.len() - 1);
        }
        Step::Remove { name } => {
            let mut names = model.now();
            if names.remove(&name).is_some() {
                fs::remove_file(root.join(NAMES[name])).unwrap();
                model.change(names, &[name]);
            }
        }
        Step::Rename { from, to } => {
            let mut names = model.now();
            let Some(file) = names.remove(&from) else { return };
            fs::rename(root.join(NAMES[from]), root.join(NAMES[to])).unwrap();
            names.insert(to, file);
            if from != to {
                model.change(names, &[from, to]);
            }
        }
        Step::SyncDirectory { directory } => {
            File::open(root.join(DIRECTORIES[directory])).unwrap().sync_all().unwrap();
            model.sync_directory(directory);
        }
    }
}

fn found(root: &Path) -> BTreeMap<usize, Vec<u8>> {
    let read = |(at, name): (usize, &&str)| Some((at, fs::read(root.join(name)).ok()?));
    NAMES.iter().enumerate().filter_map(read).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn what_was_synced_survives_and_nothing_else_appears(first in programs(), second in programs(), seed: u64) {
        let mut bench = Bench::new(&["d"]);
        let mut model = Model::new();
        for (program, seed) in [(first, seed), (second, seed.wrapping_add(1))] {
            for (step, mark) in program.iter().zip(1_u8..) {
                run(bench.mount.at(), &mut model, step, mark);
            }
            let now = model.now();
            let expected: BTreeMap<usize, Vec<u8>> =
                now.iter().map(|(name, file)| (*name, model.files[*file].last().unwrap().clone())).collect();
            prop_assert_eq!(found(bench.mount.at()), expected, "before the cut");
            bench.mount.power_off();
            prop_assert!(fs::read_dir(bench.mount.at()).is_err(), "the power is off");
            bench.mount.power_on(seed).unwrap();
            let left = found(bench.mount.at());
            prop_assert_eq!(&left, &found(bench.mount.backing()), "the layer shows what is there");
            let possible = model.check(&left);
            prop_assert!(possible.is_ok(), "{}", possible.unwrap_err());
            // What survived is durable, and the next program goes on from there.
            model = Model::new();
            for (name, content) in left {
                model.files.push(vec![content]);
                model.names[0].0.insert(name, model.files.len() - 1);
            }
        }
    }
}

/// The harm is done: names are lost, and contents.
#[test]
fn cuts_take_what_was_not_synced() {
    let (mut name_lost, mut content_lost, mut all_kept) = (0, 0, 0);
    for seed in 0..60 {
        let mut bench = Bench::new(&[]);
        let path = bench.mount.at().join("a");
        fs::write(&path, [1; 4096]).unwrap();
        bench.mount.power_on(seed).unwrap();
        match fs::read(&path) {
            Err(_) => name_lost += 1,
            Ok(content) if content == [1; 4096] => all_kept += 1,
            Ok(_) => content_lost += 1,
        }
    }
    assert!(name_lost > 5 && content_lost > 5 && all_kept > 5, "{name_lost} {content_lost} {all_kept}");
}

#[test]
fn the_same_seed_leaves_the_same() {
    let once = || {
        let mut bench = Bench::new(&["d"]);
        let mut model = Model::new();
        for n in 0..20 {
            run(
                bench.mount.at(),
                &mut model,
                &Step::Write { name: n % 6, at: 100 * n as u64, length: 3_000 },
                1 + n as u8,
            );
        }
        let lost = bench.mount.power_on(11).unwrap();
        (lost, found(bench.mount.at()))
    };
    assert_eq!(once(), once());
}
