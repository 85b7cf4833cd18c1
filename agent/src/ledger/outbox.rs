//! The outbox: reports that the server has not acknowledged yet, oldest first, bounded.
//!
//! A report leaves it when the server says that it has it on its disk, or when the outbox is full: then reports of progress go first,
//! and what goes is counted in one [`Event::Dropped`]. The place of an image's report of progress is taken by its newer one.

use std::collections::BTreeSet;

use rusqlite::{Connection, Transaction, params};
use skerry_wire::poll::{Event, Report};
use skerry_wire::{Timestamp, cbor, limits};

use super::store::{State, next_sequence, use_sequence};
use super::{LedgerError, OutboxState};

/// Reports that may wait.
pub(super) const ROWS: u64 = 4096;
/// The longest text of a reason in a report, in bytes; the beginning says what failed.
const REASON: usize = 2048;
/// No node ever sends more reports; numbers up to here can be added without leaving SQLite's integers.
const SEQUENCES: u64 = 1 << 62;
/// Why reports are given up when there are more.
const FULL: &str = "the node's outbox was full: its server could not be reached for long";
/// Reports given up at once when there are more.
const BATCH: u64 = 64;

/// A report of progress: a newer one says all that it said.
fn is_light(event: &Event) -> bool {
    matches!(event, Event::ImageInTransit { .. } | Event::ImageWaiting { .. })
}

/// Does anything here want to be told at once?
pub(super) fn any_urgent(events: &[Event]) -> bool {
    events.iter().any(|e| !is_light(e))
}

/// Puts events into the outbox within a transaction.
pub(super) fn push(t: &Transaction<'_>, at: Timestamp, events: &[Event]) -> rusqlite::Result<()> {
    for event in events {
        let image = match event {
            Event::ImageInTransit { image, .. } | Event::ImageWaiting { image, .. } => {
                t.execute("DELETE FROM outbox WHERE light = 1 AND image = ?1", [image.digest().as_bytes()])?;
                Some(*image.digest().as_bytes())
            }
            _ => None,
        };
        let seq = next_sequence(t)?;
        insert(t, seq, at, image, event)?;
        use_sequence(t, seq)?;
    }
    make_room(t, at)
}

fn insert(t: &Transaction<'_>, seq: u64, at: Timestamp, image: Option<[u8; 32]>, event: &Event) -> rusqlite::Result<()> {
    let bytes = cbor::encode(&shortened(event.clone()));
    t.prepare_cached("INSERT INTO outbox (seq, at, light, image, event) VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        seq,
        at.0,
        is_light(event),
        image,
        bytes
    ])?;
    Ok(())
}

/// Reasons come from engines and files: a bound keeps a poll within its limit.
fn shortened(mut event: Event) -> Event {
    if let Event::ManifestRefused { reason, .. }
    | Event::ImageFailed { reason, .. }
    | Event::Alloc { reason, .. }
    | Event::Dropped { reason, .. } = &mut event
        && reason.len() > REASON
    {
        reason.truncate(reason.floor_char_boundary(REASON));
        reason.push('…');
    }
    event
}

/// When there are too many, gives up a batch: progress first, then the oldest. Their count takes the sequence of the newest of them,
/// which the server has not acknowledged, so that it cannot take the count for something it has.
fn make_room(t: &Transaction<'_>, at: Timestamp) -> rusqlite::Result<()> {
    let rows: u64 = t.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))?;
    if rows <= ROWS {
        return Ok(());
    }
    let batch: Vec<(u64, Vec<u8>)> = t
        .prepare_cached("SELECT seq, event FROM outbox ORDER BY light DESC, seq LIMIT ?1")?
        .query_map([rows - ROWS + BATCH], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut count = 0u64;
    let mut reasons = BTreeSet::from([FULL.to_owned()]);
    for (seq, event) in &batch {
        count = count.saturating_add(match cbor::decode(event, limits::POLL_REQUEST) {
            Ok(Event::Dropped { count, reason }) => {
                reasons.extend(reason.split("; ").map(str::to_owned));
                count
            }
            _ => 1,
        });
        t.prepare_cached("DELETE FROM outbox WHERE seq = ?1")?.execute([seq])?;
    }
    let Some(newest) = batch.iter().map(|(seq, _)| *seq).max() else { return Ok(()) };
    let reason = Vec::from_iter(reasons).join("; ");
    insert(t, newest, at, None, &Event::Dropped { count, reason })
}

impl State {
    pub(super) fn push_events(&mut self, events: &[Event]) -> Result<(), LedgerError> {
        if events.is_empty() {
            return Ok(());
        }
        let at = self.now();
        self.transact(|t| push(t, at, events))?;
        self.refresh_outbox(any_urgent(events))
    }

    pub(super) fn oldest_reports(&mut self, limit: usize) -> Result<Vec<Report>, LedgerError> {
        let at = self.at();
        let mut statement = self.connection.prepare_cached("SELECT seq, at, event FROM outbox ORDER BY seq LIMIT ?1").map_err(&at)?;
        let rows = statement
            .query_map([limit], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?)))
            .map_err(&at)?;
        let mut reports = Vec::new();
        let mut bytes = 0;
        for row in rows {
            let (seq, happened, event) = row.map_err(&at)?;
            bytes += event.len();
            if bytes > limits::POLL_REQUEST / 2 && !reports.is_empty() {
                break;
            }
            let event = cbor::decode(&event, limits::POLL_REQUEST)
                .unwrap_or_else(|error| Event::Dropped { count: 1, reason: format!("a report was garbled in the node's ledger: {error}") });
            reports.push(Report { seq, at: Timestamp(happened), event });
        }
        Ok(reports)
    }

    pub(super) fn acknowledged(&mut self, seq: u64) -> Result<(), LedgerError> {
        let at = self.at();
        if seq > SEQUENCES {
            tracing::warn!("the server says that it has report {seq}, which no node ever sent: passed over");
            return Ok(());
        }
        let next = next_sequence(&self.connection).map_err(&at)?;
        let known = |c: &Connection| c.query_row("SELECT count(*) FROM outbox WHERE seq <= ?1", [seq], |row| row.get::<_, u64>(0));
        // Every reply says it; the disk is written only when it is news.
        if seq < next && known(&self.connection).map_err(&at)? == 0 {
            return Ok(());
        }
        self.transact(|t| {
            if seq < next {
                t.execute("DELETE FROM outbox WHERE seq <= ?1", [seq])?;
                return Ok(());
            }
            // The server has reports of this node that the ledger does not remember: it was made anew. What waits gets numbers above
            // those, else the server would take it for what it has. By way of negative numbers: no two rows may meet.
            t.execute("UPDATE outbox SET seq = -seq", [])?;
            t.execute("UPDATE outbox SET seq = ?1 - seq", [seq])?;
            use_sequence(t, seq.saturating_add(next - 1))
        })?;
        self.refresh_outbox(false)
    }

    pub(super) fn refresh_outbox(&mut self, urgent: bool) -> Result<(), LedgerError> {
        let pending = self.connection.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).map_err(self.at())?;
        self.outbox.send_if_modified(|state| {
            let before = *state;
            *state = OutboxState { pending, urgent: state.urgent + u64::from(urgent) };
            *state != before
        });
        Ok(())
    }
}
