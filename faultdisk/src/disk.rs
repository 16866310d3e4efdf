//! The operations of the layer on its backing directory, and what of them is durable.

mod files;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::chance;
use crate::faults::Faults;
use crate::names::{NameChange, NameChanges};
use crate::unsynced::Unsynced;

/// The root of the layer, as FUSE numbers it.
pub(crate) const ROOT: u64 = 1;

/// When a new name is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// With a sync of its directory, and not before: all that POSIX promises.
    #[default]
    WithDirectorySync,
    /// With any later sync of a file too, as ext4 and XFS do.
    WithAnySync,
}

/// What a cut has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Files with unsynced changes, and how many changes these were. Some survived.
    pub files: usize,
    pub changes: usize,
    /// Unsynced changes of names, and how many of them were taken back.
    pub names: usize,
    pub names_undone: usize,
}

/// A name in a directory listing.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) node: u64,
    pub(crate) directory: bool,
    pub(crate) name: OsString,
}

/// The backing directory and all that is known about it.
pub(crate) struct Disk {
    root: PathBuf,
    state: Mutex<State>,
}

struct State {
    root: PathBuf,
    /// Where removed files wait until their removal is durable.
    attic: PathBuf,
    names_durable: Names,
    nodes: BTreeMap<u64, Node>,
    children: BTreeMap<(u64, OsString), u64>,
    next_node: u64,
    next_waiting: u64,
    names: NameChanges,
    faults: Faults,
    off: bool,
    /// For the choices that are not those of a cut.
    seed: u64,
}

/// A file or a directory that somebody has asked for; kept as long as the layer is mounted.
#[derive(Default)]
struct Node {
    parent: u64,
    name: OsString,
    /// Removed, and waiting here.
    waits: Option<PathBuf>,
    handles: u32,
    /// Open while somebody has it open, and while it has unsynced changes.
    file: Option<Arc<File>>,
    unsynced: Unsynced,
}

impl Disk {
    /// Takes `root` as it is for durable. Removed files wait in a directory beside it.
    pub(crate) fn new(root: &Path, names_durable: Names, seed: u64) -> io::Result<Self> {
        let root = root.canonicalize()?;
        let mut attic = root.clone().into_os_string();
        attic.push(".removed");
        let attic = PathBuf::from(attic);
        if attic.exists() {
            fs::remove_dir_all(&attic)?;
        }
        fs::create_dir(&attic)?;
        let state = State {
            root: root.clone(),
            attic,
            names_durable,
            nodes: BTreeMap::from([(ROOT, Node::default())]),
            children: BTreeMap::new(),
            next_node: ROOT + 1,
            next_waiting: 0,
            names: NameChanges::default(),
            faults: Faults::default(),
            off: false,
            seed,
        };
        Ok(Self { root, state: Mutex::new(state) })
    }

