//! Any bytes as an index of a layer, packed or not: an error, or an index that comes back as it was written and can be compared.
#![no_main]

use std::io::Cursor;
use std::sync::{Arc, OnceLock};
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use skerry_delta::index::{IndexedLayer, LayerIndex, MAGIC, estimate};
use skerry_delta::{Silent, TarLayer};
use skerry_wire::{DiffId, Digest};

/// As of a layer of 64 KiB.
const LIMIT: u64 = 5 << 16;

static OTHER: OnceLock<Arc<LayerIndex>> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let bytes = if kind % 2 == 0 {
        data.to_vec()
    } else {
        [&MAGIC[..], &zstd::encode_all(data, 1).expect("memory")].concat()
    };
    let Ok(index) = LayerIndex::read(&bytes[..], LIMIT) else { return };
    assert!(index.memory() < 64 << 20, "{} bytes of memory", index.memory());
    let mut again = Vec::new();
    index.write(&mut again).expect("memory");
    assert_eq!(LayerIndex::read(&again[..], LIMIT * 4).expect("what was written is read"), index);
    assert_eq!(index.hashes().len(), index.files());
    let other = OTHER.get_or_init(|| {
        let layer = TarLayer::new(|| Ok(Cursor::new(skerry_fuzz::OLD))).expect("memory");
        Arc::new(LayerIndex::build(&layer, &Silent, &AtomicBool::new(false)).expect("memory"))
    });
    let layer = |id, index| [IndexedLayer { diff_id: DiffId(Digest::new([id; 32])), index }];
    let (mine, other) = (layer(1, Arc::new(index)), layer(2, Arc::clone(other)));
    estimate(&mine, &other);
    estimate(&other, &mine);
});
