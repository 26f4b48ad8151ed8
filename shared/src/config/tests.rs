//! Layers and messages, on a schema like the agent's.

mod hostile;

use std::ffi::OsString;

use super::*;

const SCHEMA: &[Key] = &[
    key("state_dir", Kind::Text, Some("/var/lib/dunlin-agent")),
    key("name", Kind::Text, None),
    key("collectors", Kind::List, None),
    key("labels", Kind::Labels, None),
    key("interval", Kind::Duration { min_ms: 1_000, max_ms: 3_600_000 }, Some("10s")),
    key("watch", Kind::List, Some("sshd,nginx")),
    key("collect.ports", Kind::Bool, Some("true")),
    key("collect.groups_max", Kind::Integer { min: 0, max: 500 }, Some("20")),
    key("spool.ram", Kind::Size { min: 64 << 10, max: 64 << 20 }, Some("512KiB")),
    key("spool.disk", Kind::Size { min: 0, max: u64::MAX }, Some("0")),
];

const fn key(path: &'static str, kind: Kind, default: Option<&'static str>) -> Key {
    let help = "Says what the key is for, at such length that the comment has to be filled into more lines than one.\nSecond part.";
    Key { path, kind, default, help }
}

fn load(text: &[u8], env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Settings, Vec<ConfigError>> {
    let env: Vec<_> = env.iter().map(|(name, text)| (OsString::from(name), OsString::from(text))).collect();
    let flag =
        |(name, text): &(&str, &str)| (key_of_flag(SCHEMA, name).expect("a flag of the schema"), OsString::from(text));
    let flags: Vec<_> = flags.iter().map(flag).collect();
    Layers {
        schema: SCHEMA,
        file: Some(File { name: "a.toml", bytes: text }),
        env_prefix: "DUNLIN_AGENT",
        env: &env,
        env_allowed: &["DUNLIN_AGENT_CONFIG"],
        flags: &flags,
    }
    .load()
}

fn messages(result: Result<Settings, Vec<ConfigError>>) -> Vec<String> {
    result.expect_err("a mistake").iter().map(ToString::to_string).collect()
}

fn file_messages(text: &str) -> Vec<String> {
    messages(load(text.as_bytes(), &[], &[]))
}

#[track_caller]
fn assert_file(text: &str, message: &str) {
    assert_eq!(file_messages(text), [message]);
}

#[test]
fn empty_layers_leave_the_defaults() {
    let settings = load(b"", &[], &[]).expect("defaults");
    assert_eq!(settings.text("state_dir"), Some("/var/lib/dunlin-agent"));
    assert_eq!(settings.text("name"), None);
    assert_eq!(settings.duration_ms("interval"), 10_000);
    assert_eq!(settings.list("watch"), ["sshd", "nginx"]);
    assert!(settings.list("collectors").is_empty() && settings.labels("labels").is_empty());
    assert!(settings.boolean("collect.ports"));
    assert_eq!(settings.integer("collect.groups_max"), 20);
    assert_eq!((settings.size_bytes("spool.ram"), settings.size_bytes("spool.disk")), (512 << 10, 0));
    assert!(settings.iter().all(|setting| setting.origin == Origin::Default));
}

#[test]
fn a_file_sets_every_kind_and_remembers_its_lines() {
    let text = "\u{feff}name = 'web-1'\r\ncollectors = [\n  'a:9737', # one\n  \"b:9737\",\n]\ninterval = '5m'\n\
                [labels]\nenv = 'prod'\n'a.b' = 'c'\n[collect]\nports = false\ngroups_max = 0x10\n[spool]\nram = 1048576\ndisk = '2GB'\n";
    let settings = load(text.as_bytes(), &[], &[]).expect("right");
    assert_eq!(settings.text("name"), Some("web-1"));
    assert_eq!(settings.list("collectors"), ["a:9737", "b:9737"]);
    assert_eq!(settings.duration_ms("interval"), 300_000);
    let labels: Vec<_> = settings.labels("labels").iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(labels, ["a.b=c", "env=prod"]);
    assert!(!settings.boolean("collect.ports"));
    assert_eq!(settings.integer("collect.groups_max"), 16);
    assert_eq!((settings.size_bytes("spool.ram"), settings.size_bytes("spool.disk")), (1 << 20, 2_000_000_000));
    assert_eq!(settings.origin("interval"), Origin::File { line: 6 });
    assert_eq!(settings.origin("spool.ram"), Origin::File { line: 14 });
    let inline = load(b"labels = { env = \"prod\" }\nspool.ram = '1MiB'", &[], &[]).expect("right");
    assert_eq!(inline.labels("labels").get("env").map(String::as_str), Some("prod"));
    assert_eq!(inline.size_bytes("spool.ram"), 1 << 20);
}

#[test]
fn a_flag_wins_over_a_variable_and_that_over_the_file() {
    let text = b"interval = '20s'\nname = 'file'\nwatch = ['x']\n";
    let env = [
        ("DUNLIN_AGENT_INTERVAL", "30s"),
        ("DUNLIN_AGENT_NAME", "env"),
        ("DUNLIN_AGENT_COLLECTORS", "a:1, [::1]:2"),
        ("DUNLIN_AGENT_LABELS", "env=prod, role=a=b"),
        ("DUNLIN_AGENT_SPOOL_RAM", "1MiB"),
        ("DUNLIN_AGENT_CONFIG", "/x"),
        ("DUNLIN_AGENTS", "another name"),
        ("PATH", "/bin"),
    ];
    let settings = load(text, &env, &[("interval", "40s"), ("collect-groups-max", "7")]).expect("right");
    assert_eq!(settings.duration_ms("interval"), 40_000);
    assert_eq!(settings.text("name"), Some("env"));
    assert_eq!(settings.list("collectors"), ["a:1", "[::1]:2"]);
    assert_eq!(settings.labels("labels").get("role").map(String::as_str), Some("a=b"));
    assert_eq!(settings.size_bytes("spool.ram"), 1 << 20);
    assert_eq!(settings.integer("collect.groups_max"), 7);
    let origins = ["interval", "name", "watch", "state_dir"].map(|path| settings.origin(path));
    assert_eq!(origins, [Origin::Flag, Origin::Env, Origin::File { line: 3 }, Origin::Default]);
}

#[test]
fn empty_text_and_an_empty_list_take_a_default_away() {
    let env = [("DUNLIN_AGENT_STATE_DIR", ""), ("DUNLIN_AGENT_WATCH", " "), ("DUNLIN_AGENT_LABELS", "")];
    let settings = load(b"", &env, &[]).expect("right");
    assert_eq!(settings.text("state_dir"), None);
    assert!(settings.list("watch").is_empty() && settings.labels("labels").is_empty());
}

#[test]
fn an_unknown_key_names_file_line_column_and_the_nearest_key() {
    assert_file("# x\n\nintervall = '10s'", "a.toml:3:1: unknown key \"intervall\"; did you mean \"interval\"?");
    assert_file("[spool]\n  rem = 1", "a.toml:2:3: unknown key \"spool.rem\"; did you mean \"spool.ram\"?");
    assert_file("ram = 1", "a.toml:1:1: unknown key \"ram\"; did you mean \"spool.ram\"?");
    assert_file("[spool]\ninterval = '10s'", "a.toml:2:1: unknown key \"spool.interval\"; did you mean \"interval\"?");
    assert_file("STATE-DIR = 'x'", "a.toml:1:1: unknown key \"STATE-DIR\"; did you mean \"state_dir\"?");
    assert_file("'spool.ram' = 1", "a.toml:1:1: unknown key \"'spool.ram'\"; did you mean \"spool.ram\"?");
    assert_file("[spol]\nram = 1\ndisk = 1", "a.toml:1:2: unknown table [spol]; did you mean [spool]?");
    assert_file("[[label]]\nenv = 'x'", "a.toml:1:3: unknown table [label]; did you mean [labels]?");
    assert_file("zzzzzzzzzzzz = 1", "a.toml:1:1: unknown key \"zzzzzzzzzzzz\"; the nearest is \"state_dir\"");
}

/// A file and what is said about it, less the name of the file.
const BAD_VALUES: &[(&str, &str)] = &[
    ("interval = '10'", "1:12: interval: \"10\" is not a number with ms, s, m, h or d; write it like \"10s\""),
    ("interval = '0s'", "1:12: interval: \"0s\" is out of range; it must be a duration from 1s to 1h"),
    (
        "interval = 10",
        "1:12: interval: a number without quotes is given; it must be a duration from 1s to 1h, like interval = \"10s\"",
    ),
    (
        "interval.x = 10",
        "1:1: interval: a table is given; it must be a duration from 1s to 1h, like interval = \"10s\"",
    ),
    (
        "spool.ram = '1TB'",
        "1:13: spool.ram: \"1TB\" is not a number of bytes, or one with KB, MB, GB, KiB, MiB or GiB; write it like \"512KiB\"",
    ),
    ("spool.ram = '1KiB'", "1:13: spool.ram: \"1KiB\" is out of range; it must be a size from 64KiB to 64MiB"),
    (
        "spool.disk = true",
        "1:14: spool.disk: true or false is given; it must be a size of at least 0, like disk = \"0\"",
    ),
    (
        "spool = 1",
        "1:1: spool: a number without quotes is given where a table stands; its keys are spool.ram, spool.disk",
    ),
    ("[[spool]]\nram = 1", "1:3: spool: there is one such table; write [spool]"),
    (
        "collect.ports = 'yes'",
        "1:17: collect.ports: text in quotes is given; it must be true or false, like ports = true",
    ),
    (
        "collect.groups_max = 501",
        "1:22: collect.groups_max: 501 is out of range; it must be a whole number from 0 to 500",
    ),
    (
        "collect.groups_max = 99999999999999999999",
        "1:22: collect.groups_max: \"99999999999999999999\" is out of range; it must be a whole number from 0 to 500",
    ),
    (
        "collectors = 'a:1'",
        "1:14: collectors: text in quotes is given; it must be a list of texts, like collectors = [\"one\", \"two\"]",
    ),
    (
        "watch = ['a', 2]",
        "1:15: watch: a number without quotes is given; it must be a list of texts, like watch = [\"sshd\", \"nginx\"]",
    ),
    ("watch = ['']", "1:10: watch: an item of the list is empty; leave it out"),
    ("name = \"a\\nb\"", "1:8: name: \"a\\nb\" holds a control character, such as a line break"),
    (
        "labels.env = 1",
        "1:8: labels: the label \"env\" is a number without quotes; it must be text in quotes, like env = \"prod\"",
    ),
    (
        "labels.a.b = 'c'",
        "1:8: labels: the label \"a\" is a table; put a name with a dot in quotes, like \"a.b\" = \"text\"",
    ),
    (
        "labels.Env = 'c'",
        "1:8: labels: \"Env\" is no label name; it begins with a-z, goes on with a-z, 0-9, _, . or - and has at most 63 characters, like env",
    ),
];

#[test]
fn a_bad_value_says_what_would_be_right() {
    for (text, message) in BAD_VALUES {
        assert_file(text, &format!("a.toml:{message}"));
    }
}

#[test]
fn all_mistakes_of_all_layers_come_at_once_in_order() {
    let text = "watch = 1\nintervall = '1s'\n[spool]\nram = '1'\nram = '2'\n";
    let env = [("DUNLIN_AGENT_INTERVALL", "1s"), ("DUNLIN_AGENT_INTERVAL", "1")];
    let flags = [("name", "a"), ("name", "b"), ("spool-ram", "x,\u{7}")];
    assert_eq!(
        messages(load(text.as_bytes(), &env, &flags)),
        [
            "a.toml:1:9: watch: a number without quotes is given; it must be a list of texts, like watch = [\"sshd\", \"nginx\"]",
            "a.toml:2:1: unknown key \"intervall\"; did you mean \"interval\"?",
            "a.toml:4:7: spool.ram: \"1\" is out of range; it must be a size from 64KiB to 64MiB",
            "a.toml:5:1: \"ram\" is given twice; keep one",
            "DUNLIN_AGENT_INTERVAL: interval: \"1\" is not a number with ms, s, m, h or d; write it like \"10s\"",
            "DUNLIN_AGENT_INTERVALL: unknown; did you mean DUNLIN_AGENT_INTERVAL?",
            "--name: \"name\" is given twice; keep one",
            "--spool-ram: spool.ram: \"x,\\u{7}\" is not a number of bytes, or one with KB, MB, GB, KiB, MiB or GiB; write it like \"512KiB\"",
        ]
    );
}

#[test]
fn broken_toml_is_one_line_a_mistake_with_its_place() {
    let text = "name = \ninterval 10s\nwatch = ['a'\n";
    let found = file_messages(text);
    assert!(found.len() >= 3, "{found:#?}");
    for (message, line) in found.iter().zip(1..) {
        assert!(message.starts_with(&format!("a.toml:{line}:")), "{message}");
        assert!(message.contains(": not TOML: ") && !message.contains('\n'), "{message}");
    }
    assert_file("[spool]\nram = '1MiB'\n[spool]\n", "a.toml:3:2: \"spool\" is given twice; keep one");
}

#[test]
fn units_are_read_exactly_and_overflow_is_refused() {
    let ms = ["500ms", "10s", "5m", "2h", "7d"].map(parse_duration_ms);
    assert_eq!(ms, [500, 10_000, 300_000, 7_200_000, 604_800_000].map(Some));
    let bytes = ["1024", "3B", "1KB", "512KiB", "2MB", "1MiB", "3GB", "2GiB"].map(parse_size_bytes);
    assert_eq!(bytes, [1024, 3, 1000, 524_288, 2_000_000, 1_048_576, 3_000_000_000, 2_147_483_648].map(Some));
    for wrong in ["", "s", "1", "-1s", "+1s", "1.5s", "1 s", "1S", "1s ", "99999999999999999999s", "300000000000000d"] {
        assert_eq!(parse_duration_ms(wrong), None, "{wrong}");
    }
    for wrong in ["", "KiB", "1kib", "1K", "-1", "0x10", "18446744073709551615KiB"] {
        assert_eq!(parse_size_bytes(wrong), None, "{wrong}");
    }
}

#[test]
fn names_of_flags_and_variables_follow_from_the_path() {
    assert_eq!(SCHEMA[8].env_name("DUNLIN_AGENT"), "DUNLIN_AGENT_SPOOL_RAM");
    assert_eq!(key_of_flag(SCHEMA, "state-dir").map(|key| key.path), Some("state_dir"));
    assert_eq!(key_of_flag(SCHEMA, "state_dir"), None);
    assert_eq!(nearest_flag(SCHEMA, "spol-ram").as_deref(), Some("spool-ram"));
}

/// Takes the `#` from each line that has no blank after it.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn the_reference_file_sets_nothing_and_uncommented_sets_the_defaults() {
    let text = render_reference(SCHEMA);
    let defaults = load(b"", &[], &[]).expect("defaults");
    assert_eq!(load(text.as_bytes(), &[], &[]).as_ref(), Ok(&defaults));
    let set = load(uncommented(&text).as_bytes(), &[], &[]).expect("the reference is right");
    for setting in &set {
        assert!(matches!(setting.origin, Origin::File { .. }), "{setting:?}");
        let default = defaults.iter().find(|other| other.key == setting.key).and_then(|other| other.value.clone());
        let empty =
            ["\"\"", "[]", "{}"].contains(&setting.value.as_ref().map_or(String::new(), ToString::to_string).as_str());
        assert!(setting.value == default || (default.is_none() && empty), "{setting:?}");
    }
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    let end = "\n# Says what the key is for, at such length that the comment has to be filled\n# into more lines than one.\n\
               # Second part.\n# A size of at least 0.\n#disk = \"0\"\n";
    assert!(text.ends_with(end), "{text}");
}

#[test]
#[should_panic(expected = "the schema has no key intervall")]
fn a_path_that_the_schema_has_not_is_the_programs_error() {
    load(b"", &[], &[]).expect("defaults").duration_ms("intervall");
}

#[test]
#[should_panic(expected = "spool.ram is a size from 64KiB to 64MiB, and is read as a duration")]
fn a_path_read_as_another_kind_is_the_programs_error() {
    load(b"", &[], &[]).expect("defaults").duration_ms("spool.ram");
}

#[test]
fn a_wrong_schema_is_refused_at_once() {
    const BAD: &[&[Key]] = &[
        &[key("Name", Kind::Text, None)],
        &[key("a_b", Kind::Text, None), key("a.b", Kind::Text, None)],
        &[key("a", Kind::Text, None), key("a.b", Kind::Text, None)],
        &[key("a", Kind::Bool, None)],
        &[key("a", Kind::Bool, Some("yes"))],
    ];
    for schema in BAD {
        assert!(std::panic::catch_unwind(|| schema::assert_schema(schema)).is_err(), "{schema:?}");
    }
}
