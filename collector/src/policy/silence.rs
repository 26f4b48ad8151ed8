//! One silence: what it is about, from when to when, who made it and why.

use std::fmt;
use std::str::FromStr;

use dunlin_shared::time::WallMs;

use super::matchers::Matchers;
use super::weekly::Weekly;
use crate::registry::Refused;

/// A paragraph.
pub const REASON_BYTES_MAX: usize = 1_024;

/// What names a silence; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SilenceId(pub u64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    pub matchers: Matchers,
    pub author: String,
    pub reason: String,
    pub created: WallMs,
    pub start: WallMs,
    /// `None` when somebody has to end it: one that comes again every week alone may be so.
    pub end: Option<WallMs>,
    /// Within start and end, it is active in these windows alone.
    pub weekly: Option<Weekly>,
    /// Who ended it before its time, at `end`.
    pub ended_by: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SilenceWish {
    pub matchers: Matchers,
    pub reason: String,
    /// `None`, and whatever is past, is at once.
    pub start: Option<WallMs>,
    pub end: Option<WallMs>,
    pub weekly: Option<Weekly>,
}

/// What is to be another; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SilenceEdit {
    /// `Some(None)` is until somebody ends it.
    pub end: Option<Option<WallMs>>,
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SilenceState {
    /// It will be active.
    Pending,
    Active,
    /// It will not be active any more.
    Expired,
}

/// How a silence is, and until when that holds for sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub state: SilenceState,
    /// `None` for ever.
    pub until: Option<WallMs>,
}

impl Silence {
    pub(super) fn new(now: WallMs, author: &str, wish: SilenceWish) -> Result<Self, Refused> {
        let SilenceWish { matchers, reason, start, end, weekly } = wish;
        matchers.check()?;
        check_reason(&reason)?;
        let start = start.unwrap_or(now).max(now);
        check_end(end, start, weekly.is_some())?;
        let author = author.to_owned();
        Ok(Self { matchers, author, reason, created: now, start, end, weekly, ended_by: None })
    }

    pub(super) fn edited(&self, now: WallMs, edit: SilenceEdit) -> Result<Self, Refused> {
        let mut silence = self.clone();
        if edit == SilenceEdit::default() {
            return Err(Refused::Invalid(String::from("nothing is to be another; name an end or a reason")));
        }
        if let Some(reason) = edit.reason {
            check_reason(&reason)?;
            silence.reason = reason;
        }
        if let Some(end) = edit.end {
            check_end(end, silence.start.max(now), silence.weekly.is_some())?;
            silence.end = end;
        }
        Ok(silence)
    }

    /// How it is, and a moment before which it does not become anything else.
    #[must_use]
    pub fn standing(&self, now: WallMs) -> Standing {
        if self.ended_by.is_some() || self.end.is_some_and(|end| end <= now) {
            return Standing { state: SilenceState::Expired, until: None };
        }
        if now < self.start {
            return Standing { state: SilenceState::Pending, until: Some(self.start) };
        }
        let (is_active, until) = match &self.weekly {
            Some(weekly) => {
                let (is_open, until) = weekly.at(now);
                (is_open, Some(self.end.map_or(until, |end| end.min(until))))
            }
            None => (true, self.end),
        };
        Standing { state: if is_active { SilenceState::Active } else { SilenceState::Pending }, until }
    }

    #[must_use]
    pub fn is_active(&self, now: WallMs) -> bool {
        self.standing(now).state == SilenceState::Active
    }
}

impl SilenceState {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Active, Self::Expired];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Expired => "expired",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for SilenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

impl FromStr for SilenceId {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let digits = text.strip_prefix('s').filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse().ok());
        number.map(Self).ok_or_else(|| {
            let text: String = text.chars().take(64).collect();
            Refused::NotFound(format!("silence {text:?}; one is named like s12"))
        })
    }
}

pub(super) fn check_reason(reason: &str) -> Result<(), Refused> {
    if reason.trim().is_empty() {
        let what = "the reason is missing; say why, for whoever wonders at three in the morning";
        return Err(Refused::Invalid(String::from(what)));
    }
    check_text("the reason", reason)
}

