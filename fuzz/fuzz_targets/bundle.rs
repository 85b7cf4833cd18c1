//! Any bytes as a bundle's start, and any bytes signed as its table of contents: an error or a table whose numbers hold together.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use skerry_bundle::{PURPOSE, VerifiedToc, head::MAGIC};
use skerry_trust::{KeyRing, SigningKey, envelope};

static KEY: OnceLock<SigningKey> = OnceLock::new();

/// The head before a signed table of contents.
fn head(mut left: usize) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    while left > 0x7f {
        bytes.push(left.to_le_bytes()[0] | 0x80);
        left >>= 7;
    }
    bytes.push(left.to_le_bytes()[0]);
    bytes
}

fuzz_target!(|data: &[u8]| {
    let key = KEY.get_or_init(|| SigningKey::from_text(skerry_fuzz::KEY).expect("the key of the vectors"));
    let keys = KeyRing::from(key.public());
    let Some((kind, data)) = data.split_first() else { return };
    let first = if kind % 2 == 0 {
        data.to_vec()
    } else {
        let signed = envelope::sign(key, PURPOSE, data);
        [&head(signed.len())[..], &signed].concat()
    };
    let Ok(toc) = VerifiedToc::open(&first, &keys) else { return };
    let mut next = toc.payload_start();
    for index in 0..toc.chunk_count() {
        let range = toc.chunk_range(index);
        assert!(range.start == next && range.start < range.end, "chunk {index}: {range:?}");
        next = range.end;
        assert!(toc.verify_chunk(index, b"other bytes").is_err());
    }
    assert_eq!(next, toc.size(), "the chunks are the payload");
    let mut next = toc.payload_start();
    for index in 0..toc.toc().sections.len() {
        let range = toc.section_range(index);
        assert!(range.start == next && range.end <= toc.size(), "section {index}: {range:?}");
        next = range.end;
    }
});
