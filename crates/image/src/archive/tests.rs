use std::io::{Cursor, Write};

use skerry_wire::{DiffId, ImageId};

use super::*;
use crate::sha256;

/// A tar by another writer.
fn tar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, data) in members {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, data.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn layers() -> [Vec<u8>; 3] {
    [1u8, 2, 3].map(|n| tar(&[(format!("file{n}"), vec![n; 3000])]))
}

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let ids: Vec<_> = layers.iter().map(|layer| format!("\"{}\"", sha256(layer))).collect();
    format!(r#"{{"architecture":"arm64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#, ids.join(",")).into_bytes()
}

/// As engines before 25 save.
fn old_layout(tag: &str) -> Vec<(String, Vec<u8>)> {
    let (layers, config) = (layers(), config(&layers()));
    let name = format!("{}.json", sha256(&config).hex());
    let manifest = format!(r#"[{{"Config":"{name}","RepoTags":["{tag}"],"Layers":["a/layer.tar","b/layer.tar","c/layer.tar"]}}]"#);
    let mut members = vec![(name, config)];
    for (folder, layer) in ["a", "b", "c"].iter().zip(layers) {
        members.push((format!("{folder}/VERSION"), b"1.0".to_vec()));
        members.push((format!("{folder}/layer.tar"), layer));
    }
    members.push(("manifest.json".into(), manifest.into_bytes()));
    members
}

fn blob(bytes: &[u8]) -> (String, Vec<u8>) {
    (format!("blobs/sha256/{}", sha256(bytes).hex()), bytes.to_vec())
}

/// An OCI layout with a plain, a gzip and a zstd layer, in an index of platforms with one absent.
fn oci_layout() -> Vec<(String, Vec<u8>)> {
    let [plain, two, three] = layers();
    let stored = [plain, gzip(&two), zstd::encode_all(three.as_slice(), 3).unwrap()];
    let config = config(&layers());
    let digests: Vec<_> = stored.iter().map(|bytes| format!(r#"{{"digest":"{}"}}"#, sha256(bytes))).collect();
    let manifest = format!(r#"{{"config":{{"digest":"{}"}},"layers":[{}]}}"#, sha256(&config), digests.join(","));
    let absent = sha256(b"other platform");
    let inner = format!(r#"{{"manifests":[{{"digest":"{absent}"}},{{"digest":"{}"}}]}}"#, sha256(manifest.as_bytes()));
    let index = format!(
        r#"{{"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{}",
            "annotations":{{"org.opencontainers.image.ref.name":"shop/till:2"}}}}]}}"#,
        sha256(inner.as_bytes())
    );
    let mut members: Vec<_> = stored.iter().map(|bytes| blob(bytes)).collect();
    members.extend([blob(&config), blob(manifest.as_bytes()), blob(inner.as_bytes())]);
    members.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    members.push(("index.json".into(), index.into_bytes()));
    members
}

fn open(members: &[(String, Vec<u8>)]) -> Result<Archive<Cursor<Vec<u8>>>, ArchiveError> {
    Archive::from_tar(Cursor::new(tar(members)), "test.tar")
}

fn check<R: Read + Seek>(archive: &mut Archive<R>, tag: &str) {
    let image = archive.choose(None).unwrap().clone();
    assert_eq!(image.repo_tags, [tag]);
    assert_eq!(image.image_id, ImageId(sha256(&config(&layers()))));
    assert_eq!((image.config.architecture.as_str(), image.config.os.as_str()), ("arm64", "linux"));
    for (layer, bytes) in image.layers.iter().zip(layers()) {
        assert_eq!(layer.diff_id, DiffId(sha256(&bytes)));
        let mut read = Vec::new();
        archive.layer(layer).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
    }
}

#[test]
fn every_layout() {
    check(&mut open(&old_layout("shop/till:2")).unwrap(), "shop/till:2");
    check(&mut open(&oci_layout()).unwrap(), "shop/till:2");
    let folder = tempfile::tempdir().unwrap();
    ::tar::Archive::new(Cursor::new(tar(&oci_layout()))).unpack(folder.path()).unwrap();
    check(&mut Archive::open(folder.path()).unwrap(), "shop/till:2");
}

#[test]
fn a_layer_by_a_link() {
    let mut members = old_layout("a:1");
    members.retain(|(name, _)| name != "b/layer.tar");
    members.push(("shared/real.tar".into(), layers()[1].clone()));
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "b/layer.tar", "../shared/real.tar").unwrap();
    let mut bytes = builder.into_inner().unwrap();
    bytes.truncate(512);
    bytes.extend(tar(&members));
    check(&mut Archive::from_tar(Cursor::new(bytes), "test").unwrap(), "a:1");
}

