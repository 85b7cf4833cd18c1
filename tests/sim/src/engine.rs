//! The engine of a machine: what it is told it does, or refuses, or lies about; each call that changes what runs is checked.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use skerry_engine::{ArchiveStream, ContainerSpec, ContainerState, ContainerStatus, Engine, EngineError, Info, PinnedImage, Ran};
use skerry_reconcile::Labels;
use skerry_wire::{Digest, ImageId};

use crate::check::{check_once, runs};
use crate::host::{Container, Held, Host};
use crate::library;

/// A way to the engine of a machine.
#[derive(Debug, Clone)]
pub(crate) struct Docker(pub(crate) Arc<Host>);

/// What the engine is.
pub(crate) fn info() -> Info {
    Info {
        version: "20.10".to_owned(),
        storage_driver: "overlay2".to_owned(),
        containerd_store: false,
        // Only that it is there is looked at.
        data_root: PathBuf::from("/"),
        disk_free: None,
        architecture: "x86_64".to_owned(),
        cpus: 4,
        memory: 4 << 30,
    }
}

impl Docker {
    /// A call begins: it takes a moment, it may be refused, and it never ends when the power has gone.
    async fn call(&self, what: &str) -> Result<(), EngineError> {
        let host = &self.0;
        if host.is_cut() {
            std::future::pending::<()>().await;
        }
        let moment = host.draw(20);
        tokio::time::sleep(Duration::from_millis(1 + moment as u64)).await;
        if host.is_cut() {
            std::future::pending::<()>().await;
        }
        let now = host.now();
        let (away, refused) = {
            let mut state = host.state();
            state.end_due(now);
            let failing = state.failing;
            let refused = failing > 0 && state.chance.below(1000) < failing;
            if refused || state.away {
                state.disturbed = now;
            }
            (state.away, refused)
        };
        if away {
            return Err(EngineError::Unreachable { socket: "played".to_owned(), reason: "it is away".to_owned() });
        }
        if refused {
            host.tell(&format!("the engine refuses: {what}"));
            return Err(EngineError::Refused { what: what.to_owned(), status: 500, message: "played".to_owned() });
        }
        Ok(())
    }

    fn end(&self, name: &str, code: i64) {
        if let Some(container) = self.0.state().containers.get_mut(name)
            && runs(container.status)
        {
            container.status = ContainerStatus::Exited { code, out_of_memory: false };
        }
        self.0.changed.notify_one();
    }

    /// P3, before anything that ends a container.
    fn check_stop(&self, name: &str, how: &str) {
        let host = &self.0;
        let now = host.now();
        let (text, verdict) = {
            let mut state = host.state();
            let Some(container) = state.containers.get(name) else { return };
            let (labels, running) = (container.labels.clone(), runs(container.status));
            let text = format!("{how} {} version {}", labels.slot, labels.version);
            let verdict = host.check_stop(&state, &labels, now).map_err(|why| format!("{}: {why}", labels.slot));
            // The power may have ended it between the order and the stop.
            if verdict == Ok(true) {
                state.switched.remove(&labels.slot);
            }
            if !running {
                return;
            }
            (text, verdict)
        };
        host.tell(&text);
        if let Err(why) = verdict {
            host.broken("P3", &why);
        }
    }

    fn list(&self) -> Vec<ContainerState> {
        let state = self.0.state();
        let all = state.containers.iter().map(|(name, c)| ContainerState {
            id: c.id.clone(),
            name: name.clone(),
            image: c.image,
            labels: c.map.clone(),
            status: c.status,
            started_at: if c.started == 0 { String::new() } else { c.started.to_string() },
        });
        all.collect()
    }
}

fn no_image(id: &ImageId) -> EngineError {
    EngineError::NoImage { reference: id.to_string() }
}

fn no_container(name: &str) -> EngineError {
    EngineError::NoContainer { name: name.to_owned() }
}

impl Engine for Docker {
    async fn info(&self) -> Result<Info, EngineError> {
        self.call("info").await?;
        Ok(info())
    }

    async fn images(&self) -> Result<Vec<ImageId>, EngineError> {
        self.call("images").await?;
        Ok(self.0.state().images.keys().copied().collect())
    }

