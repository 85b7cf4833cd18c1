//! Containers in a real engine.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod support;

use std::time::Duration;

use skerry_engine::{ContainerSpec, ContainerStatus, Engine, EngineError, NetworkMode};
use support::{Cleanup, engine, image, shell_layer, stream, unique};

#[tokio::test]
async fn a_life() {
    let Some(engine) = engine().await else { return };
    let name = unique("life");
    let image = image(vec![shell_layer(&name)], &name);
    let _cleanup = Cleanup { containers: vec![name.clone()], images: vec![image.id.to_string()] };
    engine.load(stream(image.archive(0, &[]))).await.unwrap();

    let mut spec = ContainerSpec::new(&name, image.id);
    spec.labels.insert("skerry.test".into(), name.clone());
    spec.env.insert("GREETING".into(), "hello".into());
    spec.network = NetworkMode::None;
    spec.memory_limit = Some(32 << 20);
    spec.cpu_shares = Some(100);
    let script = "echo $GREETING; echo oops >&2; trap 'exit 3' TERM; while true; do sleep 0.1; done";
    spec.cmd = Some(["/bin/sh", "-c", script].map(String::from).into());
    let label = format!("skerry.test={name}");
    let state = async || engine.containers(&label).await.unwrap().pop();

    let id = engine.create(&spec).await.unwrap();
    assert_eq!(engine.create(&spec).await.unwrap(), id, "the same one again");
    let found = state().await.unwrap();
    assert_eq!((found.status, found.image, found.started_at.as_str()), (ContainerStatus::Created, image.id, ""));
    assert_eq!((found.name.as_str(), found.labels["note"].as_str()), (name.as_str(), name.as_str()));

    let mut other = spec.clone();
    other.labels.insert("skerry.test".into(), "another".into());
    assert!(matches!(engine.create(&other).await, Err(EngineError::NameTaken { .. })));

    engine.pin(&image.id, &name).await.unwrap();
    assert!(matches!(engine.unpin(&name).await, Err(EngineError::InUse { .. })));
    assert!(matches!(engine.remove_image(&image.id).await, Err(EngineError::InUse { .. })));
    engine.start(&name).await.unwrap();
    engine.start(&name).await.unwrap();
    let running = state().await.unwrap();
    assert_eq!(running.status, ContainerStatus::Running);
    assert!(running.started_at.starts_with("20"), "{}", running.started_at);

    let mut logs = String::new();
    for _ in 0..100 {
        logs = String::from_utf8(engine.logs(&name, 10).await.unwrap()).unwrap();
        if logs.contains("hello") && logs.contains("oops") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(logs.contains("hello") && logs.contains("oops"), "{logs}");

    engine.stop(&name, Duration::from_secs(30)).await.unwrap();
    engine.stop(&name, Duration::from_secs(30)).await.unwrap();
    assert_eq!(state().await.unwrap().status, ContainerStatus::Exited { code: 3, out_of_memory: false });
    engine.remove(&name).await.unwrap();
    engine.remove(&name).await.unwrap();
    engine.stop(&name, Duration::from_secs(1)).await.unwrap();
    assert_eq!(state().await, None);
    assert!(matches!(engine.start(&name).await, Err(EngineError::NoContainer { .. })));
    assert!(matches!(engine.logs(&name, 1).await, Err(EngineError::NoContainer { .. })));
    engine.unpin(&name).await.unwrap();
    assert!(!engine.image_present(&image.id).await.unwrap());
    assert!(matches!(engine.create(&spec).await, Err(EngineError::NoImage { .. })));
}
