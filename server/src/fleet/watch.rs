//! What is planned anew without anybody's order: silent nodes, drains whose deadline has come, replacements that run by now.
//!
//! A tick looks at what the server remembers of contacts and asks the planner. Between ticks polls only leave word that there is
//! something to do, so ten thousand nodes that report at once cost one planning.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use skerry_plan::presence;
use skerry_wire::Timestamp;
use tokio::sync::watch;

use crate::app::App;
use crate::clock;
use crate::store::StoreError;

/// Between two ticks.
const TICK: Duration = Duration::from_secs(5);

/// What the next tick has to do.
#[derive(Debug)]
pub struct Watch {
    stirred: AtomicBool,
    /// The server's clock at the last tick.
    last: AtomicI64,
}

impl Default for Watch {
    /// The first tick of a server makes up for what was left undone when it stopped.
    fn default() -> Self {
        Self { stirred: AtomicBool::new(true), last: AtomicI64::new(i64::MIN) }
    }
}

impl Watch {
    /// Something is to be planned anew.
    pub fn stir(&self) {
        self.stirred.store(true, Ordering::Release);
    }
}

/// Ticks until `stop` turns true.
pub async fn run(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    loop {
        // Cancel-safe: both only wait.
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if let Err(error) = tick(&app, clock::now()).await {
            tracing::warn!(%error, "what is planned by the clock was not; the next tick tries again");
        }
    }
}

/// Judges silences and plans anew where there is a reason to; was there one?
pub async fn tick(app: &App, now: Timestamp) -> Result<bool, StoreError> {
    let watched = app.store.watched().await?;
    let (silences, listens) = app.agents.contacts.silences();
    let verdicts = presence::judge(&watched, &silences, listens);
    let last = Timestamp(app.watch.last.load(Ordering::Acquire));
    let due = app.store.drain_due(last, now).await?;
    // Not before the answer: a deadline that could not be asked for is asked for again.
    app.watch.last.store(now.0, Ordering::Release);
    let stirred = app.watch.stirred.swap(false, Ordering::AcqRel);
    if verdicts.is_empty() && !due && !stirred {
        return Ok(false);
    }
    let (lost, back) = (verdicts.lost.len(), verdicts.back.len());
    match app.store.replan(verdicts, Arc::clone(&app.director), now).await {
        Ok((starts, stops)) => {
            if lost + back + starts + stops > 0 {
                tracing::info!(lost, back, starts, stops, "planned by the clock");
            }
            Ok(true)
        }
        Err(error) => {
            app.watch.stir();
            Err(error)
        }
    }
}
