//! Who may name whom, as one table. A border that is not in the table is not kept.
//! Paths are compared after `use`, `super` and aliases are resolved, so a renamed import does not get round a border.

use crate::Finding;
use crate::lexer::Token;
use crate::source::Source;

/// Crates that bring a clock, I/O, randomness or a runtime: what pure code may not touch.
const IMPURE_CRATES: &[&str] = &[
    "anyhow",
    "arc_swap",
    "axum",
    "bollard",
    "getrandom",
    "hyper",
    "lettre",
    "libc",
    "mio",
    "nix",
    "quinn",
    "rand",
    "reqwest",
    "ring",
    "rusqlite",
    "rustix",
    "rustls",
    "sd_notify",
    "socket2",
    "sysinfo",
    "tokio",
    "tracing",
    "tracing_subscriber",
];

/// The parts of `std` that do I/O, read a clock or start a thread. Address types and `Duration` are plain data.
const IMPURE_STD: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io::stderr",
    "std::io::stdin",
    "std::io::stdout",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

struct Border {
    /// Modules, without `.rs`, that this border binds.
    inside: &'static [&'static str],
    /// Modules inside of those that are free.
    except: &'static [&'static str],
    banned: &'static [&'static [&'static str]],
    /// Longer paths below a banned one that are allowed.
    allowed: &'static [&'static str],
    /// False where inline tests may cross it.
    binds_tests: bool,
    advice: &'static str,
}

const BORDERS: &[Border] = &[
    Border {
        inside: &["shared"],
        except: &[],
        banned: &[&["dunlin_agent", "dunlin_collector", "dunlin_tests"]],
        allowed: &[],
        binds_tests: true,
        advice: "shared names no other crate of ours; move what both ends need into shared",
    },
    Border {
        inside: &[
            "shared/src",
            "collector/src/engine",
            "collector/src/block",
            "collector/src/ingest",
            "collector/src/points",
            "collector/src/policy",
            "collector/src/record",
            "collector/src/registry",
            "collector/src/rollup",
            "collector/src/stock",
            "collector/src/stretch",
            "collector/src/trial",
            "collector/src/window/retain",
        ],
        except: &[],
        banned: &[IMPURE_CRATES, IMPURE_STD],
        allowed: &[],
        binds_tests: false,
        advice: "pure code has no clock, no I/O, no async; take `now`, bytes or randomness as an argument and return effects",
    },
    Border {
        inside: &["collector/src/engine"],
        except: &[],
        banned: &[&["crate", "dunlin_collector"]],
        allowed: &["crate::engine", "crate::record"],
        binds_tests: true,
        advice: "the engine uses dunlin_shared, the records of the log and itself alone; let the pipeline pass in what it needs",
    },
    Border {
        inside: &["agent"],
        except: &[],
        banned: &[&["dunlin_collector", "dunlin_tests"]],
        allowed: &[],
        binds_tests: true,
        advice: "the agent never names the collector; only `tests` sees both",
    },
    Border {
        inside: &["collector"],
        except: &[],
        banned: &[&["dunlin_agent", "dunlin_tests"]],
        allowed: &[],
        binds_tests: true,
        advice: "the collector never names the agent; only `tests` sees both",
    },
    Border {
        inside: &["agent/src"],
        except: &["agent/src/uplink"],
        banned: &[&["quinn", "quinn_proto"]],
        allowed: &[],
        binds_tests: true,
        advice: "only uplink names quinn; the session knows nothing of its transport",
    },
    Border {
        inside: &["agent/src"],
        except: &["agent/src/sample/container"],
        banned: &[&["bollard"]],
        allowed: &[],
        binds_tests: true,
        advice: "only sample::container names bollard",
    },
    Border {
        inside: &["agent/src"],
        except: &[],
        banned: &[&[
            "std::net::TcpListener",
            "std::os::unix::net::UnixListener",
            "std::process::Command",
            "tokio::net::TcpListener",
            "tokio::net::UnixListener",
            "tokio::process",
        ]],
        allowed: &[],
        binds_tests: false,
        advice: "the agent listens nowhere and executes nothing",
    },
    Border {
        inside: &["collector/src"],
        except: &["collector/src/uplink"],
        banned: &[&["quinn", "quinn_proto", "quinn_udp"]],
        allowed: &[],
        binds_tests: true,
        advice: "only uplink names quinn; the session knows nothing of its transport",
    },
    Border {
        inside: &["collector/src"],
        except: &["collector/src/store"],
        banned: &[&["rusqlite", "libsqlite3_sys"]],
        allowed: &[],
        binds_tests: true,
        advice: "only store names rusqlite; add what you need to the store",
    },
    Border {
        inside: &["collector/src"],
        except: &["collector/src/api"],
        banned: &[&["axum", "hyper", "tower", "tower_http", "utoipa_axum"]],
        allowed: &[],
        binds_tests: true,
        advice: "only api names axum",
    },
    Border {
        inside: &["collector/src"],
        except: &["collector/src/api", "collector/src/shape"],
        banned: &[&["utoipa"]],
        allowed: &[],
        binds_tests: true,
        advice: "only api and its shapes name utoipa",
    },
    Border {
        inside: &["collector/src/api"],
        except: &[],
        banned: &[&["crate::store", "crate::ingest", "crate::uplink"]],
        allowed: &[
            "crate::store::ControlReader",
            "crate::store::EventRow",
            "crate::store::KeptAlert",
            "crate::store::Level",
            "crate::store::LogRow",
            "crate::store::StoreError",
        ],
        binds_tests: false,
        advice: "api reads through the store's readers and the snapshot, and sends commands to the pipeline; it never writes",
    },
    Border {
        inside: &["collector/src/bin/dunlin"],
        except: &[],
        banned: &[&["dunlin_collector", "quinn", "rusqlite", "axum"]],
        allowed: &[
            "dunlin_collector::client",
            "dunlin_collector::rules::RuleBook",
            "dunlin_collector::shape",
            "dunlin_collector::trial",
        ],
        binds_tests: true,
        advice: "the CLI is an HTTP client, and tries rules by the code that a collector runs; nothing else",
    },
];

pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let mut findings: Vec<Finding> = BORDERS.iter().flat_map(|border| crossings(border, source)).collect();
    if lies_in(&source.path, "shared/src") || lies_in(&source.path, "collector/src/engine") {
        findings.extend(awaits(source));
    }
    findings
}

fn crossings(border: &Border, source: &Source) -> Vec<Finding> {
    let bound = border.inside.iter().any(|module| lies_in(&source.path, module))
        && !border.except.iter().any(|module| lies_in(&source.path, module));
    if !bound {
        return Vec::new();
    }
    source
        .paths
        .iter()
        .filter(|path| border.binds_tests || !source.is_test(path.line))
        .filter(|path| border.banned.iter().copied().flatten().any(|banned| path.names(banned)))
        .filter(|path| !border.allowed.iter().any(|allowed| path.names(allowed)))
        .map(|path| Finding::new(&source.path, path.line, format!("`{}`: {}", path.text(), border.advice)))
        .collect()
}

fn awaits(source: &Source) -> Vec<Finding> {
    source
        .tokens
        .iter()
        .filter(|(_, token)| matches!(token, Token::Word(word) if word == "async" || word == "await"))
        .map(|(line, _)| Finding::new(&source.path, *line, "pure code is not async; the shell around it awaits"))
        .collect()
}

/// True for `module.rs` and for everything in the directory `module`.
fn lies_in(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fires(path: &str, text: &str) -> bool {
        !check(&Source::new(path, text)).is_empty()
    }

    #[test]
    fn every_border_fires_on_a_crossing() {
        for (path, text) in [
            ("shared/src/id.rs", "use dunlin_agent::spool;"),
            ("shared/src/id.rs", "#[cfg(test)]\nmod tests { use dunlin_collector::store; }"),
            ("shared/src/id.rs", "fn f() { std::fs::read(p); }"),
            ("shared/src/id.rs", "use std::time::{Duration, Instant};"),
            ("shared/src/id.rs", "use std::net::UdpSocket as S;"),
            ("shared/src/id.rs", "use tokio;"),
            ("shared/src/id.rs", "async fn f() {}"),
            ("collector/src/engine/window.rs", "use tracing::info;"),
            ("collector/src/engine/window.rs", "use crate::store::control::Row;"),
            ("collector/src/engine/mod.rs", "use super::store::Row;"),
            ("collector/src/engine/window.rs", "fn f() { x.await; }"),
            ("agent/src/app.rs", "use dunlin_collector::app;"),
            ("collector/src/app.rs", "use dunlin_agent::app;"),
            ("agent/src/app.rs", "use quinn::Endpoint;"),
            ("agent/src/sample/host.rs", "use bollard::Docker;"),
            ("agent/src/stats.rs", "use tokio::net::{UdpSocket, TcpListener};"),
            ("agent/src/app.rs", "fn f() { std::process::Command::new(x); }"),
            ("collector/src/ingest.rs", "fn f(c: quinn::Connection) {}"),
            ("collector/src/ingest.rs", "use rusqlite as db;"),
            ("collector/src/app.rs", "use {std::fmt, axum::Router};"),
            ("collector/src/api/mod.rs", "use crate::store::{reader, writer};"),
            ("collector/src/api/nodes.rs", "use crate::store::control::Control;"),
            ("collector/src/bin/dunlin/main.rs", "use dunlin_collector::store;"),
        ] {
            assert!(fires(path, text), "{path} may hold {text}");
        }
    }

    #[test]
    fn what_is_allowed_does_not_fire() {
        for (path, text) in [
            ("shared/src/time.rs", "use std::time::Duration; use std::net::IpAddr;"),
            ("shared/src/id.rs", "#[cfg(test)]\nmod tests { use std::fs; }"),
            ("shared/src/session/agent.rs", "use crate::wire::Frame; // tokio::spawn"),
            (
                "collector/src/engine/alert.rs",
                "use super::liveness::X; use crate::engine::Effect; use dunlin_shared::id;",
            ),
            ("agent/src/uplink.rs", "use quinn::Endpoint;"),
            ("agent/src/uplink/resolver.rs", "use tokio::net::UdpSocket;"),
            ("agent/src/sample/container.rs", "use bollard::Docker;"),
            ("collector/src/uplink/peer.rs", "use quinn_proto::Connection;"),
            ("collector/src/store/mod.rs", "use rusqlite::Connection; use crate::engine::Effect;"),
            ("collector/src/api/mod.rs", "use axum::Router; use crate::store::{ControlReader, Level};"),
            ("collector/src/shape/node.rs", "use utoipa::ToSchema;"),
            ("collector/src/bin/dunlin/top.rs", "use dunlin_collector::client::table::Table;"),
            ("shared/examples/list.rs", "use dunlin_shared::metric; fn f() { std::io::stdout(); }"),
            ("tests/src/lib.rs", "use dunlin_agent::app; use dunlin_collector::app as c;"),
        ] {
            assert!(!fires(path, text), "{path} may not hold {text}");
        }
    }

    #[test]
    fn a_crossing_is_reported_where_it_stands() {
        let found = check(&Source::new("agent/src/app.rs", "//! Head.\n\nuse quinn::Endpoint;\n"));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].path.as_str(), found[0].line), ("agent/src/app.rs", 3));
    }
}
