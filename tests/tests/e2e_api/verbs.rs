//! Every verb of the collector's own document, one by one, against the whole collector: without a token, below its
//! role, outside of its labels, and with what no sane client sends.
//!
//! A path that the table at the end does not know how to fill fails the test: whoever adds one decides there what it
//! is about.

use std::collections::BTreeMap;

use super::wire::{Answer, Request};
use super::*;

/// Each includes those before it. The others are for one purpose each and include nothing.
const LADDER: [&str; 3] = ["viewer", "operator", "admin"];
const ROLES: [&str; 4] = ["viewer", "operator", "admin", "service"];
const OURS: &str = "tenant=ours";
const THEIRS: &str = "tenant=theirs";
/// It always holds.
const RULE: &str = "[[rule]]\nname = \"disk-is-there\"\nwhen = 'collector_disk_free_ratio > 0%'\nsummary = \"x\"\n";
/// It never does.
const QUIET_RULE: &str = "[[rule]]\nname = \"busy\"\nwhen = 'host_load1 > 800'\nsummary = \"s\"\n";

/// One operation of the document.
struct Verb {
    method: String,
    path: String,
    /// `None`: anybody may.
    role: Option<String>,
    /// It is open to this host.
    is_open_here: bool,
    query: Vec<String>,
    headers: Vec<String>,
}

/// What an operation is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    /// The node or the token that its path names.
    One,
    /// All that the caller sees.
    Many,
    /// What concerns everybody: nothing for a token that is limited.
    Fleet,
    /// What the caller makes: it is limited as its maker is.
    New,
    /// What everybody may read, and what nothing of a node stands in.
    Whole,
}

/// A collector with a node of theirs that a token limited to ours must not touch.
struct Scene {
    site: Site,
    /// Of every role, without and with limits.
    tokens: BTreeMap<(&'static str, bool), String>,
    /// The id of a token without limits.
    other_token: String,
    /// The id of an alert of the collector itself: nobody with limits sees it.
    alert: String,
    /// The id of a silence of theirs.
    silence: String,
    _rules: Scratch,
}

impl Scene {
    fn new() -> Self {
        let rules = Scratch::new("rules").expect("a place");
        fs::write(rules.join("own.toml"), RULE).expect("it is writable");
        let dir = rules.path().display().to_string();
        let arguments = ["--http-listen", &HTTP.to_string(), "--rules-dir", &dir];
        let site = Site::start_with(&arguments, without_authority);
        let [ours, theirs] = [site.nodes[0].to_string(), site.nodes[1].to_string()];
        assert_eq!(site.dunlin(&["label", &ours, OURS]).code, 0);
        assert_eq!(site.dunlin(&["label", &theirs, THEIRS]).code, 0);
        let token = |role, limits: &[&str]| {
            let made = site.dunlin(&[&["token", "create", "--role", role, "--name", role], limits].concat());
            assert_eq!(made.code, 0, "{}", made.err);
            made.out.trim().to_owned()
        };
        let free = ROLES.into_iter().chain(["join"]).map(|role| ((role, false), token(role, &[])));
        let limited = LADDER.into_iter().map(|role| ((role, true), token(role, &["--label", OURS])));
        let tokens: BTreeMap<_, _> = free.chain(limited).collect();
        let listed = site.dunlin(&["-o", "json", "token", "list"]).json();
        let file = site.scratch.join("kept.toml");
        fs::write(&file, QUIET_RULE.replace("busy", "kept")).expect("it is writable");
        assert_eq!(site.dunlin(&["rules", "apply", &file.display().to_string(), "--yes"]).code, 0);
        let other = listed["items"].as_array().expect("a list").iter().find(|token| token["name"] == "service");
        let other_token = other.and_then(|token| token["id"].as_str()).expect("it is listed").to_owned();
        let wrong = ["-o", "json", "alerts", "--rule", "disk-is-there"];
        let fires = |said: &Said| said.json()["items"][0]["id"].is_string();
        let alert = site.wait("an alert of the collector", &wrong, fires).json()["items"][0]["id"].clone();
        let alert = alert.as_str().expect("an id").to_owned();
        let said = site.dunlin(&["silence", "add", "--label", THEIRS, "--for", "1h", "--reason", "a test"]);
        assert_eq!(said.code, 0, "{}", said.err);
        let silence = said.out.trim().to_owned();
        Self { site, tokens, other_token, alert, silence, _rules: rules }
    }

    fn theirs(&self) -> String {
        self.site.nodes[1].to_string()
    }

