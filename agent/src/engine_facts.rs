//! What the engine is and can do: asked at start, when it was away, and now and then; tried out once per engine.
//!
//! Out: [`EngineFacts`] for those who load images, the fingerprint for the uplink, a line for `status`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skerry_engine::{Abilities, Engine, EngineError, Info, probe};
use tokio::sync::watch;

use crate::facts::Facts;
use crate::files;
use crate::status::EngineReport;

/// Between two questions to an engine that answers: its free disk changes.
const EVERY: Duration = Duration::from_secs(15 * 60);
/// First and longest wait for one that does not.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Where the result of trying it out is kept.
const FILE: &str = "engine.json";

/// An engine, with what it can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EngineFacts {
    /// What it is.
    pub(crate) info: Info,
    /// What it can do.
    pub(crate) abilities: Abilities,
}

/// What was found out, about which engine.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tried {
    agent: String,
    version: String,
    storage_driver: String,
    data_root: PathBuf,
    layers_in_place: bool,
    accepts_partial_load: bool,
}

/// Where the facts go.
#[derive(Debug)]
pub(crate) struct Outlets {
    /// For those who load images.
    pub(crate) engine: watch::Sender<Option<Arc<EngineFacts>>>,
    /// For the uplink.
    pub(crate) facts: Facts,
    /// For `status`.
    pub(crate) report: watch::Sender<EngineReport>,
}

/// Keeps the facts fresh, for ever.
pub(crate) async fn watch_engine(engine: impl Engine, folder: PathBuf, outlets: Outlets) {
    let (mut failures, mut report) = (0_u32, outlets.report.subscribe());
    loop {
        let before = report.borrow_and_update().interruptions;
        let wait = match ask(&engine, &folder).await {
            Ok(found) => {
                failures = 0;
                tell(&outlets, found);
                EVERY
            }
            Err(error) => {
                if failures == 0 {
                    tracing::error!("{error}");
                }
                failures = failures.saturating_add(1);
                RETRY.0.saturating_mul(1 << failures.min(10)).min(RETRY.1)
            }
        };
        // One that was away may come back as another version, or with another store. Cancel-safe: the count is kept.
        tokio::select! {
            biased;
            _ = report.wait_for(|r| r.interruptions != before) => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn tell(outlets: &Outlets, found: EngineFacts) {
    let about = about(&found.info);
    outlets.report.send_if_modified(|r| r.about.replace(about.clone()).as_ref() != Some(&about));
    let found = Arc::new(found);
    outlets.facts.set_engine(Arc::clone(&found));
    let found = Some(found);
    outlets.engine.send_if_modified(|old| {
        let changed = *old != found;
        *old = found;
        changed
    });
}

/// The engine in a few words.
fn about(info: &Info) -> String {
    let store = if info.containerd_store { " of containerd" } else { "" };
    format!("Docker {} with {}{store}", info.version, info.storage_driver)
}

/// Asks, and tries out what is not known yet of this engine.
async fn ask(engine: &impl Engine, folder: &Path) -> Result<EngineFacts, EngineError> {
    let info = engine.info().await?;
    let path = folder.join(FILE);
    let kept = files::read(&path, 4096).ok().flatten().and_then(|b| serde_json::from_slice::<Tried>(&b).ok());
    let agent = env!("CARGO_PKG_VERSION");
    let same = |t: &Tried| {
        t.agent == agent && t.version == info.version && t.storage_driver == info.storage_driver && t.data_root == info.data_root
    };
    if let Some(tried) = kept.filter(same) {
        let abilities = Abilities { layers_in_place: tried.layers_in_place, accepts_partial_load: tried.accepts_partial_load };
        return Ok(EngineFacts { info, abilities });
    }
    let abilities = probe(engine).await?;
    let tried = Tried {
        agent: agent.to_owned(),
        version: info.version.clone(),
        storage_driver: info.storage_driver.clone(),
        data_root: info.data_root.clone(),
        layers_in_place: abilities.layers_in_place,
        accepts_partial_load: abilities.accepts_partial_load,
    };
    let bytes = serde_json::to_vec(&tried).unwrap_or_default();
    if let Err(error) = files::replace(&path, &bytes, 0o600) {
        tracing::warn!("what the engine can do will be found out again at the next start: {error}");
    }
    Ok(EngineFacts { info, abilities })
}
