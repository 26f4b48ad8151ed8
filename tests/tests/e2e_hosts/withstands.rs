//! What services meet on a host that lives: restarts without end, kills, reboots, a plug that is pulled, a disk that is full.

use crate::{LIMIT, Pair};

const RESTARTS: u32 = 50;

#[test]
fn services_are_up_again_after_restarts_kills_reboots_and_a_pulled_plug() {
    let mut pair = Pair::with_collector();
    // Before anybody is connected, who would be waited for at each stop.
    let again = |unit: &str| format!("set -e; for i in $(seq {RESTARTS}); do systemctl restart {unit}; done");
    pair.collector.run(&again("dunlin-collector")).expect("each is ready again");
    pair.paste(&pair.invitation(""));
    let node = pair.wait_up();
    pair.web.run(&again("dunlin-agent")).expect("each is ready again");
    assert_eq!(pair.wait_up(), node);

    for (host, unit) in [(&pair.web, "dunlin-agent"), (&pair.collector, "dunlin-collector")] {
        let before = host.property(unit, "MainPID").expect("a number");
        host.run(&format!("kill -9 {before}")).expect("it runs");
        let started = host.wait("another process", LIMIT, || {
            let ready = host.property(unit, "ActiveState").ok()? == "active";
            host.property(unit, "MainPID").ok().filter(|id| ready && *id != before)
        });
        started.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(pair.wait_up(), node, "{unit} was killed");
    }

    pair.web.reboot().expect("it boots");
    assert_eq!(pair.wait_up(), node, "its host was booted");
    pair.collector.reboot().expect("it boots");
    assert_eq!(pair.wait_up(), node, "the collector's host was booted");
    pair.web.crash().expect("it boots");
    pair.collector.crash().expect("it boots");
    assert_eq!(pair.wait_up(), node, "the plug of both was pulled");
    let units = pair.web.run("systemctl --failed --plain --no-legend").expect("a list");
    assert_eq!(units, "", "nothing has failed on a fresh host");
}

#[test]
fn a_disk_that_is_full_at_the_start_is_said_in_one_line_and_needs_no_hand_once_there_is_room() {
    let pair = Pair::watched();
    let node = pair.wait_up();
    for (host, unit) in [(&pair.web, "dunlin-agent"), (&pair.collector, "dunlin-collector")] {
        // A file system of its own with what the service kept, and not a byte besides.
        let state = format!("/var/lib/private/{unit}");
        let fill = format!(
            "set -e; systemctl stop {unit}; cp -a {state} /root/kept; mount -t tmpfs -o size=4M,mode=700 none {state}; \
             cp -a /root/kept/. {state}; chown --reference=/root/kept {state}; \
             head -c 8M /dev/zero >{state}/filler 2>/dev/null || true; df {state} | tail -n1; \
             systemctl start --no-block {unit}"
        );
        let df = host.run(&fill).expect("the disk is full");
        assert!(df.contains("100%"), "{df}");
        if unit == "dunlin-agent" {
            // Without a place for its epoch it may send nothing.
            pair.wait_status("no epoch can be drawn");
        }
        host.run(&format!("rm {state}/filler")).expect("there is room");
        assert_eq!(pair.wait_up(), node, "{unit} met a full disk");
    }
}
