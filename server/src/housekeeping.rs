//! What the server does by the clock: forgetting, ending tokens, deleting objects.
//!
//! tokio-cron-scheduler only says when; each piece of work is a function that can be called by itself, and is not begun while it still
//! runs. A run that was missed while the server was down is not made up for: the next one does the work of both.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use skerry_wire::{Digest, Timestamp};
use tokio::sync::watch;
use tokio_cron_scheduler::{Job, JobScheduler};

use crate::app::App;
use crate::clock;
use crate::objects::Objects;
use crate::store::{BuildStore, ObjectStore, Store};

/// A piece of housekeeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chore {
    /// Forget what is old.
    Retention,
    /// Remove enrolment tokens whose time is over.
    Tokens,
    /// Delete objects that nothing names.
    Objects,
}

impl Chore {
    /// Does it, at `now`; says what was done.
    pub async fn run(self, app: &App, now: Timestamp) -> anyhow::Result<String> {
        match self {
            Self::Retention => {
                let removed = app.store.forget_old(app.config.housekeeping.keep(), now).await?;
                Ok(format!("{removed:?}"))
            }
            Self::Tokens => Ok(format!("{} tokens", app.store.remove_expired_tokens(now).await?)),
            Self::Objects => {
                let grace = app.config.housekeeping.object_grace.0;
                let deleted = collect_objects(app.store.as_ref(), &app.objects, Timestamp(now.0.saturating_sub_unsigned(grace.0))).await?;
                for digest in &deleted {
                    app.metrics.forget(digest);
                    app.checked.forget(digest);
                }
                Ok(format!("{} objects", deleted.len()))
            }
        }
    }
}

/// Deletes the objects that nothing names and that are older than `before`: the rows first, then the files, and with them the files that
/// no row knows (a request that ended between the two leaves one). A crash in between leaves files that the next start sweeps.
pub async fn collect_objects(store: &dyn Store, objects: &Objects, before: Timestamp) -> anyhow::Result<Vec<Digest>> {
    let sole = objects.sole().await;
    let unnamed = store.forget_unnamed_objects(before).await?;
    // Read after that write, which came after all that were queued while somebody held a pin: every file that counts has its row.
    let known: BTreeSet<_> = store.objects().await?.into_iter().map(|(digest, _)| digest).collect();
    let objects = objects.clone();
    tokio::task::spawn_blocking(move || {
        for digest in &unnamed {
            objects.delete(digest, &sole).with_context(|| format!("object {digest}"))?;
        }
        let swept = objects.sweep(&known, &sole)?;
        if swept > 0 {
            tracing::info!(swept, "files that no row knows were deleted");
        }
        Ok(unnamed)
    })
    .await?
}

/// At start: deletes files that no row names, has bundles built again whose file is gone or cut, and says which other rows have no file.
pub async fn check_objects(store: &(impl ObjectStore + BuildStore), objects: &Objects, now: Timestamp) -> anyhow::Result<()> {
    let known = store.objects().await?;
    let sole = objects.sole().await;
    let objects = objects.clone();
    let look = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let mut damaged = Vec::new();
        for (digest, size) in &known {
            let path = objects.path(digest);
            match std::fs::metadata(&path).map(|file| file.len()) {
                Ok(found) if found == *size => {}
                Ok(found) => damaged.push((*digest, *size, Some(found))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => damaged.push((*digest, *size, None)),
                // Neither there nor gone: who asks for it finds out, and the server serves all else.
                Err(error) => tracing::error!(%digest, "{}: {error}", path.display()),
            }
        }
        // With none of their files the disk is more likely not there than empty; built again from nothing they would all fail.
        if known.len() > 1 && damaged.len() == known.len() {
            tracing::error!(objects = known.len(), "no object of the database is in the folder: is its disk mounted? else restore it");
            damaged.clear();
        }
        let known: BTreeSet<_> = known.into_iter().map(|(digest, _)| digest).collect();
        let swept = objects.sweep(&known, &sole)?;
        if swept > 0 {
            tracing::info!(swept, "objects that nothing names were deleted");
        }
        Ok(damaged)
    });
    for (digest, size, found) in look.await?? {
        if store.build_again(digest, now).await? == 0 {
            tracing::error!(%digest, size, ?found, "the file of a layer is gone or cut; publish its image again, or restore it from a backup");
        } else {
            tracing::error!(%digest, size, ?found, "the file of a bundle is gone or cut; it is built again");
        }
    }
    Ok(())
}

/// One chore with its guard.
#[derive(Debug)]
struct Guarded {
    chore: Chore,
    running: AtomicBool,
}

impl Guarded {
    /// Runs the chore unless it runs already; logs how it went.
    async fn trigger(&self, app: &App) -> bool {
        if self.running.swap(true, Ordering::AcqRel) {
            tracing::warn!(chore = ?self.chore, "still running from last time");
            return false;
        }
        match self.chore.run(app, clock::now()).await {
            Ok(done) => tracing::info!(chore = ?self.chore, done, "housekeeping"),
            Err(error) => tracing::error!(chore = ?self.chore, error = format!("{error:#}"), "housekeeping failed"),
        }
        self.running.store(false, Ordering::Release);
        true
    }
}

