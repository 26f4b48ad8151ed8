//! Streams of messages: cut anywhere, they come apart in the same way, and what is understood survives being said again.
//! The first byte chooses the stream's kind, the second seeds the cuts.
#![no_main]

use dunlin_fuzz::Input;
use dunlin_shared::frame::Frame;
use dunlin_shared::limits::{ACK_RANGES_MAX, EPOCHS_MAX, MESSAGE_BYTES_MAX, PIECES_MAX};
use dunlin_shared::wire::{AgentControl, Assembler, CollectorControl, Deframer, Item, WireError, items};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (kind, seed) = (input.byte() % 3, input.byte());
    let stream = input.rest();
    let mut whole = Reader::new(kind);
    let of_whole = whole.push(stream);
    let mut cut = Reader::new(kind);
    let mut rest = stream;
    let mut random = u64::from(seed);
    while !rest.is_empty() && cut.refused.is_none() {
        // Knuth's generator: any cuts will do, as long as an input always has the same.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let len = ((random >> 56) as usize % 40 + 1).min(rest.len());
        cut.push(&rest[..len]);
        rest = &rest[len..];
    }
    assert_eq!((of_whole, &whole.refused), (cut.messages, &cut.refused), "where a stream is cut changes nothing");
});

struct Reader {
    kind: u8,
    deframer: Deframer,
    assembler: Assembler,
    messages: usize,
    refused: Option<WireError>,
}

impl Reader {
    fn new(kind: u8) -> Self {
        let (deframer, assembler) = (Deframer::default(), Assembler::default());
        Self { kind, deframer, assembler, messages: 0, refused: None }
    }

    /// How many messages there were until now.
    fn push(&mut self, bytes: &[u8]) -> usize {
        self.deframer.push(bytes);
        while self.refused.is_none() {
            let taken = match self.deframer.next_message() {
                Ok(None) => break,
                Ok(Some(body)) => {
                    assert!(body.len() <= MESSAGE_BYTES_MAX);
                    match self.kind {
                        0 => agent_control(body),
                        1 => collector_control(body),
                        _ => item(body, &mut self.assembler),
                    }
                }
                Err(error) => Err(error),
            };
            match taken {
                Ok(()) => self.messages += 1,
                Err(error) => self.refused = Some(error),
            }
        }
        self.messages
    }
}

fn agent_control(body: &[u8]) -> Result<(), WireError> {
    let message = AgentControl::decode(body)?;
    if let AgentControl::Hello(hello) = &message {
        assert!(hello.spooled.len() <= EPOCHS_MAX);
    }
    again(&message.encode(), |body| assert_eq!(AgentControl::decode(body).as_ref(), Ok(&message)));
    Ok(())
}

fn collector_control(body: &[u8]) -> Result<(), WireError> {
    let message = CollectorControl::decode(body)?;
    if let CollectorControl::Ack(ranges) = &message {
        assert!(ranges.len() <= ACK_RANGES_MAX);
    }
    again(&message.encode(), |body| assert_eq!(CollectorControl::decode(body).as_ref(), Ok(&message)));
    Ok(())
}

fn item(body: &[u8], assembler: &mut Assembler) -> Result<(), WireError> {
    let item = Item::decode(body)?;
    again(&item.encode(), |body| assert_eq!(Item::decode(body).as_ref(), Ok(&item)));
    if let Some(frame) = assembler.push(&item)? {
        assert!(frame.body.len() <= usize::from(PIECES_MAX) * MESSAGE_BYTES_MAX);
        resend(&frame);
    }
    Ok(())
}

/// A frame that is cut into pieces anew is the same frame. One of more or larger pieces than ours has no such form.
fn resend(frame: &Frame) {
    let Some(bytes) = items(frame) else { return };
    let (mut deframer, mut assembler) = (Deframer::default(), Assembler::default());
    deframer.push(&bytes);
    let mut back = None;
    while let Some(body) = deframer.next_message().expect("our own bytes") {
        assert!(back.is_none(), "nothing follows a whole frame");
        back = assembler.push(&Item::decode(body).expect("our own item")).expect("our own pieces");
    }
    assert_eq!(back.as_ref(), Some(frame));
}

fn again(bytes: &[u8], check: impl FnOnce(&[u8])) {
    let mut deframer = Deframer::default();
    deframer.push(bytes);
    check(deframer.next_message().expect("our own bytes").expect("a whole message"));
}
