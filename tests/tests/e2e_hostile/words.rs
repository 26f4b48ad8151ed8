//! What is said wrongly, before and after a Hello, and the code that it is answered with.

use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::limits::{EPOCHS_MAX, HOST_NAME_BYTES_MAX, MESSAGE_BYTES_MAX, PIECES_MAX};
use dunlin_shared::range::SeqRange;
use dunlin_shared::time::WallMs;
use dunlin_shared::varint;
use dunlin_shared::wire::{
    self, AgentControl, CloseCode, Gap, GapReason, Goodbye, Hello, Item, Lane, Piece, Spooled, StopReason,
};
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::node_ids;

use crate::peer::{LIMIT, Peer, Scene, frame, hello, plain_hello};

const LIVE: u8 = Lane::Live as u8;
const BACKLOG: u8 = Lane::Backlog as u8;

/// What a peer does once its connection stands.
enum Deed {
    /// On the control stream, in place of a Hello.
    First(Vec<u8>),
    /// On the control stream, after the Welcome.
    Control(Vec<u8>),
    /// On data streams of their own, after the Welcome.
    Streams(Vec<Vec<u8>>),
    /// On a data stream, without any Hello.
    Early(Vec<u8>),
}

#[test]
fn every_wrong_word_is_answered_with_its_code_and_counted() {
    let namespace = Namespace::new("words").expect("a namespace");
    let scene = Scene::new(&namespace);
    let ids = node_ids(102, 0);
    let (node, other) = (ids[100], ids[101]);
    let identity = scene.authority.node(node).expect("a certificate").identity();
    let cases = [before_hello(node, other), after_hello(node), on_streams()].concat_cases();
    for (name, deed, code) in cases {
        let before = scene.closed(code);
        let got = scene.runtime.block_on(async {
            let mut peer = scene.connect(Some(&identity)).await.expect("the certificate is good");
            // The streams must stay open, so that it is the collector who ends it.
            let _open = act(&mut peer, node, &deed).await;
            peer.closed().await
        });
        assert_eq!(got, Some(code), "{name}");
        let counted =
            dunlin_tests::deadline::until("the count", LIMIT, || (scene.closed(code) == before + 1).then_some(()));
        counted.expect(name);
    }
    scene.end();
}

