//! Conditions that are refused: each with what it says and where in the text.

use super::*;

/// The condition stands from column 9 of line 3 on.
#[track_caller]
fn refused(when: &str, at: usize, message: &str) {
    let errors = file::parse("a.toml", &with_when(when)).expect_err("a mistake");
    let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(said, [format!("a.toml:3:{}: when: {message}", at + 9)], "{when}");
}

#[test]
fn names_that_nobody_knows_are_refused_with_the_nearest() {
    refused(
        "host_mem_used_ratio > 90%",
        0,
        "unknown metric \"host_mem_used_ratio\"; did you mean host_memory_used_ratio?",
    );
    refused("mean(host_load1, 5m) > 3", 0, "unknown function \"mean\"; the nearest is min");
    refused("avgg(host_load1, 5m) > 3", 0, "unknown function \"avgg\"; did you mean avg?");
    refused("avg(host_lod1, 5m) > 3", 4, "unknown metric \"host_lod1\"; did you mean host_load1?");
    refused("avg > 3", 0, "avg is a function; write avg(metric, 5m)");
    refused("node_state == dwn", 14, "\"dwn\" is no word of node_state; did you mean down?");
    let words = "unknown, up, suspect, down, stopped, maintenance, pending, held, quarantined, revoked";
    refused("node_state == 3", 14, &format!("\"3\" is no word of node_state; it is one of {words}"));
    refused(
        "host_load1 == running",
        14,
        "running is a word of container_state and stands beside it alone, like container_state == running",
    );
    refused(
        "x_Queue > 5",
        0,
        "\"x_Queue\" is no name of the open name space; it is x_ and then a-z, 0-9 and _, 96 bytes at most",
    );
    refused("host_load1 > nan", 13, "\"nan\" is no number that anything is compared with; write one, like 90%");
    refused("host_load1 < inf", 13, "\"inf\" is no number that anything is compared with; write one, like 90%");
}

#[test]
fn a_threshold_of_the_wrong_unit_is_refused_with_the_spelling_that_fits() {
    refused("host_load1 > 90%", 13, "a count is no part of anything; write a plain number, like 4, or divide first");
    refused("host_memory_used_ratio > 90", 25, "a ratio is at most 1; write 90%");
    refused("90 < host_memory_used_ratio", 0, "a ratio is at most 1; write 90%");
    refused("host_memory_used_bytes > 100", 25, "a number of bytes has its unit; write it like 1GiB");
    refused("host_memory_used_bytes > 5m", 25, "bytes and seconds do not go together");
    refused("host_uptime_seconds < 300", 22, "a number of seconds has its unit; write it like 5m");
    refused("host_uptime_seconds < 90%", 22, "seconds and a percentage do not go together");
    refused("rate(net_sent_bytes, 5m) > 10", 27, "a number of bytes a second has its unit; write it like 10MB/s");
    refused(
        "rate(net_sent_bytes, 5m) > 10MB",
        27,
        "bytes a second and bytes do not go together; a rate is written like 10MB/s, and made of a counter by \
         rate(net_sent_bytes, 5m)",
    );
    refused("host_load1 > host_memory_used_ratio", 13, "a count and a ratio do not go together; divide first");
    refused("host_memory_total_bytes + host_uptime_seconds > 1GiB", 26, "bytes and seconds do not go together");
    refused("host_temperature_celsius > 90%", 27, "degrees Celsius and a percentage do not go together");
    refused("count_over(host_memory_used_bytes > 5m, 1h) > 3", 36, "bytes and seconds do not go together");
}

#[test]
fn a_comparison_that_says_nothing_is_refused() {
    refused("host_memory_used_ratio > 100%", 25, "this never holds; it is from 0% to 100%");
    refused("host_memory_used_ratio > 1", 25, "this never holds; it is from 0% to 100%");
    refused("host_memory_used_ratio <= 1", 26, "this always holds; it is from 0% to 100%");
    refused("host_memory_used_ratio == 120%", 26, "this never holds; it is from 0% to 100%");
    refused("host_oom_kills < 0", 17, "this never holds; it is never below 0");
    refused("rate(net_sent_bytes, 5m) >= 0", 28, "this always holds; it is never below 0");
    refused("host_load1 > host_load1", 13, "this compares a thing with itself; compare it with another");
    refused("3 > 2", 0, "nothing is measured here; compare a metric with a number");
    refused("host_memory_used_ratio / 0 > 1", 25, "nothing can be divided by 0");
    refused("host_memory_used_ratio / (1 - 1) > 1", 25, "nothing can be divided by 0");
    refused(
        &format!("host_load1 > {}", "9".repeat(400)),
        13,
        &format!("\"{}\"... is too large for a number", "9".repeat(64)),
    );
    let large = "9".repeat(200);
    refused(&format!("host_load1 > {large} * {large}"), 13, "this is too large for a number");
}

