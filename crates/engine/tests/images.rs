//! Images in a real engine.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod support;

use std::io::Write;

use futures_util::StreamExt;
use skerry_engine::{Engine, EngineError, archive_pipe, probe};
use skerry_image::archive::Archive;
use support::{Cleanup, engine, image, shell_layer, stream, unique};

fn layer(note: &str) -> Vec<u8> {
    skerry_image::load::single_file_layer("file", note.as_bytes())
}

#[tokio::test]
async fn load_pin_save_and_remove() {
    let Some(engine) = engine().await else { return };
    let name = unique("load");
    let image = image(vec![layer(&name), layer(&format!("{name} upper"))], &name);
    let _cleanup = Cleanup::images(&[&image]);
    assert!(!engine.image_present(&image.id).await.unwrap());
    engine.load(stream(image.archive(0, &[]))).await.unwrap();
    engine.load(stream(image.archive(0, &[]))).await.unwrap();
    assert!(engine.image_present(&image.id).await.unwrap());
    assert!(engine.images().await.unwrap().contains(&image.id));

    engine.pin(&image.id, &name).await.unwrap();
    engine.pin(&image.id, &name).await.unwrap();
    let tag = format!("skerry-pin:{name}");
    assert_eq!(engine.resolve(&tag).await.unwrap(), image.id);

    let mut saved = Vec::new();
    let mut pieces = Box::pin(engine.save(&tag));
    while let Some(piece) = pieces.next().await {
        saved.extend_from_slice(&piece.unwrap());
    }
    let archive = Archive::from_tar(std::io::Cursor::new(saved), "saved").unwrap();
    // By id: podman writes its registry in front of the tag.
    let found = archive.choose(Some(&image.id.to_string())).unwrap();
    assert_eq!((found.image_id, &found.config_bytes), (image.id, &image.config));

    let pinned = engine.pinned().await.unwrap();
    let found = pinned.iter().find(|p| p.id == image.id).unwrap();
    assert_eq!((&found.names, found.others), (&vec![name.clone()], false));
    assert!(engine.is_whole(&image.id).await.unwrap());

    engine.unpin(&name).await.unwrap();
    engine.unpin(&name).await.unwrap();
    assert!(!engine.image_present(&image.id).await.unwrap(), "its last tag is gone");
    engine.remove_image(&image.id).await.unwrap();
    assert!(matches!(engine.resolve(&tag).await, Err(EngineError::NoImage { .. })));
}

#[tokio::test]
async fn partial_archives_need_their_base() {
    let Some(engine) = engine().await else { return };
    if !probe(&engine).await.unwrap().accepts_partial_load {
        return;
    }
    let name = unique("partial");
    let base = image(vec![layer(&name)], &name);
    let both = image(vec![layer(&name), layer(&format!("{name} upper"))], &name);
    let _cleanup = Cleanup::images(&[&both, &base]);
    let error = engine.load(stream(both.archive(1, &[]))).await.unwrap_err();
    assert!(matches!(error, EngineError::Load { .. }), "{error}");
    engine.load(stream(base.archive(0, &[]))).await.unwrap();
    engine.load(stream(both.archive(1, &[]))).await.unwrap();
    assert!(engine.image_present(&both.id).await.unwrap());
    engine.remove_image(&both.id).await.unwrap();
    engine.remove_image(&base.id).await.unwrap();
}

#[tokio::test]
async fn a_broken_archive_leaves_nothing() {
    let Some(engine) = engine().await else { return };
    let name = unique("broken");
    let image = image(vec![shell_layer(&name)], &name);
    let _cleanup = Cleanup::images(&[&image]);
    let archive = image.archive(0, &[]);
    let half = archive[..archive.len() / 2].to_vec();

    let error = engine.load(stream(half.clone())).await.unwrap_err().to_string();
    assert!(error.contains("did not load"), "{error}");

    let (mut pipe, given_up) = archive_pipe();
    let writer = std::thread::spawn(move || pipe.write_all(&half));
    engine.load(given_up).await.unwrap_err();
    let _ = writer.join().unwrap();

    let mut other = archive;
    let at = other.len() - 3000;
    other[at] ^= 1;
    let error = engine.load(stream(other)).await.unwrap_err().to_string();
    assert!(error.contains("did not load"), "{error}");
    if engine.info().await.unwrap().containerd_store {
        engine.remove_image(&image.id).await.unwrap();
    }
    assert!(!engine.image_present(&image.id).await.unwrap());
}

#[tokio::test]
async fn probing_leaves_nothing() {
    let Some(engine) = engine().await else { return };
    let found = probe(&engine).await.unwrap();
    let info = engine.info().await.unwrap();
    if ["overlay2", "fuse-overlayfs"].contains(&info.storage_driver.as_str()) {
        assert!(found.accepts_partial_load);
        assert_eq!(found.layers_in_place, std::fs::read_dir(&info.data_root).is_ok());
    }
    if info.disk_free.is_some() {
        skerry_engine::sync(&info.data_root).unwrap();
    }
}