    async fn image_present(&self, id: &ImageId) -> Result<bool, EngineError> {
        self.call("image").await?;
        Ok(self.0.state().images.contains_key(id))
    }

    async fn resolve(&self, reference: &str) -> Result<ImageId, EngineError> {
        Err(EngineError::NoImage { reference: reference.to_owned() })
    }

    async fn image_size(&self, id: &ImageId) -> Result<u64, EngineError> {
        self.call("image size").await?;
        if self.0.state().images.contains_key(id) { Ok(1 << 20) } else { Err(no_image(id)) }
    }

    async fn load(&self, mut archive: ArchiveStream) -> Result<(), EngineError> {
        self.call("load").await?;
        let failed = |message: String| EngineError::Load { message };
        let bytes: Bytes = match archive.next().await {
            Some(bytes) => bytes.map_err(|e| failed(e.to_string()))?,
            None => return Err(failed("nothing came".to_owned())),
        };
        let id = ImageId(Digest::new(bytes.as_ref().try_into().map_err(|_| failed("no image".to_owned()))?));
        let host = &self.0;
        let lies = {
            let mut state = host.state();
            let lying = state.lying;
            let lies = lying > 0 && state.chance.below(1000) < lying;
            if !lies {
                state.images.insert(id, Held { synced: false, whole: true });
                // Its tag is in the archive.
                state.pins.insert(id.digest().hex(), id);
            }
            lies
        };
        host.tell(&format!("{} {}", if lies { "the engine lies that it loaded" } else { "loads" }, library::name(&id)));
        Ok(())
    }

    fn save(&self, _reference: &str) -> impl Stream<Item = Result<Bytes, EngineError>> + Send {
        stream::empty()
    }

    async fn pin(&self, id: &ImageId, name: &str) -> Result<(), EngineError> {
        self.call("pin").await?;
        let mut state = self.0.state();
        if !state.images.contains_key(id) {
            return Err(no_image(id));
        }
        state.pins.insert(name.to_owned(), *id);
        Ok(())
    }

    async fn pinned(&self) -> Result<Vec<PinnedImage>, EngineError> {
        self.call("pinned").await?;
        let state = self.0.state();
        let pinned = state.images.keys().map(|id| PinnedImage {
            id: *id,
            names: state.pins.iter().filter(|(_, of)| *of == id).map(|(name, _)| name.clone()).collect(),
            others: false,
            bytes: 1 << 20,
        });
        Ok(pinned.filter(|p| !p.names.is_empty()).collect())
    }

    async fn unpin(&self, name: &str) -> Result<(), EngineError> {
        self.call("unpin").await?;
        let host = &self.0;
        let gone = {
            let mut state = host.state();
            let Some(id) = state.pins.get(name).copied() else { return Ok(()) };
            // With its last tag an image goes.
            let last = state.pins.values().filter(|of| **of == id).count() == 1;
            if last && state.containers.values().any(|c| c.image == id) {
                return Err(EngineError::InUse { reference: name.to_owned(), message: "a container uses it".to_owned() });
            }
            state.pins.remove(name);
            (last && state.images.remove(&id).is_some()).then_some(id)
        };
        if let Some(id) = gone {
            host.tell(&format!("{} goes", library::name(&id)));
        }
        Ok(())
    }

    async fn is_whole(&self, id: &ImageId) -> Result<bool, EngineError> {
        self.call("read back").await?;
        self.0.state().images.get(id).map(|held| held.whole).ok_or_else(|| no_image(id))
    }

    async fn remove_image(&self, id: &ImageId) -> Result<(), EngineError> {
        self.call("remove image").await?;
        let mut state = self.0.state();
        if state.containers.values().any(|c| c.image == *id) {
            return Err(EngineError::InUse { reference: id.to_string(), message: "a container uses it".to_owned() });
        }
        state.images.remove(id);
        state.pins.retain(|_, of| of != id);
        Ok(())
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        self.call("create").await?;
        let host = &self.0;
        let id = {
            let mut state = host.state();
            if !state.images.contains_key(&spec.image) {
                return Err(no_image(&spec.image));
            }
            if let Some(there) = state.containers.get(&spec.name) {
                if there.image == spec.image && there.map == spec.labels {
                    return Ok(there.id.clone());
                }
                return Err(EngineError::NameTaken { name: spec.name.clone(), difference: "played".to_owned() });
            }
            let Ok(labels) = Labels::from_map(&spec.labels) else {
                return Err(EngineError::Invalid { what: "labels", value: spec.name.clone(), why: "they are not an agent's" });
            };
            state.serial += 1;
            let id = state.serial.to_string();
            let (map, status) = (spec.labels.clone(), ContainerStatus::Created);
            let new = Container { id: id.clone(), image: spec.image, map, labels, status, started: 0, ends: None };
            state.containers.insert(spec.name.clone(), new);
            id
        };
        host.tell(&format!("creates {}", spec.name));
        Ok(id)
    }

