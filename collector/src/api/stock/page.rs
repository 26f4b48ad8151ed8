//! A page of what stands on many nodes: which nodes are looked at, in which order, and where the next page goes on.
//!
//! A page has bounds beside its length: nodes and bytes that are looked at, and nodes that have something in it. One
//! that reaches a bound is short and has a next.

use std::sync::Arc;

use dunlin_shared::id::NodeId;
use dunlin_shared::inventory::{Item, Key};
use dunlin_shared::limits::SUBJECT_NAME_BYTES_MAX;
use dunlin_shared::sample::Reading;
use dunlin_shared::time::WallMs;

use crate::api::Api;
use crate::api::caller::Caller;
use crate::api::nodes::find;
use crate::api::params::Params;
use crate::api::problem::Problem;
use crate::record::NodeKey;
use crate::stock::items;
use crate::store::{ControlReader, StoreError};
use crate::view::NodeView;

const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// Nodes that one page looks at: 8 MB of what small hosts have, some tens of milliseconds.
const NODES_MAX: usize = 2_000;
/// Nodes that have something in one page: the last minutes of each are read, for its rates.
const NODES_SHOWN_MAX: usize = 100;
/// What one page reads.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// An id, and a key as hexadecimal digits: its name twice, and some bytes around it.
const CURSOR_BYTES_MAX: usize = 64 + 4 * (SUBJECT_NAME_BYTES_MAX + 32);

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cursor {
    node: NodeId,
    /// The last item of that node that was shown; `None` when it is done with.
    key: Option<Key>,
}

/// What is asked of every list here.
#[derive(Debug)]
pub(super) struct Asked {
    limit: usize,
    after: Option<Cursor>,
    nodes: Vec<Seen>,
    has_more: bool,
}

/// A node that may have something in the page.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) id: NodeId,
    pub(super) key: NodeKey,
    pub(super) name: Arc<str>,
    pub(super) latest: Option<Arc<Reading>>,
    pub(super) interval_ms: Option<u32>,
    pub(super) skew_ms: i64,
}

/// What was found on one node, in the order of its keys.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) node: Seen,
    pub(super) items: Vec<(WallMs, Item)>,
}

impl Asked {
    pub(super) fn take(params: &mut Params, api: &Api, caller: &Caller) -> Result<Self, Problem> {
        let limit = params.limit(PAGE, PAGE_MAX)?;
        let after = match params.one("after")? {
            None => None,
            Some(text) => Some(
                Cursor::parse(&text)
                    .ok_or_else(|| Problem::bad_request("after is no cursor of this list; give `next` of a page"))?,
            ),
        };
        let labels = params.labels()?;
        let fleet = api.published.fleet.load();
        let only = match params.one("node")? {
            Some(word) => Some(find(&fleet, caller, &word)?.id),
            None => None,
        };
        let from = after.as_ref().map_or(0, |after| fleet.nodes.partition_point(|node| node.id < after.node));
        let fits =
            |node: &&NodeView| caller.sees(node) && only.is_none_or(|only| node.id == only) && node.bears(&labels);
        let mut fitting = fleet.nodes[from..].iter().filter(fits).filter_map(seen);
        let nodes = fitting.by_ref().take(NODES_MAX).collect();
        let has_more = fitting.next().is_some();
        Ok(Self { limit, after, nodes, has_more })
    }

    /// What of it `wants`, and the cursor of what follows.
    pub(super) async fn page(
        self,
        api: &Api,
        wants: impl Fn(&Item) -> bool + Send + 'static,
    ) -> Result<(Vec<Found>, Option<String>), Problem> {
        api.desk.control(move |reader| self.read(reader, wants)).await
    }

