//! The service's report on disk: lines of words between tabs, written by the service and read by `check`, as root.
//!
//! The first line is `dunlin-agent sight 1`, the last one `end`; between them `at MS`, `version V`, `process PID TICKS`,
//! `user UID`, `groups GID...`, `capabilities HEX`, and for each source
//! `source KIND STATE SEEN OF ASKED NAME GROUP SAYS`. Lines and kinds that are not known are skipped.
//! Invariant: what is read is hostile. It is a regular file of `BYTES_MAX` at most, opened without following links, and
//! nothing of it is kept that could move a terminal's cursor; a file that is not whole says nothing.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use dunlin_shared::limits::FACT_BYTES_MAX;
use dunlin_shared::time::WallMs;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use thiserror::Error;

use super::{Kind, Own, Seeing, Sight, State};
use crate::sample::name::shown;
use crate::state;

pub const NAME: &str = "sight";
/// A host with eight engines has 2 KiB.
pub const BYTES_MAX: u64 = 32 * 1024;
/// A number and an end of line.
const LOCK_BYTES_MAX: u64 = 32;
pub const SOURCES_MAX: usize = 64;
const FIRST: &str = "dunlin-agent sight ";
const VERSION: &str = "1";
const LAST: &str = "end";

#[derive(Debug, Error)]
pub enum FileError {
    #[error("{}: cannot be read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}: is no file that an agent writes", path.display())]
    Foreign { path: PathBuf },
    #[error("{}: is longer than what an agent writes", path.display())]
    TooLong { path: PathBuf },
    #[error("{}: is not whole, or not as an agent writes it; the service writes a new one when it is started", path.display())]
    Garbage { path: PathBuf },
    #[error("{}: is of another version of the agent; restart the service after an upgrade", path.display())]
    Version { path: PathBuf },
}

pub fn write(state_dir: &Path, sight: &Sight) -> io::Result<()> {
    state::replace(&state_dir.join(NAME), render(sight).as_bytes())
}

/// `None` where none was ever written.
pub fn read(state_dir: &Path) -> Result<Option<Sight>, FileError> {
    let path = state_dir.join(NAME);
    let Some(bytes) = carefully(&path, BYTES_MAX)? else { return Ok(None) };
    match parse(&bytes) {
        Ok(sight) => Ok(Some(sight)),
        Err(Odd::Version) => Err(FileError::Version { path }),
        Err(Odd::Garbage) => Err(FileError::Garbage { path }),
    }
}

/// The process that the state directory's lock names, if there is such a process.
#[must_use]
pub fn holder(state_dir: &Path) -> Option<u32> {
    let bytes = carefully(&state_dir.join(state::LOCK), LOCK_BYTES_MAX).ok()??;
    let process: u32 = std::str::from_utf8(&bytes).ok()?.trim().parse().ok()?;
    Path::new("/proc").join(process.to_string()).exists().then_some(process)
}

#[must_use]
pub fn render(sight: &Sight) -> String {
    let Sight { at, own, sources } = sight;
    let groups: Vec<String> = own.groups.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "{FIRST}{VERSION}\nat\t{}\nversion\t{}\nprocess\t{}\t{}\nuser\t{}\ngroups\t{}\ncapabilities\t{:x}\n",
        at.0,
        clean(&own.version),
        own.process,
        own.started_ticks,
        own.user,
        groups.join("\t"),
        own.capabilities,
    );
    for one in sources.iter().take(SOURCES_MAX) {
        let line = [
            "source",
            one.kind.as_str(),
            one.state.as_str(),
            &one.seen.to_string(),
            &one.of.to_string(),
            &u8::from(one.is_asked).to_string(),
            &clean(&one.name),
            &clean(&one.group),
            &clean(&one.says),
        ];
        text.push_str(&line.join("\t"));
        text.push('\n');
    }
    text.push_str(LAST);
    text.push('\n');
    text
}