    async fn start(&self, name: &str) -> Result<(), EngineError> {
        self.call("start").await?;
        let host = &self.0;
        let now = host.now();
        let (text, verdict) = {
            let mut state = host.state();
            let Some(found) = state.containers.get(name) else { return Err(no_container(name)) };
            if runs(found.status) {
                return Ok(());
            }
            let (labels, image) = (found.labels.clone(), found.image);
            let to_end = host.book.pages().specifications.get(&labels.specification).is_some_and(|job| job.kind.runs_to_end());
            let verdict = host.check_start(&state, &labels, image, now).and_then(|()| check_once(&state, &labels, to_end));
            let ends = to_end.then(|| now + 5_000 + state.chance.below(40_000) as u64);
            if let Some(container) = state.containers.get_mut(name) {
                (container.status, container.started, container.ends) = (ContainerStatus::Running, now.max(1), ends);
            }
            if state.switched.get(&labels.slot).is_none_or(|switched| *switched != labels.specification) {
                // A server that was put back to a backup may order a version that ran here before: that is another run of it.
                state.noted.retain(|_, slot| *slot != labels.slot);
                state.switched.insert(labels.slot.clone(), labels.specification);
            }
            (format!("starts {} {} version {} of {}", labels.slot, labels.task, labels.version, library::name(&image)), verdict)
        };
        host.tell(&text);
        if let Err((promise, how)) = verdict {
            host.broken(promise, &how);
        }
        Ok(())
    }

    async fn signal(&self, _name: &str, _signal: &str) -> Result<(), EngineError> {
        self.call("signal").await
    }

    async fn exec(&self, name: &str, _command: &[String], _timeout: Duration, _most: usize) -> Result<Ran, EngineError> {
        self.call("exec").await?;
        let state = self.0.state();
        let container = state.containers.get(name).filter(|c| runs(c.status)).ok_or_else(|| no_container(name))?;
        Ok(Ran { code: i64::from(container.image == library::image(library::SICK)), output: vec![] })
    }

    async fn stop(&self, name: &str, timeout: Duration) -> Result<(), EngineError> {
        self.call("stop").await?;
        self.check_stop(name, "stops");
        // One in eight does not listen to its signal.
        let (deaf, quick) = (self.0.draw(8) == 0, self.0.draw(800) as u64);
        tokio::time::sleep(if deaf { timeout } else { timeout.min(Duration::from_millis(quick)) }).await;
        self.call("stop").await?;
        self.end(name, if deaf { 137 } else { 143 });
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), EngineError> {
        self.call("remove").await?;
        self.check_stop(name, "removes");
        self.0.state().containers.remove(name);
        self.0.changed.notify_one();
        Ok(())
    }

    async fn containers(&self, _label: &str) -> Result<Vec<ContainerState>, EngineError> {
        self.call("containers").await?;
        Ok(self.list())
    }

    fn changes(&self, _label: &str) -> impl Stream<Item = Result<(), EngineError>> + Send {
        stream::unfold(self.clone(), |this| async move {
            this.0.changed.notified().await;
            (!this.0.state().away).then_some(())?;
            Some((Ok(()), this))
        })
    }

    fn look(&self, label: &str, _before: &[ContainerState]) -> impl Future<Output = Result<Vec<ContainerState>, EngineError>> + Send {
        self.containers(label)
    }

    async fn logs(&self, _name: &str, _lines: u32) -> Result<Vec<u8>, EngineError> {
        Ok(vec![])
    }

    fn follow(&self, _name: &str) -> impl Stream<Item = Result<Bytes, EngineError>> + Send {
        stream::empty()
    }
}