    fn read(
        self,
        reader: &ControlReader,
        wants: impl Fn(&Item) -> bool,
    ) -> Result<(Vec<Found>, Option<String>), StoreError> {
        let Self { limit, after, nodes, has_more } = self;
        let (mut found, mut left, mut bytes) = (Vec::new(), limit, 0);
        let mut last = None;
        let mut nodes = nodes.into_iter().peekable();
        while let Some(node) = nodes.next_if(|_| left > 0 && bytes < BYTES_MAX && found.len() < NODES_SHOWN_MAX) {
            let body = reader.stock_body(node.key)?.unwrap_or_default();
            bytes += body.len();
            let mut here = items(&body).unwrap_or_default();
            let from = after.as_ref().filter(|after| after.node == node.id);
            here.retain(|(_, item)| wants(item) && from.is_none_or(|from| from.is_before(&item.key())));
            let rest = here.len() > left;
            here.truncate(left);
            left -= here.len();
            let key = here.last().filter(|_| rest).map(|(_, item)| item.key());
            last = Some((Cursor { node: node.id, key }, rest));
            if !here.is_empty() {
                found.push(Found { node, items: here });
            }
        }
        let is_cut = nodes.peek().is_some() || has_more || last.as_ref().is_some_and(|(_, rest)| *rest);
        Ok((found, last.filter(|_| is_cut).map(|(cursor, _)| cursor.text())))
    }
}

impl Cursor {
    fn is_before(&self, key: &Key) -> bool {
        self.key.as_ref().is_some_and(|last| last < key)
    }

    fn text(&self) -> String {
        let mut text = self.node.to_string();
        if let Some(key) = &self.key {
            text.push('.');
            let bytes = postcard::to_stdvec(key).expect("plain data serialises into a growing buffer");
            bytes.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() > CURSOR_BYTES_MAX {
            return None;
        }
        let Some((node, digits)) = text.split_once('.') else {
            return Some(Self { node: text.parse().ok()?, key: None });
        };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pair = |pair: &[u8]| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?);
        let bytes: Vec<u8> = digits.as_bytes().chunks(2).map(pair).collect::<Option<_>>()?;
        let (key, rest) = postcard::take_from_bytes(&bytes).ok()?;
        rest.is_empty().then_some(Self { node: node.parse().ok()?, key: Some(key) })
    }
}

fn seen(node: &NodeView) -> Option<Seen> {
    let about = &node.about;
    Some(Seen {
        id: node.id,
        key: about.key?,
        name: Arc::clone(&about.name),
        latest: node.latest.clone(),
        interval_ms: about.interval_ms,
        skew_ms: about.skew_ms.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use dunlin_shared::inventory::{Place, Protocol};
    use proptest::prelude::*;

    use super::*;

    const NODE: NodeId = NodeId::from_bytes([7; 16]);

    #[test]
    fn a_cursor_holds_any_key() {
        let place = Place {
            network: Some("n".repeat(SUBJECT_NAME_BYTES_MAX).into()),
            protocol: Protocol::Udp,
            address: "::1".parse().expect("an address"),
            port: 53,
        };
        for key in [Key::Container("a b\n/é".into()), Key::Group("x".repeat(255).into()), Key::Port(place)] {
            let cursor = Cursor { node: NODE, key: Some(key) };
            assert_eq!(Cursor::parse(&cursor.text()), Some(cursor));
        }
        let done = Cursor { node: NODE, key: None };
        assert!(!done.is_before(&Key::Source("z".into())), "nothing is left of a node that is done with");
        assert_eq!(Cursor::parse(&done.text()), Some(done));
        for wrong in
            ["", ".", "x", &format!("{NODE}."), &format!("{NODE}.0"), &format!("{NODE}.zz"), &"0".repeat(9_999)]
        {
            assert_eq!(Cursor::parse(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_no_cursor_never_panics(digits in "[0-9a-f]{0,40}", text: String) {
            prop_assert!(Cursor::parse(&text).is_none_or(|cursor| Cursor::parse(&cursor.text()) == Some(cursor)));
            let text = format!("{NODE}.{digits}");
            prop_assert!(Cursor::parse(&text).is_none_or(|cursor| Cursor::parse(&cursor.text()) == Some(cursor)));
        }
    }
}
