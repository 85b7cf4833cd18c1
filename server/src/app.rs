//! What every part of the server shares.

use std::path::PathBuf;
use std::sync::Arc;

use ring::rand::SystemRandom;
use skerry_trust::{KeyError, RootError, SigningKey, TrustedRoot};
use skerry_wire::Blob;
use tokio::sync::Semaphore;

use crate::agent_api::Agents;
use crate::builds::Builds;
use crate::checked::Checked;
use crate::config::{self, Config};
use crate::director::{Director, NotDirector};
use crate::fleet::watch::Watch;
use crate::indexes::Indexes;
use crate::metrics::Metrics;
use crate::objects::Objects;
use crate::store::Store;

/// What every part of the server shares.
pub struct App {
    /// The configuration.
    pub config: Config,
    /// The database.
    pub store: Arc<dyn Store>,
    /// The object folder.
    pub objects: Objects,
    /// Which of its files are whole.
    pub checked: Checked,
    /// The director's key and the root in force.
    pub director: Arc<Director>,
    /// All root files, oldest first.
    pub roots: Vec<Vec<u8>>,
    /// What is counted.
    pub metrics: Metrics,
    /// Where keys and secrets come from.
    pub random: SystemRandom,
    /// Layers that are being uploaded.
    pub uploads: Arc<Semaphore>,
    /// Who was heard of, and what admits nodes to objects.
    pub agents: Agents,
    /// The way to the workers that build bundles.
    pub builds: Builds,
    /// The way to the worker that indexes layers.
    pub indexes: Indexes,
    /// What is planned anew by the clock.
    pub watch: Watch,
}

impl App {
    /// The root files newer than a version, oldest first.
    pub fn roots_after(&self, version: u64) -> Vec<Blob> {
        let newest = self.director.root().root().version;
        let oldest = newest.saturating_add(1).saturating_sub(self.roots.len() as u64);
        // Version 1 is never sent: a node has its first root by a trusted way.
        let newer = (oldest..).zip(&self.roots).filter(|(n, _)| *n > version.max(1));
        newer.map(|(_, bytes)| Blob(bytes.clone())).collect()
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Why the server's trust cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}\nhelp: check trust.roots and trust.director_key in the configuration", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A root file is refused.
    #[error("{}: {source}\nhelp: trust.roots must list root files oldest first, without a gap", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<RootError>,
    },
    /// No root is named.
    #[error("no root document\nhelp: name one in trust.roots")]
    NoRoot,
    /// The key file is not one.
    #[error("{}: {source}\nhelp: trust.director_key must be a key file as `skerry key generate` writes it", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// The root does not name the key.
    #[error(transparent)]
    NotDirector(#[from] NotDirector),
}

/// Reads roots and the director's key. Blocks.
pub fn load_trust(trust: &config::Trust) -> Result<(Director, Vec<Vec<u8>>), TrustError> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|source| TrustError::Read { path: path.clone(), source });
    let mut roots = Vec::new();
    let mut newest: Option<TrustedRoot> = None;
    for path in &trust.roots {
        let bytes = read(path)?;
        let next = match &newest {
            None => TrustedRoot::first(&bytes),
            Some(before) => before.update(&bytes),
        };
        newest = Some(next.map_err(|source| TrustError::Root { path: path.clone(), source: Box::new(source) })?);
        roots.push(bytes);
    }
    let key = SigningKey::from_text(&String::from_utf8_lossy(&read(&trust.director_key)?))
        .map_err(|source| TrustError::Key { path: trust.director_key.clone(), source })?;
    Ok((Director::new(key, newest.ok_or(TrustError::NoRoot)?)?, roots))
}
