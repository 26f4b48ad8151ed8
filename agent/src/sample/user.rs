//! Names of users, from the host's `/etc/passwd` alone: nothing here asks a directory service or loads a library.
//!
//! Who is not in the file is told by number. What was found is kept until the file changes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::name::shown;
use super::source::Source;

const PASSWD: &str = "etc/passwd";
/// Names that are kept; processes and sockets of a host belong to far fewer users.
const KEPT_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Users {
    names: BTreeMap<u32, Box<str>>,
    /// Of the file that the names are from: modified in seconds and nanoseconds, size, inode.
    stamp: Option<[i64; 4]>,
}

impl Users {
    /// Once a tick: forgets what it knew when the file is another.
    pub(super) fn look(&mut self, source: &Source) {
        let stamp = fs::metadata(source.path(PASSWD)).ok().map(|found| {
            let [size, inode] = [found.size(), found.ino()].map(u64::cast_signed);
            [found.mtime(), found.mtime_nsec(), size, inode]
        });
        if stamp != self.stamp {
            self.stamp = stamp;
            self.names.clear();
        }
    }

    pub(super) fn name(&mut self, source: &mut Source, uid: u32) -> Box<str> {
        if let Some(name) = self.names.get(&uid) {
            return name.clone();
        }
        let text = source.read(PASSWD).ok();
        let found = text.and_then(|text| user(text.bytes, uid).map(shown));
        let name: Box<str> = found.unwrap_or_else(|| uid.to_string()).into();
        if self.names.len() >= KEPT_MAX {
            self.names.clear();
        }
        self.names.insert(uid, name.clone());
        name
    }
}

/// The first that has this number: `name:password:number:...`.
pub fn user(text: &[u8], uid: u32) -> Option<&[u8]> {
    text.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.split(|&byte| byte == b':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        let number: u32 = std::str::from_utf8(number).ok()?.parse().ok()?;
        (number == uid && !name.is_empty() && !name.starts_with(b"#")).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample::tree::Tree;

    fn name(users: &mut Users, tree: &Tree, uid: u32) -> String {
        let mut source = Source::new(tree.path());
        users.look(&source);
        users.name(&mut source, uid).into()
    }

    #[test]
    fn a_user_has_the_first_name_of_its_number_and_a_stranger_its_number() {
        let passwd = "# people\nroot:x:0:0:root:/root:/bin/sh\n#old:x:33:33::/:\n\nwww-data:x:33:33::/:\nweb:x:33:33::/:\nbroken:x\nnis:x:many\n";
        let tree = Tree::new(&[("etc/passwd", passwd)]);
        let mut users = Users::default();
        assert_eq!([0, 33, 1_000].map(|uid| name(&mut users, &tree, uid)), ["root", "www-data", "1000"]);
        assert_eq!(name(&mut Users::default(), &Tree::new(&[]), 0), "0");
    }

    #[test]
    fn a_user_that_was_added_is_known_at_the_next_tick() {
        let tree = Tree::new(&[("etc/passwd", "root:x:0:0::/:\n")]);
        let mut users = Users::default();
        assert_eq!(name(&mut users, &tree, 7), "7");
        tree.set("etc/passwd", "root:x:0:0::/:\nseven:x:7:7::/:\n");
        assert_eq!(name(&mut users, &tree, 7), "seven");
    }

    #[test]
    fn names_that_are_kept_are_bounded() {
        let (tree, mut users) = (Tree::new(&[]), Users::default());
        (0..3_000).for_each(|uid| drop(name(&mut users, &tree, uid)));
        assert!(users.names.len() <= KEPT_MAX);
    }

    proptest! {
        #[test]
        fn any_file_is_read(bytes: Vec<u8>, uid: u32) {
            user(&bytes, uid);
        }
    }
}
