//! Input that nobody means well: no panic, no deep stack, no endless list of mistakes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;

use super::*;
use crate::limits::LABELS_MAX;

#[test]
fn text_that_is_not_utf8_is_reported_with_its_place() {
    assert_eq!(messages(load(b"name = 'a'\n# \xc3\xa4\xff", &[], &[])), ["a.toml:2:4: not UTF-8 text"]);
    let strange = OsString::from_vec(b"a\xff".to_vec());
    let strange_name = OsString::from_vec(b"DUNLIN_AGENT_NAME\xff\n".to_vec());
    let layers = Layers {
        schema: SCHEMA,
        file: None,
        env_prefix: "DUNLIN_AGENT",
        env: &[("DUNLIN_AGENT_NAME".into(), strange.clone()), (strange_name, "x".into())],
        env_allowed: &[],
        flags: &[(&SCHEMA[0], strange)],
    };
    let expected = [
        "\"DUNLIN_AGENT_NAME\u{fffd}\\n\": unknown; did you mean DUNLIN_AGENT_NAME?",
        "DUNLIN_AGENT_NAME: not UTF-8 text",
        "--state-dir: not UTF-8 text",
    ];
    assert_eq!(messages(layers.load()), expected);
}

#[test]
fn a_file_over_the_limit_is_refused_and_one_at_the_limit_read() {
    let text = "#".repeat(FILE_LEN_MAX);
    load(text.as_bytes(), &[], &[]).expect("a long comment");
    assert_file(&(text + "#"), "a.toml: 65537 bytes are too many for a configuration; the limit is 65536");
    let long = "x".repeat(FILE_LEN_MAX + 1);
    let found = messages(load(b"", &[("DUNLIN_AGENT_NAME", &long)], &[]));
    assert_eq!(found, ["DUNLIN_AGENT_NAME: name: 65537 bytes are too many; the limit is 65536"]);
}

#[test]
fn the_list_of_mistakes_is_bounded() {
    let many: String = (0..5_000).map(|n| format!("k{n} = 1\n")).collect();
    let twice = "name = 'a'\n".repeat(5_000);
    let broken = "=\n".repeat(30_000);
    for text in [many, twice, broken] {
        let found = file_messages(&text);
        assert_eq!(found.len(), ERRORS_MAX + 1);
        assert_eq!(found[ERRORS_MAX], "32 mistakes are shown; there are more");
    }
    let long = format!("{} = 1", "k".repeat(60_000));
    assert!(file_messages(&long)[0].len() < 200);
}

/// A thread of a small stack: what fits here fits in any of ours.
fn on_small_stack(text: String) -> Vec<String> {
    let builder = std::thread::Builder::new().stack_size(512 * 1024);
    let thread = builder.spawn(move || file_messages(&text)).expect("a thread");
    thread.join().expect("no panic")
}

#[test]
fn deep_nesting_neither_overflows_the_stack_nor_passes() {
    let path = vec!["a"; 79].join(".");
    let deep = |braces: usize| {
        let opened = vec![format!("{path}="); braces + 1].join("{");
        format!("[{path}]\n{opened}1{}\n", "}".repeat(braces))
    };
    assert_eq!(on_small_stack(deep(16)), ["a.toml:1:2: unknown table [a]; the nearest is [labels]"]);
    assert_eq!(on_small_stack(deep(78)).len(), 1);
    assert!(on_small_stack(deep(78))[0].contains("more than 16 tables in braces"));
    assert!(on_small_stack(format!("x = 1\n{}a = 1", "a.".repeat(30_000)))[0].starts_with("a.toml:2:1: not TOML"));
    for opened in ["[", "{", "[}", "{]", "]", "{a=", "[{a="] {
        let text = format!("a={}", opened.repeat(60_000 / opened.len()));
        assert!(!on_small_stack(text).is_empty());
    }
}