#[test]
fn functions_say_what_they_take() {
    refused(
        "avg(host_oom_kills, 5m) > 1",
        4,
        "host_oom_kills is a counter, which only grows; write rate(host_oom_kills, 5m)",
    );
    refused(
        "rate(host_load1, 5m) > 1",
        5,
        "host_load1 is a gauge, and rate is of a counter; write delta(host_load1, 5m)",
    );
    refused("avg(host_load1, 5s) > 1", 16, "a window is from 10s to 24h");
    refused("avg(host_load1, 2d) > 1", 16, "a window is from 10s to 24h");
    refused("avg(host_load1, 5) > 1", 16, "a window is a time with its unit, like 5m");
    refused("avg(host_load1, host_load5) > 1", 16, "a window is a time, like 5m");
    refused("avg(host_load1) > 1", 0, "avg takes a metric and a window; write avg(metric, 5m)");
    refused("abs() > 1", 0, "abs takes one number, like abs(node_skew_seconds)");
    refused("avg(host_load1 + 1, 5m) > 1", 4, "avg reads one metric, and nothing made of it; write avg(metric, 5m)");
    refused(
        "max(node_state, 1h) > 3",
        4,
        "node_state is one of its words, of which max makes nothing; changes and count_over do",
    );
    refused(
        "absent(node_state, 1h)",
        7,
        "node_state is one of its words, of which absent makes nothing; changes and count_over do",
    );
    refused(
        "absent(host_load1, 5m) == 1",
        0,
        "absent is a test by itself; compare it with nothing, and join it by and, or and unless",
    );
    refused(
        "count_over(host_load1, 1h) > 3",
        11,
        "count_over counts values that compare so; write count_over(metric > 5, 1h)",
    );
    refused(
        "count_over(avg(host_load1, 5m) > 3, 1h) > 3",
        11,
        "count_over reads a metric as it is, and no function of it; write count_over(metric > 5, 1h)",
    );
    refused(
        "count_over(host_load1 > host_load5, 1h) > 3",
        11,
        "count_over compares one metric with a number; write count_over(metric > 5, 1h)",
    );
}

#[test]
fn a_rule_is_about_one_kind_of_subject() {
    refused(
        "fs_used_ratio > 90% and disk_in_flight > 5",
        24,
        "fs_used_ratio is of each file system and disk_in_flight of each disk; a rule is about one of them",
    );
    refused(
        "fleet_nodes_missing > 3 and host_load1 > 3",
        28,
        "fleet_nodes_missing is of all nodes together and host_load1 of the node; a rule is about one of them",
    );
    refused(
        "x_queue > 3 and port_exposed == 1",
        16,
        "port_exposed is of each port and x_queue of each subject that has it; a rule is about one of them",
    );
    refused(
        "collector_disk_free_ratio < 5% or fleet_nodes_missing > 3",
        34,
        "collector_disk_free_ratio is of the collector and fleet_nodes_missing of all nodes together; a rule is about \
         one of them",
    );
}

