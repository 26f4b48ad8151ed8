//! Samples leave one collector as files, are read by another program, and come to a second collector, where they are
//! what they were in the first.

use std::path::Path;

use dunlin_tests::tool;

use super::*;

/// A second collector in the same namespace, and where its state is.
struct Second<'a> {
    site: &'a Site,
    state: PathBuf,
    _collector: Running,
}

impl<'a> Second<'a> {
    fn start(site: &'a Site, state: &Path) -> Self {
        let program = Program::ours("dunlin-collector", "dunlin-collector").expect("it is built");
        let program = program.inside(&site.namespace).log(site.scratch.join("second.log")).arg("run");
        let program = program.arg("--state-dir").arg(state).args(["--quic-listen", "127.0.0.1:4447"]);
        let mut collector = program.args(["--http-listen", "127.0.0.1:9748"]).start().expect("it starts");
        collector.wait_log("ready", LIMIT).expect("it gets ready");
        Self { site, state: state.to_owned(), _collector: collector }
    }

    fn dunlin(&self, arguments: &[&str]) -> Said {
        let url = format!("unix:{}", self.state.join("admin.sock").display());
        self.site.dunlin_with(&[("DUNLIN_URL", &url)], arguments)
    }
}

/// The points of one series, as JSON has them.
fn points(said: &Said) -> Vec<(String, String)> {
    let page = said.json();
    let points = page["items"][0]["points"].as_array().unwrap_or_else(|| panic!("no series: {}{}", said.out, said.err));
    let known = points.iter().filter(|point| !point[1].is_null());
    known.map(|point| (point[0].to_string(), point[1].to_string())).collect()
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("it is text")
}

#[test]
fn what_leaves_one_collector_comes_to_another_as_it_was() {
    let site = Site::start();
    let id = site.nodes[0].to_string();
    let mut agent = site.agent();
    let asked = ["-o", "json", "metrics", &id, "host_load1", "--from", "1h"];
    site.wait("twelve points", &asked, |said| {
        said.json()["items"][0]["points"].as_array().is_some_and(|points| points.len() >= 12)
    });
    assert!(agent.terminate(LIMIT).expect("it ends").success(), "{}", agent.log_text());
    site.wait("its goodbye", &["-o", "json", "nodes", "--state", "stopped"], |said| {
        said.json()["items"].as_array().is_some_and(|items| items.len() == 1)
    });

    let export = |file: &Path, more: &[&str]| {
        let said = site.dunlin(&[&["metrics", "export", "--out", text_of(file)], more].concat());
        assert!(said.code == 0 && said.out.is_empty(), "{}{}", said.out, said.err);
        fs::read_to_string(file).expect("it is there")
    };
    let (csv, open) = (site.scratch.join("all.csv"), site.scratch.join("all.om"));
    let rows = export(&csv, &[]);
    let text = export(&open, &["--format", "openmetrics"]);
    let printed = site.dunlin(&["metrics", "export"]);
    assert!(printed.code == 0 && printed.out == rows, "a file holds what is printed");
    assert!(rows.lines().count() > 12 && text.ends_with("# EOF\n"), "{rows:.300}");
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(samples, rows.lines().count() - 1, "both hold the same samples");
    let blocks = site.scratch.join("blocks");
    tool::run("promtool", &["tsdb", "create-blocks-from", "openmetrics", text_of(&open), text_of(&blocks)])
        .expect("Prometheus reads it");
    let found = tool::run("promtool", &["tsdb", "list", text_of(&blocks)]).expect("its blocks are sound");
    assert!(found.lines().count() > 1, "{found}");
    let rolled = export(&site.scratch.join("5m.om"), &["--format", "openmetrics", "--resolution", "5m"]);
    assert!(rolled.contains("# TYPE host_load1_mean gauge\n") && rolled.ends_with("# EOF\n"), "{rolled:.600}");
    tool::run(
        "promtool",
        &["tsdb", "create-blocks-from", "openmetrics", text_of(&site.scratch.join("5m.om")), text_of(&blocks)],
    )
    .expect("Prometheus reads roll-ups");

    let node = site.dunlin(&["-o", "json", "node", &id]).json();
    let name = node["name"].as_str().expect("it has one").to_owned();
    for (file, state) in [(&csv, "from-csv"), (&open, "from-openmetrics")] {
        let state = site.scratch.join(state);
        let import = ["import", "--state-dir", text_of(&state), text_of(file)];
        let said = site.run("dunlin-collector", &[], &import);
        assert!(
            said.code == 0 && said.err.contains(&format!("{samples} samples of 1 nodes (1 of them new)")),
            "{}",
            said.err
        );
        let second = Second::start(&site, &state);
        for metric in ["host_load1", "host_memory_available_bytes", "agent_memory_bytes"] {
            let asked = ["-o", "json", "metrics", &name, metric, "--from", "1h"];
            let ours = site.dunlin(&["-o", "json", "metrics", &id, metric, "--from", "1h"]);
            assert_eq!(points(&ours), points(&second.dunlin(&asked)), "{metric} of {}", file.display());
        }
        let node = second.dunlin(&["-o", "json", "node", &id]).json();
        assert_eq!((&node["state"], &node["name"]), (&"revoked".into(), &name.as_str().into()), "{node}");
        let again = second.dunlin(&["metrics", "export", "--node", &id]);
        let counters = |text: &str| text.lines().filter(|line| line.contains(",counter,")).count();
        assert!(counters(&rows) > 12 && counters(&again.out) == counters(&rows), "counters come as they were counted");
        let running = site.run("dunlin-collector", &[], &import);
        assert!(running.code == 1 && running.err.contains("is in use by process"), "{}", running.err);
        drop(second);
        let twice = site.run("dunlin-collector", &[], &import);
        assert!(twice.code == 1 && twice.err.contains("was it imported before?"), "{}", twice.err);
    }
}

#[test]
fn what_cannot_be_exported_says_why_and_leaves_no_file() {
    let site = Site::start();
    let file = site.scratch.join("none.csv");
    for (arguments, code, words) in [
        (&["--node", "nobody"][..], 1, "there is no node"),
        (&["--metric", "cpu"], 1, "there is no metric"),
        (&["--resolution", "5m", "--counter", "value"], 1, "needs every sample"),
        (&["--from", "1h", "--to", "2h"], 1, "from is not before to"),
        (&["--format", "xml"], 2, "openmetrics"),
    ] {
        let said = site.dunlin(&[&["metrics", "export", "--out", text_of(&file)], arguments].concat());
        assert!(said.code == code && said.err.contains(words), "{arguments:?}: {}", said.err);
    }
    let left = fs::read_dir(site.scratch.path()).expect("listed").filter_map(Result::ok);
    assert!(left.filter(|entry| entry.file_name().to_string_lossy().starts_with("none")).count() == 0);
    let nowhere = site.dunlin(&["metrics", "export", "--out", "/nowhere/x.csv"]);
    assert!(nowhere.code == 1 && nowhere.err.contains("/nowhere/x.csv.part"), "{}", nowhere.err);
}
