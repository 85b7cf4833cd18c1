//! Writes the inputs that the targets begin with: `seeds FOLDER`.

use std::fs;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use skerry_delta::index::LayerIndex;
use skerry_delta::make::{Budget, Input, make};
use skerry_delta::stream::{Coder, Stream, StreamsReader};
use skerry_delta::{Silent, TarLayer};
use skerry_fuzz::{CONFIGS, NEW, NEW_ARCHIVES, OLD, layer, olds, put};

fn main() -> io::Result<()> {
    let folder = std::env::args().nth(1).ok_or_else(|| io::Error::other("usage: seeds FOLDER"))?;
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)
    };
    write("tar_model", "old.tar", OLD)?;
    write("tar_model", "new.tar", NEW)?;
    // Members one by one: short inputs are changed faster.
    let mut at = 0;
    while at + 1024 <= NEW.len() {
        write("tar_model", &format!("blocks{at}"), &NEW[at..(at + 4096).min(NEW.len())])?;
        at += 4096;
    }
    for level in [1, 4, 6, 9, 17, 20, 22, 25] {
        write("deflate", &format!("level{level}"), &[&[level, 3, 1], &NEW[..NEW.len().min(20_000)]].concat())?;
    }
    for (name, old, new) in [("patch", olds()?, NEW), ("archives", olds()?, NEW_ARCHIVES), ("full", vec![], NEW)] {
        let old: Vec<_> = old.iter().map(|layer| &**layer).collect();
        let new = layer(new)?;
        let input = Input { config: CONFIGS[1], base_config: Some(CONFIGS[0]), known: &[[7; 32]], new: &[&*new], old: &old };
        let patch = make(&input, Budget { make: 64 << 20, apply: 4 << 20, admitted: 24 << 20 }, &Silent, &AtomicBool::new(false))?;
        // As it stands in a bundle, and with every stream as plain bytes.
        let mut coded = Vec::new();
        for (section, bytes) in patch.written.sections.iter().zip(&patch.written.bytes) {
            coded.clear();
            put(&mut coded, section.stream, section.coder, section.raw_len, bytes);
            write("coders", &format!("{name}-{:?}", section.stream), &coded)?;
        }
        let mut streams = StreamsReader::open(&patch.written.sections, |i| Ok(Box::new(Cursor::new(patch.written.bytes[i].clone()))))?;
        let mut plain = Vec::new();
        for stream in Stream::ALL {
            let mut bytes = Vec::new();
            // What is coded beside old bytes cannot be read alone.
            if streams.get(stream).read_to_end(&mut bytes).is_ok() {
                put(&mut plain, stream, Coder::Raw, bytes.len() as u64, &bytes);
            }
        }
        write("patch", &format!("{name}-plain"), &plain)?;
    }
    for (name, tar) in [("old", OLD), ("new", NEW)] {
        let source = TarLayer::new(move || Ok(Cursor::new(tar)))?;
        let mut bytes = Vec::new();
        LayerIndex::build(&source, &Silent, &AtomicBool::new(false))?.write(&mut bytes)?;
        write("index", &format!("{name}-plain"), &[&[1], &zstd::decode_all(&bytes[4..])?[..]].concat())?;
        write("index", name, &[&[0], &bytes[..]].concat())?;
    }
    for name in ["patch.skb", "full.skb"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/reconstruct/tests/vector").join(name);
        let bytes = fs::read(path)?;
        write("bundle", name, &[&[0], &bytes[..]].concat())?;
        let key = skerry_trust::SigningKey::from_text(skerry_fuzz::KEY).map_err(io::Error::other)?;
        let range = skerry_bundle::head::toc_range(&bytes).map_err(io::Error::other)?;
        let signed = bytes.get(range.start as usize..range.end as usize).unwrap_or_default();
        let keys = skerry_trust::KeyRing::from(key.public());
        let payload = skerry_trust::envelope::verify(signed, skerry_bundle::PURPOSE, &keys, 1 << 20).map_err(io::Error::other)?;
        write("bundle", &format!("{name}-payload"), &[&[1], &payload.payload[..]].concat())?;
        write("envelope", name, signed)?;
    }
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../jobspecs"))? {
        let path = entry?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            write("jobspec", &name.to_string_lossy(), &fs::read(&path)?)?;
        }
    }
    Ok(())
}