fn carefully(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, FileError> {
    let path = || path.to_owned();
    let unreadable = |source| FileError::Unreadable { path: path(), source };
    // A pipe would keep whoever opens it waiting, and a link may lead anywhere.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = match open(path(), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(FileError::Foreign { path: path() }),
        Err(error) => return Err(unreadable(error.into())),
    };
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(FileError::Foreign { path: path() });
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > bytes_max { Err(FileError::TooLong { path: path() }) } else { Ok(Some(bytes)) }
}

/// Why a text is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    Version,
    Garbage,
}

pub fn parse(bytes: &[u8]) -> Result<Sight, Odd> {
    let text = std::str::from_utf8(bytes).map_err(|_| Odd::Garbage)?;
    // Tabs and ends of lines are taken out below; nothing else that is no letter is ever written.
    if text.chars().any(|c| c.is_control() && c != '\t' && c != '\n') {
        return Err(Odd::Garbage);
    }
    let (first, rest) = text.split_once('\n').ok_or(Odd::Garbage)?;
    match first.strip_prefix(FIRST) {
        Some(VERSION) => {}
        Some(_) => return Err(Odd::Version),
        None => return Err(Odd::Garbage),
    }
    let rest = rest.strip_suffix('\n').and_then(|rest| rest.strip_suffix(LAST)).ok_or(Odd::Garbage)?;
    let mut sight = Sight { at: WallMs(0), own: Own::default(), sources: Vec::new() };
    for line in rest.lines() {
        let (key, value) = line.split_once('\t').unwrap_or((line, ""));
        take(&mut sight, key, value).ok_or(Odd::Garbage)?;
    }
    // Every one has these.
    if sight.at == WallMs(0) || sight.own.process == 0 { Err(Odd::Garbage) } else { Ok(sight) }
}

fn take(sight: &mut Sight, key: &str, value: &str) -> Option<()> {
    let own = &mut sight.own;
    match key {
        "at" => sight.at = WallMs(value.parse().ok()?),
        "version" => own.version = bounded(value.split('\t').next()?)?.into(),
        "process" => {
            let (process, started) = value.split_once('\t')?;
            (own.process, own.started_ticks) = (process.parse().ok()?, started.parse().ok()?);
        }
        "user" => own.user = value.parse().ok()?,
        "groups" => {
            let groups = value.split('\t').filter(|word| !word.is_empty()).take(super::own::GROUPS_MAX);
            own.groups = groups.map(|word| word.parse().ok()).collect::<Option<_>>()?;
        }
        "capabilities" => own.capabilities = u64::from_str_radix(value, 16).ok()?,
        "source" if sight.sources.len() < SOURCES_MAX => sight.sources.extend(source(value)?),
        _ => {}
    }
    Some(())
}

/// One of a kind that is not known yet is skipped, and no fault.
fn source(value: &str) -> Option<Option<Seeing>> {
    let words: Vec<&str> = value.split('\t').collect();
    let [kind, state, seen, of, asked, name, group, says, ..] = words[..] else { return None };
    let (Some(kind), Some(state)) = (Kind::named(kind), State::named(state)) else { return Some(None) };
    Some(Some(Seeing {
        kind,
        state,
        name: bounded(name)?.into(),
        seen: seen.parse().ok()?,
        of: of.parse().ok()?,
        is_asked: asked == "1",
        group: bounded(group)?.into(),
        says: bounded(says)?.into(),
    }))
}

/// Without anything that would end a word or a line. What is clean already stays as it is.
fn clean(text: &str) -> String {
    let text = if text.chars().any(char::is_control) { shown(text.as_bytes()) } else { text.to_owned() };
    text[..text.floor_char_boundary(FACT_BYTES_MAX)].to_owned()
}