#[test]
fn what_is_no_condition_is_refused_with_what_would_be_one() {
    refused("host_load1", 0, "this is a number and no test; compare it, like host_load1 > 4");
    refused("node_state", 0, "node_state is one of its words; write node_state == up");
    refused(
        "node_state > down",
        0,
        "node_state is one of its words, of which none is more than another; write == or !=",
    );
    refused("node_state + 1 > 3", 0, "node_state is no number but one of its words; write node_state == up");
    refused("(host_load1 > 3) + 1 > 3", 0, "a test stands where a number should; join tests by and, or and unless");
    refused("1 < host_load1 < 3", 15, "comparisons stand one by one; write a < b and b < c");
    refused("host_load1 > 5 and", 18, "the text ends where a metric or a number should stand");
    refused("", 0, "the text ends where a metric or a number should stand");
    refused("host_load1 > (3", 13, "what opens here has no ) behind it");
    refused("host_load1 > 3)", 14, "\")\" stands where and, or, unless or the end of the text should");
    refused(
        "host_load1 > 3 host_load5",
        15,
        "\"host_load5\" stands where and, or, unless or the end of the text should",
    );
    refused("host_load1 > > 3", 13, "\">\" stands where a metric or a number should");
    refused("(host_load1 3) > 1", 12, "\"3\" stands where a ) should");
    refused("host_load1 = 3", 11, "one = compares nothing; write ==");
    refused("not host_load1 > 3", 0, "there is no not; turn the comparison round, or write unless");
    refused("not(host_load1 > 3)", 0, "there is no not; turn the comparison round, or write unless");
    refused("!(host_load1 > 3)", 0, "! means nothing by itself; write != or unless");
    refused("host_load1 > 3 && host_load5 > 3", 15, "write and");
    refused("host_load1 > 3 || host_load5 > 3", 15, "write or");
    refused("host_load1{a} > 5", 10, "labels stand in where, like where = { role = \"db\" }");
    refused("host_load1[5m] > 5", 10, "a window stands in its function, like avg(host_load1, 5m)");
    refused("node_state == \"down\"", 14, "names and words stand without quotes, like node_state == down");
    refused("host_load1 =~ 5", 11, "one = compares nothing; write ==");
    refused("host_load1 ~ 5", 11, "there are no regular expressions; subject and where know * for anything");
    refused("x_größe > 5", 4, "\"ö\" means nothing here");
}

#[test]
fn numbers_are_written_with_their_units() {
    refused("host_uptime_seconds < 5 m", 24, "a unit stands at its number; write 5m");
    refused("host_memory_used_ratio > 90 %", 28, "a percentage is written without a space, like 90%");
    refused("host_load1 > 1e9", 13, "unknown unit \"e9\"; the nearest is B");
    refused("host_memory_used_bytes > 5kb", 25, "unknown unit \"kb\"; did you mean KB?");
    refused("host_memory_used_bytes > 5Gb", 25, "unknown unit \"Gb\"; did you mean GB?");
    refused("host_load1 > 1.2.3", 13, "\"1.2.3\" is no number; write it like 12 or 0.5");
    refused("host_load1 > .5", 13, "\".5\" is no number; write it like 12 or 0.5");
    refused("host_load1 > 5m/s", 13, "5m/s: only sizes and plain numbers stand before /s, like 10MB/s");
}

#[test]
fn every_mistake_of_a_condition_is_told() {
    let errors =
        file::parse("a.toml", &with_when("host_lod1 > 3 or host_memory_used_ratio > 90")).expect_err("two mistakes");
    let places: Vec<usize> = errors.iter().map(|error| error.column).collect();
    assert_eq!(places, [9, 51], "{errors:?}");
}

#[test]
fn a_condition_of_too_many_parts_is_refused_and_no_stack_is_lost() {
    let deep = "more than 32 parts within each other, or joined to each other; make several rules of this one";
    let nested = |levels: usize| format!("{}host_load1{} > 3", "(".repeat(levels), ")".repeat(levels));
    accepted(&nested(32));
    refused(&nested(33), 33, deep);
    refused(&"(".repeat(4_096), 33, deep);
    refused(&format!("host_load1 > {}1", "-".repeat(2_000)), 46, deep);
    refused(&"abs(".repeat(1_000), 33 * 4, deep);
    refused(&vec!["host_load1 > 3"; 40].join(" or "), 31 * 18 - 3, deep);
    let long = "not ".repeat(10_000);
    refused(&long, 0, "40000 bytes are too many for a condition; the limit is 4096");
    refused(&format!("host_load1 > {}", "1+".repeat(2_000)), 13 + 32 * 2 - 1, deep);
    let windows: Vec<String> = (1..=17).map(|m| format!("max(host_load1, {m}m)")).collect();
    let sum = |terms: usize| format!("{} > 3", windows[..terms].join(" + "));
    accepted(&sum(16));
    refused(
        &sum(17),
        sum(16).len() - 4 + 3 + 4,
        "a rule reads at most 16 different values; make several rules of this one",
    );
}