#[test]
fn choosing() {
    let mut members = old_layout("a:latest");
    let (_, manifest) = members.last_mut().unwrap();
    let one = String::from_utf8(manifest.clone()).unwrap();
    let one = one.trim_matches(['[', ']']).trim_end_matches(',').to_string();
    let one = format!("{one}]}}").replace("]}]}", "]}");
    *manifest = format!("[{one},{}]", one.replace("a:latest", "b:2")).into_bytes();
    let archive = open(&members).unwrap();
    assert!(matches!(archive.choose(None), Err(ArchiveError::Several { choices, .. }) if choices == ["a:latest", "b:2"]));
    assert_eq!(archive.choose(Some("a")).unwrap().repo_tags, ["a:latest"]);
    assert_eq!(archive.choose(Some("b:2")).unwrap().repo_tags, ["b:2"]);
    assert!(matches!(archive.choose(Some("c")), Err(ArchiveError::NotFound { .. })));
}

#[test]
fn faults_say_what_and_where() {
    let without = |name: &str| old_layout("a:1").into_iter().filter(|(n, _)| !n.ends_with(name)).collect::<Vec<_>>();
    let with = |name: &str, bytes: &[u8]| {
        let mut members = old_layout("a:1");
        members.iter_mut().filter(|(n, _)| n.ends_with(name)).for_each(|(_, b)| *b = bytes.to_vec());
        members
    };
    let config_name = old_layout("a:1")[0].0.clone();
    for (members, says) in [
        (without("b/layer.tar"), "`b/layer.tar` (layer 2 of 3) is named by `manifest.json` but is not in the archive"),
        (without(&config_name), "(configuration) is named by"),
        (without("manifest.json"), "holds no image"),
        (with(&config_name, b"{}"), "is damaged: its SHA-256 is"),
        (with("manifest.json", b"[{]"), "`manifest.json` is not valid"),
        (with("manifest.json", b"[]"), "holds no image"),
        (with("manifest.json", br#"[{"Config":"../../etc/passwd"}]"#), "`../../etc/passwd` (configuration)"),
    ] {
        let error = open(&members).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("test.tar"), "{error}");
    }
}

#[test]
fn truncated_and_compressed_as_a_whole() {
    let bytes = tar(&old_layout("a:1"));
    let cut = bytes.len() / 2;
    let error = Archive::from_tar(Cursor::new(&bytes[..cut]), "t").unwrap_err().to_string();
    assert!(error.contains("truncated"), "{error}");
    let error = Archive::from_tar(Cursor::new(gzip(&bytes)), "t.gz").unwrap_err().to_string();
    assert!(error.contains("gunzip -k t.gz"), "{error}");
    let error = Archive::from_tar(Cursor::new(b"hello".repeat(200)), "t").unwrap_err().to_string();
    assert!(error.contains("docker save"), "{error}");
}

#[test]
fn a_layer_that_is_another() {
    let mut members = old_layout("a:1");
    members.iter_mut().filter(|(n, _)| n == "b/layer.tar").for_each(|(_, b)| b[600] ^= 1);
    let mut archive = open(&members).unwrap();
    let layer = archive.choose(None).unwrap().layers[1].clone();
    let error = io::copy(&mut archive.layer(&layer).unwrap(), &mut io::sink()).unwrap_err();
    assert!(error.to_string().contains("layer `b/layer.tar` does not match the image"), "{error}");
}

#[test]
fn small_archives_cannot_cost_much() {
    // One configuration of 3 MiB that is named a thousand times.
    let mut large = config(&[]);
    large.resize(3 << 20, b' ');
    let name = format!("{}.json", sha256(&large).hex());
    let manifest = vec![format!(r#"{{"Config":"{name}"}}"#); 1000].join(",");
    let members = [(name, large), ("manifest.json".into(), format!("[{manifest}]").into_bytes())];
    let error = open(&members).unwrap_err().to_string();
    assert!(error.contains("more than 4096 documents"), "{error}");

    // Indexes of a thousand times the same index, four deep: a billion documents.
    let mut members = Vec::new();
    let mut index = br#"{"manifests":[]}"#.to_vec();
    for _ in 0..3 {
        let named = format!(r#"{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{}"}}"#, sha256(&index));
        members.push(blob(&index));
        index = format!(r#"{{"manifests":[{}]}}"#, vec![named; 1000].join(",")).into_bytes();
    }
    members.push(("index.json".into(), index));
    let error = open(&members).unwrap_err().to_string();
    assert!(error.contains("more than 4096 documents"), "{error}");

    // Members with names of a megabyte each.
    let mut builder = ::tar::Builder::new(Vec::new());
    for n in 0..40 {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, format!("{n}{}", "d/".repeat(500_000)) + "f", &b""[..]).unwrap();
    }
    let error = Archive::from_tar(Cursor::new(builder.into_inner().unwrap()), "t").unwrap_err().to_string();
    assert!(error.contains("names of its members"), "{error}");
}
