//! Names of users, from `/etc/passwd` alone: the library that asks other services loads them into the agent.

use std::collections::HashMap;
use std::fs;
use std::time::SystemTime;

use dunlin_shared::limits::SUBJECT_NAME_BYTES_MAX;

use super::source::Source;

/// More users than that are not on a server; what is beyond has its number.
const USERS_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Users {
    names: HashMap<u32, Box<str>>,
    changed: Option<SystemTime>,
}

impl Users {
    /// Reads the file again when it is another one than before.
    pub(super) fn look(&mut self, source: &mut Source) {
        let changed = fs::metadata(source.path("etc/passwd")).and_then(|found| found.modified()).ok();
        if changed == self.changed {
            return;
        }
        self.changed = changed;
        self.names = source.read("etc/passwd").map(|text| parse(&text.lossy())).unwrap_or_default();
    }

    /// Its name, else its number.
    pub(super) fn name(&self, user: u32) -> Box<str> {
        self.names.get(&user).cloned().unwrap_or_else(|| user.to_string().into())
    }
}

/// The first of two names for a number is the usual one.
fn parse(text: &str) -> HashMap<u32, Box<str>> {
    let mut names = HashMap::new();
    for line in text.lines().take(USERS_MAX) {
        let mut fields = line.split(':');
        let (Some(name), Some(Ok(user))) = (fields.next(), fields.nth(1).map(str::parse)) else { continue };
        if !name.is_empty() && name.len() <= SUBJECT_NAME_BYTES_MAX && !name.chars().any(char::is_control) {
            names.entry(user).or_insert_with(|| name.into());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample::tree::Tree;

    #[test]
    fn a_user_has_its_name_or_its_number() {
        let tree =
            Tree::new(&[("etc/passwd", "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\nnonsense\nwww:x:33:33::/:\n")]);
        let (mut users, mut source) = (Users::default(), Source::new(tree.path()));
        assert_eq!(&*users.name(33), "33");
        users.look(&mut source);
        assert_eq!([&*users.name(0), &*users.name(33), &*users.name(999)], ["root", "www", "999"]);
        tree.remove("etc/passwd");
        users.look(&mut source);
        assert_eq!(&*users.name(33), "33");
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_of_users(text: String) {
            drop(parse(&text));
        }
    }
}
