//! Work that blocks: on the disk, beside the runtime's one thread.

use std::path::Path;

use skerry_engine::EngineError;
use tokio::task::JoinError;

/// Runs it on one of the runtime's threads for such work. Where time is played there are no threads: it is done at once.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    #[cfg(feature = "simulation")]
    if crate::simulate::machine().is_some() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

/// Brings what the engine wrote onto the disk.
pub(crate) fn sync_engine(data_root: &Path) -> Result<(), EngineError> {
    #[cfg(feature = "simulation")]
    if let Some(machine) = crate::simulate::machine() {
        machine.sync_engine();
        return Ok(());
    }
    skerry_engine::sync(data_root)
}
