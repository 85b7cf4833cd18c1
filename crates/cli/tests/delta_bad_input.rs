//! Bundles and bases that are not what they should be: a clear error, exit code 1, and no file that was not there.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod support;

use std::process::Command;

use skerry_trust::{SigningKey, envelope};
use support::{bed, image};

#[test]
fn bundles_cut_anywhere() {
    let bed = bed();
    let bundle = bed.patch();
    bed.bundle_refused(&[], "ends after 0 bytes");
    bed.bundle_refused(&bundle[..3], "ends after");
    bed.bundle_refused(&bundle[..100], "within its table of contents");
    for at in [bundle.len() / 3, bundle.len() / 2, bundle.len() - 1] {
        bed.bundle_refused(&bundle[..at], "bad.skb");
    }
}

#[test]
fn bundles_with_a_changed_bit_or_parts_in_another_order() {
    let bed = bed();
    let bundle = bed.patch();
    for at in (0..bundle.len()).step_by(bundle.len() / 24) {
        let mut bad = bundle.clone();
        bad[at] ^= 1 << (at % 8);
        bed.bundle_refused(&bad, "bad.skb");
    }
    let mut bad = bundle.clone();
    let payload = bundle.len() - 12_000;
    bad[payload..].rotate_left(6000);
    bed.bundle_refused(&bad, "bad.skb");
}

#[test]
fn files_of_another_kind_or_version() {
    let bed = bed();
    let bundle = bed.patch();
    bed.bundle_refused(&std::fs::read(bed.path("1.tar")).unwrap(), "this is not a Skerry bundle");
    bed.bundle_refused(&vec![0; 5000], "this is not a Skerry bundle");
    let mut newer = bundle.clone();
    newer[3] = 2;
    bed.bundle_refused(&newer, "the bundle has container version 2, this program reads version 1: bring them to the same release");
    // A table that begins with feature 99, signed: whatever follows has a shape that is not known here.
    let key = SigningKey::from_text(&std::fs::read_to_string(bed.path("key")).unwrap()).unwrap();
    let table = envelope::sign(&key, skerry_bundle::PURPOSE, &[0, 0x82, 0x82, 1, 0x18, 99, 0xf6]);
    let len = u16::try_from(table.len()).unwrap();
    let [low, _] = (len & 0x7f | 0x80).to_le_bytes();
    let [high, _] = (len >> 7).to_le_bytes();
    let head = [&b"SKB\x01"[..], &[low, high]].concat();
    bed.bundle_refused(&[head, table].concat(), "the bundle needs feature 99, which this version does not know: update the agent");
    // Signed by somebody else.
    bed.ok(&["key", "generate", "--out", "other"]);
    bed.ok(&["delta", "make", "--base", "1.tar", "--target", "2.tar", "--out", "theirs.skb", "--key", "other"]);
    bed.bundle_refused(&std::fs::read(bed.path("theirs.skb")).unwrap(), "not trusted");
}

#[test]
fn bases_that_do_not_fit() {
    let bed = bed();
    bed.patch();
    let apply = |base: &[&str]| {
        bed.refused(&[&["delta", "apply", "--bundle", "p.skb", "--out", "n.tar", "--trust-key", &bed.public], base].concat())
    };
    let id = image(1).id().to_string();
    let said = apply(&["--base", "3.tar"]);
    assert!(said.contains(&format!("base image {id}: it is not among the images of --base; given were 3.tar")), "{said}");
    let said = apply(&[]);
    assert!(said.contains("none was given"), "{said}");
    let said = apply(&["--base", "p.skb"]);
    assert!(said.contains("image p.skb"), "{said}");
    let whole = std::fs::read(bed.path("1.tar")).unwrap();
    // A byte of a file that is copied, and one of a file that differs.
    for words in [&b"1500 line of 0"[..], &image(1).layers[0][100_000..100_020]] {
        let mut changed = whole.clone();
        let at = changed.windows(words.len()).position(|bytes| bytes == words).unwrap();
        changed[at] ^= 1;
        std::fs::write(bed.path("changed.tar"), &changed).unwrap();
        let said = apply(&["--base", "changed.tar"]);
        assert!(
            said.contains("an old layer on this node differs from what its engine says") || said.contains("of a base is damaged"),
            "{said}"
        );
        let said = bed.refused(&["delta", "make", "--base", "changed.tar", "--target", "2.tar", "--out", "q.skb", "--key", "key"]);
        assert!(said.contains("does not match the image"), "{said}");
    }
    for len in [100, 100_000, whole.len() - 3000] {
        std::fs::write(bed.path("changed.tar"), &whole[..len]).unwrap();
        apply(&["--base", "changed.tar"]);
        bed.refused(&["delta", "make", "--base", "1.tar", "--target", "changed.tar", "--out", "q.skb", "--key", "key"]);
        bed.refused(&["image", "rank", "--base", "1.tar", "--target", "changed.tar"]);
    }
}

/// The disk that the output goes to is full: a small file system in memory, for which root is needed.
#[test]
fn a_full_disk() {
    let bed = bed();
    bed.patch();
    std::fs::create_dir(bed.path("small")).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(bed.path("small")).output().unwrap();
    if !mounted.status.success() {
        assert!(std::env::var("CI").is_err(), "no right to mount");
        eprintln!("skipped: no right to mount");
        return;
    }
    let apply = ["delta", "apply", "--base", "1.tar", "--bundle", "p.skb", "--out", "small/n.tar", "--trust-key", &bed.public];
    let made = ["delta", "make", "--target", "2.tar", "--out", "small/f.skb", "--key", "key"];
    let outputs = [bed.run(&apply), bed.run(&made)];
    let left = std::fs::read_dir(bed.path("small")).unwrap().count();
    let unmounted = Command::new("umount").arg(bed.path("small")).output().unwrap();
    assert!(unmounted.status.success());
    for output in outputs {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("No space left on device"), "{said}");
    }
    assert_eq!(left, 0, "what was begun stays");
    let said = bed.refused(&["delta", "make", "--target", "2.tar", "--out", "nowhere/f.skb", "--key", "key"]);
    assert!(said.contains("writing into nowhere"), "{said}");
}
