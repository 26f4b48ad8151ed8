//! A series as one line of characters, a column for each minute: how it went, at a glance.

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 8] = ['_', '.', ',', '-', '~', '+', '*', '#'];

/// From the lowest value to the highest; a blank is a gap. What never changes is a line in the middle.
pub(crate) fn chart(values: &[Option<f64>], has_blocks: bool) -> String {
    let levels = if has_blocks { BLOCKS } else { ASCII };
    let Some((low, high)) = range(values) else { return String::new() };
    let level = |value: f64| {
        let share = if high > low { (value - low) / (high - low) } else { 0.5 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of seven steps")]
        let step = (share.clamp(0.0, 1.0) * 7.0).round() as usize;
        levels[step.min(7)]
    };
    values.iter().map(|value| value.map_or(' ', level)).collect()
}

pub(crate) fn range(values: &[Option<f64>]) -> Option<(f64, f64)> {
    let known = || values.iter().flatten().copied().filter(|value| value.is_finite());
    Some((known().reduce(f64::min)?, known().reduce(f64::max)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rises_is_seen_to_rise_and_a_gap_is_a_blank() {
        let rising: Vec<Option<f64>> = (0..8).map(|n| Some(f64::from(n))).collect();
        assert_eq!(chart(&rising, true), "▁▂▃▄▅▆▇█");
        assert_eq!(chart(&[Some(1.0), None, Some(3.0)], false), "_ #");
        assert_eq!(chart(&[Some(2.0), Some(2.0)], false), "~~");
        assert_eq!((chart(&[], true), chart(&[None], true)), (String::new(), String::new()));
        assert_eq!(range(&[Some(-1.0), None, Some(4.0)]), Some((-1.0, 4.0)));
    }
}
