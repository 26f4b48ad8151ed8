//! `dunlin-agent check --sealed`: whether an image may be taken of this machine. It changes nothing, and asks nobody.
//!
//! What one node alone may have must be gone, and so must every join token: whoever has the image has that. The agent
//! cannot know of what kind a token is, so the one that may stay is the one of which the builder of the image says that
//! it was made with --approve.

use std::fs;
use std::path::{Path, PathBuf};

use dunlin_shared::token::JoinToken;

use super::report::{Report, Verdict};
use crate::config::Places;
use crate::enrol::aside;
use crate::enrol::token::VARIABLE;
use crate::state::{self, LOCK};

/// The flag by which the builder of an image says so.
pub const BAKED_FLAG: &str = "baked-token";

/// What a program or a person keeps a token in for the agent, besides the file that is configured.
const TOKEN_PLACES: [&str; 7] = [
    "etc/default/dunlin-agent",
    "etc/dunlin",
    "etc/environment",
    "etc/systemd/system/dunlin-agent.service",
    "etc/systemd/system/dunlin-agent.service.d",
    "etc/credstore",
    "usr/lib/credstore",
];
/// Every token begins so.
const TOKEN_MARK: &[u8] = b"dunlin-join.";
/// Many times what any of those has.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// What a file system keeps in its own top directory.
const FILE_SYSTEMS: &str = "lost+found";

/// What the builder of an image asks.
#[derive(Clone, Copy, Debug)]
pub struct Sealing<'a> {
    pub places: &'a Places,
    /// Where the image is mounted; `/` inside of it.
    pub root: &'a Path,
    /// Whether the join token that is there is meant to be, and was made with --approve.
    pub may_hold_token: bool,
    /// Whether the environment gives a join token.
    pub has_variable: bool,
}

/// Well only when nothing is left that makes clones one node, or lets strangers in.
#[must_use]
pub fn sealed(asked: Sealing<'_>) -> Report {
    let mut report = Report::default();
    report.state_holds_nothing(&below(asked.root, &asked.places.state_dir));
    report.token_may_stay(asked);
    report.machine_is_unnamed(asked.root);
    report
}

impl Report {
    fn state_holds_nothing(&mut self, dir: &Path) {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return self.add(Verdict::Ok, "state", format!("{} is not there", dir.display()));
            }
            Err(error) => {
                let text =
                    format!("{} cannot be looked into, so nobody knows: {error}; run this as root", dir.display());
                return self.add(Verdict::Critical, "state", text);
            }
        };
        if state::is_locked(dir) {
            self.add(Verdict::Critical, "agent", "it runs here; stop it: systemctl disable --now dunlin-agent");
        }
        let left = aside::left(dir);
        let is_ours = |path: &PathBuf| left.contains(path) || path.ends_with(LOCK) || path.ends_with(FILE_SYSTEMS);
        let mut others: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| !is_ours(path)).collect();
        others.sort();
        if left.is_empty() && others.is_empty() {
            return self.add(Verdict::Ok, "state", format!("{} holds no identity, key or spool", dir.display()));
        }
        for path in left {
            self.add(Verdict::Critical, "state", format!("{} is left; run: dunlin-agent seal", path.display()));
        }
        for path in others {
            let text = format!("{} is not the agent's, and may hold a copy of a key; remove it", path.display());
            self.add(Verdict::Critical, "state", text);
        }
    }

    fn token_may_stay(&mut self, asked: Sealing<'_>) {
        let mut found = Vec::new();
        for file in files_in(asked.root, asked.places.join_token_file.as_deref()) {
            match state::read(&file, FILE_BYTES_MAX) {
                Ok(Some(text)) if holds_token(&text) => found.push(file.display().to_string()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => {}
                Err(error) => {
                    let text = format!("{} cannot be read, so nobody knows: {error}", file.display());
                    self.add(Verdict::Critical, "join token", text);
                }
            }
        }
        found.extend(asked.has_variable.then(|| format!("the variable {VARIABLE}")));
        if found.is_empty() && asked.may_hold_token {
            let text = format!("--{BAKED_FLAG} says that one is here, and there is none");
            return self.add(Verdict::Critical, "join token", text);
        }
        if found.is_empty() {
            return self.add(Verdict::Ok, "join token", "none is here: clones are given theirs when they boot");
        }
        for place in found {
            let (verdict, text) = if asked.may_hold_token {
                (Verdict::Ok, format!("{place}, made with --approve as the builder says: clones wait for a person"))
            } else {
                let text = format!(
                    "{place} holds one, and whoever has this image can join by it; remove it and give clones theirs when \
                     they boot. If it was made with `token create --role join --approve`, say so: --{BAKED_FLAG}"
                );
                (Verdict::Critical, text)
            };
            self.add(verdict, "join token", text);
        }
    }

    /// Clones of one machine-id are told apart all the same; a disk that is copied later on is noticed by it.
    fn machine_is_unnamed(&mut self, root: &Path) {
        let path = root.join("etc/machine-id");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let is_named = text.trim().len() == 32;
        let text = match is_named {
            true => "every clone gets the one of this image; to let each make its own: truncate -s 0 /etc/machine-id",
            false => "each clone makes its own",
        };
        self.add(Verdict::Ok, "machine-id", text);
    }
}

