//! The images of agent and collector as `packaging/image` makes them, in a real Docker: from scratch, as nobody, healthy,
//! enrolled; the agent within an application's image; and all of them by the compose file.

mod compose;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dunlin_tests::deadline::until;
use dunlin_tests::engines::{Engine, IMAGE, Kind};
use dunlin_tests::netns::Namespace;
use dunlin_tests::package::Built;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::QUIC_PORT;
use dunlin_tests::tool;
use serde_json::Value;

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// As a test wants to know it, and not every 30 s.
const SOON: [&str; 2] = ["--health-interval", "1s"];
/// Of the agent as it ships; the aim for its program is 4.5 MB.
const AGENT_BYTES_MAX: u64 = 6_000_000;

/// Where the images are made from.
fn packaging() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/image"))
}

/// A Docker that has the images.
struct Yard<'n> {
    namespace: &'n Namespace,
    docker: Engine<'n>,
    scratch: Scratch,
}

impl<'n> Yard<'n> {
    fn new(namespace: &'n Namespace) -> Self {
        let docker = Engine::start(Kind::Docker, namespace).expect("a Docker");
        let scratch = Scratch::new("images").expect("a directory");
        let yard = Self { namespace, docker, scratch };
        let built = Built::find().expect("the agent is built");
        let collector = built.static_collector().expect("the collector is built");
        let mut command = tool::command("bash").expect("bash is there");
        command.arg(packaging().join("build")).arg(&built.agent).arg(collector).arg(yard.scratch.path());
        tool::finish(&mut command).expect("they are laid out");
        yard.build("dunlin-agent", &yard.scratch.join("agent"), &[]);
        yard.build("dunlin-collector", &yard.scratch.join("collector"), &[]);
        yard
    }

    /// By the builder that every Docker has; nothing is fetched.
    fn build(&self, name: &str, dir: &Path, options: &[&str]) {
        let mut command = Command::new("env");
        command.arg("DOCKER_BUILDKIT=0").arg(tool::find("docker").expect("it is there"));
        command.arg("-H").arg(format!("unix://{}", self.docker.socket().display()));
        command.args(["build", "-q", "--network", "none", "-t", name]).args(options).arg(dir);
        self.namespace.finish(&mut command).unwrap_or_else(|error| panic!("{error}"));
    }

    fn run(&self, words: &[&str]) -> String {
        self.docker.run(words).unwrap_or_else(|error| panic!("{error}\n{}", self.logs()))
    }

    /// What the engine says that it cannot do.
    fn refused(&self, words: &[&str]) -> String {
        // The error's own text is about the namespace; what went wrong in it is its source.
        format!("{:?}", self.docker.run(words).expect_err("it must not work"))
    }

    fn logs(&self) -> String {
        let names = self.docker.run(&["ps", "-a", "--format", "{{.Names}}"]).unwrap_or_default();
        let log = |name: &str| format!("{name}:\n{}\n", self.docker.run(&["logs", name]).unwrap_or_default());
        names.lines().map(log).collect()
    }

    /// The collector on loopback of the Docker's own network, ready.
    fn collector(&self) {
        let options =
            ["run", "-d", "--name", "collector", "--network", "host", "-v", "collector:/var/lib/dunlin-collector"];
        self.run(&[&options[..], &SOON, &["dunlin-collector"]].concat());
        self.healthy("collector");
    }

    fn healthy(&self, name: &str) {
        let health = || self.docker.run(&["inspect", "-f", "{{.State.Health.Status}}", name]).ok();
        until(&format!("{name} is healthy"), LIMIT, || (health()? == "healthy").then_some(()))
            .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", health(), self.logs()));
    }

    fn token(&self, words: &[&str]) -> String {
        let create = ["exec", "collector", "dunlin-collector", "token", "create", "--role", "join", "--ttl", "1h"];
        let said = self.run(&[&create[..], words].concat());
        said.lines().find(|line| line.starts_with("dunlin-join.")).unwrap_or_else(|| panic!("{said}")).to_owned()
    }