pub(super) fn check_text(of: &str, text: &str) -> Result<(), Refused> {
    if text.len() > REASON_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(Refused::Invalid(format!("{of} has at most {REASON_BYTES_MAX} bytes on one line")));
    }
    Ok(())
}

fn check_end(end: Option<WallMs>, after: WallMs, is_weekly: bool) -> Result<(), Refused> {
    match end {
        None if is_weekly => Ok(()),
        None => {
            let what = "the end is missing; only a silence that comes again every week may be open-ended";
            Err(Refused::Invalid(String::from(what)))
        }
        Some(end) if end <= after => {
            Err(Refused::Invalid(String::from("the silence would be over before it begins; give a later end")))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::rule::Pattern;

    use super::*;

    const T0: WallMs = WallMs(1_795_000_000_000);

    fn wish() -> SilenceWish {
        let matchers = Matchers { rule: Some(Pattern::new("disk-*")), ..Matchers::default() };
        SilenceWish { matchers, reason: String::from("a new disk"), start: None, end: Some(T0.plus(100)), weekly: None }
    }

    fn states(silence: &Silence, at: &[i64]) -> Vec<&'static str> {
        at.iter().map(|ms| silence.standing(T0.plus(*ms)).state.as_str()).collect()
    }

    #[test]
    fn it_is_active_from_its_start_to_before_its_end_and_says_when_to_look_again() {
        let later = SilenceWish { start: Some(T0.plus(10)), ..wish() };
        let silence = Silence::new(T0, "ann", later).expect("good");
        assert_eq!(states(&silence, &[0, 9, 10, 99, 100]), ["pending", "pending", "active", "active", "expired"]);
        let until = |ms| silence.standing(T0.plus(ms)).until;
        assert_eq!([until(0), until(10), until(100)], [Some(T0.plus(10)), Some(T0.plus(100)), None]);
        let at_once = Silence::new(T0, "ann", SilenceWish { start: Some(WallMs(3)), ..wish() }).expect("good");
        assert_eq!(at_once.start, T0);
    }

    #[test]
    fn one_that_comes_again_needs_no_end_and_keeps_to_it_when_it_has_one() {
        // A Wednesday, 11:06:40 UTC.
        let weekly = Some("UTC; wed 11:10 1h".parse().expect("good"));
        let open = Silence::new(T0, "ann", SilenceWish { end: None, weekly: weekly.clone(), ..wish() }).expect("good");
        let begin = T0.plus(200_000);
        assert_eq!(open.standing(T0), Standing { state: SilenceState::Pending, until: Some(begin) });
        assert_eq!(open.standing(begin), Standing { state: SilenceState::Active, until: Some(begin.plus(3_600_000)) });
        let bound = SilenceWish { end: Some(begin.plus(5)), weekly, ..wish() };
        let bound = Silence::new(T0, "ann", bound).expect("good");
        assert_eq!(bound.standing(begin).until, Some(begin.plus(5)));
        assert_eq!(bound.standing(begin.plus(5)).state, SilenceState::Expired);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_would_be_right() {
        let refused = |wish| match Silence::new(T0, "ann", wish) {
            Err(Refused::Invalid(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(refused(SilenceWish { end: None, ..wish() }).contains("open-ended"));
        assert!(refused(SilenceWish { end: Some(T0), ..wish() }).contains("later end"));
        assert!(refused(SilenceWish { reason: String::from(" "), ..wish() }).contains("say why"));
        assert!(refused(SilenceWish { reason: "r".repeat(1_025), ..wish() }).contains("1024 bytes"));
        assert!(refused(SilenceWish { matchers: Matchers::default(), ..wish() }).contains("matchers"));
    }

    #[test]
    fn an_id_is_written_like_s12() {
        assert_eq!((SilenceId(12).to_string().as_str(), "s12".parse()), ("s12", Ok(SilenceId(12))));
        for text in ["12", "s", "s+1", "s-1", "t12", "s99999999999999999999", "S1"] {
            assert!(text.parse::<SilenceId>().is_err(), "{text}");
        }
        assert_eq!(SilenceState::ALL.map(|state| SilenceState::parse(state.as_str())), SilenceState::ALL.map(Some));
    }
}
