//! Files of rules that are refused: each mistake with its line and column, whatever kind of string it stands in.

use super::*;

fn messages(text: &str) -> Vec<String> {
    file::parse("a.toml", text).expect_err("a mistake").iter().map(ToString::to_string).collect()
}

/// A right rule with one line more, its fifth.
#[track_caller]
fn refused(line: &str, column: usize, message: &str) {
    let text = format!("[[rule]]\nname = \"a\"\nwhen = 'host_load1 > 4'\nsummary = \"x\"\n{line}\n");
    assert_eq!(messages(&text), [format!("a.toml:5:{column}: {message}")], "{line}");
}

/// A right rule but for its summary.
#[track_caller]
fn refused_summary(rest: &str, summary: &str, column: usize, message: &str) {
    let text = format!("[[rule]]\nname = \"a\"\n{rest}\nsummary = \"{summary}\"\n");
    let line = 4 + rest.matches('\n').count();
    assert_eq!(messages(&text), [format!("a.toml:{line}:{column}: summary: {message}")], "{summary}");
}

#[test]
fn keys_are_refused_one_by_one() {
    refused("severty = \"info\"", 1, "unknown key \"severty\"; did you mean severity?");
    refused("severity = \"crit\"", 12, "severity: \"crit\" is none of info, warning and critical; the nearest is info");
    refused("for = 300", 7, "for: a number without quotes is given; it must be text in quotes, like for = \"5m\"");
    refused("for = \"5 minutes\"", 7, "for: \"5 minutes\" is no time; write it like \"5m\", with ms, s, m, h, d or w");
    refused("for = \"-5m\"", 7, "for: \"-5m\" is no time; write it like \"5m\", with ms, s, m, h, d or w");
    refused("for = \"8d\"", 7, "for: \"8d\" is too long; it is at most 7d");
    refused("keep_firing_for = \"2w\"", 19, "keep_firing_for: \"2w\" is too long; it is at most 7d");
    refused("enabled = \"yes\"", 11, "enabled: text in quotes is given; it must be true or false, like enabled = true");
    refused("service_type = \"ai\"", 1, "service_type: no services are registered with this version");
    refused(
        "runbook = \"wiki/memory\"",
        11,
        "runbook: \"wiki/memory\" is no address of a page; it begins with https:// or http:// and has at most 1024 bytes",
    );
}

#[test]
fn labels_and_subjects_are_patterns_and_nothing_more() {
    refused(
        "where = \"db\"",
        9,
        "where: text in quotes is given; it must be a table of labels, like where = { role = \"db\" }",
    );
    refused(
        "where = { role = 5 }",
        11,
        "where: the label \"role\" is a number without quotes; it must be text in quotes, like \"db\"",
    );
    refused(
        "where = { Role = \"db\" }",
        11,
        "where: \"Role\" is no label name; it begins with a-z, goes on with a-z, 0-9, _, . or - and has at most 63 \
         characters, like env",
    );
    refused(
        "where = { role = \"(a+)+$\" }",
        18,
        "where: '(' is of a regular expression, and patterns know only *, like \"web-*\"",
    );
    refused(
        "subject = \"fs:/var\"",
        11,
        "subject: \"fs:/var\" is none of when, which is about the node; write host, or leave it out",
    );
    refused(
        "subject = \"*\"",
        11,
        "subject: \"*\" is no subject, which begins with its kind, like \"fs:/var*\"; the nearest is fs",
    );
    refused(
        "subject = \"disc:vda\"",
        11,
        "subject: \"disc:vda\" is no subject, which begins with its kind, like \"fs:/var*\"; did you mean disk?",
    );
    refused(
        "subject = \"disk:\"",
        11,
        "subject: \"disk:\" is no subject, which begins with its kind, like \"fs:/var*\"; write disk:* for all of them",
    );
    refused(
        "subject = \"host:a\"",
        11,
        "subject: \"host:a\" is no subject, which begins with its kind, like \"fs:/var*\"; host has no name behind it",
    );
    refused(
        "subject = [\"host\", \"fs:^/(a|b)$\"]",
        20,
        "subject: \"fs:^/(a|b)$\" is a regular expression, and patterns know only *, like \"fs:/var*\"",
    );
    refused("subject = []", 11, "subject: a list has 1 to 64 items, like [\"fs:/var*\", \"fs:/srv\"]");
    let fleet =
        "[[rule]]\nname = \"a\"\nwhen = 'fleet_nodes_missing > 4'\nwhere = { role = \"db\" }\nsummary = \"x\"\n";
    assert_eq!(
        messages(fleet),
        ["a.toml:4:1: where: it chooses nodes, and the rule is about all nodes together; leave it out"]
    );
}

#[test]
fn a_template_names_what_is_known() {
    let node = "when = 'host_load1 > 4'";
    refused_summary(node, "{nod} is busy", 12, "unknown field \"nod\"; did you mean {node}?");
    refused_summary(node, "ü {valu}", 14, "unknown field \"valu\"; did you mean {value}?");
    refused_summary(node, "{name}", 12, "a node's subject has no name of its own; write {node}");
    refused_summary(
        node,
        "{label.role}",
        12,
        "the label \"role\" is known of a node only where the rule asks for it in where; write where = { role = \"*\" } beside it",
    );
    refused_summary(
        "when = 'host_load1 > 4'\nwhere.role = \"*\"",
        "{label.rol}",
        12,
        "the label \"rol\" is known of a node only where the rule asks for it in where; did you mean {label.role}?",
    );
}