    fn nodes(&self) -> Vec<Value> {
        let said = self.run(&["exec", "collector", "dunlin", "nodes", "-o", "json"]);
        let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        said["items"].as_array().expect("a list").clone()
    }

    /// Waits until the node of this name is in this state.
    fn wait_node(&self, name: &str, state: &str) -> Value {
        let look = || self.nodes().into_iter().find(|node| node["name"] == name && node["state"] == state);
        let found = until(&format!("{name} is {state}"), LIMIT, look);
        found.unwrap_or_else(|error| panic!("{error}: {:#?}\n{}", self.nodes(), self.logs()))
    }

    /// Every file of an image but those that the engine itself puts there.
    fn files(&self, image: &str) -> Vec<String> {
        let name = format!("files-of-{image}");
        self.run(&["create", "--name", &name, image]);
        let archive = self.scratch.join(&name);
        self.run(&["export", "-o", &archive.to_string_lossy(), &name]);
        let list = tool::run("tar", &["-tf", &archive.to_string_lossy()]).expect("it is an archive");
        let of_engine = |path: &str| ["dev/", "proc/", "sys/"].iter().any(|dir| path.starts_with(dir));
        let of_engine = |path: &str| of_engine(path) || path == ".dockerenv" || path.starts_with("etc/");
        list.lines().filter(|path| !path.ends_with('/') && !of_engine(path)).map(str::to_owned).collect()
    }

    fn bytes(&self, image: &str) -> u64 {
        let said = self.run(&["image", "inspect", "-f", "{{.Size}}", image]);
        said.parse().unwrap_or_else(|_| panic!("{said}"))
    }
}

#[test]
fn images_from_scratch_run_as_nobody_and_an_application_may_have_the_agent_beside_it() {
    let namespace = Namespace::new("images").expect("a namespace");
    let yard = Yard::new(&namespace);
    yard.collector();
    images_run_as_nobody_without_a_shell_enrol_and_say_goodbye(&yard);
    an_agent_beside_an_application_sees_that_container_and_ends_with_it(&yard);
}

fn images_run_as_nobody_without_a_shell_enrol_and_say_goodbye(yard: &Yard<'_>) {
    assert_eq!(yard.files("dunlin-agent"), ["usr/bin/dunlin-agent"]);
    assert_eq!(yard.files("dunlin-collector"), ["usr/bin/dunlin", "usr/bin/dunlin-collector"]);
    assert!(yard.bytes("dunlin-agent") <= AGENT_BYTES_MAX, "{}", yard.bytes("dunlin-agent"));

    // The token by a file, as a secret of the engine's comes; others may read that directory's.
    let secret = yard.scratch.join("join-token");
    fs::write(&secret, yard.token(&["--uses", "1"])).expect("it is writable");
    let mount = format!("{}:/run/secrets/join-token:ro", secret.display());
    let collectors = format!("DUNLIN_AGENT_COLLECTORS=127.0.0.1:{QUIC_PORT}");
    let settings = ["-e", &collectors, "-e", "DUNLIN_AGENT_INTERVAL=1s", "--network", "host"];
    let options = [
        "run",
        "-d",
        "--name",
        "by-file",
        "-e",
        "DUNLIN_AGENT_NAME=by-file",
        "-v",
        &mount,
        "-v",
        "state:/var/lib/dunlin-agent",
    ];
    yard.run(&[&options[..], &settings, &SOON, &["dunlin-agent"]].concat());
    // And by the environment.
    let token = format!("DUNLIN_JOIN_TOKEN={}", yard.token(&["--uses", "1"]));
    let options = ["run", "-d", "--name", "by-variable", "-e", "DUNLIN_AGENT_NAME=by-variable", "-e", &token];
    yard.run(&[&options[..], &settings, &SOON, &["dunlin-agent"]].concat());
    let node = yard.wait_node("by-file", "up");
    yard.wait_node("by-variable", "up");
    yard.healthy("by-file");

    for name in ["collector", "by-file"] {
        assert_eq!(yard.run(&["inspect", "-f", "{{.Config.User}}", name]), "65532:65532");
        let shell = yard.refused(&["exec", name, "/bin/sh", "-c", "true"]);
        assert!(shell.contains("no such file"), "{shell}");
    }
    let checked = yard.run(&["exec", "by-file", "dunlin-agent", "check"]);
    assert!(checked.contains("place: in a container. Processes are this container's alone"), "{checked}");
    assert!(checked.contains("answers and takes the certificate of this node"), "{checked}");

    // Another container on the same volume is the same node, and needs no token.
    yard.run(&["stop", "by-file"]);
    yard.wait_node("by-file", "stopped");
    yard.run(&["rm", "by-file"]);
    let options =
        ["run", "-d", "--name", "again", "-e", "DUNLIN_AGENT_NAME=by-file", "-v", "state:/var/lib/dunlin-agent"];
    yard.run(&[&options[..], &settings, &["dunlin-agent"]].concat());
    assert_eq!(yard.wait_node("by-file", "up")["id"], node["id"]);
    assert_eq!(yard.nodes().len(), 2);
}

