//! A running server: everything opened, everything started, and stopped in order.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use ring::rand::SystemRandom;
use rustix::fs::{FlockOperation, flock};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::agent_api::{self, Agents};
use crate::app::{App, load_trust};
use crate::builds::{self, Builds, BundleMaker};
use crate::checked::Checked;
use crate::config::Config;
use crate::fleet::watch::Watch;
use crate::http::{listen, router};
use crate::indexes::{self, IndexEstimator, Indexes};
use crate::metrics::Metrics;
use crate::objects::Objects;
use crate::store::{BuildStore, SqliteStore, Store, database_path};
use crate::{clock, fleet, housekeeping, secret, tls};

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    _lock: DataLock,
}

/// The data folder is this process's alone while it is held.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another server has it.
    #[error("{}: another skerry-server uses this data folder\nhelp: stop it, or give this one a `data` folder of its own", .0.display())]
    InUse(PathBuf),
    /// It cannot be made or opened.
    #[error("{}: {source}\nhelp: `data` must be a folder that the server may write to", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DataLock {
    /// Makes the folder if need be and takes it.
    pub fn take(data: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: data.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(failed)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(data.join("lock")).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::InUse(data.to_owned())),
            Err(error) => Err(failed(error.into())),
        }
    }
}

impl Server {
    /// Opens everything that the configuration names and starts to listen.
    pub async fn start(config: Config, lock: DataLock) -> anyhow::Result<Self> {
        let opened = config.clone();
        let open = move || -> anyhow::Result<_> {
            let (director, roots) = load_trust(&opened.trust)?;
            let tls = tls::load(&opened.tls.certificate, &opened.tls.key)?;
            let path = database_path(&opened.data);
            let store = SqliteStore::open(&path).map_err(|error| error.on_open(&path))?;
            let objects = Objects::open(&opened.data).with_context(|| {
                let objects = opened.data.join("objects");
                format!(
                    "{}: the objects cannot be opened\nhelp: the server's user must be able to write it; see its owner",
                    objects.display()
                )
            })?;
            Ok((director, roots, tls, store, objects))
        };
        let (director, roots, tls, store, objects) = tokio::task::spawn_blocking(open).await??;
        let director = Arc::new(director);
        housekeeping::check_objects(&store, &objects, clock::now()).await?;
        let listener = TcpListener::bind(config.listen).await.with_context(|| {
            format!("cannot listen on {}\nhelp: another program may have this port; choose another one with `listen`", config.listen)
        })?;
        let address = listener.local_addr()?;
        let random = SystemRandom::new();
        let agents = Agents::new(&store.object_key(secret::random(&random)?).await?);
        let maker = BundleMaker::new(objects.clone(), Arc::clone(&director), &config.builds);
        let store: Arc<dyn Store> = Arc::new(store);
        let estimator = IndexEstimator::new(Arc::clone(&store), objects.clone(), Handle::current());
        let builds = Builds::new(Arc::new(maker), Arc::new(estimator));
        let uploads = Arc::new(Semaphore::new(usize::try_from(config.limits.uploads)?));
        let app = Arc::new(App {
            config,
            store,
            objects,
            checked: Checked::default(),
            director,
            roots,
            metrics: Metrics::new(),
            random,
            uploads,
            agents,
            builds,
            indexes: Indexes::default(),
            watch: Watch::default(),
        });
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(listen::serve(listener, TlsAcceptor::from(tls), router(&app), app.config.limits.clone(), stopping.clone()));
        tasks.spawn(housekeeping::run(Arc::clone(&app), stopping.clone()));
        tasks.spawn(agent_api::keep_contacts(Arc::clone(&app), stopping.clone()));
        tasks.spawn(fleet::watch::run(Arc::clone(&app), stopping.clone()));
        tasks.spawn(indexes::run(Arc::clone(&app), stopping.clone()));
        tasks.spawn(builds::run(Arc::clone(&app), stopping));
        Ok(Self { app, address, stop, tasks, _lock: lock })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its parts share.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Stops: no new connections, requests under way end, everything is on the disk.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the server ended badly");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_has_one_server() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataLock::take(folder.path()).unwrap();
        let error = DataLock::take(folder.path()).unwrap_err();
        assert!(matches!(error, LockError::InUse(_)));
        assert!(error.to_string().contains("another skerry-server uses this data folder"));
        drop(first);
        DataLock::take(folder.path()).unwrap();
        let file = folder.path().join("lock").join("data");
        assert!(matches!(DataLock::take(&file), Err(LockError::Io { .. })));
    }
}
