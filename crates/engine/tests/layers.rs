//! Layers of a real engine, read in place: what is rebuilt from the engine's folders must hash to the diff_id.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod support;

use std::path::Path;
use std::process::Command;

use skerry_delta::source::Sources;
use skerry_engine::{Engine, EngineLayers};
use skerry_image::sha256;
use skerry_wire::{DiffId, Digest, ImageId};
use support::{Cleanup, add_file, add_shell, engine, image, rebuilt, stream, unique};

/// A layer with every kind of member that images have.
fn kinds(note: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    add_shell(&mut builder);
    let special = |kind: tar::EntryType, mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(mode);
        header
    };
    add_file(&mut builder, "note", note.as_bytes(), 0o644);
    add_file(&mut builder, "gone/soon", b"will be removed", 0o600);
    add_file(&mut builder, "empty", b"", 0o644);
    add_file(&mut builder, "setuid", b"#!/bin/sh\n", 0o4755);
    add_file(&mut builder, "größe/日本語.txt", "ünï".as_bytes(), 0o644);
    add_file(&mut builder, &format!("{}/{}", "d".repeat(150), "f".repeat(120)), b"long", 0o644);
    add_file(&mut builder, "zeros", &vec![0; 3_000_001], 0o644);
    builder.append_link(&mut special(tar::EntryType::Link, 0o644), "hard", "note").unwrap();
    builder.append_link(&mut special(tar::EntryType::Symlink, 0o777), "soft", "../../etc/passwd").unwrap();
    builder.append_data(&mut special(tar::EntryType::Fifo, 0o600), "fifo", &[][..]).unwrap();
    builder.append_data(&mut special(tar::EntryType::Directory, 0o1777), "folder/", &[][..]).unwrap();
    builder.append_pax_extensions([("SCHILY.xattr.user.note", &b"x"[..])]).unwrap();
    add_file(&mut builder, "pax", b"with records", 0o644);
    builder.into_inner().unwrap()
}

/// The layers of this machine's engine; none where they cannot be read in place.
async fn layers(engine: &impl Engine) -> Option<EngineLayers> {
    let info = engine.info().await.unwrap();
    if info.containerd_store || std::fs::read_dir(&info.data_root).is_err() {
        eprintln!("skipped: the layers of this engine cannot be read in place (no rights to {}?)", info.data_root.display());
        return None;
    }
    EngineLayers::open(&info.data_root, &info.storage_driver).ok()
}

#[tokio::test]
async fn loaded_layers() {
    let Some(engine) = engine().await else { return };
    let Some(layers) = layers(&engine).await else { return };
    let name = unique("kinds");
    let mut upper = tar::Builder::new(Vec::new());
    add_file(&mut upper, "gone/.wh.soon", b"", 0o600);
    add_file(&mut upper, "folder/.wh..wh..opq", b"", 0o600);
    add_file(&mut upper, "upper", name.as_bytes(), 0o644);
    let image = image(vec![kinds(&name), upper.into_inner().unwrap()], &name);
    let _cleanup = Cleanup::images(&[&image]);
    engine.load(stream(image.archive(0, &[]))).await.unwrap();
    let found: Vec<_> = image.layers.iter().map(|(id, _)| rebuilt(&*layers.layer(id).unwrap())).collect();
    let config = layers.config(&image.id).unwrap();
    engine.remove_image(&image.id).await.unwrap();
    assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), image.layers.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    assert_eq!((found[1].1, config), (1, image.config));
    // They went with the image.
    assert_eq!(layers.layer(&image.layers[0].0).map(|_| ()).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert_eq!(layers.config(&image.id).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[tokio::test]
async fn built_layers() {
    let Some(engine) = engine().await else { return };
    let Some(layers) = layers(&engine).await else { return };
    let name = unique("built");
    let _cleanup = Cleanup { containers: Vec::new(), images: vec![name.clone()] };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("root.tar"), kinds(&name)).unwrap();
    // The first step unpacks, the second removes (whiteouts) and changes, the third copies.
    let dockerfile = "FROM scratch\nADD root.tar /\nRUN rm -r /gone /empty && echo more >> /note && : > /new-empty\nCOPY Dockerfile /\n";
    std::fs::write(folder.path().join("Dockerfile"), dockerfile).unwrap();
    let built = Command::new("docker")
        .args(["build", "-q", "--network=none", "--force-rm", "-t", &name, "."])
        .current_dir(folder.path())
        .env("DOCKER_BUILDKIT", "0")
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let image: ImageId = engine.resolve(&name).await.unwrap();
    let config = layers.config(&image).unwrap();
    assert_eq!(sha256(&config), *image.digest());
    let diff_ids = skerry_image::config::ImageConfig::parse(&config).unwrap().diff_ids;
    assert_eq!(diff_ids.len(), 3);
    let found: Vec<_> = diff_ids.iter().map(|id| rebuilt(&*layers.layer(id).unwrap())).collect();
    let removed = Command::new("docker").args(["image", "rm", &name]).output().unwrap();
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), diff_ids);
    assert!(found[0].1 > 10, "{found:?}");
}

#[test]
fn unknown_drivers_and_layers() {
    let error = EngineLayers::open(Path::new("/nowhere"), "btrfs").unwrap_err().to_string();
    assert!(error.contains("`btrfs`"), "{error}");
    let error = EngineLayers::open(Path::new("/nowhere"), "overlay2").unwrap_err().to_string();
    assert!(error.contains("/nowhere/overlay2"), "{error}");
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("overlay2")).unwrap();
    let layers = EngineLayers::open(root.path(), "overlay2").unwrap();
    let error = layers.layer(&DiffId(Digest::new([1; 32]))).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(layers.diff_ids().unwrap(), []);
}

/// The engine's files are foreign: a record that names a file outside the layer, or a folder outside the driver's, gives nothing.
#[test]
fn hostile_records() {
    use std::io::Write;
    let root = tempfile::tempdir().unwrap();
    let id = DiffId(sha256(b"layer"));
    let chain = root.path().join("image/overlay2/layerdb/sha256").join("0".repeat(64));
    let diff = root.path().join("overlay2/abc/diff");
    std::fs::create_dir_all(&chain).unwrap();
    std::fs::create_dir_all(&diff).unwrap();
    std::fs::write(root.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(root.path().join("secret"), diff.join("link")).unwrap();
    std::fs::write(chain.join("diff"), id.to_string()).unwrap();
    std::fs::write(chain.join("cache-id"), "abc").unwrap();
    let record = std::fs::File::create(chain.join("tar-split.json.gz")).unwrap();
    let mut record = flate2::write::GzEncoder::new(record, flate2::Compression::fast());
    for name in ["../../../secret", "link"] {
        writeln!(record, r#"{{"type":1,"name":"{name}","size":6}}"#).unwrap();
    }
    record.finish().unwrap();
    let layers = EngineLayers::open(root.path(), "overlay2").unwrap();
    let layer = layers.layer(&id).unwrap();
    assert_eq!(layer.segments().unwrap().count(), 2);
    for file in 0..3 {
        assert!(layer.open(file).is_err(), "{file}");
    }
    std::fs::write(chain.join("cache-id"), "../../secret").unwrap();
    assert!(layers.layer(&id).map(|_| ()).unwrap_err().to_string().contains("cache-id"));
}