    fn verbs(&self) -> Vec<Verb> {
        let document = self.site.ask(&Request { method: "GET", target: "/openapi.json", token: None, body: "" });
        let document = document.json();
        let mut verbs = Vec::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, about) in methods.as_object().expect("methods") {
                let ways = about["security"].as_array().cloned().unwrap_or_default();
                let role = ways.iter().find_map(|way| way["bearer"][0].as_str()).map(str::to_owned);
                let is_open_here = ways.iter().any(|way| way.as_object().is_some_and(serde_json::Map::is_empty));
                let parameters = about["parameters"].as_array().cloned().unwrap_or_default();
                let named = |place: &str| {
                    let there = parameters.iter().filter(|parameter| parameter["in"] == place);
                    there.filter_map(|parameter| parameter["name"].as_str()).map(str::to_owned).collect()
                };
                let (method, path) = (method.to_uppercase(), path.clone());
                let (query, headers) = (named("query"), named("header"));
                verbs.push(Verb { method, path, role, is_open_here, query, headers });
            }
        }
        assert!(verbs.len() >= 20, "the document lists {}", verbs.len());
        verbs
    }

    fn ask(&self, verb: &Verb, target: &str, token: Option<&str>) -> Answer {
        let body = verb.fill(self).2;
        let answer = self.site.ask(&Request { method: &verb.method, target, token, body });
        assert!(answer.status < 500, "{} {target:.200}: {answer:?}", verb.method);
        answer
    }

    fn refused(&self, verb: &Verb, token: Option<&str>, status: u16) -> Answer {
        let (_, target, _) = verb.fill(self);
        let answer = self.ask(verb, &target, token);
        assert_eq!(answer.status, status, "{} {target}: {answer:?}", verb.method);
        assert!(answer.is_problem(), "{} {target}: {answer:?}", verb.method);
        answer
    }

    /// All that an order could have changed. That it was refused, and a token shown, changes nothing else.
    fn picture(&self) -> String {
        let looks = [&["nodes"][..], &["token", "list"], &["events"], &["log", "--limit", "1000"], &["authority"]];
        let said = looks.map(|look| {
            let said = self.site.dunlin(&[&["-o", "json"], look].concat());
            assert_eq!(said.code, 0, "{}", said.err);
            if look == ["events"] {
                return said.out;
            }
            let mut shown = said.json();
            if let Some(items) = shown["items"].as_array_mut() {
                items.retain(|item| item["outcome"] != "refused");
                items
                    .iter_mut()
                    .filter_map(|item| item.as_object_mut())
                    .for_each(|item| drop(item.remove("last_used")));
            }
            shown.to_string()
        });
        said.join("\n")
    }
}