/// A path of the machine, in the image that is mounted at `root`.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The configured file first, then what lies in the other places, each once.
fn files_in(root: &Path, configured: Option<&Path>) -> Vec<PathBuf> {
    // What lies in memory is in no image.
    let configured = configured.filter(|path| !path.starts_with("/run"));
    let mut files: Vec<PathBuf> = configured.map(|path| below(root, path)).into_iter().collect();
    for place in TOKEN_PLACES.map(|place| root.join(place)) {
        let mut here: Vec<PathBuf> = match fs::read_dir(&place) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect(),
            Err(_) => Some(place).filter(|path| path.is_file()).into_iter().collect(),
        };
        here.sort();
        files.extend(here);
    }
    let mut once: Vec<PathBuf> = Vec::new();
    for file in files {
        if !once.contains(&file) {
            once.push(file);
        }
    }
    once
}

fn holds_token(text: &[u8]) -> bool {
    let is_whole = || str::from_utf8(text).is_ok_and(|text| text.parse::<JoinToken>().is_ok());
    text.windows(TOKEN_MARK.len()).any(|part| part == TOKEN_MARK) || is_whole()
}

#[cfg(test)]
mod tests {
    use dunlin_shared::limits::JOIN_TOKEN_SECRET_BYTES;
    use dunlin_shared::token::Pin;

    use super::*;
    use crate::identity::testing::Authority;
    use crate::state::StateLock;
    use crate::state::tests::Dir;

    const NONE: Option<PathBuf> = None;

    fn look(dir: &Dir, join_token_file: Option<PathBuf>, may_hold_token: bool) -> (u8, String) {
        let places = Places { state_dir: "/var/lib/dunlin-agent".into(), join_token_file };
        let report = sealed(Sealing { places: &places, root: &dir.0, may_hold_token, has_variable: false });
        (report.verdict().exit_code(), report.to_string())
    }

    fn token() -> String {
        JoinToken { secret: [7; JOIN_TOKEN_SECRET_BYTES], pin: Pin([9; 32]) }.reveal()
    }

    fn image() -> (Dir, PathBuf) {
        let dir = Dir::new();
        let state_dir = dir.0.join("var/lib/dunlin-agent");
        fs::create_dir_all(&state_dir).expect("it is writable");
        fs::create_dir_all(dir.0.join("etc/dunlin")).expect("it is writable");
        (dir, state_dir)
    }

