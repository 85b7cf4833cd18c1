//! Foreign streams applied to known layers, of archives too: no panic, no more bytes than the layer may have, memory as libFuzzer bounds
//! it. Most streams are plain bytes here; the target `coders` has the others.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use skerry_delta::apply::Applier;
use skerry_delta::stream::{Coder, StreamsReader};
use skerry_fuzz::{Bounded, CONFIGS, olds, sections};

/// Bytes that the layer may have.
const SIZE: u64 = 256 * 1024;
/// Bytes that its scratch files may have.
const SCRATCH: usize = 16 << 20;

fuzz_target!(|data: &[u8]| {
    let (sections, bytes) = sections(data, |coder| coder == Coder::Sparse);
    // A node refuses what needs more than it has before it reads anything.
    if StreamsReader::memory(&sections) > 32 << 20 {
        return;
    }
    let old = olds().expect("memory");
    let scratch = Bounded::new(SCRATCH);
    let Ok(streams) = StreamsReader::open(&sections, |i| Ok(Box::new(Cursor::new(bytes[i])))) else { return };
    let Ok(applier) = Applier::new(streams, &old, 16 << 20) else { return };
    let mut applier = applier.with_scratch(&scratch);
    if applier.config(Some(CONFIGS[0]), &[[7; 32]]).is_err() {
        return;
    }
    let mut made = 0;
    let mut sink = |bytes: &[u8]| {
        made += bytes.len() as u64;
        Ok(())
    };
    let done = applier.layer(SIZE, &mut sink);
    assert!(made <= SIZE, "{made} bytes came out");
    if done.is_ok() {
        assert_eq!(made, SIZE);
        let _ = applier.finish();
    }
});
