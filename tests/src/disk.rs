//! A file system of a test's own: ext4 in a file, behind a loop device. Needs root, e2fsprogs and xfsprogs.
//!
//! It loses power (what was not synced is gone, what was is kept), fills up, turns read-only, and comes back.
//! Mount and loop device go with the value; those of a killed test are removed by the next that makes one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use rustix::fs::OFlags;
use thiserror::Error;

use crate::deadline::{TimedOut, until};
use crate::scratch::{Scratch, is_leftover};
use crate::tool::{self, ToolError};

/// How long what was killed a moment ago may still hold its files open.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(10);

/// Below this ext4 makes no journal, and a power cut would show nothing.
const SIZE_MIB_MIN: u32 = 16;

/// The file that takes all free space.
const FILLER: &str = ".filler";

/// The unit in which stat(2) counts blocks, whatever the file system's own.
const STAT_BLOCK_BYTES: u64 = 512;

#[derive(Debug, Error)]
pub enum DiskError {
    #[error("the disk of the test")]
    Tool(#[from] ToolError),
    #[error("the disk of the test: {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("the disk of the test stays in use: {last}")]
    Busy { last: String, source: TimedOut },
}

#[derive(Debug)]
pub struct Disk {
    mount: PathBuf,
    /// The loop device. It lives as long as the disk: one that comes and goes with each mount is let go by the
    /// kernel some time after the unmount, and two of one image do not see each other's writes.
    device: PathBuf,
    /// Removed last, when nothing is mounted in it any more.
    _scratch: Scratch,
}

impl Disk {
    /// A fresh, mounted file system. Nothing is kept back for root, so that full is full for every user.
    pub fn new(size_mib: u32) -> Result<Self, DiskError> {
        static LEFTOVERS: Once = Once::new();
        LEFTOVERS.call_once(remove_leftovers);
        tool::require_root()?;
        let scratch = Scratch::new("disk").map_err(|source| file_error(&std::env::temp_dir(), source))?;
        let (mount, image) = (scratch.join("mount"), scratch.join("image"));
        fs::create_dir(&mount).map_err(|source| file_error(&mount, source))?;
        let file = File::create(&image).map_err(|source| file_error(&image, source))?;
        let size = u64::from(size_mib.max(SIZE_MIB_MIN)) << 20;
        file.set_len(size).map_err(|source| file_error(&image, source))?;
        tool::run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), "-m0".as_ref(), image.as_os_str()])?;
        let device = tool::run("losetup", &["--find".as_ref(), "--show".as_ref(), image.as_os_str()])?;
        let disk = Self { mount, device: PathBuf::from(device.trim()), _scratch: scratch };
        disk.mount()?;
        Ok(disk)
    }

    /// The directory that the programs use.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount
    }

    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    /// From now on nothing reaches the disk, and programs get I/O errors, until `restore`.
    /// What no sync has written is lost, in files and directories alike.
    pub fn power_cut(&self) -> Result<(), DiskError> {
        // EXT4_IOC_SHUTDOWN without a flush of the log; xfs_io knows the call and needs -x to offer it.
        tool::run("xfs_io", &["-x".as_ref(), "-c".as_ref(), "shutdown".as_ref(), self.mount.as_os_str()])?;
        Ok(())
    }

    /// What a machine does when the power is back: replays the journal and checks the whole file system.
    /// Whatever used the disk must have ended. Damage is an error that shows what `e2fsck` says.
    pub fn restore(&self) -> Result<(), DiskError> {
        self.unmount()?;
        self.mount()?;
        self.unmount()?;
        self.check()?;
        self.mount()
    }

    /// Takes all free space, to the last block.
    pub fn fill(&self) -> Result<(), DiskError> {
        let path = self.join(FILLER);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        fill(&mut file.map_err(|source| file_error(&path, source))?).map_err(|source| file_error(&path, source))
    }

    /// Gives the space back, and waits until it is there.
    pub fn free(&self) -> Result<(), DiskError> {
        let path = self.join(FILLER);
        let filler = fs::metadata(&path).map_err(|source| file_error(&path, source))?;
        let before = self.free_bytes()?;
        fs::remove_file(&path).map_err(|source| file_error(&path, source))?;
        // ext4 frees blocks with the commit of its journal, once the last holder of the file is gone. Half of
        // them do, since programs may take some at once.
        let mut last = "the filler is still there".to_owned();
        let freed = until("free space", UNMOUNT_LIMIT, || {
            let free = self.sync().and_then(|()| self.free_bytes()).map_err(|error| last = error.to_string()).ok()?;
            (free >= before + filler.blocks() * STAT_BLOCK_BYTES / 2).then_some(())
        });
        freed.map_err(|source| DiskError::Busy { last, source })
    }

    /// Space that files can still take.
    pub fn free_bytes(&self) -> Result<u64, DiskError> {
        let stat = rustix::fs::statvfs(&self.mount).map_err(|error| file_error(&self.mount, error.into()))?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Writing fails from now on, also through files that are open. Waits until nothing holds one for writing.
    pub fn read_only(&self) -> Result<(), DiskError> {
        self.retry(|| tool::run("mount", &["-o".as_ref(), "remount,ro".as_ref(), self.mount.as_os_str()]))
    }

    pub fn read_write(&self) -> Result<(), DiskError> {
        tool::run("mount", &["-o".as_ref(), "remount,rw".as_ref(), self.mount.as_os_str()])?;
        Ok(())
    }

    /// Whoever opens, makes, renames or removes something in this directory finds a read-only file system, until the value
    /// goes. The kernel lets nobody turn a whole one read-only while a file in it is open for writing; who has one open
    /// writes on.
    pub fn shut(&self, directory: &Path) -> Result<Shut, DiskError> {
        tool::run("mount", &["--bind".as_ref(), directory.as_os_str(), directory.as_os_str()])?;
        let shut = Shut(Some(directory.to_owned()));
        tool::run("mount", &["-o".as_ref(), "remount,bind,ro".as_ref(), directory.as_os_str()])?;
        Ok(shut)
    }

    /// The kernel finds an error and turns the file system read-only under its users, whatever they hold open.
    pub fn fail_read_only(&self) -> Result<(), DiskError> {
        tool::run("mount", &["-o".as_ref(), "remount,errors=remount-ro".as_ref(), self.mount.as_os_str()])?;
        let name = self.device.file_name().unwrap_or_default();
        let path = Path::new("/sys/fs/ext4").join(name).join("trigger_fs_error");
        fs::write(&path, "a test asks for it").map_err(|source| file_error(&path, source))
    }

    fn mount(&self) -> Result<(), DiskError> {
        // By default ext4 commits its journal every 5 s by itself; with an hour between, what a test did not
        // sync is lost however slow the machine is.
        tool::run("mount", &["-o".as_ref(), "commit=3600".as_ref(), self.device.as_os_str(), self.mount.as_os_str()])?;
        Ok(())
    }

    fn unmount(&self) -> Result<(), DiskError> {
        self.retry(|| tool::run("umount", &[self.mount.as_os_str()]))?;
        // A mount namespace that was copied a moment ago, by whomever, keeps the file system alive for as long as
        // it lasts, and a new mount would only find the old one again. The kernel lets nobody open the device
        // exclusively before it is really let go.
        let exclusive = i32::try_from(OFlags::EXCL.bits()).expect("the flags of open fit a C int");
        let open = || OpenOptions::new().read(true).write(true).custom_flags(exclusive).open(&self.device);
        let mut last = String::new();
        let free = until("a free device", UNMOUNT_LIMIT, || open().map_err(|error| last = error.to_string()).ok());
        free.map(drop).map_err(|source| DiskError::Busy { last, source })
    }

    fn check(&self) -> Result<(), DiskError> {
        tool::run("e2fsck", &["-f".as_ref(), "-n".as_ref(), self.device.as_os_str()])?;
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        let sync = || rustix::fs::syncfs(File::open(&self.mount)?).map_err(io::Error::from);
        sync().map_err(|source| file_error(&self.mount, source))
    }

    fn retry(&self, mut attempt: impl FnMut() -> Result<String, ToolError>) -> Result<(), DiskError> {
        let mut last = String::new();
        let done = until("an unused disk", UNMOUNT_LIMIT, || attempt().map_err(|error| last = error.to_string()).ok());
        done.map(|_| ()).map_err(|source| DiskError::Busy { last, source })
    }
}

