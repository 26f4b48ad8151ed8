//! Orders on virtual time, by name of behaviour.

use dunlin_shared::wire::join::JoinReason;
use proptest::prelude::*;

use super::*;

const T0: WallMs = WallMs(1_700_000_000_000);
const HOUR_MS: i64 = 3_600_000;

use dunlin_shared::time::WallMs;

/// A registry, and how often it was asked: luck is never the same twice.
#[derive(Default)]
struct Desk {
    registry: Registry,
    asked: u8,
}

impl Desk {
    fn ask(&mut self, now: WallMs, what: What) -> Decision {
        self.asked += 1;
        let luck = luck(self.asked);
        self.registry.decide(now, &luck, &Actor::collector(), what)
    }

    fn token(&mut self, wish: TokenWish) -> (TokenId, SecretHash) {
        match self.ask(T0, What::CreateToken(wish)).answer {
            Ok(Answer::Token { id, .. }) => (id, luck(self.asked).secret_hash),
            other => panic!("{other:?}"),
        }
    }

    fn join(&mut self, now: WallMs, key: u8, token: Option<SecretHash>) -> Result<(NodeId, bool), JoinReason> {
        let wish = JoinWish { key: KeyHash([key; 32]), token, name: format!("n{key}"), version: String::new() };
        match self.ask(now, What::Join(wish)).answer {
            Ok(Answer::Joined { node, is_approved }) => Ok((node, is_approved)),
            Err(Refused::Join { reason, .. }) => Err(reason),
            other => panic!("{other:?}"),
        }
    }
}

fn luck(number: u8) -> Luck {
    Luck { node: [number; 10], secret: [number; 20], secret_hash: SecretHash([number; 32]) }
}

