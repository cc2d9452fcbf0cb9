//! The watchdogs as files: a file system in this process with one file for each node, since a pipe would know no `ioctl`.
//! Needs `/dev/fuse`. Never waits for anything but a watchdog's own lock: who uses the file would wait along.

use std::{
    ffi::OsStr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, IoctlFlags, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::Watchdog;
use crate::layout::NodeNumber;

/// `WDIOC_SETTIMEOUT`: `_IOWR('W', 6, int)`.
const SET_TIMEOUT: u32 = 0xC004_5706;
/// `WDIOC_GETTIMEOUT`: `_IOR('W', 7, int)`.
const GET_TIMEOUT: u32 = 0x8004_5707;

/// `WDIOC_GETSUPPORT`: `_IOR('W', 0, struct watchdog_info)`.
const GET_SUPPORT: u32 = 0x8028_5700;
/// Not softdog's: it resets a node whose kernel is said to hang.
const IDENTITY: &[u8] = b"lab watchdog";

/// `struct watchdog_info`: options, firmware version and a name of 32 bytes.
fn info() -> [u8; 40] {
    let mut info = [0; 40];
    info[8..8 + IDENTITY.len()].copy_from_slice(IDENTITY);
    info
}

/// How long the kernel may believe what it was told of a file: nothing of it ever changes.
const TTL: Duration = Duration::from_hours(1);

/// The mounted watchdogs, as long as this lives.
pub struct Mounted(#[expect(dead_code, reason = "dropped, it unmounts")] BackgroundSession);

impl Mounted {
    /// Mounts them on a folder, each called like its node.
    pub fn on(folder: &Path, watchdogs: Vec<(NodeNumber, Arc<Watchdog>)>) -> Result<Self> {
        let doing = || format!("could not mount the watchdogs on {}", folder.display());
        let mut options = Config::default();
        options.mount_options = vec![MountOption::FSName("watchdogs".into())];
        Ok(Self(fuser::spawn_mount(Files(watchdogs), folder, &options).with_context(doing)?))
    }
}

struct Files(Vec<(NodeNumber, Arc<Watchdog>)>);

impl Files {
    fn watchdog(&self, file: INodeNo) -> Option<&Watchdog> {
        let watchdog = self.0.iter().find(|(node, _)| inode(*node) == file);
        watchdog.map(|(_, watchdog)| &**watchdog)
    }
}

fn inode(node: NodeNumber) -> INodeNo {
    INodeNo(INodeNo::ROOT.0 + u64::from(node.get()))
}

fn attributes(inode: INodeNo) -> FileAttr {
    let folder = inode == INodeNo::ROOT;
    FileAttr {
        ino: inode,
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if folder { FileType::Directory } else { FileType::RegularFile },
        perm: if folder { 0o700 } else { 0o600 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.0.iter().find(|(node, _)| name.to_str() == Some(&node.to_string())) {
            Some((node, _)) => reply.entry(&TTL, &attributes(inode(*node)), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, file: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attributes(file));
    }

    /// A shell truncates what it writes to.
    fn setattr(
        &self,
        _: &Request,
        file: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
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
        reply.attr(&TTL, &attributes(file));
    }

    fn open(&self, _: &Request, file: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.watchdog(file).map(Watchdog::open) {
            // Each write reaches us at once and whole.
            Some(Some(opening)) => reply.opened(FileHandle(opening), FopenFlags::FOPEN_DIRECT_IO),
            Some(None) => reply.error(Errno::EBUSY),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn write(
        &self,
        _: &Request,
        file: INodeNo,
        _: FileHandle,
        _: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if let Some(watchdog) = self.watchdog(file) {
            watchdog.write(data);
        }
        reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
    }

    fn ioctl(
        &self,
        _: &Request,
        file: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        request: u32,
        data: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        let Some(watchdog) = self.watchdog(file) else { return reply.error(Errno::ENOENT) };
        let now = match request {
            SET_TIMEOUT => {
                data.try_into().ok().and_then(|seconds| watchdog.set_timeout(i32::from_ne_bytes(seconds)))
            }
            GET_TIMEOUT => Some(watchdog.timeout_s()),
            GET_SUPPORT => return reply.ioctl(0, &info()),
            _ => return reply.error(Errno::ENOTTY),
        };
        match now {
            Some(seconds) => reply.ioctl(0, &seconds.to_ne_bytes()),
            None => reply.error(Errno::EINVAL),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        file: INodeNo,
        opening: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(watchdog) = self.watchdog(file) {
            watchdog.close(opening.0);
        }
        reply.ok();
    }
}
