//! What to do next, given what lies in the state directory, whether there is a token, and what the collector
//! said last. Pure: a table of cases, no files and no network.
//!
//! Invariant: a key is made only where there is none and never was one, and nothing here gives up a key.

/// A file as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Missing,
    Good,
    Bad,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Missing,
    Good,
    Bad,
}

/// What is in the way of a session, though the files are whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its time is up, or its authority is none any more.
    Certificate,
    /// It is good, and its node is unknown.
    NotEnrolled,
    /// It is this agent that does not believe the collector: its authority was turned meanwhile, or it is another one.
    Stranger,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Situation {
    pub(super) key: Kept,
    pub(super) certificate: Kept,
    pub(super) authorities: Kept,
    pub(super) token: Token,
    pub(super) refused: Option<Refused>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// With the certificate that is there.
    Connect,
    /// With the key that is there: the collector knows it, or the token lets it in.
    Join,
    /// As a new node, with a new key.
    Begin,
    Stuck(Stuck),
}

/// What a person must mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stuck {
    /// It cannot be read, others can read it, or it is damaged.
    Key,
    /// There is a certificate, so there was a key.
    LostKey,
    /// Nothing says whom to believe.
    Authorities,
    /// Nothing is there, not even a token.
    NoToken,
    BadToken,
}

pub(super) const fn decide(found: &Situation) -> Decision {
    match (found.key, found.certificate, found.authorities, found.token) {
        (Kept::Bad, ..) => Decision::Stuck(Stuck::Key),
        (Kept::Missing, Kept::Good | Kept::Bad, ..) => Decision::Stuck(Stuck::LostKey),
        (Kept::Missing, Kept::Missing, _, Token::Good) => Decision::Begin,
        (Kept::Missing, Kept::Missing, _, Token::Missing) => Decision::Stuck(Stuck::NoToken),
        (Kept::Good, Kept::Good, Kept::Good, _) => match found.refused {
            None => Decision::Connect,
            Some(Refused::Certificate) => Decision::Join,
            // Without a token it could only be refused; the collector may yet learn of the node, or of an authority.
            Some(Refused::NotEnrolled | Refused::Stranger) => {
                if matches!(found.token, Token::Good) {
                    Decision::Join
                } else {
                    Decision::Connect
                }
            }
        },
        (Kept::Good, Kept::Missing | Kept::Bad, Kept::Good, _) | (Kept::Good, _, _, Token::Good) => Decision::Join,
        (Kept::Good, _, Kept::Missing | Kept::Bad, Token::Missing) => Decision::Stuck(Stuck::Authorities),
        (_, _, _, Token::Bad) => Decision::Stuck(Stuck::BadToken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Situation = Situation {
        key: Kept::Good,
        certificate: Kept::Good,
        authorities: Kept::Good,
        token: Token::Missing,
        refused: None,
    };
    const NOTHING: Situation =
        Situation { key: Kept::Missing, certificate: Kept::Missing, authorities: Kept::Missing, ..WHOLE };
    const KEPT: [Kept; 3] = [Kept::Missing, Kept::Good, Kept::Bad];
    const TOKENS: [Token; 3] = [Token::Missing, Token::Good, Token::Bad];
    const REFUSED: [Option<Refused>; 4] =
        [None, Some(Refused::Certificate), Some(Refused::NotEnrolled), Some(Refused::Stranger)];

    fn all() -> impl Iterator<Item = Situation> {
        (0..324).map(|n| Situation {
            key: KEPT[n % 3],
            certificate: KEPT[n / 3 % 3],
            authorities: KEPT[n / 9 % 3],
            token: TOKENS[n / 27 % 3],
            refused: REFUSED[n / 81],
        })
    }

    #[test]
    fn a_first_start_needs_a_token_and_nothing_else() {
        assert_eq!(decide(&Situation { token: Token::Good, ..NOTHING }), Decision::Begin);
        assert_eq!(decide(&NOTHING), Decision::Stuck(Stuck::NoToken));
        assert_eq!(decide(&Situation { token: Token::Bad, ..NOTHING }), Decision::Stuck(Stuck::BadToken));
    }

    #[test]
    fn a_whole_identity_connects_whatever_the_token_is() {
        for token in TOKENS {
            assert_eq!(decide(&Situation { token, ..WHOLE }), Decision::Connect);
        }
    }

    #[test]
    fn a_certificate_that_is_refused_missing_or_damaged_is_asked_for_again_without_a_token() {
        for token in TOKENS {
            let refused = Situation { token, refused: Some(Refused::Certificate), ..WHOLE };
            assert_eq!(decide(&refused), Decision::Join);
            for certificate in [Kept::Missing, Kept::Bad] {
                assert_eq!(decide(&Situation { token, certificate, ..WHOLE }), Decision::Join);
            }
        }
    }

    #[test]
    fn a_node_that_is_unknown_or_meets_a_stranger_asks_to_join_only_with_a_token() {
        for refused in [Refused::NotEnrolled, Refused::Stranger] {
            let found = Situation { refused: Some(refused), ..WHOLE };
            assert_eq!(decide(&found), Decision::Connect);
            assert_eq!(decide(&Situation { token: Token::Good, ..found }), Decision::Join);
        }
    }

    #[test]
    fn without_authorities_a_token_says_whom_to_believe() {
        for authorities in [Kept::Missing, Kept::Bad] {
            let lost = Situation { authorities, ..WHOLE };
            assert_eq!(decide(&lost), Decision::Stuck(Stuck::Authorities));
            assert_eq!(decide(&Situation { token: Token::Good, ..lost }), Decision::Join);
            assert_eq!(decide(&Situation { token: Token::Bad, ..lost }), Decision::Stuck(Stuck::BadToken));
        }
    }

    #[test]
    fn a_key_is_made_only_where_there_was_none() {
        for found in all().filter(|found| decide(found) == Decision::Begin) {
            assert_eq!((found.key, found.certificate), (Kept::Missing, Kept::Missing), "{found:?}");
            assert_eq!(found.token, Token::Good, "{found:?}");
        }
        for found in all().filter(|found| found.key == Kept::Bad) {
            assert_eq!(decide(&found), Decision::Stuck(Stuck::Key), "{found:?}");
        }
    }

    #[test]
    fn nothing_is_used_that_is_not_good() {
        for found in all() {
            let decision = decide(&found);
            let used = [found.key, found.certificate, found.authorities];
            assert!(decision != Decision::Connect || used == [Kept::Good; 3], "{found:?}");
            assert!(decision != Decision::Join || found.key == Kept::Good, "{found:?}");
            let knows_whom = found.authorities == Kept::Good || found.token == Token::Good;
            assert!(decision != Decision::Join || knows_whom, "{found:?}");
        }
    }
}