type Case = (&'static str, Deed, CloseCode);

trait Cases {
    fn concat_cases(self) -> Vec<Case>;
}

impl<const N: usize> Cases for [Vec<Case>; N] {
    fn concat_cases(self) -> Vec<Case> {
        self.into_iter().flatten().collect()
    }
}

async fn act(peer: &mut Peer, node: NodeId, deed: &Deed) -> Vec<quinn::SendStream> {
    let mut open = Vec::new();
    match deed {
        Deed::First(bytes) => peer.say(bytes).await,
        Deed::Control(bytes) => {
            peer.greet(node).await;
            peer.say(bytes).await;
        }
        Deed::Streams(streams) => {
            peer.greet(node).await;
            for bytes in streams {
                open.extend(peer.stream(bytes).await);
            }
        }
        Deed::Early(bytes) => {
            // The control stream exists for the collector once a byte is on it: a message that is not whole.
            peer.say(&[200]).await;
            open.extend(peer.stream(bytes).await);
        }
    }
    open
}

fn before_hello(node: NodeId, other: NodeId) -> Vec<Case> {
    use CloseCode::{Malformed, TooLarge, Unexpected, Version, WrongNode};
    let with = |change: &dyn Fn(&mut Hello)| {
        let mut hello = plain_hello(node);
        change(&mut hello);
        Deed::First(AgentControl::Hello(hello).encode())
    };
    let spooled = |epoch| Spooled { epoch: Epoch(epoch), range: SeqRange::one(Seq(0)) };
    let many = u32::try_from(EPOCHS_MAX).expect("64") + 1;
    vec![
        ("no message at all", Deed::First(vec![3, 0xff, 0xff, 0xff]), Malformed),
        ("an empty message", Deed::First(vec![0]), Malformed),
        ("a Hello with a byte too many", Deed::First(longer(&hello(node))), Malformed),
        ("a length beyond the limit", Deed::First(length(MESSAGE_BYTES_MAX as u64 + 1)), TooLarge),
        ("the greatest length", Deed::First(length(u64::MAX)), TooLarge),
        ("a length without an end", Deed::First(vec![0x80; 16]), Malformed),
        ("a heartbeat first", Deed::First(AgentControl::Heartbeat.encode()), Unexpected),
        ("a Hello for another node", Deed::First(hello(other).encode()), WrongNode),
        ("a later version alone", with(&|hello| (hello.wire_min, hello.wire_max) = (900, 901)), Version),
        ("a name too long", with(&|hello| hello.name = "n".repeat(HOST_NAME_BYTES_MAX + 1)), TooLarge),
        (
            "too many epochs",
            with(&|hello| {
                hello.epoch = Epoch(many);
                hello.spooled = (0..many).map(spooled).collect();
            }),
            TooLarge,
        ),
        ("epochs out of order", with(&|hello| hello.spooled = vec![spooled(4), spooled(3)]), Malformed),
        ("an epoch that is to come", with(&|hello| hello.spooled = vec![spooled(6)]), Malformed),
        (
            "a range backwards",
            with(&|hello| {
                hello.spooled = vec![Spooled { epoch: Epoch(4), range: SeqRange { first: Seq(9), last: Seq(3) } }];
            }),
            Malformed,
        ),
        ("a frame before Hello", Deed::Early([vec![LIVE], frame(5, 0)].concat()), Unexpected),
    ]
}

fn after_hello(node: NodeId) -> Vec<Case> {
    use CloseCode::{Malformed, TooLarge, Unexpected};
    let gap = |epoch, first, last| {
        let (from, to, reason) = (WallMs(0), WallMs(0), GapReason::Overflow);
        let range = SeqRange { first: Seq(first), last: Seq(last) };
        Deed::Control(AgentControl::Gap(Gap { epoch: Epoch(epoch), range, from, to, reason }).encode())
    };
    let goodbye = Goodbye { epoch: Epoch(4), next_seq: Seq(0), reason: StopReason::Stopped };
    vec![
        ("a second Hello", Deed::Control(hello(node).encode()), Unexpected),
        ("no message after Hello", Deed::Control(vec![2, 0x77, 0x77]), Malformed),
        ("a great length after Hello", Deed::Control(length(1 << 40)), TooLarge),
        ("a gap of an epoch that is to come", gap(6, 0, 1), Malformed),
        ("a gap backwards", gap(5, 9, 3), Malformed),
        ("a goodbye of another run", Deed::Control(AgentControl::Goodbye(goodbye).encode()), Malformed),
    ]
}

fn on_streams() -> Vec<Case> {
    use CloseCode::{Malformed, TooLarge, Unexpected};
    let one = |lane: u8, bytes: Vec<u8>| Deed::Streams(vec![[vec![lane], bytes].concat()]);
    let piece =
        |seq, index, count| Item::Key(Piece { epoch: Epoch(5), seq: Seq(seq), index, count, body: b"x" }).encode();
    let delta = Frame { id: FrameId::new(5, 9), kind: BodyKind::Delta { back: 1 }, body: vec![0] };
    let key =
        |body: Vec<u8>| wire::items(&Frame { id: FrameId::new(5, 7), kind: BodyKind::Key, body }).expect("it is small");
    vec![
        ("a stream of no kind", one(9, frame(5, 0)), Malformed),
        ("no item", one(LIVE, vec![3, 0xff, 0xff, 0xff]), Malformed),
        ("an item's length beyond the limit", one(LIVE, length(MESSAGE_BYTES_MAX as u64 + 1)), TooLarge),
        ("an item's length without an end", one(BACKLOG, vec![0x80; 16]), Malformed),
        ("a frame of a later epoch", one(LIVE, frame(6, 0)), Malformed),
        ("a frame of an epoch that was not announced", one(BACKLOG, frame(3, 0)), Malformed),
        ("a delta that builds on nothing", one(LIVE, wire::items(&delta).expect("it is small")), Unexpected),
        ("a keyframe that is empty", one(LIVE, key(Vec::new())), Malformed),
        ("a second piece without a first", one(LIVE, piece(1, 1, 2)), Malformed),
        ("a piece of another frame between", one(LIVE, [piece(1, 0, 2), piece(2, 1, 2)].concat()), Malformed),
        ("a frame between two pieces", one(LIVE, [piece(1, 0, 2), frame(5, 1)].concat()), Malformed),
        ("a piece beyond its count", one(LIVE, piece(1, 2, 2)), Malformed),
        ("too many pieces", one(LIVE, piece(1, 0, PIECES_MAX + 1)), TooLarge),
        ("two live streams", Deed::Streams(vec![[vec![LIVE], frame(5, 2)].concat(); 2]), Unexpected),
    ]
}

/// A length prefix and nothing behind it.
fn length(bytes: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint::put(&mut out, bytes);
    out
}

/// The message with a byte more than its fields need.
fn longer(message: &AgentControl) -> Vec<u8> {
    let encoded = message.encode();
    let mut rest = &encoded[..];
    let len = varint::take(&mut rest).expect("it was just encoded");
    let mut out = length(len + 1);
    out.extend_from_slice(rest);
    out.push(0);
    out
}
