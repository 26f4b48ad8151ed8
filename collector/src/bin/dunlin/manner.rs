//! How answers are given to a person: in which language, and with colours and blocks or without.

use std::io::IsTerminal;

use clap::ValueEnum;
use dunlin_collector::shape::Alert;

/// In which summaries are written, where a rule has both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    En,
    Zh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    pub(crate) language: Language,
    has_colours: bool,
    /// Blocks of eight heights in place of ASCII.
    pub(crate) has_blocks: bool,
}

impl Manner {
    /// As the terminal and the environment want it.
    pub(crate) fn here(language: Option<Language>) -> Self {
        Self::of(language, |name| std::env::var(name).ok(), std::io::stdout().is_terminal())
    }

    /// `variable` is the environment's.
    pub(crate) fn of(language: Option<Language>, variable: impl Fn(&str) -> Option<String>, is_terminal: bool) -> Self {
        // The first that says anything, as the C library has it.
        let locale = |category: &str| {
            let said = ["LC_ALL", category, "LANG"].into_iter().filter_map(&variable).find(|value| !value.is_empty());
            said.unwrap_or_default().to_ascii_lowercase()
        };
        let spoken = if locale("LC_MESSAGES").starts_with("zh") { Language::Zh } else { Language::En };
        let letters = locale("LC_CTYPE");
        Self {
            language: language.unwrap_or(spoken),
            has_colours: is_terminal && variable("NO_COLOR").is_none_or(|value| value.is_empty()),
            has_blocks: is_terminal && (letters.contains("utf-8") || letters.contains("utf8")),
        }
    }

    pub(crate) fn summary<'a>(&self, alert: &'a Alert) -> &'a str {
        match (&alert.summary_zh, self.language) {
            (Some(summary), Language::Zh) => summary,
            _ => &alert.summary,
        }
    }

    /// In the colour of a severity.
    pub(crate) fn paint(&self, severity: &str, text: &str) -> String {
        let code = match severity {
            "critical" => "1;31",
            "warning" => "33",
            _ => return text.to_owned(),
        };
        if self.has_colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manner(environment: &'static [(&str, &str)], is_terminal: bool) -> Manner {
        let variable =
            |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Manner::of(None, variable, is_terminal)
    }

    #[test]
    fn the_language_is_that_of_the_locale_unless_it_is_said() {
        for (environment, expected) in [
            (&[][..], Language::En),
            (&[("LANG", "zh_CN.UTF-8")], Language::Zh),
            (&[("LANG", "en_GB.UTF-8"), ("LC_ALL", "zh_CN.UTF-8")], Language::Zh),
            (&[("LANG", "zh_CN.UTF-8"), ("LC_ALL", "C")], Language::En),
            (&[("LANG", "zh_CN.UTF-8"), ("LC_ALL", "")], Language::Zh),
        ] {
            assert_eq!(manner(environment, true).language, expected, "{environment:?}");
        }
        assert_eq!(Manner::of(Some(Language::Zh), |_| None, true).language, Language::Zh);
    }

    #[test]
    fn colours_are_for_terminals_of_those_who_want_them() {
        let red = "\x1b[1;31mx\x1b[0m";
        assert_eq!(manner(&[], true).paint("critical", "x"), red);
        assert_eq!(manner(&[("NO_COLOR", "")], true).paint("critical", "x"), red);
        assert_eq!(manner(&[("NO_COLOR", "1")], true).paint("critical", "x"), "x");
        assert_eq!(manner(&[], false).paint("critical", "x"), "x");
        assert_eq!(manner(&[], true).paint("info", "x"), "x");
        assert!(manner(&[("LANG", "C.UTF-8")], true).has_blocks && !manner(&[("LANG", "C")], true).has_blocks);
        assert!(!manner(&[("LANG", "C.UTF-8")], false).has_blocks);
    }
}