fn an_agent_beside_an_application_sees_that_container_and_ends_with_it(yard: &Yard<'_>) {
    let base = format!("BASE={IMAGE}");
    yard.build("application", &packaging().join("application"), &["--build-arg", &base]);
    let token = format!("DUNLIN_JOIN_TOKEN={}", yard.token(&["--ephemeral", "--label", "app=shop"]));
    let collectors = format!("DUNLIN_AGENT_COLLECTORS=127.0.0.1:{QUIC_PORT}");
    let settings = ["-e", &token, "-e", &collectors, "-e", "DUNLIN_AGENT_INTERVAL=1s", "-e", "DUNLIN_AGENT_NAME=shop"];
    let options = ["run", "-d", "--name", "shop", "--network", "host"];
    yard.run(&[&options[..], &settings, &["application"]].concat());
    let node = yard.wait_node("shop", "up");
    assert_eq!(node["labels"]["app"], "shop");
    let ports = || yard.run(&["exec", "collector", "dunlin", "ports", "shop", "-o", "json"]);
    let has_port = || {
        let said: Value = serde_json::from_str(&ports()).ok()?;
        said["items"].as_array()?.iter().find(|port| port["port"] == 8_080 && port["process"] == "httpd").cloned()
    };
    until("the application's port", LIMIT, has_port)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", ports(), yard.logs()));
    let checked = yard.run(&["exec", "shop", "dunlin-agent", "check"]);
    let told = ["Processes are this container's alone", "CPU, memory, load and disks are the whole host's"];
    assert!(told.iter().all(|words| checked.contains(words)), "{checked}");

    // The engine's signal goes to the entry point, which passes it on and waits: the node has stopped, and is not down.
    yard.run(&["stop", "shop"]);
    yard.wait_node("shop", "stopped");
    let code = yard.run(&["inspect", "-f", "{{.State.ExitCode}}", "shop"]);
    assert_ne!(code, "137", "nobody had to be killed");
    let events = yard.run(&["exec", "collector", "dunlin", "events", "-o", "json"]);
    assert!(!events.contains("\"node.down\""), "{events}");

    // An agent that cannot run hinders nobody, and the application's code is the container's.
    let options = ["run", "--name", "alone", "--network", "none", "-e", "DUNLIN_AGENT_INTERVAL=soon", "application"];
    let ended = yard.refused(&[&options[..], &["sh", "-c", "exit 7"]].concat());
    assert!(ended.contains("exit status: 7") && ended.contains("DUNLIN_AGENT_INTERVAL"), "{ended}");
}
