//! A machine that is set back to an earlier state counts again what it counted before. The collector notices, the
//! agent goes on under a higher epoch, and what was confirmed stays what it was.

use std::fs;

use dunlin_shared::id::Epoch;
use dunlin_tests::deadline::until;
use dunlin_tests::firewall::{self, Loss, Way};
use dunlin_tests::tool;
use dunlin_tests::window::History;
use serde_json::Value;

use super::{Host, LIMIT, Site};

impl Site {
    /// Puts a copy in the place of the host's disk.
    fn set_back(&self, host: &Host, copy: &str) {
        fs::remove_dir_all(&host.state).expect("it is there");
        let mut command = tool::command("cp").expect("coreutils are there");
        tool::finish(command.arg("-a").arg(self.scratch.join(copy)).arg(&host.state)).expect("it is copied");
    }

    /// Waits until so many frames of an epoch are on the collector's disk and none is missing before them: the newest
    /// arrives first. Gives all that is there.
    fn stored(&self, id: &str, epoch: u32, count: usize, host: &Host) -> History {
        let look = || {
            let history = self.history(id)?;
            (of(&history, epoch) >= count && history.check().is_ok()).then_some(history)
        };
        until(&format!("{count} frames of epoch {epoch}"), LIMIT, look).unwrap_or_else(|error| {
            panic!("{error}: {:#?}\n{}\n{}", self.history(id), self.collector.log_text(), host.running.log_text())
        })
    }

    fn rewinds(&self) -> Vec<Value> {
        let said = self.done(&["events", "-o", "json", "--kind", "node.rewound"]);
        said.lines().map(|line| serde_json::from_str(line).expect("one event a line")).collect()
    }
}

fn of(history: &History, epoch: u32) -> usize {
    history.frames.iter().filter(|frame| frame.epoch == Epoch(epoch)).count()
}

/// A host whose first run was short, and the name of a copy of its disk as that run left it.
fn with_copy(site: &Site) -> (String, Host) {
    let token = site.token(&[]);
    let mut host = site.host("web", (1, 1), Some(&token));
    let id = site.up("web", &host);
    host.stop();
    host.copied_to(site, "snapshot");
    (id, host)
}

#[test]
fn a_disk_that_was_set_back_draws_a_used_epoch_and_goes_on_under_a_higher_one() {
    let site = Site::start();
    let (id, _) = with_copy(&site);
    let mut host = site.host("web", (1, 1), None);
    site.stored(&id, 2, 6, &host);
    host.stop();
    let before = site.history(&id).expect("it is known");

    site.set_back(&host, "snapshot");
    let mut host = site.host("web", (2, 1), None);
    host.wait_log("this machine was set back to an earlier state; it goes on under a new epoch");
    host.wait_log("goes on under a new epoch epoch=3");
    let after = site.stored(&id, 3, 3, &host);
    assert_eq!(site.up("web", &host), id);
    assert_eq!(site.nodes().len(), 1);
    assert_eq!(after.frames[..before.frames.len()], before.frames, "what was confirmed stands where it stood");
    assert_eq!(of(&after, 2), of(&before, 2), "and nothing came between under numbers that were used");
    after.check().expect("nothing is missing and nothing is there twice");
    let rewinds = site.rewinds();
    assert_eq!(rewinds.len(), 1, "{rewinds:#?}");
    assert_eq!((&rewinds[0]["node"], &rewinds[0]["epoch"]), (&id.into(), &2.into()), "{rewinds:#?}");
    host.stop();
    let last = fs::read_to_string(host.state.join("epoch")).expect("it is there");
    assert!(last.starts_with("3 "), "the next run counts on: {last}");
}

#[test]
fn a_machine_that_is_woken_from_an_old_image_is_told_so_and_what_came_after_the_image_stays() {
    let site = Site::start();
    let (id, rested) = with_copy(&site);
    rested.copied_to(&site, "other");
    // Nobody answers it, so it counts under its epoch alone; then its machine stands still.
    firewall::lose(&site.namespace, Way::In, Loss::All).expect("it is ours");
    let sleeper = site.host("web", (1, 1), None);
    let counted = || fs::read_to_string(sleeper.state.join("epoch")).is_ok_and(|text| text.starts_with("2 "));
    until("it has drawn its epoch", LIMIT, || counted().then_some(())).expect("it starts");
    sleeper.running.stop().expect("it stands still");
    firewall::clear(&site.namespace).expect("it is ours");

    // The same machine from the same disk runs on, as the one of which the image was taken.
    let mut running_on = site.host("other", (1, 1), None);
    // So far ahead that the other cannot overtake it before it is heard.
    site.stored(&id, 2, 10, &running_on);
    running_on.stop();
    let before = site.history(&id).expect("it is known");

    let mut woken = sleeper;
    woken.running.cont().expect("it goes on");
    woken.wait_log("goes on under a new epoch epoch=3");
    let after = site.stored(&id, 3, 3, &woken);
    assert_eq!(after.frames[..before.frames.len()], before.frames);
    after.check().expect("nothing is missing and nothing is there twice");
    assert_eq!(site.rewinds().len(), 1, "{:#?}", site.rewinds());
    assert_eq!(site.nodes().len(), 1);
}
