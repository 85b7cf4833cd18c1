//! Any bytes as a layer: what the model makes of them stands for the very bytes, and every file is counted once.
#![no_main]

use std::io::{Cursor, Read};

use libfuzzer_sys::fuzz_target;
use skerry_delta::TarLayer;
use skerry_delta::source::LayerSource;
use skerry_delta::tar::{Item, Items, padding};

fuzz_target!(|data: &[u8]| {
    let bytes = data.to_vec();
    let layer = TarLayer::new(move || Ok(Cursor::new(bytes.clone()))).expect("reading memory does not fail");
    let mut out = Vec::new();
    let mut files = 0;
    for item in Items::new(layer.segments().expect("memory")) {
        let mut content = |file: u32, size: u64| {
            assert_eq!(file, files, "files are counted in order");
            files += 1;
            let mut bytes = Vec::new();
            layer.open(file).expect("memory").read_to_end(&mut bytes).expect("memory");
            assert_eq!(bytes.len() as u64, size);
            bytes
        };
        match item.expect("memory") {
            Item::Raw(bytes) => out.extend(bytes),
            Item::Bare { file, size } => out.extend(content(file, size)),
            Item::Member { member, file } => {
                out.extend(member.render().expect("what was parsed renders"));
                if let Some(file) = file {
                    out.extend(content(file, member.content()));
                }
                if member.form.padded {
                    out.extend(vec![0; padding(member.content())]);
                }
            }
        }
    }
    assert!(out == data, "other bytes came out");
});