#[test]
fn braces_of_a_template_are_paired() {
    let node = "when = 'host_load1 > 4'";
    let open = "the field that opens here has no } behind it; for a brace itself write {{";
    refused_summary(node, "a {node", 14, open);
    refused_summary(node, "a {node {value}", 14, open);
    refused_summary(node, "a } b", 14, "nothing opens before this }; for a brace itself write }}");
    refused_summary(node, " ", 12, "it is empty; say what is wrong, like \"{node} uses {value} of its memory\"");
    refused_summary(node, "a\\nb", 13, "it holds a control character, such as a line break; write one line");
    refused_summary(node, &"a".repeat(1_025), 12, "1025 bytes are too many; the limit is 1024");
    refused_summary(
        "when = 'fleet_nodes_missing > 4'",
        "{node}",
        12,
        "the rule is about all nodes together, so {node} is not known; leave it out",
    );
    refused_summary(
        "when = 'absent(host_load1, 5m)'",
        "{value}",
        12,
        "when begins with absent, which has no {value}; leave it out",
    );
}

#[test]
fn a_place_in_a_condition_is_one_in_the_file_whatever_quotes_it_has() {
    let place = |when: &str| {
        let text = format!("[[rule]]\nname = \"a\"\nsummary = \"x\"\nwhen = {when}\n");
        let errors = file::parse("a.toml", &text).expect_err("a mistake");
        let [error] = errors.as_slice() else { panic!("{errors:?}") };
        assert!(error.message.contains("\"host_lod1\""), "{error}");
        (error.line, error.column)
    };
    assert_eq!(place("'host_lod1 > 4'"), (4, 9));
    assert_eq!(place("\"host_load1 > 4 or host_lod1 > 4\""), (4, 27));
    assert_eq!(place("\"\\u0068ost_load1 > 4\\tor host_lod1 > 4\""), (4, 33));
    assert_eq!(place("'''host_load1 > 4\n  or host_lod1 > 4'''"), (5, 6));
    assert_eq!(place("'''\nhost_load1 > 4\r\n  or host_lod1 > 4\n'''"), (6, 6));
    assert_eq!(place("\"\"\"\r\nhost_load1 > 4 \\\n\n    or host_lod1 > 4\"\"\""), (7, 8));
    assert_eq!(place("\"\"\"\\\n   host_lod1 > 4\"\"\""), (5, 4));
}

#[test]
fn a_file_that_is_none_of_rules_says_what_one_is() {
    assert_eq!(messages("name = \"a\"\n"), ["a.toml:1:1: unknown key \"name\"; the nearest is [[rule]]"]);
    assert_eq!(messages("[[rules]]\n"), ["a.toml:1:3: unknown key \"rules\"; did you mean [[rule]]?"]);
    let one = "a.toml:1:2: rule is one table; rules are a list of tables, each begun by [[rule]]";
    assert_eq!(messages("[rule]\nname = \"a\"\n"), [one]);
    let item = "a.toml:1:9: a number without quotes stands where a rule should; begin each by [[rule]]";
    assert_eq!(messages("rule = [5]\n"), [item]);
    assert_eq!(messages("[[rule]]\nname = \"a\n"), ["a.toml:2:10: not TOML: invalid basic string, expected `\"`"]);
    let nothing = [
        "a.toml:1:1: the rule has no name; write name = \"memory-high\"",
        "a.toml:1:1: the rule has no when; write when = 'host_memory_used_ratio > 90%'",
        "a.toml:1:1: the rule has no summary; write summary = \"{node} uses {value} of its memory\"",
    ];
    assert_eq!(messages("[[rule]]\n"), nothing);
    let twice = "[[rule]]\nname = \"a\"\nwhen = 'host_load1 > 4'\nwhen = 'host_load1 > 5'\nsummary = \"x\"\n";
    assert_eq!(messages(twice), ["a.toml:4:1: \"when\" is given twice; keep one"]);
    let deep = format!("a = {}1{}\n", "[".repeat(20_000), "]".repeat(20_000));
    assert_eq!(messages(&deep), ["a.toml:1:13: more than 8 lists and tables stand within each other here"]);
    let name = "a.toml:2:8: name: \"Memory high\" is no name of a rule; it begins with a-z or 0-9, goes on with those and \
                -, and has at most 63 of them";
    assert_eq!(messages("[[rule]]\nname = \"Memory high\"\nwhen = 'host_load1 > 4'\nsummary = \"x\"\n"), [name]);
    assert!(file::parse("a.toml", "# nothing yet\n").is_ok_and(|rules| rules.is_empty()));
}

#[test]
fn twenty_mistakes_of_a_file_are_told_in_its_order() {
    let wrong = "[[rule]]\nname = \"A\"\nwhen = 'host_lod1 > 4'\nsummary = \"{nod}\"\n";
    let errors = file::parse("a.toml", &wrong.repeat(10)).expect_err("mistakes");
    let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
    let first: Vec<usize> = (0..7).flat_map(|rule| [rule * 4 + 2, rule * 4 + 3, rule * 4 + 4]).take(20).collect();
    assert_eq!(lines, first);
}
