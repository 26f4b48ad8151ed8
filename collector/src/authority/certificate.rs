//! What a session needs to know of the certificate that it was opened with. Pure.
//!
//! TLS has verified it before; this only reads, and what it cannot read is no certificate of ours.

use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::NODE_URI_PREFIX;
use rustls::pki_types::CertificateDer;

use super::issue::sha256;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// A node's certificate, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The one node that it names, if it names just one.
    pub node: Option<NodeId>,
    /// The SHA-256 of its SubjectPublicKeyInfo.
    pub key: [u8; 32],
    /// That key, in DER.
    pub spki: Vec<u8>,
    /// The name of who signed it, as it stands there.
    pub issuer: Vec<u8>,
    pub not_after: WallMs,
}

impl Certificate {
    #[must_use]
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let parsed = webpki::EndEntityCert::try_from(der).ok()?;
        let mut nodes = parsed.valid_uri_names().filter_map(|uri| uri.strip_prefix(NODE_URI_PREFIX)?.parse().ok());
        let node = nodes.next().filter(|_| nodes.next().is_none());
        let spki = parsed.subject_public_key_info().to_vec();
        Some(Self { node, key: sha256(&spki), spki, issuer: parsed.issuer().to_vec(), not_after: not_after(der)? })
    }
}

/// The end of its validity: the parts before it are walked over.
fn not_after(der: &[u8]) -> Option<WallMs> {
    let (certificate, _) = part(der, SEQUENCE)?;
    let (mut rest, _) = part(certificate, SEQUENCE)?;
    for tag in [VERSION, INTEGER, SEQUENCE, SEQUENCE] {
        rest = part(rest, tag)?.1;
    }
    let (validity, _) = part(rest, SEQUENCE)?;
    let (_, _, rest) = any(validity)?;
    let (tag, time, _) = any(rest)?;
    date(tag, time)
}

fn part(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    any(der).filter(|(found, ..)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// A tag, its content, and what follows.
fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        ..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?),
        // 64 KiB are more than any certificate may have.
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, where 50 is 1950, or `YYYYMMDDHHMMSSZ`.
fn date(tag: u8, text: &[u8]) -> Option<WallMs> {
    let digits = text.strip_suffix(b"Z")?;
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let short = number(&digits[..2])?;
            (if short < 50 { 2_000 + short } else { 1_900 + short }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4])?, &digits[4..]),
        _ => return None,
    };
    let mut parts = rest.chunks(2).map(number);
    let mut next = || parts.next().flatten();
    let (month, day, hour, minute, second) = (next()?, next()?, next()?, next()?, next()?);
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(WallMs(seconds * 1_000))
}

/// Days since 1970 in the Gregorian calendar: years are counted from March, so that a leap day is a year's last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, digit| Some(sum * 10 + i64::from(char::from(*digit).to_digit(10)?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (tag, text, seconds) in [
            (UTC_TIME, "700101000000Z", 0),
            (UTC_TIME, "000229000000Z", 951_782_400),
            (UTC_TIME, "261121142600Z", 1_795_271_160),
            (UTC_TIME, "491231235959Z", 2_524_607_999),
            (GENERALIZED_TIME, "21200101000000Z", 4_733_510_400),
            (UTC_TIME, "691231235959Z", -1),
        ] {
            assert_eq!(date(tag, text.as_bytes()), Some(WallMs(seconds * 1_000)), "{text}");
        }
        for text in ["", "Z", "700101000000", "7001010000Z", "70010100000xZ"] {
            assert_eq!(date(UTC_TIME, text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            prop_assert!(not_after(&bytes).is_none() || bytes.len() > 20);
            prop_assert!(Certificate::read(&CertificateDer::from(bytes)).is_none());
        }
    }
}