    /// The state, unless the power is off.
    fn on(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.off { Err(Errno::IO.into()) } else { Ok(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn faults<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        change(&mut self.state().faults)
    }

    /// From now on every operation fails.
    pub(crate) fn power_off(&self) {
        self.state().off = true;
    }

    /// Puts the backing directory into the state that `seed` chooses. Nothing works afterwards.
    pub(crate) fn cut(&self, seed: u64) -> io::Result<Lost> {
        let mut state = self.state();
        state.off = true;
        let lost = state.cut(seed)?;
        fs::remove_dir_all(&state.attic)?;
        Ok(lost)
    }

    /// Everything that was written stays, as when a system goes down in order.
    pub(crate) fn finish(&self) -> io::Result<()> {
        let mut state = self.state();
        state.off = true;
        fs::remove_dir_all(&state.attic)
    }

    pub(crate) fn lookup(&self, parent: u64, name: &OsStr) -> io::Result<(u64, Metadata)> {
        let mut state = self.on()?;
        let found = fs::symlink_metadata(state.place(parent)?.join(name))?;
        Ok((state.node_of(parent, name), found))
    }

    pub(crate) fn metadata(&self, node: u64) -> io::Result<Metadata> {
        let state = self.on()?;
        match &state.node(node)?.file {
            Some(file) => file.metadata(),
            None => fs::symlink_metadata(state.place(node)?),
        }
    }

    pub(crate) fn set_mode(&self, node: u64, mode: u32) -> io::Result<()> {
        let state = self.on()?;
        fs::set_permissions(state.place(node)?, fs::Permissions::from_mode(mode))
    }

    pub(crate) fn list(&self, directory: u64) -> io::Result<Vec<Entry>> {
        let mut state = self.on()?;
        let mut entries = Vec::new();
        for entry in fs::read_dir(state.place(directory)?)? {
            let entry = entry?;
            let (name, directory_too) = (entry.file_name(), entry.file_type()?.is_dir());
            entries.push(Entry { node: state.node_of(directory, &name), directory: directory_too, name });
        }
        Ok(entries)
    }

    pub(crate) fn make_directory(&self, parent: u64, name: &OsStr, mode: u32) -> io::Result<(u64, Metadata)> {
        let mut state = self.on()?;
        let path = state.place(parent)?.join(name);
        fs::DirBuilder::new().mode(mode).create(&path)?;
        let found = fs::symlink_metadata(&path)?;
        state.names.push(NameChange::DirectoryCreated(path));
        Ok((state.node_of(parent, name), found))
    }

    /// Creates a file and opens it.
    pub(crate) fn create(&self, parent: u64, name: &OsStr, mode: u32) -> io::Result<(u64, Metadata)> {
        let mut state = self.on()?;
        let path = state.place(parent)?.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&path)?;
        let found = file.metadata()?;
        state.names.push(NameChange::Created(path));
        let number = state.node_of(parent, name);
        let node = state.node_mut(number)?;
        node.file = Some(Arc::new(file));
        node.handles += 1;
        Ok((number, found))
    }

    pub(crate) fn remove(&self, parent: u64, name: &OsStr) -> io::Result<()> {
        let mut state = self.on()?;
        let was = state.place(parent)?.join(name);
        if fs::symlink_metadata(&was)?.is_dir() {
            return Err(Errno::ISDIR.into());
        }
        let waits = state.put_away(parent, name, &was)?;
        state.names.push(NameChange::Removed { was, waits });
        Ok(())
    }

    pub(crate) fn remove_directory(&self, parent: u64, name: &OsStr) -> io::Result<()> {
        let mut state = self.on()?;
        state.remove_directory(parent, name)
    }

    /// With `replace` unset it fails where something has the new name.
    pub(crate) fn rename(&self, from: (u64, &OsStr), to: (u64, &OsStr), replace: bool) -> io::Result<()> {
        let mut state = self.on()?;
        let (old, new) = (state.place(from.0)?.join(from.1), state.place(to.0)?.join(to.1));
        let source = fs::symlink_metadata(&old)?;
        let mut replaced = None;
        match fs::symlink_metadata(&new) {
            Ok(_) if !replace => return Err(ErrorKind::AlreadyExists.into()),
            Ok(_) if old == new => return Ok(()),
            Ok(found) if found.is_dir() && source.is_dir() => state.remove_directory(to.0, to.1)?,
            Ok(found) if found.is_dir() => return Err(Errno::ISDIR.into()),
            Ok(_) if source.is_dir() => return Err(Errno::NOTDIR.into()),
            Ok(_) => replaced = Some(state.put_away(to.0, to.1, &new)?),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::rename(&old, &new)?;
        let number = state.node_of(from.0, from.1);
        state.children.remove(&(from.0, from.1.to_owned()));
        state.children.insert((to.0, to.1.to_owned()), number);
        let node = state.node_mut(number)?;
        (node.parent, node.name) = (to.0, to.1.to_owned());
        state.names.push(NameChange::Renamed { from: old, to: new, replaced });
        Ok(())
    }

    pub(crate) fn sync_directory(&self, directory: u64) -> io::Result<()> {
        let mut state = self.on()?;
        let path = state.place(directory)?;
        let unneeded = state.names.sync(&path);
        forget(unneeded)
    }

    /// (block size, blocks, free blocks)
    pub(crate) fn space(&self) -> io::Result<(u64, u64, u64)> {
        let state = self.on()?;
        let space = rustix::fs::statvfs(&self.root)?;
        let block = space.f_frsize.max(1);
        let free = state.faults.free_max().map_or(space.f_bavail, |bytes| space.f_bavail.min(bytes / block));
        Ok((block, space.f_blocks, free))
    }
}

impl State {
    fn node(&self, number: u64) -> io::Result<&Node> {
        self.nodes.get(&number).ok_or_else(|| Errno::STALE.into())
    }

    fn node_mut(&mut self, number: u64) -> io::Result<&mut Node> {
        self.nodes.get_mut(&number).ok_or_else(|| Errno::STALE.into())
    }

    /// The number of a name; a new one if nobody has asked for it yet.
    fn node_of(&mut self, parent: u64, name: &OsStr) -> u64 {
        let next = self.next_node;
        let number = *self.children.entry((parent, name.to_owned())).or_insert(next);
        if number == next {
            self.next_node += 1;
            self.nodes.insert(number, Node { parent, name: name.to_owned(), ..Node::default() });
        }
        number
    }

    /// The path below the root, as it is or last was.
    fn path(&self, mut number: u64) -> io::Result<PathBuf> {
        let mut names = Vec::new();
        while number != ROOT {
            let node = self.node(number)?;
            names.push(node.name.as_os_str());
            number = node.parent;
        }
        Ok(names.into_iter().rev().collect())
    }

    /// Where it is on the disk below.
    fn place(&self, number: u64) -> io::Result<PathBuf> {
        match &self.node(number)?.waits {
            Some(waits) => Ok(waits.clone()),
            None => Ok(self.root.join(self.path(number)?)),
        }
    }

    /// Moves a file that loses its name to where it waits.
    fn put_away(&mut self, parent: u64, name: &OsStr, path: &Path) -> io::Result<PathBuf> {
        let waits = self.attic.join(self.next_waiting.to_string());
        self.next_waiting += 1;
        fs::rename(path, &waits)?;
        let number = self.node_of(parent, name);
        self.children.remove(&(parent, name.to_owned()));
        self.node_mut(number)?.waits = Some(waits.clone());
        Ok(waits)
    }

    fn remove_directory(&mut self, parent: u64, name: &OsStr) -> io::Result<()> {
        let path = self.place(parent)?.join(name);
        fs::remove_dir(&path)?;
        self.children.remove(&(parent, name.to_owned()));
        self.names.push(NameChange::DirectoryRemoved(path));
        Ok(())
    }

    fn cut(&mut self, seed: u64) -> io::Result<Lost> {
        let mut lost = Lost { names: self.names.len(), ..Lost::default() };
        let dirty: Vec<u64> = self.nodes.iter().filter(|(_, n)| !n.unsynced.is_empty()).map(|(n, _)| *n).collect();
        for number in dirty {
            // By path, not by number: numbers depend on who asked first.
            let key = key(&self.path(number)?);
            let node = self.node_mut(number)?;
            let Some(file) = node.file.take() else { continue };
            lost.files += 1;
            lost.changes += node.unsynced.len();
            let fate = chance::Fate::draw(seed, key, node.unsynced.len());
            node.unsynced.cut(&file, &fate)?;
        }
        let kept = chance::names_kept(seed, lost.names);
        lost.names_undone = lost.names - kept;
        self.names.cut(kept)?;
        Ok(lost)
    }
}

/// Removes what waited for nothing any more; who has it open goes on using it.
fn forget(unneeded: Vec<PathBuf>) -> io::Result<()> {
    unneeded.into_iter().try_for_each(fs::remove_file)
}

/// A number for a path (FNV-1a).
fn key(path: &Path) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    path.as_os_str().as_bytes().iter().fold(0xCBF2_9CE4_8422_2325, step)
}
