//! Shows that the rig's disk loses what a real one loses in a power cut, and fills up and fails like one.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use dunlin_tests::deadline::until;
use dunlin_tests::disk::Disk;
use dunlin_tests::process::Program;

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

const SIZE_MIB: u32 = 32;

fn disk() -> Disk {
    Disk::new(SIZE_MIB).expect("the rig makes a file system")
}

fn mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("the kernel lists mounts");
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|mount| Path::new(mount) == path))
}

#[test]
fn power_cut_keeps_what_was_synced_and_loses_the_rest() {
    let disk = disk();
    let mut kept = File::create(disk.join("kept")).expect("the disk is writable");
    kept.write_all(b"synced").expect("the disk is writable");
    kept.sync_all().expect("the disk works");
    File::open(disk.path()).and_then(|directory| directory.sync_all()).expect("the disk works");
    kept.write_all(b" and not synced").expect("the disk is writable");
    fs::write(disk.join("lost"), "never synced").expect("the disk is writable");

    disk.power_cut().expect("the power can be cut");
    kept.sync_all().expect_err("there is no power");
    fs::write(disk.join("late"), "").expect_err("there is no power");
    drop(kept);

    disk.restore().expect("the journal is replayed and the file system is whole");
    assert_eq!(fs::read(disk.join("kept")).expect("it was synced"), b"synced");
    assert!(!disk.join("lost").exists());
    fs::write(disk.join("after"), "the disk works again").expect("the disk is writable");
}

#[test]
fn power_cuts_one_after_another_lose_no_synced_record() {
    let disk = disk();
    let path = disk.join("journal");
    for round in 1..=5_u8 {
        let mut file = OpenOptions::new().create(true).append(true).open(&path).expect("the disk is writable");
        file.write_all(&[round]).expect("the disk is writable");
        file.sync_all().expect("the disk works");
        file.write_all(&[0xff; 4096]).expect("the disk is writable");
        disk.power_cut().expect("the power can be cut");
        drop(file);
        disk.restore().expect("the journal is replayed and the file system is whole");
        let whole = fs::read(&path).expect("it was synced");
        assert_eq!(whole, (1..=round).collect::<Vec<_>>());
    }
}

#[test]
fn full_disk_takes_nothing_until_space_is_freed() {
    let disk = disk();
    let before = disk.free_bytes().expect("the disk is mounted");
    assert!(before > 16 << 20, "{before}");
    disk.fill().expect("the disk can be filled");
    assert_eq!(disk.free_bytes().expect("the disk is mounted"), 0);
    let error = fs::write(disk.join("more"), [1; 4096]).expect_err("the disk is full");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    disk.free().expect("the filler can be removed");
    assert!(disk.free_bytes().expect("the disk is mounted") > before / 2);
    fs::write(disk.join("more"), [1; 4096]).expect("there is space again");
}

#[test]
fn read_only_disk_refuses_writes_until_it_is_writable_again() {
    let disk = disk();
    fs::write(disk.join("a"), "a").expect("the disk is writable");
    disk.read_only().expect("nothing is open for writing");
    let error = fs::write(disk.join("b"), "b").expect_err("it is read-only");
    assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::read(disk.join("a")).expect("reading goes on"), b"a");
    disk.read_write().expect("it can be writable again");
    fs::write(disk.join("b"), "b").expect("the disk is writable");
}

#[test]
fn directory_that_is_shut_is_read_only_to_all_but_who_had_a_file_open() {
    let disk = disk();
    let directory = disk.join("state");
    fs::create_dir(&directory).expect("the disk is writable");
    let mut open = File::create(directory.join("open")).expect("the disk is writable");
    let shut = disk.shut(&directory).expect("a file that is open is no hindrance");
    let error = fs::write(directory.join("b"), "b").expect_err("it is read-only");
    assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
    assert!(fs::rename(directory.join("open"), directory.join("b")).is_err(), "it is read-only");
    open.write_all(b"a").expect("what is open stays open");
    assert_eq!(fs::read(directory.join("open")).expect("reading goes on"), b"a");
    let reader = File::open(directory.join("open")).expect("reading goes on");
    shut.open().expect("a reader is no hindrance");
    fs::write(directory.join("b"), "b").expect("it is writable again");
    drop(reader);
    let shut = disk.shut(&directory).expect("and again");
    drop(shut);
    fs::write(directory.join("b"), "c").expect("it ends with its value");
}

#[test]
fn failing_disk_turns_read_only_under_an_open_file() {
    let disk = disk();
    let mut open = File::create(disk.join("open")).expect("the disk is writable");
    open.write_all(b"a").expect("the disk is writable");
    open.sync_all().expect("the disk works");
    disk.fail_read_only().expect("the kernel takes the trigger");
    let failed = open.write_all(b"b").and_then(|()| open.sync_all()).expect_err("the disk has failed");
    eprintln!("an open file then gets: {failed}");
    let error = fs::write(disk.join("b"), "b").expect_err("it is read-only");
    assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::read(disk.join("open")).expect("reading goes on")[0], b'a');
    drop(open);
    disk.restore().expect("the file system is whole");
    fs::write(disk.join("b"), "b").expect("the disk is writable");
}

#[test]
fn mount_goes_when_a_test_fails_even_while_it_is_in_use() {
    let (path, holder) = std::thread::spawn(|| {
        let disk = disk();
        let holder = File::create(disk.join("held")).expect("the disk is writable");
        assert!(mounted(disk.path()));
        std::panic::panic_any((disk.path().to_owned(), holder));
    })
    .join()
    .expect_err("it panics with the path")
    .downcast::<(std::path::PathBuf, File)>()
    .map(|found| *found)
    .expect("it panics with the path");
    assert!(!mounted(&path) && !path.exists());
    drop(holder);
}

#[test]
fn disk_of_a_killed_test_goes_with_the_next() {
    // Its maker is a shell that has ended, not the tests that run beside this one and clean up as well.
    let script = "set -e; d=$0/dunlin-rig-$$-0-disk; mkdir -p $d/mount; truncate -s 16M $d/image; \
                  mkfs.ext4 -q -F $d/image; mount $(losetup --find --show $d/image) $d/mount; printf $d";
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let maker = Program::at("/bin/sh").args(["-c", script]).arg(std::env::temp_dir()).env("PATH", path);
    let mut maker = maker.start().expect("there is a shell");
    assert!(maker.wait_exit(LIMIT).expect("it ends").success(), "{}", maker.log_text());
    let orphan = Path::new(&maker.log_text()).to_owned();
    let own = std::env::current_exe().expect("a test has a path");
    let other = Program::at(own).args(["--exact", "full_disk_takes_nothing_until_space_is_freed"]);
    let mut other = other.start().expect("this very program can be started again");
    let status = other.wait_exit(LIMIT).expect("it ends");
    assert!(status.success(), "{}", other.log_text());
    // Another test that cleans up at the same time may be the one to finish.
    until("the end of the orphan", LIMIT, || (!mounted(&orphan.join("mount")) && !orphan.exists()).then_some(()))
        .expect("someone removes it");
}
