//! Whether the files of a stopped collector are sound: SQLite's own check, and every row's checksum.
//!
//! Nothing is changed or set aside; whoever asks decides what a finding means.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::connect;
use super::error::{At, StoreError};
use super::reader::journals;
use super::verify::verify;
use crate::record::Pos;

/// One file, and what was found in it.
#[derive(Debug)]
pub struct Checked {
    pub path: PathBuf,
    /// The first position of a journal; `None` for `control.db`.
    pub first: Option<Pos>,
    /// What is wrong; `None` when the file is sound.
    pub damage: Option<StoreError>,
}

/// Reads every journal and `control.db` of a state directory. The caller holds the `StateLock`.
pub fn check(state_dir: &Path) -> Result<Vec<Checked>, StoreError> {
    let mut files = Vec::new();
    for name in journals(&state_dir.join("window"))? {
        let damage = verify(&name).err();
        files.push(Checked { path: name.path, first: Some(name.first), damage });
    }
    let control = state_dir.join("control.db");
    let damage = quick_check(&control).err();
    files.push(Checked { path: control, first: None, damage });
    Ok(files)
}

fn quick_check(path: &Path) -> Result<(), StoreError> {
    let connection: Connection =
        if connect::has_wal(path) { connect::reader(path)? } else { connect::closed_reader(path)? };
    let said: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).at(path)?;
    if said == "ok" { Ok(()) } else { Err(StoreError::damaged(path, said)) }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use dunlin_shared::time::WallMs;

    use super::super::{Control, Log};
    use super::*;
    use crate::record::{Event, Record};

    #[test]
    fn check_finds_the_file_that_is_damaged_and_no_other() {
        let dir = std::env::temp_dir().join(format!("dunlin-check-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a scratch directory");
        let (mut log, _) = Log::open(&dir.join("window"), WallMs(0), Pos(0)).expect("a new log");
        log.rotate(WallMs(0), &[]).expect("the first file");
        log.begin().expect("begin");
        log.append(&Record { at: WallMs(1), event: Event::Started }).expect("append");
        log.commit().expect("commit");
        log.close().expect("close");
        drop(Control::open(&dir.join("control.db"), WallMs(0), 1).expect("a new control.db"));
        let sound = check(&dir).expect("both can be read");
        assert_eq!(sound.len(), 2);
        assert!(sound.iter().all(|file| file.damage.is_none()), "{sound:?}");

        let journal = sound[0].path.clone();
        let mut file = std::fs::File::options().write(true).open(&journal).expect("the journal");
        file.seek(SeekFrom::Start(4096)).expect("its second page");
        file.write_all(&[0xff; 512]).expect("damage");
        let damaged = check(&dir).expect("the directory can be read");
        assert_eq!(damaged.iter().map(|file| file.damage.is_some()).collect::<Vec<_>>(), [true, false]);
        std::fs::remove_dir_all(&dir).expect("removing the scratch directory");
    }
}