/// Runs the scheduler until `stop` turns true.
pub async fn run(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let mut scheduler = match schedule(&app).await {
        Ok(scheduler) => scheduler,
        Err(error) => return tracing::error!(error = format!("{error:#}"), "no housekeeping"),
    };
    // An error means that the sender is gone: the server is gone.
    let _ = stop.wait_for(|stop| *stop).await;
    if let Err(error) = scheduler.shutdown().await {
        tracing::warn!(%error, "the scheduler of housekeeping did not stop in order");
    }
}

async fn schedule(app: &Arc<App>) -> anyhow::Result<JobScheduler> {
    let scheduler = JobScheduler::new().await?;
    let times = &app.config.housekeeping;
    for (chore, cron) in [(Chore::Retention, &times.retention), (Chore::Tokens, &times.tokens), (Chore::Objects, &times.objects)] {
        let guarded = Arc::new(Guarded { chore, running: AtomicBool::new(false) });
        // The job must not keep the store open after the server has stopped.
        let app = Arc::downgrade(app);
        let job = Job::new_async(cron.as_str(), move |_, _| {
            let (guarded, app) = (Arc::clone(&guarded), app.clone());
            Box::pin(async move {
                if let Some(app) = app.upgrade() {
                    guarded.trigger(&app).await;
                }
            })
        });
        scheduler.add(job.with_context(|| format!("{chore:?} at `{cron}`"))?).await?;
    }
    scheduler.start().await?;
    Ok(scheduler)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::dev;
    use crate::run::{DataLock, Server};
    use crate::store::{By, StoredLayer};
    use futures_util::FutureExt;
    use skerry_wire::DiffId;
    use std::io::Write;

    async fn server(folder: &std::path::Path, change: impl FnOnce(&mut Config)) -> Server {
        let address = dev::Address::new("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let mut config = dev::prepare(folder, &address).unwrap();
        change(&mut config);
        Server::start(config, DataLock::take(folder).unwrap()).await.unwrap()
    }

    /// An object with a row that nothing names any more: the index of a layer, made again and failed.
    async fn unnamed(app: &App, at: Timestamp) -> Digest {
        let mut object = app.objects.begin().unwrap();
        object.write_all(&at.0.to_le_bytes()).unwrap();
        let pin = app.objects.pin().await;
        let (digest, size) = object.keep(&pin).unwrap();
        let by = By { who: "test".to_owned(), at };
        let layer = StoredLayer { diff_id: DiffId(Digest::new([1; 32])), size: 1, stored: 1, object: Digest::new([2; 32]) };
        app.store.add_layer(layer.clone(), by).await.unwrap();
        app.store.put_layer_index(layer.diff_id, Ok((digest, size)), at).await.unwrap();
        app.store.put_layer_index(layer.diff_id, Err("test".to_owned()), at).await.unwrap();
        digest
    }

    #[tokio::test]
    async fn unnamed_objects_go_after_their_grace() {
        let folder = tempfile::tempdir().unwrap();
        let server = server(folder.path(), |_| {}).await;
        let app = server.app();
        let now = Timestamp(10_000_000_000);
        let grace = app.config.housekeeping.object_grace.0;
        let (old, young) = (unnamed(app, Timestamp(0)).await, unnamed(app, Timestamp(now.0 - 1)).await);
        assert_eq!(Chore::Objects.run(app, now).await.unwrap(), "1 objects");
        assert!(app.objects.open_object(&old).is_err());
        assert!(app.objects.open_object(&young).is_ok());
        assert_eq!(app.store.object(old).await.unwrap(), None);
        assert_eq!(Chore::Objects.run(app, now.after(grace)).await.unwrap(), "1 objects");
        assert!(app.objects.open_object(&young).is_err());
        server.stop().await;
    }

    #[tokio::test]
    async fn files_without_a_row_go_and_those_with_one_stay() {
        let folder = tempfile::tempdir().unwrap();
        let server = server(folder.path(), |_| {}).await;
        let app = server.app();
        let young = unnamed(app, Timestamp(9_999)).await;
        let mut object = app.objects.begin().unwrap();
        object.write_all(b"a request that ended too early").unwrap();
        let (orphan, _) = object.keep(&app.objects.pin().await).unwrap();
        collect_objects(app.store.as_ref(), &app.objects, Timestamp(0)).await.unwrap();
        assert!(app.objects.open_object(&orphan).is_err());
        assert!(app.objects.open_object(&young).is_ok());
        server.stop().await;
    }

    #[tokio::test]
    async fn a_chore_that_still_runs_is_not_begun_again() {
        let folder = tempfile::tempdir().unwrap();
        let server = server(folder.path(), |_| {}).await;
        let guarded = Guarded { chore: Chore::Objects, running: AtomicBool::new(false) };
        // While an object is pinned the chore waits.
        let pin = server.app().objects.pin().await;
        let mut first = Box::pin(guarded.trigger(server.app()));
        assert!((&mut first).now_or_never().is_none());
        assert!(!guarded.trigger(server.app()).await);
        drop(pin);
        assert!(first.await);
        assert!(guarded.trigger(server.app()).await);
        server.stop().await;
    }

    #[tokio::test]
    async fn the_scheduler_does_what_the_configuration_says() {
        let folder = tempfile::tempdir().unwrap();
        let server = server(folder.path(), |config| config.housekeeping.objects = "* * * * * *".to_owned()).await;
        let digest = unnamed(server.app(), Timestamp(0)).await;
        let gone = async {
            while server.app().store.object(digest).await.unwrap().is_some() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), gone).await.unwrap();
        server.stop().await;
    }
}
