//! From nothing to watched: a collector is installed, prints a line, the line is pasted on a host, and the host is seen.
//! Then what the agent's service may do there, and what each drop-in opens.

use std::time::Instant;

use dunlin_tests::host::Host;
use serde_json::Value;

use crate::{LIMIT, Pair, VERSION, package};

/// What the sandboxes leave, as `systemd-analyze security` counts; Debian's node exporter has 9.2.
const EXPOSURE_MAX: [(&str, f64); 2] = [("dunlin-agent", 2.0), ("dunlin-collector", 1.5)];

/// What a check of the agent found of one source: its state and how it is told.
fn source(host: &Host, what: &str) -> Option<(String, String)> {
    // It ends with 1 where there is something to say.
    let said = host.run("dunlin-agent check --json || true").ok()?;
    let said: Value = serde_json::from_str(&said).ok()?;
    let found = said["findings"].as_array()?.iter().find(|one| one["what"] == what)?.clone();
    Some((found["state"].as_str()?.to_owned(), found["text"].as_str()?.to_owned()))
}

fn wait_source(host: &Host, what: &str, state: &str) -> String {
    let found = host.wait(&format!("{what} that is {state}"), LIMIT, || {
        source(host, what).filter(|(is, _)| is == state).map(|(_, text)| text)
    });
    found.unwrap_or_else(|error| panic!("{error}: {:?}", source(host, what)))
}

/// By the lines that stand in the file itself.
fn switch_on(host: &Host, drop_in: &str) {
    let text = host.run(&format!("cat /usr/share/dunlin-agent/{drop_in}.conf")).expect("it is shipped");
    let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    host.run(&lines.join("\n")).expect("the lines do what they say");
}

fn ports(pair: &Pair) -> Vec<Value> {
    let said = pair.collector.run("dunlin ports -o json").expect("it answers");
    serde_json::from_str::<Value>(&said).expect("JSON")["items"].as_array().expect("a list").clone()
}

#[test]
fn a_line_that_the_collector_prints_makes_a_host_watched() {
    let pair = Pair::boot();
    let ready = pair.install_collector(VERSION);
    let line = pair.invitation("");
    pair.web.put(&package("dunlin-agent", VERSION), "/root").expect("it is writable");
    let began = Instant::now();
    pair.web.run(&format!("cd /root && {line}")).expect("it installs");
    pair.wait_up();
    println!("collector: dpkg -i to ready {ready:.1?}; agent: dpkg -i to up {:.1?}", began.elapsed());
    assert_eq!(pair.nodes().expect("a list")[0]["name"], "web-1");
    pair.wait_status("streaming to 10.97.1.1:9737");
    services_are_confined(&pair);
    what_is_installed_is_documented(&pair);
    drop_ins_open_what_they_say(&pair);
}

/// As systemd itself judges the units where they run.
fn services_are_confined(pair: &Pair) {
    for (host, (name, most)) in [&pair.web, &pair.collector].into_iter().zip(EXPOSURE_MAX) {
        let said = host.run(&format!("systemd-analyze verify {name}.service 2>&1 || true")).expect("it judges");
        // The smallest Debian has no `man` to look for the page with.
        let complaints: Vec<&str> = said.lines().filter(|line| !line.contains("Command 'man ")).collect();
        assert!(complaints.is_empty(), "{name}: {complaints:?}");
        let (said, level) = exposure(host, name);
        assert!(level <= most, "{said}; at most {most} is promised");
        let id = host.property(name, "MainPID").expect("a number");
        let status = host.run(&format!("cat /proc/{id}/status")).expect("it runs");
        let of = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t")).map(str::trim);
        assert_eq!((of("CapEff"), of("CapBnd")), (Some("0000000000000000"), Some("0000000000000000")), "{name}");
        assert!(of("Uid").is_some_and(|ids| ids.split_whitespace().all(|id| id != "0")), "{status}");
        assert_eq!((of("NoNewPrivs"), of("Seccomp")), (Some("1"), Some("2")), "{name}");
    }
}

fn what_is_installed_is_documented(pair: &Pair) {
    let shown =
        pair.web.run("ls /usr/share/man/man8/dunlin-agent.8.gz /usr/share/doc/dunlin-agent").expect("it is there");
    assert!(shown.contains("permissions.md.gz"), "{shown}");
    let manual = "ls /usr/share/man/man1/dunlin.1.gz /usr/share/man/man1/dunlin-collector-invite.1.gz \
                  /usr/share/bash-completion/completions/dunlin /usr/share/dunlin-collector/rules/standard.toml";
    pair.collector.run(manual).expect("it is there");
    pair.collector.run("bash -n /usr/share/bash-completion/completions/dunlin-collector").expect("bash reads it");
    // A file of one's own beside the rules that ship.
    pair.collector.run("test -d /etc/dunlin/rules.d && dunlin rules list >/dev/null").expect("they are in force");
}

fn drop_ins_open_what_they_say(pair: &Pair) {
    let host = &pair.web;
    // Somebody else's process that listens: root's. And an engine that answers nobody: whether the agent may ask is what
    // its drop-in is about.
    host.run("systemd-run --quiet --unit=listens python3 -m http.server 8080 && groupadd --system docker")
        .expect("it starts");
    let engine = "import socket,os,shutil\n\
                  s=socket.socket(socket.AF_UNIX); s.bind('/run/docker.sock'); s.listen(9)\n\
                  os.chmod('/run/docker.sock',0o660); shutil.chown('/run/docker.sock','root','docker')\n\
                  while True: s.accept()[0].close()\n";
    host.write("/root/engine.py", engine).expect("it is writable");
    let start = "systemd-run --quiet --unit=engine python3 /root/engine.py; until test -S /run/docker.sock; do :; done; \
                 sed -i 's/^#interval.*/interval = \"1s\"/' /etc/dunlin/agent.toml; systemctl restart dunlin-agent";
    host.run(start).expect("it starts");

    let of_port = || ports(pair).into_iter().find(|port| port["port"] == 8080);
    let seen = |has_owner: bool| {
        let found = host.wait("port 8080, and whose it is where that is open", LIMIT, || {
            of_port().filter(|port| port["process"].as_str().is_some_and(|name| !name.is_empty()) == has_owner)
        });
        found.unwrap_or_else(|error| panic!("{error}: {:?}", ports(pair)))
    };
    seen(false);
    assert!(wait_source(host, "owners of ports", "partly").contains(" of "));
    wait_source(host, "engine at /run/docker.sock", "refused");

    switch_on(host, "processes");
    assert_eq!(seen(true)["process"], "listens", "by its unit: it is an interpreter's");
    wait_source(host, "owners of ports", "works");
    wait_source(host, "reads and writes of processes", "works");
    wait_source(host, "engine at /run/docker.sock", "refused");

    switch_on(host, "docker");
    // It was asked, and hung up.
    wait_source(host, "engine at /run/docker.sock", "failed");
    pair.wait_up();
    let off =
        "rm -r /etc/systemd/system/dunlin-agent.service.d && systemctl daemon-reload && systemctl restart dunlin-agent";
    host.run(off).expect("it starts");
    wait_source(host, "owners of ports", "partly");
}

/// As `systemd-analyze security` counts where the unit runs: what it says, and the number.
fn exposure(host: &Host, name: &str) -> (String, f64) {
    let said = host.run(&format!("systemd-analyze security --no-pager {name} | tail -n1")).expect("a verdict");
    let level = said.split(": ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    (said.trim().to_owned(), level.unwrap_or_else(|| panic!("no number in {said}")))
}
