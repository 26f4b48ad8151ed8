//! The files of the rules' directory.

use std::io;
use std::path::Path;

use dunlin_shared::limits::RULE_FILE_BYTES_MAX;

use super::RuleBook;

/// What ships and what the directory holds, or every line of what is wrong.
pub fn load(dir: &Path) -> Result<RuleBook, Vec<String>> {
    RuleBook::default().with_files(files(dir).map_err(|line| vec![line])?)
}

/// Sorted by name. A directory that is not there holds none.
pub(super) fn files(dir: &Path) -> Result<Vec<(String, String)>, String> {
    let cannot = |error: io::Error| format!("rules_dir: {} cannot be read: {error}", dir.display());
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cannot(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(cannot)?.path();
        if path.extension().is_none_or(|ending| ending != "toml") {
            continue;
        }
        let name = path.display().to_string();
        let size = std::fs::metadata(&path).map_err(|error| format!("{name}: cannot be read: {error}"))?.len();
        if size > RULE_FILE_BYTES_MAX as u64 {
            return Err(format!(
                "{name}: {size} bytes are too many for a file of rules; the limit is {RULE_FILE_BYTES_MAX}"
            ));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{name}: cannot be read: {error}"))?;
        files.push((name, text));
    }
    files.sort();
    Ok(files)
}
