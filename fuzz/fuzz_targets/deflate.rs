//! Any bytes, deflated as zlib and GNU gzip do it, are one whole stream of those bytes.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use skerry_delta::archive::deflated;

fuzz_target!(|data: &[u8]| {
    let [level, repeats, step, rest @ ..] = data else { return };
    // Long enough for windows to move and blocks to end.
    let plain: Vec<u8> = (0..=u32::from(*repeats))
        .flat_map(|turn| rest.iter().map(move |byte| byte.wrapping_add(step.wrapping_mul(turn.to_le_bytes()[0]))))
        .take(300_000)
        .collect();
    let Ok(coded) = deflated(&plain, *level) else { return };
    let mut decoder = flate2::read::DeflateDecoder::new(&coded[..]);
    let mut back = Vec::new();
    decoder.read_to_end(&mut back).expect("a stream that inflates");
    assert!(back == plain);
    assert_eq!(decoder.total_in(), coded.len() as u64);
});
