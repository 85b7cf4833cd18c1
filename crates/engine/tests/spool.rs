//! Images exported by a real engine, as old layers: whole or not there at all.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod support;

use std::time::Duration;

use skerry_delta::source::Sources;
use skerry_engine::{Engine, SpooledImages, spool};
use skerry_wire::{DiffId, Digest, ImageId};
use support::{Cleanup, add_file, engine, image, rebuilt, shell_layer, stream, unique};

#[tokio::test(flavor = "multi_thread")]
async fn exported_layers() {
    let Some(engine) = engine().await else { return };
    let name = unique("spool");
    let mut upper = tar::Builder::new(Vec::new());
    add_file(&mut upper, "upper", name.as_bytes(), 0o644);
    let image = image(vec![shell_layer(&name), upper.into_inner().unwrap()], &name);
    let _cleanup = Cleanup::images(&[&image]);
    engine.load(stream(image.archive(0, &[]))).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base.spool");
    let files = || std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>();

    // Given up in the middle, by whoever waits for it: nothing stays that could be taken for an export.
    let begun = tokio::time::timeout(Duration::from_micros(50), spool(&engine, &image.id, &path)).await;
    if begun.is_err() {
        assert!(!path.exists());
    }
    // What a killed process left is written anew.
    std::fs::write(folder.path().join("base.spool.part"), vec![7; 10_000_000]).unwrap();
    let size = spool(&engine, &image.id, &path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
    assert_eq!(files(), ["base.spool"]);
    let counted = engine.image_size(&image.id).await.unwrap();
    assert!(counted > 0 && size > counted, "{size} bytes exported of {counted}");

    let spooled = SpooledImages::open(std::slice::from_ref(&path)).unwrap();
    assert_eq!(spooled.config(&image.id).unwrap(), image.config);
    for (id, _) in &image.layers {
        assert_eq!(rebuilt(&*spooled.layer(id).unwrap()).0, *id);
    }
    let nobody = Digest::new([1; 32]);
    assert_eq!(spooled.layer(&DiffId(nobody)).map(|_| ()).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert_eq!(spooled.config(&ImageId(nobody)).unwrap_err().kind(), std::io::ErrorKind::NotFound);

    // The second time it is there already, engine or not.
    engine.remove_image(&image.id).await.unwrap();
    assert_eq!(spool(&engine, &image.id, &path).await.unwrap(), size);
    let gone = folder.path().join("gone.spool");
    assert!(spool(&engine, &image.id, &gone).await.unwrap_err().is_not_found());
    assert_eq!(files(), ["base.spool"]);
    let nowhere = folder.path().join("no/folder.spool");
    assert!(spool(&engine, &image.id, &nowhere).await.is_err());
}