fn bounded(text: &str) -> Option<&str> {
    (text.len() <= FACT_BYTES_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::tests::Dir;

    fn sight() -> Sight {
        let own = Own {
            version: "0.1.0".into(),
            process: 812,
            started_ticks: 99_887,
            user: 61_234,
            groups: vec![61_234, 998],
            capabilities: 0x8_0004,
        };
        let shut = Seeing { group: "docker".into(), is_asked: true, ..Seeing::new(Kind::Engine, State::Refused) };
        let sources = vec![
            Seeing::new(Kind::Part, State::Works).named("cpu"),
            shut.named("/run/docker.sock"),
            Seeing::counted(Kind::Owners, 12, 60).says("it may not look"),
        ];
        Sight { at: WallMs(1_795_270_423_456), own, sources }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = Dir::new();
        assert!(read(&dir.0).expect("nothing is no fault").is_none());
        write(&dir.0, &sight()).expect("it is writable");
        assert_eq!(read(&dir.0).expect("it is whole"), Some(sight()));
        for (kind, word) in Kind::WORDS {
            assert_eq!((Kind::named(word), kind.as_str()), (Some(kind), word));
        }
    }

    #[test]
    fn version_one_is_frozen() {
        let text = "dunlin-agent sight 1\nat\t1795270423456\nversion\t0.1.0\nprocess\t812\t99887\nuser\t61234\n\
                    groups\t61234\t998\ncapabilities\t80004\nsource\tpart\tworks\t0\t0\t0\tcpu\t\t\n\
                    source\tengine\trefused\t0\t0\t1\t/run/docker.sock\tdocker\t\n\
                    source\towners of ports\tpartly\t12\t60\t0\t\t\tit may not look\nend\n";
        assert_eq!(render(&sight()), text);
    }

    #[test]
    fn names_that_would_move_the_cursor_are_written_harmless_and_never_read() {
        let mut evil = sight();
        evil.sources[0].name = "a\u{1b}[2J\tb\nend".into();
        let read = parse(render(&evil).as_bytes()).expect("it is whole");
        assert_eq!(&*read.sources[0].name, "a\\x1b[2J\\x09b\\x0aend");
        let text = render(&sight()).replace("cpu", "\u{1b}[2J");
        assert_eq!(parse(text.as_bytes()), Err(Odd::Garbage));
    }

    #[test]
    fn a_version_is_one_word() {
        let text = render(&sight()).replace("0.1.0", "0.1.0\tuser\t7");
        assert_eq!(parse(text.as_bytes()), Ok(sight()), "a tab moves the cursor as well");
    }

    #[test]
    fn what_is_cut_or_of_another_version_is_not_taken_for_a_report() {
        let whole = render(&sight());
        for end in 0..whole.len() {
            assert!(parse(&whole.as_bytes()[..end]).is_err(), "{end}");
        }
        assert_eq!(parse(whole.replace("sight 1", "sight 2").as_bytes()), Err(Odd::Version));
        let newer = whole.replace("source\tpart", "colour\tblue\nsource\tquantum");
        assert_eq!(parse(newer.as_bytes()).expect("it is whole").sources, sight().sources[1..]);
    }

    #[test]
    fn only_a_file_of_bounded_size_is_read() {
        let dir = Dir::new();
        let path = dir.0.join(NAME);
        std::os::unix::fs::symlink("/etc/hostname", &path).expect("it is writable");
        assert!(matches!(read(&dir.0), Err(FileError::Foreign { .. })));
        std::fs::remove_file(&path).expect("it is there");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        assert!(matches!(read(&dir.0), Err(FileError::Foreign { .. })));
        std::fs::remove_file(&path).expect("it is there");
        std::fs::write(&path, vec![b'a'; 40_000]).expect("it is writable");
        assert!(matches!(read(&dir.0), Err(FileError::TooLong { .. })));
        std::fs::write(&path, b"\xff").expect("it is writable");
        assert!(matches!(read(&dir.0), Err(FileError::Garbage { .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            prop_assert!(parse(&bytes).is_err());
        }

        #[test]
        fn lines_of_arbitrary_words_are_bounded_and_harmless(lines: Vec<(String, String)>) {
            let mut text = String::from("dunlin-agent sight 1\nat\t1\nprocess\t1\t1\n");
            for (key, value) in lines {
                text.push_str(&format!("source\tengine\tfailed\t1\t2\t0\t{key}\t\t{value}\n"));
            }
            text.push_str("end\n");
            if let Ok(sight) = parse(text.as_bytes()) {
                prop_assert!(sight.sources.len() <= SOURCES_MAX);
                prop_assert!(sight.sources.iter().all(|one| !one.says.chars().any(char::is_control)));
            }
        }
    }
}
