//! The seam to FUSE: nothing but translation.
//!
//! Files are opened with direct I/O: every read and write comes here, whatever its size, and
//! shared memory maps are refused. Names and attributes may be cached by the kernel for long,
//! for nobody changes the backing directory behind its back while it is mounted.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::OFlags;

use crate::disk::{Disk, Entry, ROOT};

const CACHED: Duration = Duration::from_secs(3600);

pub(crate) struct Layer {
    disk: Arc<Disk>,
    listings: Mutex<Listings>,
}

/// Directories that are being listed, as they were when they were opened.
#[derive(Default)]
struct Listings {
    next: u64,
    open: BTreeMap<u64, Vec<Entry>>,
}

impl Layer {
    pub(crate) fn new(disk: Arc<Disk>) -> Self {
        Self { disk, listings: Mutex::default() }
    }
}

fn attributes(node: u64, found: &Metadata) -> FileAttr {
    let kind = FileType::from_std(found.file_type()).unwrap_or(FileType::RegularFile);
    let time = |seconds: i64, nanos: i64| {
        let since = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0));
        SystemTime::UNIX_EPOCH + since
    };
    FileAttr {
        ino: INodeNo(node),
        size: found.size(),
        blocks: found.blocks(),
        atime: time(found.atime(), found.atime_nsec()),
        mtime: time(found.mtime(), found.mtime_nsec()),
        ctime: time(found.ctime(), found.ctime_nsec()),
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: (found.mode() & 0o7777) as u16,
        nlink: u32::try_from(found.nlink()).unwrap_or(1),
        uid: found.uid(),
        gid: found.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn errno(error: io::Error) -> Errno {
    match error.raw_os_error() {
        Some(_) => error.into(),
        None if error.kind() == io::ErrorKind::AlreadyExists => Errno::EEXIST,
        None => Errno::EIO,
    }
}

fn answer(reply: ReplyEmpty, result: io::Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

fn answer_entry(reply: ReplyEntry, result: io::Result<(u64, Metadata)>) {
    match result {
        Ok((node, found)) => reply.entry(&CACHED, &attributes(node, &found), Generation(0)),
        Err(error) => reply.error(errno(error)),
    }
}

fn answer_attributes(reply: ReplyAttr, node: u64, result: io::Result<Metadata>) {
    match result {
        Ok(found) => reply.attr(&CACHED, &attributes(node, &found)),
        Err(error) => reply.error(errno(error)),
    }
}

impl Filesystem for Layer {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer_entry(reply, self.disk.lookup(parent.0, name));
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer_attributes(reply, node.0, self.disk.metadata(node.0));
    }

    /// Times and owners are accepted and forgotten.
    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let length = size.map_or(Ok(()), |size| self.disk.set_length(node.0, size));
        let mode = length.and_then(|()| mode.map_or(Ok(()), |mode| self.disk.set_mode(node.0, mode)));
        answer_attributes(reply, node.0, mode.and_then(|()| self.disk.metadata(node.0)));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        answer_entry(reply, self.disk.make_directory(parent.0, name, mode & !umask));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.disk.remove(parent.0, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.disk.remove_directory(parent.0, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !RenameFlags::RENAME_NOREPLACE.contains(flags) {
            return reply.error(Errno::EINVAL);
        }
        answer(reply, self.disk.rename((parent.0, name), (new_parent.0, new_name), flags.is_empty()));
    }

    fn open(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.disk.open(node.0) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _: i32, reply: ReplyCreate) {
        match self.disk.create(parent.0, name, mode & !umask) {
            Ok((node, found)) => {
                let attributes = attributes(node, &found);
                reply.created(&CACHED, &attributes, Generation(0), FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk.read(node.0, offset, size as usize) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let sync = OFlags::from_bits_retain(flags.0.cast_unsigned()).intersects(OFlags::DSYNC);
        match self.disk.write(node.0, offset, data, sync) {
            Ok(written) => reply.written(u32::try_from(written).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.disk.release(node.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, self.disk.sync(node.0));
    }

    fn opendir(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.disk.list(node.0) {
            Ok(entries) => {
                let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
                listings.next += 1;
                let handle = listings.next;
                listings.open.insert(handle, entries);
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdir(&self, _: &Request, node: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entries) = listings.open.get(&handle.0) else { return reply.error(Errno::EBADF) };
        let dots = [(node.0, ".", 1), (ROOT, "..", 2)];
        for (node, name, at) in dots {
            if offset < at && reply.add(INodeNo(node), at, FileType::Directory, name) {
                return reply.ok();
            }
        }
        for (entry, at) in entries.iter().zip(3..).skip(usize::try_from(offset).unwrap_or(0).saturating_sub(2)) {
            let kind = if entry.directory { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(entry.node), at, kind, &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        listings.open.remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, self.disk.sync_directory(node.0));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.disk.space() {
            Ok((block, blocks, free)) => {
                let size = u32::try_from(block).unwrap_or(4096);
                reply.statfs(blocks, free, free, 1 << 20, 1 << 20, size, 255, size);
            }
            Err(error) => reply.error(errno(error)),
        }
    }
}
