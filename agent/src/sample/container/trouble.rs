//! What can be wrong with an engine's socket, in one line that says what would mend it.
//!
//! Nothing that an engine answered stands in that line: an answer may hold secrets.

use std::fmt;
use std::io;
use std::path::Path;

use dunlin_shared::limits::FACT_BYTES_MAX;
use thiserror::Error;

/// Why an engine cannot be asked.
#[derive(Debug, Error)]
pub enum Trouble {
    #[error("nothing is there; start the engine, or take it out of collect.sockets")]
    Missing,
    #[error("no permission; {}", Opening(group.as_deref()))]
    Denied { group: Option<String> },
    #[error("nothing listens there; start the engine")]
    Refused,
    #[error("it cannot be connected to")]
    Unreachable(#[source] io::Error),
    #[error("no answer within {limit_ms} ms; it is asked again")]
    Slow { limit_ms: u64 },
    #[error("it answers with more than {max} bytes; is it an engine?")]
    TooLong { max: usize },
    #[error("its answer cannot be read; is it an engine of Docker or Podman?")]
    Garbage,
    #[error("it refuses with status {status}; a proxy in front has to let GET of version, containers and events pass")]
    Status { status: u16 },
    #[error("it closed the connection; it is asked again")]
    Closed,
}

/// What opens a socket that is shut. The group is as good as root, so the other way stands beside it.
struct Opening<'a>(Option<&'a str>);

impl Trouble {
    pub(super) fn of_connect(error: io::Error, group: impl FnOnce() -> Option<String>) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Denied { group: group() },
            io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::Unreachable(error),
        }
    }

    /// Whether one container may be all that is wrong: engines fail or hang over a damaged one and tell the others.
    pub(super) const fn may_be_of_one(&self) -> bool {
        matches!(self, Self::Slow { .. } | Self::TooLong { .. } | Self::Garbage | Self::Status { status: 500.. })
    }

    /// The line for the inventory and for `check`, short enough for both.
    pub(super) fn line(&self, path: &Path) -> String {
        let mut line = format!("{}: {}", path.display(), crate::chain::chain(self));
        line.truncate(line.floor_char_boundary(FACT_BYTES_MAX));
        line
    }
}

impl fmt::Display for Opening<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(group) => write!(
                f,
                "a drop-in with SupplementaryGroups={group} opens it, and an engine's own group is root here; \
                 a socket proxy that allows GET alone is safer"
            ),
            None => f.write_str("a socket proxy that allows GET alone, named in collect.sockets, opens it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shut_socket_names_its_group_and_what_that_opens() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let line = Trouble::of_connect(denied(), || Some("docker".into())).line(Path::new("/run/docker.sock"));
        assert!(line.starts_with("/run/docker.sock: no permission; ") && line.contains("root here"), "{line}");
        assert!(line.contains("SupplementaryGroups=docker") && line.len() <= FACT_BYTES_MAX, "{line}");
        assert!(Trouble::of_connect(denied(), || None).line(Path::new("/s")).contains("GET alone"));
    }

    #[test]
    fn a_long_path_does_not_make_a_line_too_long() {
        let path = "/ü".repeat(200);
        assert!(Trouble::Missing.line(Path::new(&path)).len() <= FACT_BYTES_MAX);
    }
}
