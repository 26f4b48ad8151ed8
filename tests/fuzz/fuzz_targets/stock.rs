//! Inventories one after the other, each behind two bytes of its length, and at last what `control.db` might hold.
//! They are refused or kept; what is kept is what it says it is, and reads back.
#![no_main]

use dunlin_collector::stock::KeptStock;
use dunlin_fuzz::Input;
use dunlin_shared::inventory::{Inventory, Stock};
use dunlin_shared::limits::{ITEMS_MAX, STOCK_BYTES_MAX};
use dunlin_shared::time::WallMs;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut kept = KeptStock::default();
    let mut at = WallMs(0);
    while !input.is_empty() {
        let body = input.chunk();
        at = at.plus(1);
        match Inventory::decode(body) {
            Ok(Inventory::Whole(whole)) => kept = KeptStock::told(Some(&kept), Stock::of(whole.items), at),
            Ok(Inventory::Change(change)) => {
                let after = change.after;
                assert!(kept.apply(change, at).is_err() || kept.stock().hash() == after, "it leads where it says");
            }
            Ok(Inventory::Facts(_)) | Err(_) => {
                if let Some(read) = KeptStock::decode(body) {
                    kept = read;
                }
            }
        }
        let bytes = kept.encode();
        assert!(kept.stock().len() <= ITEMS_MAX && bytes.len() <= STOCK_BYTES_MAX + 10 * ITEMS_MAX + 16);
        assert_eq!(KeptStock::decode(&bytes).as_ref(), Some(&kept), "all of it reads back");
    }
});
