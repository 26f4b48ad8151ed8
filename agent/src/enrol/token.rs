//! Where a join token may come from: the variable DUNLIN_JOIN_TOKEN, else the file that `join_token_file`
//! names, else the systemd credential `join-token`.
//!
//! The first that may be read counts, and one that is wrong is said and never passed over. Sources are looked at
//! whenever a token is needed, for a machine may be given its token after the agent has started.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use dunlin_shared::token::{JoinToken, TokenError};
use thiserror::Error;

use crate::state;

pub const VARIABLE: &str = "DUNLIN_JOIN_TOKEN";
pub const CREDENTIAL: &str = "join-token";

/// A token has 83 characters.
const FILE_BYTES_MAX: u64 = 4 * 1024;

#[derive(Clone, Debug, Default)]
pub struct TokenSources {
    variable: Option<Secret>,
    file: Option<PathBuf>,
    credential: Option<PathBuf>,
}

/// A text that is never printed.
#[derive(Clone)]
struct Secret(OsString);

/// A token that is there and cannot be used.
#[derive(Debug, Error)]
pub enum BadToken {
    #[error("{from}: {reason}")]
    Wrong { from: String, reason: TokenError },
    #[error("{} cannot be read; let the agent's user read it, or hand it over as the systemd credential {CREDENTIAL}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl TokenSources {
    /// `credentials` is the directory that systemd names in CREDENTIALS_DIRECTORY.
    #[must_use]
    pub fn new(variable: Option<OsString>, file: Option<PathBuf>, credentials: Option<&Path>) -> Self {
        let variable = variable.filter(|text| !text.is_empty()).map(Secret);
        Self { variable, file, credential: credentials.map(|dir| dir.join(CREDENTIAL)) }
    }

    /// From this process' environment.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Self::new(std::env::var_os(VARIABLE), file, credentials.as_deref())
    }

    pub fn find(&self) -> Result<Option<JoinToken>, BadToken> {
        if let Some(Secret(text)) = &self.variable {
            return parse(VARIABLE.to_owned(), &text.to_string_lossy()).map(Some);
        }
        let mut unreadable = None;
        for path in [&self.file, &self.credential].into_iter().flatten() {
            match state::read(path, FILE_BYTES_MAX) {
                Ok(None) => {}
                Ok(Some(text)) => {
                    return parse(path.display().to_string(), &String::from_utf8_lossy(&text)).map(Some);
                }
                // Often the same file, that only systemd may read and hands over as the credential.
                Err(source) => {
                    unreadable.get_or_insert_with(|| BadToken::Unreadable { path: path.clone(), source });
                }
            }
        }
        unreadable.map_or(Ok(None), Err)
    }

    /// What a person could do who has a token, for the end of a sentence.
    #[must_use]
    pub fn advice(&self) -> String {
        match &self.file {
            Some(path) => format!("give it a join token in {} (dunlin token create --role join)", path.display()),
            None => format!(
                "give it a join token (dunlin token create --role join) by join_token_file, {VARIABLE} or the systemd \
                 credential {CREDENTIAL}"
            ),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

fn parse(from: String, text: &str) -> Result<JoinToken, BadToken> {
    text.parse().map_err(|reason| BadToken::Wrong { from, reason })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use dunlin_shared::limits::JOIN_TOKEN_SECRET_BYTES;
    use dunlin_shared::token::Pin;

    use super::*;
    use crate::state::tests::Dir;

    fn token(n: u8) -> JoinToken {
        JoinToken { secret: [n; JOIN_TOKEN_SECRET_BYTES], pin: Pin([9; 32]) }
    }

    #[test]
    fn the_variable_wins_over_the_file_and_that_over_the_credential() {
        let dir = Dir::new();
        let file = dir.0.join("token");
        let find = |variable: Option<&str>| {
            let sources = TokenSources::new(variable.map(Into::into), Some(file.clone()), Some(&dir.0));
            sources.find().expect("what is there is good")
        };
        assert_eq!(find(None), None);
        fs::write(dir.0.join(CREDENTIAL), token(1).reveal()).expect("it is writable");
        assert_eq!(find(None), Some(token(1)));
        fs::write(&file, format!("{}\n", token(2).reveal())).expect("it is writable");
        assert_eq!(find(None), Some(token(2)));
        assert_eq!(find(Some(&token(3).reveal())), Some(token(3)));
        assert_eq!(find(Some("")), Some(token(2)), "an empty variable is none");
    }

    #[test]
    fn a_token_that_is_wrong_is_said_with_its_place_and_not_passed_over() {
        let dir = Dir::new();
        let file = dir.0.join("token");
        fs::write(dir.0.join(CREDENTIAL), token(1).reveal()).expect("it is writable");
        fs::write(&file, "hunter2").expect("it is writable");
        let sources = TokenSources::new(None, Some(file.clone()), Some(&dir.0));
        let error = sources.find().expect_err("it is none").to_string();
        assert!(error.contains("/token") && error.contains("no join token") && !error.contains("hunter2"), "{error}");
        fs::write(&file, vec![b'x'; 5_000]).expect("it is writable");
        assert_eq!(sources.find().expect("the credential can be read"), Some(token(1)));
        fs::remove_file(dir.0.join(CREDENTIAL)).expect("it is there");
        let error = sources.find().expect_err("nothing can be read");
        assert!(error.to_string().contains("/token cannot be read; let the agent's user"), "{error}");
        let variable = TokenSources::new(Some("hunter2".into()), None, None);
        assert!(variable.find().expect_err("it is none").to_string().contains(VARIABLE));
        assert!(!format!("{variable:?}").contains("hunter2"));
    }
}
