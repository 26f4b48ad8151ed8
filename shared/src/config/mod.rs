//! Configuration of both programs: flag over environment over file over default, checked against one static schema.
//! Pure: text and variables are handed in, nothing is read here. Every mistake is reported, with its place, at once;
//! no mistake is ever replaced by a default, and no input can panic. Only a wrong schema or a wrong path in our own
//! code does.

mod file;
mod layers;
mod position;
mod reference;
mod schema;
mod settings;
mod shown;
mod value;

use std::fmt;

pub use layers::{File, Layers};
pub use reference::render_reference;
pub use schema::{Key, Kind, key_of_flag, nearest_flag, nearest_word};
pub use settings::{Origin, Setting, Settings};
pub use value::{Value, parse_duration_ms, parse_size_bytes, render_duration};

// The language of rules speaks of what a person wrote in the same words.
pub(crate) use file::a_type;
pub(crate) use schema::nearest;
pub(crate) use value::{insert_label, quote};

/// A full reference file with comments has about 8 KiB; eight times as much is a mistake or an attack.
pub const FILE_LEN_MAX: usize = 64 * 1024;

/// A person mends a screenful at a time. Beyond it the list says that there is more.
pub const ERRORS_MAX: usize = 32;

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Line and column count from one, the column in characters.
    File {
        file: String,
        line: usize,
        column: usize,
    },
    Env {
        variable: String,
    },
    Flag {
        flag: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Env { variable } => f.write_str(variable),
            Self::Flag { flag } => write!(f, "--{flag}"),
        }
    }
}

/// One mistake in the configuration, in one line of text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{file}: {len} bytes are too many for a configuration; the limit is {FILE_LEN_MAX}")]
    TooLong { file: String, len: usize },
    #[error("{at}: not UTF-8 text")]
    NotUtf8 { at: Place },
    #[error("{at}: {reason}")]
    Syntax { at: Place, reason: String },
    #[error("{at}: {key} is given twice; keep one")]
    Repeated { at: Place, key: String },
    #[error("{at}: unknown key {key}; {hint}")]
    UnknownKey { at: Place, key: String, hint: String },
    #[error("{at}: unknown table {table}; {hint}")]
    UnknownTable { at: Place, table: String, hint: String },
    #[error("{at}: unknown; {hint}")]
    UnknownVariable { at: Place, hint: String },
    #[error("{at}: {key}: {problem}")]
    BadValue { at: Place, key: String, problem: String },
    #[error("{ERRORS_MAX} mistakes are shown; there are more")]
    More,
}

/// Everything that is wrong with a configuration, one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines.join("\n"))]
pub struct Refused {
    pub lines: Vec<String>,
}

impl From<Vec<ConfigError>> for Refused {
    fn from(errors: Vec<ConfigError>) -> Self {
        Self { lines: errors.iter().map(ToString::to_string).collect() }
    }
}

#[cfg(test)]
mod tests;
