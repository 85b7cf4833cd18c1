//! What tasks wrote, on its way to the operator: the order goes to the node with a poll's reply, the answer comes with the next poll.
//!
//! One order at a time, so that a link which breaks in the middle has lost no more than [`crate::limits::LOG_ANSWER`]. A node keeps neither:
//! an order that was not answered comes again with the next reply.

use serde::{Deserialize, Serialize};

use crate::{AllocId, Blob, LogOrderId};

/// The server wants the end of what a task wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOrder {
    /// Its id; the answer carries it.
    #[serde(rename = "i")]
    pub id: LogOrderId,
    /// The allocation.
    #[serde(rename = "a")]
    pub alloc: AllocId,
    /// The task; none where the allocation has only one.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Lines, from the end.
    #[serde(rename = "n")]
    pub lines: u32,
}

/// What a node answers to a [`LogOrder`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogAnswer {
    /// Id of the order.
    #[serde(rename = "i")]
    pub id: LogOrderId,
    /// The lines, or why there are none.
    #[serde(rename = "l")]
    pub lines: Result<LogLines, String>,
}

/// The end of what a task wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLines {
    /// The task.
    #[serde(rename = "t")]
    pub task: String,
    /// Its output, packed (zlib, RFC 1950): at most [`crate::limits::LOG_ANSWER`] bytes, and [`crate::limits::LOG_TEXT`] unpacked.
    #[serde(rename = "z")]
    pub packed: Blob,
    /// Were lines that were ordered left out, because there was no room for them?
    #[serde(rename = "c", default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor;

    #[test]
    fn there_and_back() {
        let (id, alloc) = (LogOrderId::new([1; 16]), AllocId::new([2; 16]));
        for task in [None, Some("web".to_owned())] {
            let order = LogOrder { id, alloc, task, lines: 100 };
            assert_eq!(cbor::decode::<LogOrder>(&cbor::encode(&order), 200).unwrap(), order);
        }
        for cut in [false, true] {
            let lines = LogLines { task: "web".to_owned(), packed: Blob(vec![1, 2, 3]), cut };
            for lines in [Ok(lines), Err("it has none".to_owned())] {
                let answer = LogAnswer { id, lines };
                assert_eq!(cbor::decode::<LogAnswer>(&cbor::encode(&answer), 200).unwrap(), answer);
            }
        }
    }
}
