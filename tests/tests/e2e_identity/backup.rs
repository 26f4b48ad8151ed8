//! A backup of the collector that runs, and what becomes of a fleet whose collector was put back to it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use dunlin_shared::id::Epoch;
use dunlin_tests::deadline::until;
use dunlin_tests::process::Program;
use dunlin_tests::tool;
use serde_json::Value;

use super::{Host, LIMIT, Site};

impl Site {
    pub(super) fn state(&self) -> PathBuf {
        self.scratch.join("collector")
    }

    /// `dunlin-collector COMMAND` on this site's state: whether it did, and what it said.
    pub(super) fn collector_does(&self, arguments: &[&Path]) -> (bool, String) {
        let log = self.scratch.join("command.log");
        fs::remove_file(&log).ok();
        let program = Program::ours("dunlin-collector", "dunlin-collector").expect("it is built").log(log);
        let program = arguments.iter().fold(program, |program, argument| program.arg(argument));
        let mut running = program.arg("--state-dir").arg(self.state()).start().expect("it starts");
        let status = running.wait_exit(LIMIT).expect("it ends");
        (status.success(), running.log_text())
    }

    pub(super) fn does(&self, arguments: &[&Path]) -> String {
        let (done, said) = self.collector_does(arguments);
        assert!(done, "{said}\n{}", self.collector.log_text());
        said
    }

    fn stored_upto(&self, id: &str, count: usize, host: &Host) {
        let look = || {
            let history = self.history(id)?;
            (history.frames.len() >= count).then_some(())
        };
        until(&format!("{count} frames"), LIMIT, look)
            .unwrap_or_else(|error| panic!("{error}\n{}\n{}", self.collector.log_text(), host.running.log_text()));
    }

    /// As if a restore had been cut off behind the exchange: what lies beside then was the state, and stays.
    fn restore_is_cut_off_and_done_again(&self, file: &Path) {
        let aside = || {
            let beside = fs::read_dir(self.state().parent().expect("a place")).expect("it is there").flatten();
            let paths = beside.map(|entry| entry.path());
            paths.filter(|path| path.display().to_string().contains("collector.before-")).collect::<Vec<_>>()
        };
        let [old] = &aside()[..] else { panic!("{:?}", aside()) };
        let marked = old.join("marked");
        fs::write(&marked, "").expect("it can be written");
        fs::rename(old, self.state().with_extension("restore.new")).expect("it can be renamed");
        self.does(&["restore".as_ref(), file, "--over".as_ref()]);
        assert!(aside().len() == 2 && aside().iter().any(|dir| dir.join("marked").exists()), "{:?}", aside());
    }

    fn told(&self, kind: &str) -> Vec<Value> {
        let said = self.done(&["events", "-o", "json", "--kind", kind]);
        said.lines().map(|line| serde_json::from_str(line).expect("one event a line")).collect()
    }
}

fn frames(site: &Site, id: &str) -> usize {
    site.history(id).map_or(0, |history| history.frames.len())
}

