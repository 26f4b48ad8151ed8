//! Whether the agent looks at a host from inside a container: what it sees there is partly the container's and partly
//! the whole host's, and nobody should take one for the other.

use std::path::Path;

use super::report::{Report, Verdict};

/// What the kernel gives the namespace of its first process (PROC_PID_INIT_INO of `linux/proc_ns.h`).
const FIRST_PROCESSES: &str = "pid:[4026531836]";
/// Engines leave one of these in the root of what they start.
const MARKS: [&str; 2] = [".dockerenv", "run/.containerenv"];

impl Report {
    /// Nothing is wrong with it: an application's container is a place like another.
    pub(super) fn place(&mut self, root: &Path) {
        let namespace = std::fs::read_link(root.join("proc/self/ns/pid")).unwrap_or_default();
        let has_own_processes = !namespace.as_os_str().is_empty() && namespace != Path::new(FIRST_PROCESSES);
        if !has_own_processes && !MARKS.iter().any(|mark| root.join(mark).exists()) {
            return;
        }
        let processes = if has_own_processes { "this container's alone" } else { "the whole host's" };
        let text = format!(
            "in a container. Processes are {processes}; file systems are this container's; ports and network devices are \
             those of the network that it is in. CPU, memory, load and disks are the whole host's, whatever this \
             container may use of them"
        );
        self.add(Verdict::Ok, "place", text);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::state::tests::Dir;

    fn said(root: &Path) -> String {
        let mut report = Report::default();
        report.place(root);
        report.to_string()
    }

    #[test]
    fn a_container_is_told_by_its_processes_or_by_the_mark_of_its_engine() {
        let root = Dir::new();
        assert!(!said(&root.0).contains("place"), "nothing is known of it");
        let namespaces = root.0.join("proc/self/ns");
        fs::create_dir_all(&namespaces).expect("it is writable");
        symlink(FIRST_PROCESSES, namespaces.join("pid")).expect("it is writable");
        assert!(!said(&root.0).contains("place"), "a host");
        fs::write(root.0.join(".dockerenv"), "").expect("it is writable");
        assert!(said(&root.0).contains("in a container. Processes are the whole host's"));
        fs::remove_file(namespaces.join("pid")).expect("it is there");
        symlink("pid:[4026532999]", namespaces.join("pid")).expect("it is writable");
        assert!(said(&root.0).contains("in a container. Processes are this container's alone"));
    }
}
