//! A recorded root for the tests of this module: files below a directory that goes when it is dropped.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use dunlin_shared::codec::Grouper;
use dunlin_shared::sample::{Reading, Sample, Subject};

#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("dunlin-tree-{}-{unique}", std::process::id()));
        let tree = Self { root };
        fs::create_dir_all(&tree.root).expect("a directory can be made");
        for (name, text) in files {
            tree.set(name, text);
        }
        tree
    }

    pub(super) fn path(&self) -> &Path {
        &self.root
    }

    pub(super) fn set(&self, name: &str, text: &str) {
        self.set_bytes(name.as_bytes(), text.as_bytes());
    }

    pub(super) fn set_bytes(&self, name: &[u8], bytes: &[u8]) {
        let path = self.root.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().expect("a file has a directory")).expect("it can be made");
        fs::write(path, bytes).expect("it can be written");
    }

    pub(super) fn remove(&self, name: &str) {
        fs::remove_file(self.root.join(name)).expect("it was there");
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).expect("the tree is ours");
    }
}

/// Looks values up in one sample.
#[derive(Debug)]
pub(super) struct Values(Reading);

impl Values {
    pub(super) fn of(sample: &Sample) -> Self {
        Self(Grouper::default().lay_out(sample).0)
    }

    pub(super) fn host(&self, name: &str) -> Option<f64> {
        self.0.value(&Subject::HOST(), name)
    }

    /// Of a subject in its written form.
    pub(super) fn at(&self, subject: &str, name: &str) -> Option<f64> {
        self.0.value(&Subject::parse(subject).expect("the test names a subject"), name)
    }

    pub(super) fn subjects(&self, prefix: &str) -> Vec<String> {
        let all = self.0.layout.subjects.iter().map(ToString::to_string);
        all.filter(|name| name.starts_with(prefix)).collect()
    }
}
