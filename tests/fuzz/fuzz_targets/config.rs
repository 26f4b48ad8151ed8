//! Configuration files of both programs: read, or refused with few messages that fit a screen and a terminal.
#![no_main]

use dunlin_agent::config::Config;
use dunlin_collector::config::CollectorConfig;
use libfuzzer_sys::fuzz_target;

/// 32 mistakes, and that there are more.
const LINES_MAX: usize = 33;
/// A list of addresses may hold more mistakes than a file has lines.
const LIST_LINES_MAX: usize = 70_000;

fuzz_target!(|data: &[u8]| {
    let Some((&which, text)) = data.split_first() else { return };
    let file = Some(("file.toml", text));
    if which & 1 == 0 {
        match Config::load(file, &[], &[]) {
            Ok(config) => {
                assert!(!config.collectors.is_empty() && (1_000..=300_000).contains(&config.interval_ms));
                assert!(config.spool_ram_bytes >= 16 * 1024);
            }
            Err(refused) => judge(&refused.lines, LIST_LINES_MAX),
        }
    } else {
        match CollectorConfig::load(file, &[], &[]) {
            Ok(config) => {
                let kept = config.tuning.retention;
                assert!(kept.bytes.is_none_or(|bytes| bytes >= 1 << 20));
                assert!([kept.full_ms, kept.mid_ms, kept.long_ms].iter().all(|ms| *ms >= 600_000));
            }
            Err(refused) => judge(&refused.lines, LINES_MAX),
        }
    }
});

fn judge(lines: &[String], max: usize) {
    assert!((1..=max).contains(&lines.len()), "{} lines", lines.len());
    for line in lines {
        assert!(!line.is_empty() && line.len() <= 70_000, "{} bytes in a line", line.len());
        assert!(!line.chars().any(char::is_control), "{line:?} would reach a terminal");
    }
}
