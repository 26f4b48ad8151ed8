//! The life of the packages on a host: unattended, twice, over what is broken, upgraded, downgraded, removed, purged.

use crate::{LIMIT, Pair, VERSION, package};

/// The version after this one.
const NEXT: &str = "99.0.0";

#[test]
fn packages_keep_what_is_kept_through_repairs_upgrades_and_removal_until_they_are_purged() {
    let pair = Pair::with_collector();
    let node = unattended(&pair);
    let dpkg = |words: &str| pair.web.run(&format!("cd /root && dpkg {words} </dev/null")).expect("dpkg is content");
    let agent = "-i dunlin-agent_*.deb";

    dpkg(agent);
    assert_eq!(pair.wait_up(), node, "installed twice");
    let broken = "systemctl stop dunlin-agent; userdel dunlin-agent; chown -R 12345:12345 /var/lib/private/dunlin-agent; \
                  chmod 0 /var/lib/private/dunlin-agent; rm -r /lib/systemd/system/dunlin-agent.service /usr/bin/dunlin-agent \
                  /usr/lib/dunlin";
    pair.web.run(broken).expect("it can be broken");
    dpkg(agent);
    assert_eq!(pair.wait_up(), node, "installed over what was broken");
    assert_eq!(pair.web.run("systemctl is-enabled dunlin-agent").expect("it is").trim(), "enabled");

    upgraded(&pair, &node);

    dpkg("-r dunlin-agent");
    assert!(pair.web.run("systemctl status dunlin-agent").is_err(), "it is gone");
    pair.web
        .run("test -e /etc/dunlin/agent.toml && test -e /var/lib/private/dunlin-agent/node.key")
        .expect("they stay");
    pair.web.run("rm /root/dunlin-agent_99*").expect("it was put there");
    dpkg(agent);
    assert_eq!(pair.wait_up(), node, "the same node when it comes back");
    dpkg("-P dunlin-agent");
    let left = "find /etc /usr /lib /var/lib -iname '*dunlin*' ! -path '*/dpkg/*'; getent passwd dunlin-agent";
    assert_eq!(pair.web.run(&format!("{left} || true")).expect("a list"), "");
}

/// What was written before the installation is all that it needs.
fn unattended(pair: &Pair) -> String {
    let token = pair.collector.run("dunlin-collector token create --role join --uses 1 --ttl 1h").expect("a token");
    pair.web.write("/etc/dunlin/join-token", &token).expect("it is writable");
    pair.web
        .write("/etc/dunlin/agent.toml", "collectors = [\"10.97.1.1\"]\njoin_token_file = \"/etc/dunlin/join-token\"\n")
        .expect("it is writable");
    pair.web.put(&package("dunlin-agent", VERSION), "/root").expect("it is writable");
    pair.web.run("dpkg -i /root/dunlin-agent_*.deb </dev/null").expect("no question is asked");
    let node = pair.wait_up();
    let about = pair.web.run("stat -c '%U %a' /etc/dunlin/join-token").expect("it is there");
    assert_eq!(about.trim(), "dunlin-agent 400", "the service alone reads it");
    node
}

fn upgraded(pair: &Pair, node: &str) {
    pair.collector.run("echo '# ours' >>/etc/dunlin/collector.toml").expect("it is writable");
    pair.collector.write("/etc/dunlin/rules.d/ours.toml", "").expect("it is writable");
    pair.install_collector(NEXT);
    pair.web.put(&package("dunlin-agent", NEXT), "/root").expect("it is writable");
    pair.web.run("cd /root && dpkg -i dunlin-agent_99*.deb </dev/null").expect("it upgrades");
    assert_eq!(pair.wait_up(), node);
    pair.collector
        .run("grep -q '# ours' /etc/dunlin/collector.toml && test -e /etc/dunlin/rules.d/ours.toml")
        .expect("kept");

    // What a newer program wrote, an older one does not touch.
    let control = "/var/lib/private/dunlin-collector/control.db";
    let set = |version: &str| {
        let script = format!(
            "import sqlite3;c=sqlite3.connect('{control}');print(c.execute('pragma user_version').fetchone()[0]);\
                              c.execute('pragma user_version={version}')"
        );
        pair.collector.run(&format!("python3 -c \"{script}\"")).expect("a database").trim().to_owned()
    };
    pair.collector.run("systemctl stop dunlin-collector").expect("it stops");
    let was = set("9999");
    let down = format!("dpkg -i /root/dunlin-cli_{VERSION}_*.deb /root/dunlin-collector_{VERSION}_*.deb </dev/null");
    pair.collector.run(&down).expect("dpkg is content");
    let refused = pair.collector.wait("an end for good", LIMIT, || {
        (pair.collector.property("dunlin-collector", "ExecMainStatus").ok()? == "78").then_some(())
    });
    refused.unwrap_or_else(|error| panic!("{error}"));
    let status = pair.collector.run("systemctl status dunlin-collector || true").expect("it says");
    assert!(status.contains("9999") && status.contains("newer"), "{status}");
    set(&was);
    pair.collector.run("systemctl restart dunlin-collector").expect("it is ready");
    assert_eq!(pair.wait_up(), node);
}