impl Verb {
    /// What it is about, the path and the query with which it is about their node, and a body that it takes.
    fn fill(&self, scene: &Scene) -> (About, String, &'static str) {
        let node = |rest: &str| format!("/api/v1/nodes/{}{rest}", scene.theirs());
        match (self.method.as_str(), self.path.as_str()) {
            (
                "GET",
                "/api/v1/nodes" | "/api/v1/events" | "/api/v1/events/stream" | "/api/v1/log" | "/api/v1/tokens",
            ) => (About::Many, self.path.clone(), ""),
            ("GET", "/api/v1/alerts") => (About::One, format!("{}?node={}", self.path, scene.theirs()), ""),
            ("GET", "/api/v1/alerts/{id}") => (About::One, format!("/api/v1/alerts/{}", scene.alert), ""),
            ("POST" | "DELETE", "/api/v1/alerts/{id}/ack") => {
                (About::One, format!("/api/v1/alerts/{}/ack", scene.alert), "")
            }
            // Of no alert, whoever asks.
            ("POST", "/api/v1/alerts/ack") => (About::New, self.path.clone(), r#"{"rule":"nobody"}"#),
            ("GET", "/api/v1/silences") => (About::Many, self.path.clone(), ""),
            ("POST", "/api/v1/silences") => {
                (About::New, self.path.clone(), r#"{"matchers":{"rule":"nobody"},"reason":"a test","duration":"1h"}"#)
            }
            ("GET" | "DELETE", "/api/v1/silences/{id}") => {
                (About::One, format!("/api/v1/silences/{}", scene.silence), "")
            }
            ("PATCH", "/api/v1/silences/{id}") => {
                (About::One, format!("/api/v1/silences/{}", scene.silence), r#"{"duration":"2h"}"#)
            }
            ("GET", "/api/v1/alerts/{id}/context") => {
                (About::One, format!("/api/v1/alerts/{}/context", scene.alert), "")
            }
            ("GET", "/api/v1/export") => (About::Many, format!("{}?metric=host_load1", self.path), ""),
            ("GET", "/api/v1/series") => (About::Many, format!("{}?metric=host_load1", self.path), ""),
            ("GET", "/api/v1/nodes/{id}") | ("DELETE", "/api/v1/nodes/{id}") => (About::One, node(""), ""),
            ("PATCH", "/api/v1/nodes/{id}") => (About::One, node(""), r#"{"labels":{"env":"prod"}}"#),
            ("POST", "/api/v1/nodes/{id}/adopt") => (About::One, node("/adopt"), ""),
            ("POST", "/api/v1/nodes/{id}/approve") => (About::One, node("/approve"), ""),
            ("POST", "/api/v1/nodes/{id}/maintenance") => (About::One, node("/maintenance"), r#"{"duration":"1h"}"#),
            ("DELETE", "/api/v1/nodes/{id}/maintenance") => (About::One, node("/maintenance"), ""),
            ("GET", "/api/v1/nodes/{id}/metrics") => (About::One, node("/metrics"), ""),
            ("GET", "/api/v1/nodes/{id}/series") => (About::One, node("/series?metric=host_load1"), ""),
            ("GET", "/api/v1/containers" | "/api/v1/processes" | "/api/v1/ports") => {
                (About::One, format!("{}?node={}", self.path, scene.theirs()), "")
            }
            ("POST", "/api/v1/nodes/{id}/revoke") => (About::One, node("/revoke"), r#"{"why":"a test"}"#),
            ("DELETE", "/api/v1/tokens/{id}") => (About::One, format!("/api/v1/tokens/{}", scene.other_token), ""),
            // Of what the caller sees, which is nothing of theirs; and nobody waits here.
            ("POST", "/api/v1/approvals") => (About::New, self.path.clone(), r#"{"state":"held"}"#),
            ("POST", "/api/v1/tokens") => (About::New, self.path.clone(), r#"{"role":"viewer"}"#),
            ("GET", "/api/v1/authority") => (About::Fleet, self.path.clone(), ""),
            ("POST", "/api/v1/authority/{step}") => (About::Fleet, "/api/v1/authority/prepare".to_owned(), ""),
            // Rules are about the whole fleet, and name no node.
            ("GET", "/api/v1/rules") => (About::Whole, self.path.clone(), ""),
            ("GET", "/api/v1/rules/{name}") => (About::Whole, "/api/v1/rules/node-down".to_owned(), ""),
            ("POST", "/api/v1/rules/preview") => (About::Whole, self.path.clone(), QUIET_RULE),
            ("PUT", "/api/v1/rules") => (About::Fleet, "/api/v1/rules?set=a".to_owned(), QUIET_RULE),
            ("GET", "/api/v1/rule-sets") => (About::Fleet, self.path.clone(), ""),
            ("GET" | "DELETE", "/api/v1/rule-sets/{name}") => (About::Fleet, "/api/v1/rule-sets/kept".to_owned(), ""),
            ("GET", "/metrics" | "/-/healthy" | "/-/ready") => (About::Fleet, self.path.clone(), ""),
            (method, path) => panic!("{method} {path} is new: say here what it is about and how to fill it"),
        }
    }

    /// Whether a token of this role may do it.
    fn admits(&self, role: &str) -> bool {
        let rung = |role: &str| LADDER.iter().position(|known| *known == role);
        let needed = self.role.as_deref().expect("it needs one");
        match (rung(role), rung(needed)) {
            (Some(role), Some(needed)) => role >= needed,
            _ => role == needed,
        }
    }
}

#[test]
fn no_verb_is_carried_out_without_a_token_or_below_its_role() {
    let scene = Scene::new();
    let verbs = scene.verbs();
    let before = scene.picture();
    let (closed, open): (Vec<_>, Vec<_>) = verbs.iter().partition(|verb| verb.role.is_some() && !verb.is_open_here);
    for verb in &open {
        let is_for_machines = verb.path.starts_with("/-/") || verb.path == "/metrics";
        assert!(is_for_machines && verb.method == "GET", "{} {} is open to anybody", verb.method, verb.path);
        assert_eq!(scene.ask(verb, &verb.fill(&scene).1, None).status, 200);
    }
    for verb in &closed {
        let nobody = scene.refused(verb, None, 401);
        assert!(nobody.header("www-authenticate").is_some_and(|way| way.starts_with("Bearer")), "{nobody:?}");
        let refused = scene.refused(verb, Some(&scene.tokens[&("join", false)]), 401);
        assert!(refused.body.contains("join token"), "{refused:?}");
        for role in ROLES.into_iter().filter(|role| !verb.admits(role)) {
            let refused = scene.refused(verb, Some(&scene.tokens[&(role, false)]), 403);
            assert!(refused.body.contains(role), "it says what the token has: {refused:?}");
        }
    }
    assert_eq!(scene.picture(), before, "nothing was carried out");
    // And with the role it is: else all of this would show nothing. What ends the node comes last.
    let mut closed = closed;
    closed.sort_by_key(|verb| (verb.method == "DELETE" && verb.path.ends_with('}'), verb.path.ends_with("/revoke")));
    for verb in closed {
        let role = verb.role.as_deref().expect("it needs one");
        let token = &scene.tokens.iter().find(|((known, limited), _)| *known == role && !limited).expect("made").1;
        let (_, target, _) = verb.fill(&scene);
        let answer = scene.ask(verb, &target, Some(token));
        // A node that is approved cannot be approved, and of one nobody was kept out.
        assert!(matches!(answer.status, 200..300 | 409), "{} {target}: {answer:?}", verb.method);
    }
    assert!(!scene.site.collector.log_text().contains("panicked"), "{}", scene.site.collector.log_text());
}

#[test]
fn a_token_with_limits_reaches_nothing_beyond_them_by_any_verb() {
    let scene = Scene::new();
    let theirs = scene.theirs();
    // Something happens to either node, so that the feed has something to hide and something to show.
    for node in [&theirs, &scene.site.nodes[0].to_string()] {
        assert_eq!(scene.site.dunlin(&["drain", node, "--for", "1h"]).code, 0);
    }
    let verbs = scene.verbs();
    let before = scene.picture();
    for verb in verbs.iter().filter(|verb| verb.role.is_some() && !verb.is_open_here) {
        let role = LADDER.into_iter().find(|role| verb.admits(role)).expect("one of the ladder");
        let limited = &scene.tokens[&(role, true)];
        let (about, target, _) = verb.fill(&scene);
        match about {
            About::One => {
                let hidden = scene.refused(verb, Some(limited), 404);
                let missing = scene.ask(verb, &target.replace(&theirs, &theirs.replace('7', "8")), Some(limited));
                assert_eq!(missing.status, 404, "{target}: what is hidden and what is not there look the same");
                assert_eq!(hidden.head.lines().next(), missing.head.lines().next());
            }
            About::Fleet => drop(scene.refused(verb, Some(limited), 403)),
            About::New => {}
            About::Whole => {
                let answer = scene.ask(verb, &target, Some(limited));
                assert!(answer.status == 200 && !answer.body.contains(&theirs), "{target}: {answer:?}");
            }
            About::Many => {
                let request = Request { method: &verb.method, target: &target, token: Some(limited), body: "" };
                let ours = scene.site.nodes[0].to_string();
                let seen = scene.site.ask_until(&request, |text| text.contains("node.maintenance"));
                assert_eq!(seen.status, 200, "{target}: {seen:?}");
                assert!(!seen.body.contains(&theirs), "{target}: {seen:?}");
                // Their tokens and silences are not ours, and nobody has sent a sample.
                let empty = ["/api/v1/tokens", "/api/v1/series", "/api/v1/export", "/api/v1/silences"];
                let is_empty = empty.contains(&verb.path.as_str());
                assert!(is_empty || seen.body.contains(&ours), "{target}: {seen:?}");
                assert!(!seen.body.contains(&scene.other_token_line()), "{target}: {seen:?}");
            }
        }
    }
    assert_eq!(scene.picture(), before, "nothing was carried out");
    // What it makes is limited as it is.
    let admin = Some(scene.tokens[&("admin", true)].as_str());
    let make = |body| scene.site.ask(&Request { method: "POST", target: "/api/v1/tokens", token: admin, body });
    assert_eq!(make(r#"{"role":"admin","labels":{"tenant":"theirs"}}"#).status, 403);
    let made = make(r#"{"role":"admin"}"#).json()["token"].as_str().expect("a token").to_owned();
    let target = format!("/api/v1/nodes/{theirs}");
    let heir = scene.site.ask(&Request { method: "GET", target: &target, token: Some(&made), body: "" });
    assert_eq!(heir.status, 404, "{heir:?}");
}

impl Scene {
    /// The start of a request that is good so far.
    fn head(&self, verb: &Verb, token: &str) -> String {
        let (method, target) = (&verb.method, verb.fill(self).1);
        format!("{method} {target} HTTP/1.1\r\nHost: rig\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n")
    }

    /// How a list of tokens shows the one without limits.
    fn other_token_line(&self) -> String {
        format!("\"id\":\"{}\"", self.other_token)
    }
}

/// SQL, paths, control characters, what is no UTF-8, headers, and numbers and lengths beyond any bound.
fn hostile_words() -> Vec<String> {
    let mut words: Vec<String> = [
        "'%20OR%20'1'='1",
        "1;%20DROP%20TABLE%20node;--",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "%00",
        "x%0d%0aX-Injected:%201",
        "%ff%fe",
        "%F0%9F%90%A6",
        "*",
        "-1",
        "184467440737095516160",
    ]
    .map(str::to_owned)
    .to_vec();
    words.push("A".repeat(8_000));
    words
}

#[test]
fn hostile_words_in_every_place_of_every_verb_are_refused_and_harm_nobody() {
    let scene = Scene::new();
    let admin = scene.tokens[&("admin", false)].clone();
    let before = scene.picture();
    for verb in scene.verbs() {
        let (_, target, _) = verb.fill(&scene);
        let query = target.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
        for word in hostile_words() {
            for parameter in verb.path.split(['{', '}']).skip(1).step_by(2) {
                let hostile = verb.path.replace(&format!("{{{parameter}}}"), &word);
                let answer = scene.ask(&verb, &format!("{hostile}{query}"), Some(&admin));
                assert!((400..500).contains(&answer.status), "{} {hostile:.80}: {answer:?}", verb.method);
                assert!(answer.is_problem() && answer.header("x-injected").is_none(), "{hostile:.80}: {answer:?}");
            }
            for parameter in &verb.query {
                let kept = if parameter == "metric" { "" } else { query.trim_start_matches('?') };
                let hostile = format!("{}?{parameter}={word}&{kept}", target.strip_suffix(&query).unwrap_or(&target));
                let answer = scene.ask(&verb, &hostile, Some(&admin));
                // A filter by a word that nothing bears shows nothing; what has to be understood is refused.
                let is_filter =
                    ["name", "label", "value", "subject", "metric", "kind", "rule"].contains(&parameter.as_str());
                assert!(answer.is_problem() || is_filter && answer.status == 200, "{hostile:.80}: {answer:?}");
                assert_eq!(answer.header("x-injected"), None, "{hostile:.80}: {answer:?}");
            }
            for header in &verb.headers {
                let raw = format!("{}{header}: {word}\r\n\r\n", scene.head(&verb, &admin));
                let answer = scene.site.send(raw.as_bytes(), |_| true);
                assert!(answer.is_problem(), "{header}: {word:.80}: {answer:?}");
            }
        }
        if verb.role.is_some() && !verb.is_open_here {
            let separator = if query.is_empty() { '?' } else { '&' };
            let unknown = scene.ask(&verb, &format!("{target}{separator}unknown=1"), Some(&admin));
            assert!(unknown.status == 400 && unknown.is_problem(), "{} {target}: {unknown:?}", verb.method);
        }
    }
    assert_eq!(scene.picture(), before, "nothing was carried out");
    assert!(!scene.site.collector.log_text().contains("panicked"), "{}", scene.site.collector.log_text());
}

#[test]
fn bodies_of_100_mb_and_broken_heads_are_refused_at_every_verb() {
    let scene = Scene::new();
    let admin = scene.tokens[&("admin", false)].clone();
    let before = scene.picture();
    for verb in scene.verbs() {
        let head = scene.head(&verb, &admin);
        let large = scene.site.flood(&head, 100);
        assert!(large.status == 413 && large.is_problem(), "{head}: {large:?}");
        for broken in
            ["X: a\rb\r\n", "X\r\n", ": x\r\n", "Content-Length: -1\r\n", "Content-Length: 9\r\nContent-Length: 8\r\n"]
        {
            let answer = scene.site.send(format!("{head}{broken}\r\n").as_bytes(), |_| true);
            assert_eq!(answer.status, 400, "{head}{broken}: {answer:?}");
        }
    }
    assert_eq!(scene.picture(), before, "nothing was carried out");
    assert!(!scene.site.collector.log_text().contains("panicked"), "{}", scene.site.collector.log_text());
}