/// A directory in which nothing can be changed by its name.
#[derive(Debug)]
#[must_use]
pub struct Shut(Option<PathBuf>);

impl Shut {
    /// As it was. What was opened to be read meanwhile stays open.
    pub fn open(mut self) -> Result<(), DiskError> {
        let directory = self.0.take().unwrap_or_default();
        tool::run("umount", &["-l".as_ref(), directory.as_os_str()])?;
        Ok(())
    }
}

impl Drop for Shut {
    fn drop(&mut self) {
        if let Some(directory) = &self.0 {
            detach(directory);
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        detach(&self.mount);
        release(&self.device);
    }
}

/// Writes until not one byte more is taken, then again after a sync, which may have freed what was reserved.
fn fill(file: &mut File) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    loop {
        let (mut len, mut written) = (zeros.len(), 0);
        while len > 0 {
            match file.write(&zeros[..len]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::StorageFull => len /= 2,
                Err(error) => return Err(error),
            }
        }
        match file.sync_all() {
            Ok(()) if written == 0 => return Ok(()),
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => {}
            Err(error) => return Err(error),
        }
    }
}

/// Unmounts whatever uses it; lazily if something does.
fn detach(mount: &Path) {
    if tool::run("umount", &[mount.as_os_str()]).is_ok() {
        return;
    }
    if let Err(error) = tool::run("umount", &["-l".as_ref(), mount.as_os_str()]) {
        tracing::warn!(mount = %mount.display(), %error, "a mount stays behind");
    }
}

/// Gives the loop device back; one that is still in use goes with its last user.
fn release(device: &Path) {
    if let Err(error) = tool::run("losetup", &["-d".as_ref(), device.as_os_str()]) {
        tracing::warn!(device = %device.display(), %error, "a loop device stays behind");
    }
}

/// Mounts, devices and directories of tests that were killed. Another test may remove them at the same time.
fn remove_leftovers() {
    let parent = std::env::temp_dir();
    let belongs = |path: &str| {
        let inside = Path::new(path).strip_prefix(&parent).ok().and_then(|path| path.components().next());
        inside.and_then(|first| first.as_os_str().to_str()).is_some_and(is_leftover)
    };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if belongs(mount) {
            detach(Path::new(mount));
        }
    }
    for block in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let image = fs::read_to_string(block.path().join("loop/backing_file")).unwrap_or_default();
        if belongs(image.trim_end()) {
            release(&Path::new("/dev").join(block.file_name()));
        }
    }
    // Last, when nothing is mounted in them: these, and what other parts of the rig left behind.
    for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_leftover)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::debug!(directory = %entry.path().display(), %error, "a leftover was not removed");
        }
    }
}

fn file_error(path: &Path, source: io::Error) -> DiskError {
    DiskError::File { path: path.to_owned(), source }
}
