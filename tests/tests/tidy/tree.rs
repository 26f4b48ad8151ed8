//! Reads the source tree into memory: every text file that is part of the project, by its path from the root.
//! It never follows a symbolic link, and never enters a build directory or what a fuzzer left behind.

use std::fs;
use std::path::Path;

/// Directories, by path from the root, that hold no source.
const SKIPPED: &[&str] = &[".git", "target", "tests/fuzz/target", "tests/fuzz/corpus", "tests/fuzz/artifacts"];

/// A lock file is written by cargo, and names what no person may name.
const GENERATED: &[&str] = &["Cargo.lock", "tests/fuzz/Cargo.lock"];

#[derive(Debug)]
pub(crate) struct File {
    /// From the root, with forward slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

pub(crate) fn read_all() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies one level below the root");
    let mut files = Vec::new();
    walk(root, "", &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn walk(dir: &Path, prefix: &str, files: &mut Vec<File>) {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("cannot list {}: {e}", dir.display()));
    for entry in entries {
        let entry = entry.unwrap_or_else(|e| panic!("cannot list {}: {e}", dir.display()));
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().unwrap_or_else(|e| panic!("cannot stat {path}: {e}"));
        if kind.is_dir() {
            // Cargo marks every build directory with this tag, wherever it was put.
            let is_build = entry.path().join("CACHEDIR.TAG").exists();
            if !is_build && !SKIPPED.contains(&path.as_str()) {
                walk(&entry.path(), &format!("{path}/"), files);
            }
        } else if kind.is_file() && !GENERATED.contains(&path.as_str()) {
            let bytes = fs::read(entry.path()).unwrap_or_else(|e| panic!("cannot read {path}: {e}"));
            // What is not UTF-8 is a fixture, and no rule speaks of those.
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(File { path, text });
            }
        }
    }
}