#[test]
fn labels_are_bounded_in_number_and_length() {
    let many: Vec<String> = (0..=LABELS_MAX).map(|n| format!("l{n}=x")).collect();
    let env = |text: &str| messages(load(b"", &[("DUNLIN_AGENT_LABELS", text)], &[]));
    load(b"", &[("DUNLIN_AGENT_LABELS", &many[1..].join(","))], &[]).expect("as many as may be");
    assert!(env(&many.join(","))[0].ends_with("there are too many labels; a node has at most 32"));
    assert!(env(&format!("a={}", "x".repeat(256)))[0].ends_with("at most 255 bytes are kept"));
    assert!(env(&format!("{}=x", "a".repeat(64)))[0].contains("is no label name"));
    assert!(env("a=1,a=2")[0].ends_with("the label a is given twice; keep one"));
    assert!(env("a")[0].ends_with("\"a\" is no label; write labels like env=prod,role=web"));
}

/// Text that often gets past the first token.
fn nearly_toml() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "interval",
        "labels",
        "spool",
        "ram",
        "collectors",
        "watch",
        "collect.ports",
        "x",
        ".",
        "=",
        " = ",
        "\n",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        ",",
        "\"",
        "'",
        "'''",
        "\"\"\"",
        "\\",
        "\\u",
        "#",
        "1",
        "-",
        "0x",
        "1e5",
        "1979-05-27",
        "10s",
        "'10s'",
        "\"1MiB\"",
        "true",
        "\r",
        "\t",
        "\u{feff}",
        "\0",
        "ä",
        "名",
    ]);
    prop::collection::vec(token, 0..60).prop_map(|tokens| tokens.concat())
}

/// Whatever was given: settings that can be read, or mistakes that fit on a line each.
fn is_answered(result: Result<Settings, Vec<ConfigError>>) -> bool {
    match result {
        Ok(settings) => settings.iter().all(|setting| !format!("{:?}", setting.value).is_empty()),
        Err(errors) => {
            !errors.is_empty()
                && errors.len() <= 2 * (ERRORS_MAX + 1)
                && errors.iter().all(|error| !error.to_string().contains(char::is_control))
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(is_answered(load(&bytes, &[], &[])));
    }

    #[test]
    fn arbitrary_text_is_answered(text in "\\PC*", name in "[A-Z_]{0,12}") {
        let variable = format!("DUNLIN_AGENT_{name}");
        let flags = ["interval", "labels", "spool-ram", "collectors", "name"].map(|flag| (flag, text.as_str()));
        prop_assert!(is_answered(load(text.as_bytes(), &[(&variable, &text)], &flags)));
    }

    #[test]
    fn nearly_right_text_is_answered(text in nearly_toml()) {
        prop_assert!(is_answered(load(text.as_bytes(), &[("DUNLIN_AGENT_LABELS", &text)], &[])));
    }

    #[test]
    fn values_survive_the_way_through_toml(
        name in "[^\\p{Cc}]{0,20}",
        watch in prop::collection::vec("[^\\p{Cc}]{1,8}", 0..4),
        labels in prop::collection::btree_map("[a-z][a-z0-9_.-]{0,8}", "[^\\p{Cc}]{0,8}", 0..4),
        interval_ms in 1_000_u64..3_600_000,
        ram_bytes in (64_u64 << 10)..(64 << 20),
    ) {
        let values = [
            ("name", Value::Text(name)),
            ("watch", Value::List(watch)),
            ("labels", Value::Labels(labels)),
            ("interval", Value::DurationMs(interval_ms)),
            ("spool.ram", Value::SizeBytes(ram_bytes)),
        ];
        let text: String = values.iter().map(|(path, value)| format!("{path} = {value}\n")).collect();
        let settings = load(text.as_bytes(), &[], &[]).expect("rendered values are right");
        for (path, value) in values {
            let read = settings.iter().find(|setting| setting.key.path == path).and_then(|setting| setting.value.clone());
            prop_assert_eq!(read, Some(value));
        }
    }
}
