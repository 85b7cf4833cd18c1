//! Orders for what tasks wrote: kept until their node has answered; orders and answers go with retention, and answers
//! when their node has given many newer ones.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row};
use skerry_wire::api::LogStatus;
use skerry_wire::logs::{LogAnswer, LogOrder};
use skerry_wire::{AllocId, LogOrderId, NodeId, Timestamp, cbor, limits};

use super::audit::{self, By};
use super::{SqliteStore, StoreError, fleet};
use crate::unpack;

/// Answers that are kept of one node.
const ANSWERS: u32 = 64;

/// Why an order is not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogRefusal {
    /// There is no such allocation.
    #[error("there is none of this id")]
    Unknown,
    /// The node has enough to answer.
    #[error("its node has {} orders for output to answer already", limits::LOG_ORDERS)]
    TooMany,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for LogRefusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Output of tasks.
#[async_trait]
pub trait LogStore {
    /// Keeps an order for somebody (`Ada <ada@example.org>`), and gives its id: that of an equal one which waits already, else the order's
    /// own.
    async fn order_log(&self, order: LogOrder, whose: String, by: By) -> Result<LogOrderId, LogRefusal>;

    /// The oldest order that the node has not answered.
    async fn open_log_order(&self, node: NodeId) -> Result<Option<LogOrder>, StoreError>;

    /// Keeps what a node answered. An answer to no order of its, or to one that has an answer, is passed over.
    async fn answer_log(&self, node: NodeId, answer: LogAnswer, now: Timestamp) -> Result<(), StoreError>;

    /// An order, with its answer once there is one.
    async fn log(&self, id: LogOrderId) -> Result<Option<LogStatus>, StoreError>;
}

fn order(c: &Connection, order: &LogOrder, whose: &str, by: &By) -> Result<LogOrderId, LogRefusal> {
    let alloc = c
        .prepare_cached("SELECT node, job FROM allocs WHERE id = ?1")?
        .query_row([order.alloc.as_bytes()], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, String>(1)?)))
        .optional()?;
    let (node, job) = alloc.ok_or(LogRefusal::Unknown)?;
    let equal = c
        .prepare_cached("SELECT id FROM log_orders WHERE node = ?1 AND alloc = ?2 AND task IS ?3 AND lines = ?4 AND answered_at IS NULL")?
        .query_row((node, order.alloc.as_bytes(), &order.task, order.lines), |row| row.get(0))
        .optional()?;
    if let Some(id) = equal {
        return Ok(LogOrderId::new(id));
    }
    let open: u32 =
        c.prepare_cached("SELECT count(*) FROM log_orders WHERE node = ?1 AND answered_at IS NULL")?.query_row([node], |row| row.get(0))?;
    if open >= limits::LOG_ORDERS {
        return Err(LogRefusal::TooMany);
    }
    c.prepare_cached("INSERT INTO log_orders (id, node, alloc, task, lines, ordered_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute((
        order.id.as_bytes(),
        node,
        order.alloc.as_bytes(),
        &order.task,
        order.lines,
        by.at.0,
    ))?;
    let alloc = order.alloc;
    audit::append(c, by, &format!("output of allocation {alloc} of job {job} is to be sent, for {whose}"))?;
    Ok(order.id)
}

fn open(c: &Connection, node: NodeId) -> Result<Option<LogOrder>, StoreError> {
    let mut query = c.prepare_cached(
        "SELECT id, alloc, task, lines FROM log_orders WHERE node = ?1 AND answered_at IS NULL ORDER BY ordered_at, id LIMIT 1",
    )?;
    let row = query.query_row([node.as_bytes()], |row| {
        let (id, alloc) = (LogOrderId::new(row.get(0)?), AllocId::new(row.get(1)?));
        Ok(LogOrder { id, alloc, task: row.get(2)?, lines: row.get(3)? })
    });
    Ok(row.optional()?)
}

const STATUS: &str = "SELECT o.id, o.alloc, o.node, n.name, n.last_seen, o.task, o.lines, o.ordered_at, o.answered_at, o.answer
    FROM log_orders o JOIN nodes n ON n.id = o.node WHERE o.id = ?1";

fn status(row: &Row<'_>) -> Result<LogStatus, StoreError> {
    let mut status = LogStatus {
        id: LogOrderId::new(row.get(0)?),
        alloc: AllocId::new(row.get(1)?),
        node: NodeId::new(row.get(2)?),
        node_name: row.get(3)?,
        last_seen: row.get::<_, Option<i64>>(4)?.map(Timestamp),
        task: row.get(5)?,
        lines: row.get(6)?,
        ordered_at: Timestamp(row.get(7)?),
        answered_at: row.get::<_, Option<i64>>(8)?.map(Timestamp),
        text: None,
        cut: false,
        error: None,
    };
    let Some(answer) = row.get::<_, Option<Vec<u8>>>(9)? else { return Ok(status) };
    let answer: LogAnswer = cbor::decode(&answer, usize::MAX).map_err(|e| fleet::damaged("what a task wrote", e))?;
    match answer.lines {
        Err(reason) => status.error = Some(reason),
        Ok(lines) => match unpack::zlib(&lines.packed.0, limits::LOG_TEXT) {
            Ok(text) => {
                (status.task, status.cut) = (Some(lines.task), lines.cut);
                status.text = Some(String::from_utf8_lossy(&text).into_owned());
            }
            Err(error) => status.error = Some(format!("what the node sent cannot be read: {error}")),
        },
    }
    Ok(status)
}

#[async_trait]
impl LogStore for SqliteStore {
    async fn order_log(&self, new: LogOrder, whose: String, by: By) -> Result<LogOrderId, LogRefusal> {
        self.write(move |c| order(c, &new, &whose, &by)).await
    }

    async fn open_log_order(&self, node: NodeId) -> Result<Option<LogOrder>, StoreError> {
        self.read(move |c| open(c, node)).await
    }

    async fn answer_log(&self, node: NodeId, answer: LogAnswer, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |c| {
            c.prepare_cached("UPDATE log_orders SET answer = ?3, answered_at = ?4 WHERE id = ?1 AND node = ?2 AND answered_at IS NULL")?
                .execute((answer.id.as_bytes(), node.as_bytes(), cbor::encode(&answer), now.0))?;
            c.prepare_cached(
                "DELETE FROM log_orders WHERE id IN (SELECT id FROM log_orders WHERE node = ?1 AND answered_at IS NOT NULL
                 ORDER BY answered_at DESC, ordered_at DESC LIMIT -1 OFFSET ?2)",
            )?
            .execute((node.as_bytes(), ANSWERS))?;
            Ok(())
        })
        .await
    }

    async fn log(&self, id: LogOrderId) -> Result<Option<LogStatus>, StoreError> {
        self.read(move |c| {
            let mut query = c.prepare_cached(STATUS)?;
            let mut rows = query.query([id.as_bytes()])?;
            rows.next()?.map(status).transpose()
        })
        .await
    }
}