#[test]
fn a_collector_that_was_put_back_to_a_backup_goes_on_with_a_gap_and_keeps_out_who_was_revoked_since() {
    let mut site = Site::start();
    let token = site.token(&[]);
    let (good, bad) = (site.host("good", (1, 1), Some(&token)), site.host("bad", (2, 2), Some(&token)));
    let (id, bad_id) = (site.up("good", &good), site.up("bad", &bad));
    site.stored_upto(&id, 4, &good);
    let at_backup = frames(&site, &id);

    let file = site.scratch.join("state.tar");
    let said = site.does(&["backup".as_ref(), &file]);
    assert!(said.contains("is written"), "{said}");
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    site.does(&["backup".as_ref(), "--verify".as_ref(), &file]);
    let listed = tool::run("tar", &["-tf".as_ref(), file.as_os_str()]).expect("an ordinary tar");
    for name in ["manifest.json", "control.db", "ca.key", "endpoint.key", "window/journal-", "sums"] {
        assert!(listed.contains(name), "{listed}");
    }
    assert!(!site.state().join("backup.new").exists());

    // What follows is acknowledged and not in the backup.
    let late = site.host("late", (3, 3), Some(&token));
    let late_id = site.up("late", &late);
    site.done(&["revoke", "bad"]);
    site.stored_upto(&id, at_backup + 6, &good);
    let cursor = site.told("node.enrolled").pop().expect("one enrolled")["cursor"].as_str().expect("text").to_owned();
    site.collector.terminate(LIMIT).expect("it stops");
    let (done, said) = site.collector_does(&["restore".as_ref(), &file]);
    assert!(!done && said.contains("holds a state already"), "{said}");
    let said = site.does(&["restore".as_ref(), &file, "--over".as_ref()]);
    assert!(said.contains("what it held before is in") && said.contains("1 nodes were revoked after"), "{said}");
    site.restore_is_cut_off_and_done_again(&file);
    let said = site.does(&["check".as_ref()]);
    assert!(said.contains("full since"), "{said}");
    assert!(!said.contains("WRONG  database") && said.contains("files are sound"), "{said}");

    site.collector = Site::launch(&site.namespace, &site.scratch);
    site.wait("one is up, one held, one revoked", &[&good, &bad, &late], |nodes| {
        let is = |id: &str, state: &str| nodes.iter().any(|node| node["id"] == id && node["state"] == state);
        (is(&id, "up") && is(&late_id, "held") && is(&bad_id, "revoked")).then_some(())
    });
    assert!(!site.state().join("restored.json").exists());
    let told = site.told("collector.restored");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0]["backup_at"].is_string() && told[0]["position"].is_u64(), "{told:?}");
    let gone = site.dunlin(&["events", "--after", &cursor, "-o", "json"]).expect_err("it is of another life");
    assert!(gone.to_string().contains("another life"), "{gone}");

    // The newest goes first, so what was not in the backup may lie in pieces.
    let gaps = until("a gap of all that was acknowledged since", LIMIT, || {
        let gaps: Vec<Value> = site.told("node.gap").into_iter().filter(|gap| gap["node"] == id.as_str()).collect();
        (gaps.iter().filter_map(|gap| gap["count"].as_u64()).sum::<u64>() >= 4).then_some(gaps)
    });
    let gaps = gaps.unwrap_or_else(|error| panic!("{error}\n{}", site.collector.log_text()));
    assert!(gaps.iter().all(|gap| gap["reason"] == "restored"), "{gaps:?}");
    site.stored_upto(&id, at_backup + 3, &good);
    let history = site.history(&id).expect("it is known");
    assert!(history.frames.iter().all(|frame| frame.epoch == Epoch(1)), "it goes on under its epoch");
    assert_eq!(site.told("node.rewound").len(), 0);
    assert_eq!(site.done(&["approve", "--held"]).trim(), "1 nodes may send now");
    assert_eq!(site.up("late", &late), late_id, "it is the node that it was");
}

#[test]
fn a_backup_of_a_stopped_collector_is_the_same_and_damage_is_refused_before_anything_changes() {
    let mut site = Site::start();
    let token = site.token(&[]);
    let host = site.host("web", (1, 1), Some(&token));
    let id = site.up("web", &host);
    site.stored_upto(&id, 3, &host);
    site.collector.kill9().expect("it is ours");
    let before = frames(&site, &id);
    let file = site.scratch.join("state.tar");
    site.does(&["backup".as_ref(), &file]);

    let mut bytes = fs::read(&file).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = site.scratch.join("damaged.tar");
    fs::write(&damaged, &bytes).expect("it can be written");
    for arguments in [["backup", "--verify"], ["restore", "--over"]] {
        let (done, said) = site.collector_does(&[arguments[0].as_ref(), arguments[1].as_ref(), &damaged]);
        assert!(!done && said.contains("cannot be used"), "{said}");
    }
    assert_eq!(frames(&site, &id), before, "nothing changed");

    fs::remove_dir_all(site.state()).expect("it is there");
    site.does(&["restore".as_ref(), &file]);
    assert_eq!(frames(&site, &id), before, "all of it is there");
    site.collector = Site::launch(&site.namespace, &site.scratch);
    assert_eq!(site.up("web", &host), id);
    site.stored_upto(&id, before + 2, &host);
    assert_eq!(site.told("collector.restored").len(), 1);
}
