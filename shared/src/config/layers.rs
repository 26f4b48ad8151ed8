//! The layers and their order: flag over environment over file over default.
//! Every layer is checked whole, also where a higher one wins, so that a mistake never waits for the day on which the
//! flag is taken away.

use std::ffi::{OsStr, OsString};

use super::file;
use super::schema::{self, Key, assert_schema};
use super::settings::{Origin, Settings};
use super::value::{self, Value};
use super::{ConfigError, ERRORS_MAX, FILE_LEN_MAX, Place};

/// A configuration file that the caller has read.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// As messages name it.
    pub name: &'a str,
    pub bytes: &'a [u8],
}

/// Everything that a configuration is made of.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    pub schema: &'static [Key],
    pub file: Option<File<'a>>,
    /// `DUNLIN_AGENT`, without the underscore after it.
    pub env_prefix: &'a str,
    /// The whole environment; what has another prefix is none of ours.
    pub env: &'a [(OsString, OsString)],
    /// Variables with the prefix that are not keys, such as `DUNLIN_AGENT_CONFIG`.
    pub env_allowed: &'a [&'a str],
    /// Keys as `key_of_flag` found them. A flag without a value is "true".
    pub flags: &'a [(&'static Key, OsString)],
}

impl Layers<'_> {
    /// All settings, or every mistake in every layer.
    pub fn load(&self) -> Result<Settings, Vec<ConfigError>> {
        assert_schema(self.schema);
        let (from_file, mut errors) = match self.file {
            Some(file) => file::read(self.schema, file.name, file.bytes),
            None => (Vec::new(), Vec::new()),
        };
        let mut settings = Settings::new(self.schema);
        for entry in from_file {
            settings.set(entry.key, entry.value, Origin::File { line: entry.line });
        }
        let above_file_errors = self.take_env(&mut settings).into_iter().chain(self.take_flags(&mut settings));
        let mut above_file_errors: Vec<ConfigError> = above_file_errors.collect();
        if above_file_errors.len() > ERRORS_MAX {
            above_file_errors.truncate(ERRORS_MAX);
            above_file_errors.push(ConfigError::More);
        }
        errors.append(&mut above_file_errors);
        if errors.is_empty() { Ok(settings) } else { Err(errors) }
    }

    fn take_env(&self, settings: &mut Settings) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        for (variable, text) in self.env {
            let variable = variable.to_string_lossy();
            let ours = variable.strip_prefix(self.env_prefix).is_some_and(|rest| rest.starts_with('_'));
            if !ours || self.env_allowed.contains(&variable.as_ref()) {
                continue;
            }
            let at = || Place::Env { variable: shown_name(&variable) };
            match self.schema.iter().find(|key| key.env_name(self.env_prefix) == variable) {
                Some(key) => match given(key, text, at()) {
                    Ok(value) => settings.set(key, value, Origin::Env),
                    Err(error) => errors.push(error),
                },
                None => errors.push(ConfigError::UnknownVariable { at: at(), hint: self.env_hint(&variable) }),
            }
        }
        // The environment has no order that a person knows.
        errors.sort_by_key(ToString::to_string);
        errors
    }

    fn take_flags(&self, settings: &mut Settings) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        for (index, (key, text)) in self.flags.iter().enumerate() {
            let at = Place::Flag { flag: key.flag_name() };
            if self.flags[..index].iter().any(|(earlier, _)| earlier.path == key.path) {
                errors.push(ConfigError::Repeated { at, key: value::quote(key.path) });
                continue;
            }
            match given(key, text, at) {
                Ok(value) => settings.set(key, value, Origin::Flag),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    fn env_hint(&self, variable: &str) -> String {
        let keys = self.schema.iter().map(|key| key.env_name(self.env_prefix));
        let allowed = self.env_allowed.iter().map(|name| (*name).to_owned());
        let nearest = schema::nearest(variable, keys.chain(allowed));
        nearest.map_or_else(|| "there are no such variables".to_owned(), |near| near.hint("", ""))
    }
}

fn given(key: &Key, text: &OsStr, at: Place) -> Result<Value, ConfigError> {
    let Some(text) = text.to_str() else {
        return Err(ConfigError::NotUtf8 { at });
    };
    let result = if text.len() > FILE_LEN_MAX {
        Err(format!("{} bytes are too many; the limit is {FILE_LEN_MAX}", text.len()))
    } else {
        value::parse(key, text)
    };
    result.map_err(|problem| ConfigError::BadValue { at, key: key.path.to_owned(), problem })
}

/// A variable's name as a message shows it: plain as it is, or quoted where it is strange.
fn shown_name(variable: &str) -> String {
    let plain = variable.len() <= 128 && variable.bytes().all(|byte| byte.is_ascii_graphic());
    if plain { variable.to_owned() } else { value::quote(variable) }
}