    #[test]
    fn an_image_is_sealed_only_when_nothing_of_a_node_is_left() {
        let (dir, state_dir) = image();
        assert_eq!(look(&dir, NONE, false).0, 0);
        Authority::new("ours").enrol(&state_dir);
        fs::create_dir(state_dir.join("spool")).expect("it is writable");
        fs::write(state_dir.join("node.key.from-another-machine"), "a key").expect("it is writable");
        let (code, said) = look(&dir, NONE, false);
        assert_eq!(code, 2, "{said}");
        for name in ["node.key", "node.pem", "ca.pem", "spool", "node.key.from-another-machine"] {
            let line = format!("{} is left; run: dunlin-agent seal", state_dir.join(name).display());
            assert!(said.contains(&line), "{name}: {said}");
        }
        aside::forget(&state_dir).expect("it is writable");
        assert_eq!(look(&dir, NONE, false).0, 0);
        fs::write(state_dir.join("node.key~"), "of an editor").expect("it is writable");
        let (code, said) = look(&dir, NONE, false);
        assert!(code == 2 && said.contains("node.key~ is not the agent's"), "{said}");
    }

    #[test]
    fn an_agent_that_runs_would_make_another_identity_at_once() {
        let (dir, state_dir) = image();
        let running = StateLock::take(&state_dir).expect("nobody is there");
        let (code, said) = look(&dir, NONE, false);
        assert!(code == 2 && said.contains("agent: it runs here; stop it"), "{said}");
        drop(running);
        assert_eq!(look(&dir, NONE, false).0, 0, "the lock's file alone is no agent");
    }

    #[test]
    fn a_token_may_stay_only_when_the_builder_says_of_what_kind_it_is() {
        let (dir, _) = image();
        let file = || Some(PathBuf::from("/srv/token"));
        assert_eq!(look(&dir, file(), true).0, 2, "none is there");
        fs::create_dir(dir.0.join("srv")).expect("it is writable");
        fs::write(dir.0.join("srv/token"), token()).expect("it is writable");
        let (code, said) = look(&dir, file(), false);
        assert!(code == 2 && said.contains("srv/token holds one") && said.contains("--baked-token"), "{said}");
        assert!(!said.contains(&token()), "{said}");
        fs::create_dir(dir.0.join("run")).expect("it is writable");
        fs::write(dir.0.join("run/token"), token()).expect("it is writable");
        assert_eq!(look(&dir, Some("/run/token".into()), false).0, 0, "it goes with the boot");
        assert_eq!(look(&dir, file(), true).0, 0);
    }

    #[test]
    fn a_token_is_found_wherever_the_service_would_be_given_it() {
        for place in [
            "etc/dunlin/join-token",
            "etc/default/dunlin-agent",
            "etc/environment",
            "etc/systemd/system/dunlin-agent.service.d/token.conf",
            "etc/credstore/join-token",
        ] {
            let (dir, _) = image();
            let file = dir.0.join(place);
            fs::create_dir_all(file.parent().expect("it has one")).expect("it is writable");
            fs::write(&file, format!("Environment={VARIABLE}={}\n", token())).expect("it is writable");
            let (code, said) = look(&dir, NONE, false);
            assert!(code == 2 && said.contains(&format!("{} holds one", file.display())), "{said}");
        }
        let (dir, _) = image();
        let places = Places { state_dir: "/none".into(), join_token_file: None };
        let asked = Sealing { places: &places, root: &dir.0, may_hold_token: false, has_variable: true };
        assert!(sealed(asked).to_string().contains("the variable DUNLIN_JOIN_TOKEN holds one"));
    }

    #[test]
    fn the_id_of_a_machine_is_told_and_hinders_nobody() {
        let (dir, _) = image();
        fs::write(dir.0.join("etc/machine-id"), format!("{}\n", "a".repeat(32))).expect("it is writable");
        let (code, said) = look(&dir, NONE, false);
        assert!(code == 0 && said.contains("truncate -s 0 /etc/machine-id"), "{said}");
    }
}
