//! What stands in paths and behind the question mark: each parameter is known, and given as often as it may be.
//!
//! An unknown parameter is refused, so that a filter with a typing error never shows everything.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use dunlin_shared::time::WallMs;

use super::Api;
use super::problem::Problem;
use crate::registry::Labels;
use crate::shape::Moment;

/// Far more than any path knows.
const PAIRS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Params {
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
}

/// The word in a path that names a node or a token.
#[derive(Debug)]
pub(super) struct Named(pub(super) String);

impl Params {
    pub(super) fn parse(query: &str) -> Result<Self, Problem> {
        let mut given = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if given.len() == PAIRS_MAX {
                return Err(Problem::bad_request(format!("more than {PAIRS_MAX} parameters")));
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let wrong = || Problem::bad_request("a parameter is not UTF-8, or a % is not followed by two hex digits");
            given.push((decoded(key).ok_or_else(wrong)?, decoded(value).ok_or_else(wrong)?));
        }
        Ok(Self { given, known: Vec::new() })
    }

    pub(super) fn all(&mut self, key: &'static str) -> Vec<String> {
        self.known.push(key);
        let (wanted, rest) = std::mem::take(&mut self.given).into_iter().partition(|(name, _)| name == key);
        self.given = rest;
        let wanted: Vec<(String, String)> = wanted;
        wanted.into_iter().map(|(_, value)| value).collect()
    }

    pub(super) fn one(&mut self, key: &'static str) -> Result<Option<String>, Problem> {
        let mut values = self.all(key);
        if values.len() > 1 {
            return Err(Problem::bad_request(format!("{key} is given {} times; once is allowed", values.len())));
        }
        Ok(values.pop())
    }

    /// How many items a page may have.
    pub(super) fn limit(&mut self, default: usize, max: usize) -> Result<usize, Problem> {
        let Some(text) = self.one("limit")? else { return Ok(default) };
        let limit = text.parse().ok().filter(|limit| (1..=max).contains(limit));
        limit
            .ok_or_else(|| Problem::bad_request(format!("limit is {:?}; it is a number from 1 to {max}", short(&text))))
    }

    /// `label=k=v`, as often as wanted: all must be borne.
    pub(super) fn labels(&mut self) -> Result<Labels, Problem> {
        let mut labels = Labels::new();
        for text in self.all("label") {
            let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
            let (key, value) = pair
                .ok_or_else(|| Problem::bad_request(format!("label is {:?}; write label=KEY=VALUE", short(&text))))?;
            if labels.insert(key.to_owned(), value.to_owned()).is_some_and(|other| other != value) {
                return Err(Problem::bad_request(format!("label {:?} is given with two values", short(key))));
            }
        }
        Ok(labels)
    }

    /// A time of day, or a duration before `now`.
    pub(super) fn time(&mut self, key: &'static str, now: WallMs) -> Result<Option<WallMs>, Problem> {
        let Some(text) = self.one(key)? else { return Ok(None) };
        if let Some(ago) = duration_ms(&text) {
            return Ok(Some(now.plus(-ago)));
        }
        text.parse::<Moment>()
            .map(|at| Some(at.0))
            .map_err(|wrong| Problem::bad_request(format!("{key}: {wrong}, or a duration before now such as \"1h\"")))
    }

    /// A duration, in milliseconds.
    pub(super) fn duration(&mut self, key: &'static str) -> Result<Option<i64>, Problem> {
        let Some(text) = self.one(key)? else { return Ok(None) };
        let ms = duration_ms(&text);
        ms.map(Some).ok_or_else(|| Problem::bad_request(format!("{key} is {:?}; write for example 30s", short(&text))))
    }

    /// Whatever was given and not asked for is refused.
    pub(super) fn done(&self) -> Result<(), Problem> {
        let Some((unknown, _)) = self.given.first() else { return Ok(()) };
        let known = if self.known.is_empty() { String::from("none") } else { self.known.join(", ") };
        Err(Problem::bad_request(format!("unknown parameter {:?}; known here: {known}", short(unknown))))
    }
}

impl FromRequestParts<Api> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

impl FromRequestParts<Api> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let word = Path::<String>::from_request_parts(parts, api).await;
        word.map(|Path(word)| Self(word))
            .map_err(|_| Problem::not_found("the path is not UTF-8, and nothing here has such a name"))
    }
}

pub(super) fn duration_ms(text: &str) -> Option<i64> {
    dunlin_shared::config::parse_duration_ms(text).and_then(|ms| i64::try_from(ms).ok())
}

/// What is shown back of what somebody wrote.
pub(super) fn short(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_asked_for_by_name() {
        let mut params = Params::parse("label=env%3Dprod&label=a=b+c&limit=7&name=x%C3%A9").expect("good");
        assert_eq!(params.limit(50, 100).ok(), Some(7));
        let labels = params.labels().expect("two labels");
        assert_eq!(labels.get("env").map(String::as_str), Some("prod"));
        assert_eq!(labels.get("a").map(String::as_str), Some("b c"));
        assert!(params.done().is_err_and(|problem| problem.detail().contains("\"name\"")));
        assert_eq!(params.one("name").ok().flatten().as_deref(), Some("xé"));
        assert!(params.done().is_ok());
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(Params::parse("a=%f").is_err() && Params::parse("a=%ff").is_err() && Params::parse("a=%zz").is_err());
        assert!(Params::parse(&"a=b&".repeat(65)).is_err());
        for query in ["limit=0", "limit=101", "limit=-1", "limit=1e3", "limit=99999999999999999999", "limit=1&limit=2"]
        {
            assert!(Params::parse(query).expect("pairs").limit(1, 100).is_err(), "{query}");
        }
        for query in ["label=x", "label==x", "label=a=b&label=a=c"] {
            assert!(Params::parse(query).expect("pairs").labels().is_err(), "{query}");
        }
    }

    #[test]
    fn a_time_is_a_moment_or_so_long_ago() {
        let time = |query: &str| Params::parse(query).expect("pairs").time("from", WallMs(7_200_000));
        assert_eq!(time("from=1h").ok(), Some(Some(WallMs(3_600_000))));
        assert_eq!(time("from=1970-01-01T00:00:01Z").ok(), Some(Some(WallMs(1_000))));
        assert_eq!(time("").ok(), Some(None));
        assert!(time("from=yesterday").is_err());
    }
}
