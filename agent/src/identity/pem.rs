//! PEM, as it is written: RFC 7468, 64 characters a line. It is read by `rustls::pki_types`.
//!
//! Nothing here knows what it encloses.

use dunlin_shared::token;

/// So many bytes fill a line of 64 characters.
const LINE_BYTES: usize = 48;

#[must_use]
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(LINE_BYTES) {
        let digits = token::encode(line);
        text.extend(digits.chars().map(|digit| match digit {
            '-' => '+',
            '_' => '/',
            other => other,
        }));
        text.extend(std::iter::repeat_n('=', digits.len().next_multiple_of(4) - digits.len()));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn lines_have_64_characters_and_the_last_is_padded() {
        let text = encode("CERTIFICATE", &[0xfb; 50]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines, ["-----BEGIN CERTIFICATE-----", &"+/v7".repeat(16), "+/s=", "-----END CERTIFICATE-----"]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(der in prop::collection::vec(any::<u8>(), 1..300)) {
            let read = CertificateDer::from_pem_slice(encode("CERTIFICATE", &der).as_bytes()).expect("it is PEM");
            prop_assert_eq!(read.as_ref(), &der[..]);
        }
    }
}
