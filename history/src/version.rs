//! Which behaviour a result belongs to: a hash of the sources that the product is built from.
//!
//! Results of one version add up; a change of behaviour starts the count again. What only tests
//! or other packages use does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

/// The packages that the binary `baton` and its clients are made of.
const PACKAGES: [&str; 6] = ["core", "proto", "registry", "client", "broker", "coordinator"];
/// Folders of them that the binary is not made of.
const LEFT_OUT: [&str; 3] = ["tests", "testing", "target"];
/// Files likewise: `inspect.rs` is what the model checker looks through.
const FILES_LEFT_OUT: [&str; 2] = ["tests.rs", "inspect.rs"];

/// Twelve hexadecimal digits for the sources below the root of the workspace.
///
/// # Errors
/// They cannot be read.
pub fn of_sources(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for package in PACKAGES {
        collect(&root.join(package), &mut files)?;
    }
    files.sort();
    let mut hash = Xxh3::new();
    let mut add = |name: &str, bytes: &[u8]| {
        for part in [name.as_bytes(), bytes] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    };
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
        add(&name, &std::fs::read(&file)?);
    }
    add("Cargo.lock", dependencies(&std::fs::read_to_string(root.join("Cargo.lock"))?).as_bytes());
    Ok(format!("{:032x}", hash.digest128())[..12].to_owned())
}

/// Sources, manifests and `.proto` files, without tests.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned()))?;
        if entry.is_dir() {
            if !LEFT_OUT.contains(&name.as_str()) {
                collect(&entry, files)?;
            }
        } else if [".rs", ".toml", ".proto"].iter().any(|end| name.ends_with(end))
            && !name.ends_with("_tests.rs")
            && !FILES_LEFT_OUT.contains(&name.as_str())
        {
            files.push(entry);
        }
    }
    Ok(())
}

/// The entries of the lock file that our packages need, directly or not.
fn dependencies(lock: &str) -> String {
    let mut known: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for entry in lock.split("[[package]]").skip(1) {
        known.entry(value(entry, "name").unwrap_or_default()).or_default().push(entry);
    }
    let mut open: Vec<String> = PACKAGES.iter().map(|package| format!("baton-{package}")).collect();
    let (mut seen, mut needed) = (BTreeSet::new(), BTreeSet::new());
    while let Some(wanted) = open.pop() {
        if !seen.insert(wanted.clone()) {
            continue;
        }
        // `name`, or `name version` where there are several versions.
        let mut words = wanted.split(' ');
        let (name, version) = (words.next().unwrap_or_default(), words.next());
        for entry in known.get(name).into_iter().flatten() {
            if version.is_none_or(|version| value(entry, "version") == Some(version)) {
                needed.insert(entry.trim());
                let lines = entry.lines().filter_map(|line| line.strip_prefix(" \"")?.strip_suffix("\","));
                open.extend(lines.map(str::to_owned));
            }
        }
    }
    needed.into_iter().collect::<Vec<_>>().join("\n")
}

fn value<'a>(entry: &'a str, key: &str) -> Option<&'a str> {
    entry.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"baton-core\"\nversion = \"0.1.0\"\ndependencies = [\n \
                        \"bytes\",\n \"rand 0.9.5\",\n]\n\n[[package]]\nname = \"bytes\"\nversion = \"1.0.0\"\n\n\
                        [[package]]\nname = \"rand\"\nversion = \"0.9.5\"\n\n[[package]]\nname = \"rand\"\n\
                        version = \"0.8.0\"\n\n[[package]]\nname = \"baton-tests\"\nversion = \"0.1.0\"\n\
                        dependencies = [\n \"stateright\",\n]\n\n[[package]]\nname = \"stateright\"\nversion = \"1.0.0\"\n";

    fn workspace() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for package in PACKAGES {
            std::fs::create_dir_all(dir.path().join(package).join("src/tests")).unwrap();
            std::fs::write(dir.path().join(package).join("src/lib.rs"), package).unwrap();
        }
        std::fs::write(dir.path().join("Cargo.lock"), LOCK).unwrap();
        dir
    }

    #[test]
    fn behaviour_changes_the_version_and_tests_do_not() {
        let dir = workspace();
        let before = of_sources(dir.path()).unwrap();
        assert_eq!(before.len(), 12);
        std::fs::write(dir.path().join("core/src/tests/one.rs"), "test").unwrap();
        std::fs::write(dir.path().join("core/src/log_tests.rs"), "test").unwrap();
        std::fs::write(dir.path().join("Cargo.lock"), LOCK.replace("stateright", "proptest")).unwrap();
        assert_eq!(of_sources(dir.path()).unwrap(), before);
        std::fs::write(dir.path().join("broker/src/new.rs"), "").unwrap();
        assert_ne!(of_sources(dir.path()).unwrap(), before);
    }

    #[test]
    fn a_dependency_of_ours_changes_the_version() {
        assert!(dependencies(LOCK).contains("\"0.9.5\""));
        assert!(!dependencies(LOCK).contains("\"0.8.0\""));
        let dir = workspace();
        let before = of_sources(dir.path()).unwrap();
        std::fs::write(dir.path().join("Cargo.lock"), LOCK.replace("1.0.0", "1.0.1")).unwrap();
        assert_ne!(of_sources(dir.path()).unwrap(), before);
    }
}
