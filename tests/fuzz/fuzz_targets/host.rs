//! What the host's own small files say: mounts, users, memory of a process, counts of sockets, and interfaces of a network.
//! They are read, or what makes no sense in them is left out. The first byte says which file it is.
#![no_main]

use std::collections::HashSet;
use std::path::PathBuf;

use dunlin_agent::sample::container::network::sums;
use dunlin_agent::sample::mount::{devices, mounts};
use dunlin_agent::sample::port::tables::{counts, established};
use dunlin_agent::sample::process::stat::resident;
use dunlin_agent::sample::socket::{NETSTAT, SNMP, columns, sockets};
use dunlin_agent::sample::source::Text;
use dunlin_agent::sample::user::user;
use dunlin_fuzz::Input;
use dunlin_shared::codec::Grouper;
use dunlin_shared::limits::SUBJECT_NAME_BYTES_MAX;
use dunlin_shared::sample::Sample;
use dunlin_shared::time::{MonoMs, WallMs};
use libfuzzer_sys::fuzz_target;

/// Series that the counts of sockets may lead to.
const SERIES_MAX: usize = 2 + SNMP.len() + NETSTAT.len();

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.below(5) {
        0 => mounted(input.rest()),
        1 => {
            let uid = u32::from(input.byte());
            let name = user(input.rest(), uid);
            assert!(name.is_none_or(|name| !name.is_empty() && !name.iter().any(|byte| b":\n".contains(byte))));
        }
        2 => {
            let line = input.rest();
            assert!(resident(line).is_none() || line.len() >= 2);
        }
        3 => {
            let text = String::from_utf8_lossy(input.rest());
            assert!(counts(&text, ["TCP:", "UDP:"]).is_none() || text.contains("inuse "));
            assert!(established(&text).is_none() || text.contains("CurrEstab"));
            assert!(sums(&text) == (0, 0) || text.contains(':'));
        }
        _ => counted(input.rest()),
    }
});

/// Each file system once, at a place that it has, under a name that is fit to be shown.
fn mounted(text: &[u8]) {
    let lines = text.split(|&byte| byte == b'\n').count();
    let ((found, odd), devices) = (mounts(text), devices(text));
    assert!(found.len() <= lines && odd.is_none_or(|number| number < lines));
    let mut seen = HashSet::new();
    for mount in found {
        assert!(mount.path.starts_with("/") && seen.insert(mount.device));
        assert!(mount.name.len() <= SUBJECT_NAME_BYTES_MAX && !mount.name.contains(char::is_control));
        assert!(devices.contains_key(&mount.path));
    }
}

fn counted(bytes: &[u8]) {
    let text = Text { path: PathBuf::from("/proc/net/snmp"), bytes };
    let mut sample = Sample::new(MonoMs(0), WallMs(0));
    // What is refused has its line in the log; the numbers before it stand.
    let _refused = [
        sockets(&text, &mut sample).err(),
        columns(&text, &SNMP, &mut sample).err(),
        columns(&text, &NETSTAT, &mut sample).err(),
    ];
    let (reading, _) = Grouper::default().lay_out(&sample);
    assert!(reading.values.len() <= SERIES_MAX);
}
