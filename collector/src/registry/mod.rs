//! Who belongs to the fleet and who may do what: nodes' keys and admission, tokens, labels, downtime.
//!
//! Pure: an order comes in with the time and randomness, and out come an answer and what is to be
//! stored. The pipeline owns it.

mod what;

pub use what::{
    Actor, Admission, Answer, JoinWish, KeyHash, Labels, Refused, Role, SecretHash, TokenId, TokenWish, What,
};
