//! The engine's event stream, as hints for the main loop to look again.

use std::time::Duration;

use futures_util::StreamExt;
use skerry_engine::Engine;
use skerry_reconcile::node_label;
use tokio::sync::mpsc;

use crate::ledger::Ledger;
use crate::run::Hint;

/// Before the stream is opened again, and before looking whether the node has enrolled by now.
const AGAIN: Duration = Duration::from_secs(5);

/// Follows the engine's words about this node's containers, for ever.
pub(crate) async fn follow(engine: impl Engine, ledger: Ledger, hints: mpsc::Sender<Hint>) {
    loop {
        if let Some(node) = ledger.node() {
            let label = node_label(&node);
            let mut changes = std::pin::pin!(engine.changes(&label));
            while let Some(Ok(())) = changes.next().await {
                // When the queue is full a look is due anyway.
                let _ = hints.try_send(Hint::Look);
            }
            // This one carries something, and a stream that breaks comes behind many words of containers that end: it waits for room.
            if hints.send(Hint::Interrupted).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}