fn join_token() -> TokenWish {
    TokenWish {
        role: Role::Join,
        name: String::from("fleet"),
        uses: None,
        expires: None,
        labels: labels(&[("env", "prod")]),
        needs_approval: false,
        per_hour: None,
        is_ephemeral: false,
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_key_that_joins_again_is_the_same_node_and_spends_nothing() {
    let mut desk = Desk::default();
    let (_, secret) = desk.token(TokenWish { uses: Some(1), ..join_token() });
    let first = desk.join(T0, 1, Some(secret)).expect("the token is good");
    assert_eq!(desk.join(T0, 1, Some(secret)), Ok(first), "a reply that was lost");
    assert_eq!(desk.join(T0, 1, None), Ok(first), "a certificate that is out of date");
    assert_eq!(desk.join(T0, 2, Some(secret)), Err(JoinReason::UsedUpToken));
    assert_eq!(desk.registry.member(first.0).map(Member::trusted_labels), Some(labels(&[("env", "prod")])));
}

#[test]
fn a_token_is_refused_for_the_reason_that_holds() {
    let mut desk = Desk::default();
    assert_eq!(desk.join(T0, 1, None), Err(JoinReason::NoToken));
    assert_eq!(desk.join(T0, 1, Some(SecretHash([99; 32]))), Err(JoinReason::UnknownToken));
    let (_, expiring) = desk.token(TokenWish { expires: Some(T0.plus(10)), ..join_token() });
    assert!(desk.join(T0.plus(9), 1, Some(expiring)).is_ok());
    assert_eq!(desk.join(T0.plus(10), 2, Some(expiring)), Err(JoinReason::ExpiredToken));
    let (id, deleted) = desk.token(join_token());
    assert!(desk.ask(T0, What::DeleteToken(id)).answer.is_ok());
    assert_eq!(desk.join(T0, 2, Some(deleted)), Err(JoinReason::RevokedToken));
    let (_, viewer) = desk.token(TokenWish { role: Role::Viewer, ..join_token() });
    assert_eq!(desk.join(T0, 2, Some(viewer)), Err(JoinReason::UnknownToken), "it is for reading");
    assert!(matches!(desk.ask(T0, What::DeleteToken(id)).answer, Err(Refused::NotFound(_))));
}

#[test]
fn an_hourly_limit_opens_again_with_the_next_hour_and_after_a_clock_that_went_back() {
    let mut desk = Desk::default();
    let (_, secret) = desk.token(TokenWish { per_hour: Some(2), ..join_token() });
    assert!(desk.join(T0, 1, Some(secret)).is_ok() && desk.join(T0.plus(5), 2, Some(secret)).is_ok());
    assert_eq!(desk.join(T0.plus(HOUR_MS - 1), 3, Some(secret)), Err(JoinReason::TooMany));
    assert!(desk.join(T0.plus(HOUR_MS), 3, Some(secret)).is_ok());
    assert!(desk.join(T0.plus(HOUR_MS), 4, Some(secret)).is_ok());
    assert!(desk.join(T0.plus(-HOUR_MS), 5, Some(secret)).is_ok(), "the clock was set back");
}

#[test]
fn a_node_that_waits_is_approved_once_and_a_revoked_one_never() {
    let mut desk = Desk::default();
    let (_, secret) = desk.token(TokenWish { needs_approval: true, ..join_token() });
    let (node, is_approved) = desk.join(T0, 1, Some(secret)).expect("the token is good");
    assert!(!is_approved);
    assert!(desk.ask(T0, What::Approve(node)).answer.is_ok());
    assert_eq!(desk.join(T0, 1, None), Ok((node, true)));
    assert!(matches!(desk.ask(T0, What::Approve(node)).answer, Err(Refused::Conflict(_))));
    let revoked = desk.ask(T0, What::Revoke { node, why: String::from("stolen") });
    assert_eq!((revoked.answer, revoked.evicted), (Ok(Answer::Done), vec![(node, CloseCode::Revoked)]));
    assert_eq!(desk.join(T0, 1, Some(secret)), Err(JoinReason::RevokedNode));
    assert!(matches!(desk.ask(T0, What::Approve(node)).answer, Err(Refused::Conflict(_))));
}

#[test]
fn a_forgotten_node_comes_back_as_a_new_one_and_only_with_a_token() {
    let mut desk = Desk::default();
    let (_, secret) = desk.token(join_token());
    let (node, _) = desk.join(T0, 1, Some(secret)).expect("the token is good");
    assert!(desk.ask(T0, What::Forget(node)).answer.is_ok());
    assert_eq!(desk.join(T0, 1, None), Err(JoinReason::NoToken));
    let (again, _) = desk.join(T0, 1, Some(secret)).expect("the token is good");
    assert_ne!(again, node);
    assert!(matches!(desk.ask(T0, What::Revoke { node, why: String::new() }).answer, Err(Refused::NotFound(_))));
}

#[test]
fn to_adopt_lets_the_other_machine_in_and_keeps_the_live_one_out() {
    let mut desk = Desk::default();
    let (_, secret) = desk.token(join_token());
    let (node, _) = desk.join(T0, 1, Some(secret)).expect("the token is good");
    assert!(matches!(desk.ask(T0, What::Adopt(node)).answer, Err(Refused::Conflict(_))));
    desk.registry.seen(node, [1; 16], "right?");
    let clone = What::Quarantine { node, boot_id: [2; 16], name: String::from("clone") };
    assert_eq!(desk.ask(T0, clone.clone()).events[0].kind, "node.quarantined");
    assert_eq!(desk.ask(T0, clone).events, [], "it is told once");
    let adopted = desk.ask(T0, What::Adopt(node));
    assert_eq!(adopted.evicted, [(node, CloseCode::Quarantined)]);
    let kept_out = &desk.registry.member(node).expect("it is known").quarantined;
    assert_eq!(kept_out.iter().map(|machine| machine.boot_id).collect::<Vec<_>>(), [[1; 16]]);
}

#[test]
fn labels_of_the_operator_go_over_those_of_the_token_and_of_the_agent() {
    let mut desk = Desk::default();
    let (_, secret) = desk.token(join_token());
    let (node, _) = desk.join(T0, 1, Some(secret)).expect("the token is good");
    let set = |pairs: &[(&str, Option<&str>)]| What::Label {
        node,
        labels: pairs.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect(),
    };
    assert!(desk.ask(T0, set(&[("env", Some("test")), ("tier", Some("1"))])).answer.is_ok());
    let member = desk.registry.member(node).expect("it is known");
    let agent = labels(&[("env", "mine"), ("zone", "a"), ("tier", "9")]);
    assert_eq!(member.labels(&agent), labels(&[("env", "test"), ("tier", "1"), ("zone", "a")]));
    assert_eq!(member.trusted_labels(), labels(&[("env", "test"), ("tier", "1")]));
    assert!(desk.ask(T0, set(&[("env", None)])).answer.is_ok());
    assert_eq!(desk.registry.member(node).map(Member::trusted_labels), Some(labels(&[("env", "prod"), ("tier", "1")])));
    for bad in ["", "a b", "é", &"k".repeat(64)] {
        assert!(matches!(desk.ask(T0, set(&[(bad, Some("v"))])).answer, Err(Refused::Invalid(_))), "{bad:?}");
    }
    assert!(matches!(desk.ask(T0, set(&[("k", Some("two\nlines"))])).answer, Err(Refused::Invalid(_))));
}

#[test]
fn a_stranger_is_held_only_where_something_was_lost() {
    let stranger =
        || What::Stranger { node: NodeId::from_bytes([7; 16]), key: KeyHash([7; 32]), name: String::from("old") };
    let mut desk = Desk::default();
    assert!(matches!(desk.ask(T0, stranger()).answer, Err(Refused::NotFound(_))));
    let mut desk = Desk { registry: Registry::restore([], [], true), ..Desk::default() };
    assert!(desk.ask(T0, stranger()).answer.is_ok());
    let admission = desk.registry.member(NodeId::from_bytes([7; 16])).map(|member| member.admission);
    assert_eq!(admission, Some(Admission::Held));
    assert!(matches!(desk.ask(T0, stranger()).answer, Err(Refused::Conflict(_))));
}

#[test]
fn a_wish_that_makes_no_sense_is_refused_with_what_would_be_right() {
    let mut desk = Desk::default();
    let wishes = [
        TokenWish { uses: Some(0), ..join_token() },
        TokenWish { expires: Some(T0), ..join_token() },
        TokenWish { role: Role::Viewer, uses: Some(3), ..join_token() },
        TokenWish { name: "n".repeat(65), ..join_token() },
        TokenWish { labels: labels(&[("a b", "c")]), ..join_token() },
    ];
    for wish in wishes {
        let decision = desk.ask(T0, What::CreateToken(wish.clone()));
        assert!(matches!(decision.answer, Err(Refused::Invalid(_))), "{wish:?}");
        assert!(decision.changes.is_empty() && decision.log.is_none());
    }
    let node = NodeId::from_bytes([1; 16]);
    assert!(matches!(
        desk.ask(T0, What::Maintain { node, until: None, reason: String::new() }).answer,
        Err(Refused::NotFound(_))
    ));
}

proptest! {
    /// Whatever is asked in whatever order: what was stored, read back, is the registry that stored it,
    /// no token lets in more nodes than it may, and a refusal changes nothing.
    #[test]
    fn what_is_stored_is_all_there_is(orders in prop::collection::vec((0u8..8, 0u8..6, 0i64..4), 1..60)) {
        let mut desk = Desk::default();
        let (_, one) = desk.token(TokenWish { uses: Some(2), ..join_token() });
        let (_, any) = desk.token(TokenWish { needs_approval: true, ..join_token() });
        let mut stored: (BTreeMap<NodeId, Member>, BTreeMap<TokenId, Token>) =
            (BTreeMap::new(), desk.registry.tokens().map(|(id, token)| (id, token.clone())).collect());
        let mut now = T0;
        for (kind, key, later) in orders {
            now = now.plus(later);
            let node = desk.registry.members().nth(usize::from(key)).map_or(NodeId::from_bytes([0; 16]), |(id, _)| id);
            let join = |token| What::Join(JoinWish { key: KeyHash([key; 32]), token, name: String::new(), version: String::new() });
            let what = match kind {
                0 => join(Some(one)),
                1 => join(Some(any)),
                2 => join(None),
                3 => What::Revoke { node, why: String::new() },
                4 => What::Approve(node),
                5 => What::Forget(node),
                6 => What::Maintain { node, until: None, reason: String::new() },
                _ => What::Quarantine { node, boot_id: [key; 16], name: String::new() },
            };
            let decision = desk.ask(now, what);
            prop_assert!(decision.answer.is_ok() || decision.changes.is_empty() && decision.events.is_empty());
            for change in decision.changes {
                match change {
                    Change::Member(id, member) => { stored.0.insert(id, member); }
                    Change::Token(id, token) => { stored.1.insert(id, token); }
                }
            }
        }
        let again = Registry::restore(stored.0, stored.1, false);
        prop_assert_eq!(&again.members, &desk.registry.members);
        prop_assert_eq!(&again.tokens, &desk.registry.tokens);
        prop_assert_eq!(&again.by_key, &desk.registry.by_key);
        prop_assert!(again.members.values().filter(|member| member.token == Some(TokenId(1))).count() <= 2);
    }
}

#[test]
fn many_that_wait_are_let_in_with_one_line_of_the_log_and_an_event_each() {
    let id = |number: u8| NodeId::from_bytes([number; 16]);
    let held = |number: u8| (id(number), Member::new(None, format!("n{number}"), Admission::Held, T0));
    let mut desk = Desk { registry: Registry::restore((0..9).map(held), [], true), ..Desk::default() };
    assert!(desk.ask(T0, What::Revoke { node: id(3), why: String::new() }).answer.is_ok());
    assert!(desk.ask(T0, What::Approve(id(4))).answer.is_ok());
    let all =
        || What::ApproveAll { nodes: (0..12).map(id).collect(), waits: Admission::Held, detail: String::from("held") };
    let decision = desk.ask(T0, all());
    assert_eq!(decision.answer, Ok(Answer::Approved(7)));
    assert_eq!(decision.events.len(), 7);
    assert_eq!(decision.log.map(|done| (done.target, done.detail)), Some(("7 nodes".into(), "held".into())));
    let admission = |number| desk.registry.member(id(number)).map(|member| member.admission);
    assert_eq!(admission(3), Some(Admission::Revoked), "what somebody decided meanwhile stands");
    assert_eq!(
        (admission(0), admission(8), admission(11)),
        (Some(Admission::Approved), Some(Admission::Approved), None)
    );
    let again = desk.ask(T0, all());
    assert!(again.answer == Ok(Answer::Approved(0)) && again.log.is_none() && again.changes.is_empty());
}

#[test]
fn a_node_is_called_what_it_called_itself_last() {
    let mut desk = Desk::default();
    let (_, secret) = desk.token(join_token());
    let (node, _) = desk.join(T0, 1, Some(secret)).expect("the token is good");
    desk.registry.seen(node, [1; 16], "renamed");
    let revoked = desk.ask(T0, What::Revoke { node, why: String::new() });
    assert_eq!(revoked.events[0].detail[0], ("name", String::from("renamed")));
    // What is read anew from the disk may be older than what the session said.
    let member = Member::new(None, String::from("n1"), Admission::Approved, T0);
    desk.registry.read_anew(Registry::restore([(node, member)], [], false));
    assert_eq!(desk.registry.member(node).map(|member| member.name.as_str()), Some("renamed"));
}

#[test]
fn the_log_tells_times_and_refusals_in_words() {
    let mut desk = Desk::default();
    let (id, secret) = desk.token(join_token());
    let (node, _) = desk.join(T0, 1, Some(secret)).expect("the token is good");
    assert_eq!(desk.registry.token(id).and_then(|token| token.last_used), Some(T0));
    let open = desk.ask(T0, What::Maintain { node, until: None, reason: String::new() });
    assert_eq!(open.log.map(|done| done.detail).as_deref(), Some("until it is ended"));
    assert_eq!(open.events[0].detail.len(), 1);
    let bound = desk.ask(T0, What::Maintain { node, until: Some(T0.plus(1_000)), reason: String::from("a new disk") });
    assert_eq!(bound.log.map(|done| done.detail).as_deref(), Some("until 2023-11-14T22:13:21.000Z: a new disk"));
    assert_eq!(bound.events[0].detail[1], ("until", String::from("2023-11-14T22:13:21.000Z")));
    assert_eq!(bound.events[0].detail[2], ("reason", String::from("a new disk")));
    let (action, target, why) = (String::from("node.revoke"), String::from("web"), String::from("there is no web"));
    let noted = desk.ask(T0, What::NoteRefused { action, target, why: why.clone(), times: 3 });
    let done = noted.log.expect("a line");
    assert_eq!((done.action.as_str(), done.refused, done.times), ("node.revoke", Some(why), 3));
}
