//! The vector of several images and layers: one layer of the target is that of a base, two are made, from the layers of two bases. A new
//! content comes twice, in both.

use skerry_bundle::TargetLayer;
use skerry_delta::make::KEPT;

use super::*;

/// The images at hand.
pub(crate) const BASES: &[Files] = &[("first.json", &["first-0.tar", "first-1.tar"]), ("second.json", &["second.tar"])];

fn tar(files: &[(&str, &[u8])], mtime: u64) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(mtime);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn config(day: u32, layers: &[&[u8]]) -> Vec<u8> {
    let ids: Vec<_> = layers.iter().map(|layer| format!("\"{}\"", sha256(layer))).collect();
    let ids = ids.join(",");
    format!(
        "{{\"architecture\":\"amd64\",\"created\":\"2026-02-0{day}T00:00:00Z\",\"os\":\"linux\",\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[{ids}]}}}}"
    )
    .into_bytes()
}

/// Lines, of which the new version has one more.
fn lines(seed: u64, count: usize, new: bool) -> Vec<u8> {
    let mut lines = Numbers(seed).lines(count);
    if new {
        lines.insert(count / 2, "a line between the others\n".to_owned());
    }
    lines.concat().into_bytes()
}

/// Bytes, of which the new version has some others.
fn bytes(seed: u64, count: usize, new: bool) -> Vec<u8> {
    let mut bytes = Numbers(seed).bytes(count);
    if new {
        bytes.iter_mut().step_by(97).for_each(|byte| *byte = byte.wrapping_add(4));
    }
    bytes
}

/// That it shows what it is for.
fn assert_shows(bundle: &[u8]) {
    let toc = VerifiedToc::read(&mut Cursor::new(bundle), &KeyRing::from(KEY.public())).unwrap();
    let toc = toc.toc();
    assert!(toc.features.contains(&KEPT), "{:?}", toc.features);
    assert!(matches!(toc.layers[..], [TargetLayer::Known(_), TargetLayer::New { .. }, TargetLayer::New { .. }]), "{:?}", toc.layers);
    let used: BTreeSet<_> = toc.used.iter().map(|place| place.base).collect();
    assert_eq!(used, BTreeSet::from([0, 1]), "layers of one base only are used");
}

#[test]
fn several_bases_and_layers_have_a_vector() {
    assert_shows(&read("several/patch.skb"));
}

/// Apart from the others, which stay as they are: signed by their key.
#[test]
#[ignore = "writes the vector again: for a new version of the format only"]
fn write_vector_of_several() {
    let below = tar(&[("etc/release", &lines(41, 40, false))], 1_700_000_000);
    let first = tar(&[("app/text", &lines(43, 120, false)), ("app/program", &bytes(47, 9000, false))], 1_700_000_000);
    let second = tar(&[("lib/tool", &bytes(59, 6000, false)), ("lib/notes", &lines(61, 200, false))], 1_700_000_100);
    let packed = bytes(67, 6000, false);
    let new = [
        tar(
            &[
                ("app/text", &lines(43, 120, true)),
                ("app/program", &bytes(47, 9000, true)),
                ("lib/tool", &bytes(59, 6000, true)),
                ("packed", &packed),
            ],
            1_700_000_500,
        ),
        tar(&[("again/packed", &packed), ("lib/notes", &lines(61, 200, true)), ("more", &lines(71, 300, false))], 1_700_000_600),
    ];
    let configs = [config(1, &[&below, &first]), config(2, &[&second]), config(3, &[&below, &new[0], &new[1]])];
    let sources: Vec<_> = [&below, &first, &second, &new[0], &new[1]].map(|tar| (DiffId(sha256(tar)), source(tar.clone()))).into();
    let layers = |numbers: &[usize]| numbers.iter().map(|&n| Layer { diff_id: sources[n].0, source: &*sources[n].1 }).collect();
    let base = |config: usize, numbers: &[usize]| Base {
        image_id: ImageId(sha256(&configs[config])),
        config: &configs[config],
        layers: layers(numbers),
    };
    let target = Target { config: &configs[2], layers: layers(&[0, 3, 4]) };
    let mut patch = Vec::new();
    let bases = [base(0, &[0, 1]), base(1, &[2])];
    make(&target, &bases, &MakeOptions::default(), &Silent, &AtomicBool::new(false), &KEY, &mut patch).unwrap();
    assert_shows(&patch);
    fs::create_dir_all(file("several")).unwrap();
    for (name, bytes) in [
        ("first.json", &configs[0]),
        ("first-0.tar", &below),
        ("first-1.tar", &first),
        ("second.json", &configs[1]),
        ("second.tar", &second),
        ("new.json", &configs[2]),
        ("new.tar", &new.concat()),
        ("patch.skb", &patch),
    ] {
        fs::write(file(&format!("several/{name}")), bytes).unwrap();
    }
}
