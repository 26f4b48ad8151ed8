//! What an alert says: values in their units, and templates filled in.

use super::*;

#[test]
fn a_value_is_written_as_a_person_reads_it() {
    let cases: &[(ShownAs, &[(f64, &str)])] = &[
        (ShownAs::Ratio, &[(0.931, "93.1 %"), (0.9, "90 %"), (0.0004, "0 %"), (-0.05, "-5 %"), (2.5, "250 %")]),
        (
            ShownAs::Bytes,
            &[
                (0.0, "0 B"),
                (512.0, "512 B"),
                (1_288_490_188.8, "1.2 GiB"),
                (1_048_575.0, "1 MiB"),
                (-2_048.0, "-2 KiB"),
            ],
        ),
        (ShownAs::BytesASecond, &[(12_345_678.0, "12.3 MB/s"), (999.0, "999 B/s"), (1_500.0, "1.5 KB/s")]),
        (
            ShownAs::Seconds,
            &[
                (320.0, "5 m 20 s"),
                (0.0, "0 s"),
                (0.35, "350 ms"),
                (0.0042, "4.2 ms"),
                (12.5, "12.5 s"),
                (59.99, "1 m"),
                (7_500.0, "2 h 5 m"),
                (86_400.0 * 3.0 + 60.0, "3 d"),
                (-90.0, "-1 m 30 s"),
            ],
        ),
        (ShownAs::ASecond, &[(0.05, "0.05/s"), (3.0, "3/s")]),
        (ShownAs::Celsius, &[(91.25, "91.2 °C")]),
        (ShownAs::Hertz, &[(2.4e9, "2.4 GHz"), (50.0, "50 Hz")]),
        (ShownAs::Words(Known::NodeState), &[(3.0, "down"), (77.0, "77"), (0.5, "0.5")]),
        (ShownAs::Plain("bytes*seconds".into()), &[(7.0, "7 bytes*seconds")]),
        (
            ShownAs::Number,
            &[(4.0, "4"), (4.256, "4.26"), (123.45, "123.5"), (1_234_567.0, "1234567"), (0.1234, "0.123"), (-0.0, "0")],
        ),
    ];
    for (shown_as, values) in cases {
        for (value, written) in *values {
            assert_eq!(shown_as.write(*value), *written, "{shown_as:?} {value}");
        }
        assert_eq!(shown_as.write(f64::NAN), "unknown");
    }
}

#[test]
fn what_is_shown_follows_from_what_is_compared() {
    let shown = |when: &str| accepted(when).shown_as;
    assert_eq!(shown("host_files_open / host_files_max > 90%"), ShownAs::Ratio);
    assert_eq!(shown("host_load1 / host_cpu_cores > 2"), ShownAs::Number);
    assert_eq!(shown("host_memory_total_bytes - host_memory_used_bytes < 1GiB or host_load1 > 4"), ShownAs::Bytes);
    assert_eq!(shown("rate(net_sent_bytes, 1m) > 0.9 * net_speed_bytes"), ShownAs::BytesASecond);
    assert_eq!(shown("rate(host_oom_kills, 1h) > 0.1"), ShownAs::ASecond);
    assert_eq!(shown("x_age > 5m"), ShownAs::Seconds);
    assert_eq!(shown("x_share > 5%"), ShownAs::Ratio);
    assert_eq!(shown("container_health == unhealthy"), ShownAs::Words(Known::ContainerHealth));
    assert_eq!(shown("changes(node_state, 1h) > 3"), ShownAs::Number);
    assert_eq!(shown("fs_used_bytes * host_uptime_seconds > 5"), ShownAs::Plain("bytes*seconds".into()));
}

#[test]
fn a_summary_is_filled_in() {
    let text = "[[rule]]\nname = \"disk-full\"\nwhen = 'fs_used_ratio > 90%'\nfor = \"5m\"\nwhere = { role = \"*\" }\n\
                summary = \"{severity} {rule}: {node} {subject} ({name}, {label.role}) {value} > {threshold} for {for} {{x}}\"\n";
    let rules = file::parse("a.toml", text).expect("right");
    let [rule] = rules.as_slice() else { panic!("{rules:?}") };
    let label = |key: &str| (key == "role").then_some("db");
    let fields = Fields {
        node: "db-1",
        subject: "fs:/var",
        rule: &rule.name,
        severity: rule.severity,
        value: Some(0.931),
        threshold: Some(0.9),
        shown_as: &rule.shown_as,
        for_ms: rule.for_ms,
        label: &label,
    };
    let whole = "warning disk-full: db-1 fs:/var (/var, db) 93.1 % > 90 % for 5 m {x}";
    assert_eq!(rule.summary.render(&fields), whole);
    let unknown = "warning disk-full: db-1 fs:/var (/var, unknown) unknown > 90 % for 5 m {x}";
    assert_eq!(rule.summary.render(&Fields { value: None, label: &|_| None, ..fields }), unknown);
}
