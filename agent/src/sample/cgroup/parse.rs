//! The files of control groups as numbers. Pure; a line that makes no sense counts for nothing.

/// Where version 1 has no limit it tells the largest number of pages that there can be.
const UNLIMITED_BYTES: u64 = 1 << 60;

/// The values of some keys in a file of `KEY VALUE` lines.
#[must_use]
pub fn keyed<const N: usize>(text: &str, keys: [&str; N]) -> [Option<u64>; N] {
    let mut found = [None; N];
    for line in text.lines() {
        let Some((key, value)) = line.split_once(' ') else { continue };
        if let Some(at) = keys.iter().position(|known| *known == key) {
            found[at] = value.trim().parse().ok();
        }
    }
    found
}

/// The number that is all there is in a file; none for `max` and for what version 1 takes for no limit.
#[must_use]
pub fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|&bytes| bytes < UNLIMITED_BYTES)
}

/// `QUOTA PERIOD` of version 2, in processors; none without a quota.
#[must_use]
pub fn cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    cores(quota.parse().ok()?, period.parse().ok()?)
}

/// What a quota of so much time in each period comes to. A negative quota is none.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "microseconds of a period are far below 2^53")]
pub fn cores(quota_us: i64, period_us: i64) -> Option<f64> {
    (quota_us > 0 && period_us > 0).then(|| quota_us as f64 / period_us as f64)
}

/// Bytes read and written in all, from `MAJOR:MINOR rbytes=N wbytes=N ...` lines of version 2.
#[must_use]
pub fn io_unified(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        let words = text.lines().flat_map(|line| line.split(' ').skip(1));
        let values = words.filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
        values.fold(0, u64::saturating_add)
    };
    (sum("rbytes="), sum("wbytes="))
}

/// The same from `MAJOR:MINOR Read N` lines of version 1.
#[must_use]
pub fn io_split(text: &str) -> (u64, u64) {
    let sum = |wanted: &str| {
        let values = text.lines().filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            (words.next()? == wanted).then(|| words.next()?.parse::<u64>().ok())?
        });
        values.fold(0, u64::saturating_add)
    };
    (sum("Read"), sum("Write"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_of_both_versions_are_numbers() {
        assert_eq!(keyed("anon 1\nfile 2\nbad x\n", ["file", "bad", "none", "anon"]), [Some(2), None, None, Some(1)]);
        assert_eq!([limit("max\n"), limit("9223372036854771712\n"), limit("1048576\n")], [None, None, Some(1_048_576)]);
        assert_eq!([cpu_max("max 100000\n"), cpu_max("150000 100000\n")], [None, Some(1.5)]);
        assert_eq!([cores(-1, 100_000), cores(50_000, 100_000), cores(1, 0)], [None, Some(0.5), None]);
        let unified = "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=7 dios=0\n8:0 \n7:1 rbytes=1 wbytes=1\n";
        assert_eq!(io_unified(unified), (4_097, 8_193));
        let split = "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 1\n254:0 Total 12288\n8:0 Read 1\nTotal 12288\n";
        assert_eq!(io_split(split), (4_097, 8_192));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_ignored(text: String) {
            prop_assert!(limit(&text).is_none_or(|bytes| bytes < UNLIMITED_BYTES));
            prop_assert!(cpu_max(&text).is_none_or(|cores| cores > 0.0));
            prop_assert_eq!(keyed(&text, ["no such key"]), [None]);
            prop_assert!(text.contains("bytes=") || io_unified(&text) == (0, 0));
            prop_assert!(text.contains("Read") || text.contains("Write") || io_split(&text) == (0, 0));
        }

        #[test]
        fn numbers_beyond_all_bounds_do_not_overflow(a: u64, b: u64) {
            let text = format!("1:1 rbytes={a} wbytes={b}\n2:2 rbytes={b} wbytes={a}\n");
            prop_assert_eq!(io_unified(&text), (a.saturating_add(b), a.saturating_add(b)));
        }
    }
}
