//! `dunlin-agent seal`: forgets the identity before an image is taken, so that every clone enrols as a node of its own.
//!
//! It never touches a join token, the configuration, or anything that the agent did not make.

use std::io::{self, Write};

use thiserror::Error;

use crate::config::Places;
use crate::enrol::aside::{self, AsideError};
use crate::state::{StateError, StateLock};

#[derive(Debug, Error)]
pub enum SealError {
    #[error("stop the agent first")]
    Running(#[source] StateError),
    #[error(transparent)]
    State(StateError),
    #[error("cannot be removed; what is left of the identity is still there")]
    Remove(#[from] AsideError),
    #[error("what was removed cannot be said")]
    Say(#[from] io::Error),
}

/// Says what it removes, one line each.
pub fn seal(places: &Places, out: &mut impl Write) -> Result<(), SealError> {
    let Places { state_dir, join_token_file } = places;
    let _lock = StateLock::take_existing(state_dir).map_err(|error| match error {
        StateError::Locked { .. } => SealError::Running(error),
        StateError::Unusable { .. } => SealError::State(error),
    })?;
    let removed = aside::forget(state_dir)?;
    for path in &removed {
        writeln!(out, "removed {}", path.display())?;
    }
    if removed.is_empty() {
        writeln!(out, "nothing to remove: {} holds no identity", state_dir.display())?;
    }
    match join_token_file {
        Some(path) => writeln!(out, "left alone: {}, with which clones will enrol", path.display())?,
        None => writeln!(out, "clones enrol once they are given a join token and the agent is started")?,
    }
    writeln!(out, "before the image is taken: dunlin-agent check --sealed")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::chain::chain;
    use crate::identity::testing::Authority;
    use crate::state::tests::Dir;

    fn said(places: &Places) -> Result<String, SealError> {
        let mut out = Vec::new();
        seal(places, &mut out).map(|()| String::from_utf8(out).expect("it is text"))
    }

    #[test]
    fn it_says_what_it_removed_leaves_the_token_and_can_be_done_again() {
        let dir = Dir::new();
        let state_dir = dir.0.join("state");
        let token = dir.0.join("join-token");
        fs::create_dir(&state_dir).expect("it is writable");
        fs::write(&token, "secret").expect("it is writable");
        Authority::new("ours").enrol(&state_dir);
        let places = Places { state_dir: state_dir.clone(), join_token_file: Some(token.clone()) };
        let first = said(&places).expect("nobody runs there");
        for name in ["node.key", "node.pem", "ca.pem"] {
            assert!(first.contains(&format!("removed {}", state_dir.join(name).display())), "{first}");
        }
        assert!(first.contains(&format!("left alone: {}", token.display())), "{first}");
        assert!(said(&places).expect("again").starts_with("nothing to remove"));
        assert_eq!(fs::read(&token).expect("it is left"), b"secret");
        assert!(!aside::is_there(&state_dir));
    }

    #[test]
    fn it_refuses_while_an_agent_runs_there() {
        let dir = Dir::new();
        Authority::new("ours").enrol(&dir.0);
        let running = StateLock::take(&dir.0).expect("nobody is there");
        let places = Places { state_dir: dir.0.clone(), join_token_file: None };
        let error = chain(&said(&places).expect_err("one runs"));
        assert!(error.contains("stop the agent first") && error.contains("an agent runs"), "{error}");
        assert!(aside::is_there(&dir.0), "nothing was removed");
        drop(running);
        assert!(said(&places).is_ok());
    }

    #[test]
    fn a_directory_that_is_not_there_is_not_made() {
        let dir = Dir::new();
        let places = Places { state_dir: dir.0.join("none"), join_token_file: None };
        assert!(said(&places).expect("nothing to do").contains("nothing to remove"));
        assert!(!dir.0.join("none").exists());
    }
}
