//! What the tests of connections share: an authority in a directory that goes with it, a gate and a registry
//! that the test plays itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use tokio::sync::mpsc;

use super::shared::{Keepers, Shared};
use crate::authority::{Authority, Certificate};
use crate::clock::Clock;
use crate::gate::{Entry, Gate};
use crate::orders::Orders;
use crate::pipeline::Input;
use crate::registry::{Admission, KeyHash};
use crate::writer::Arrival;

pub(super) struct Scene {
    pub(super) shared: Shared,
    pub(super) authority: Arc<Authority>,
    pub(super) gate: Arc<Gate>,
    /// What the registry would be asked.
    pub(super) orders: mpsc::Receiver<Input>,
    _pipeline: mpsc::Sender<Input>,
    dir: PathBuf,
}

impl Scene {
    pub(super) fn new(writer: mpsc::Sender<Arrival>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("dunlin-scene-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        let clock = Clock::start();
        let authority = Arc::new(Authority::open(&dir, clock.wall()).expect("an empty directory"));
        let gate = Arc::<Gate>::default();
        let (pipeline, orders) = mpsc::channel(64);
        let keepers =
            Keepers { authority: Arc::clone(&authority), gate: Arc::clone(&gate), orders: Orders::new(&pipeline) };
        let shared = Shared::new(clock, Arc::default(), writer, keepers);
        Self { shared, authority, gate, orders, _pipeline: pipeline, dir }
    }

    pub(super) fn admit(&self, node: NodeId, admission: Admission, quarantined: &[[u8; 16]]) {
        let key = Some(KeyHash(certificate(node).key));
        self.gate.set([(node, Some(Entry { key, admission, quarantined: quarantined.into() }))]);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// As TLS would have verified it; far from its end.
pub(super) fn certificate(node: NodeId) -> Certificate {
    let mut spki = vec![
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
    ];
    spki.extend([9; 64]);
    Certificate {
        node: Some(node),
        key: [5; 32],
        spki,
        issuer: b"an issuer".to_vec(),
        not_after: WallMs(4_000_000_000_000),
    }
}
