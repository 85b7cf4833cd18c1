//! Which allocations are lost: their node was silent for longer than their group's `lost_after`.
//!
//! The verdict stands until the node is heard again. It is for people, and where the job asks for a replacement the planner places one.
//! What is lost is not stopped: it may be running still.

use std::collections::BTreeMap;

use skerry_wire::{AllocId, Millis, NodeId};

/// An allocation whose group says when it is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// It.
    pub alloc: AllocId,
    /// Its node.
    pub node: NodeId,
    /// The group's `lost_after`.
    pub lost_after: Millis,
    /// The verdict so far.
    pub lost: bool,
}

/// What the server knows of a node's silence from its own observation: time that it did not watch, because it was not running, is
/// not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Silence {
    /// Since the last contact, or since the server started to watch.
    pub observed: Millis,
    /// Was the node heard since the server started to watch?
    pub heard: bool,
}

/// Verdicts that change, each list in the order of the input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Lost from now on.
    pub lost: Vec<AllocId>,
    /// Found again.
    pub back: Vec<AllocId>,
}

impl Verdicts {
    /// Does nothing change?
    pub fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.back.is_empty()
    }
}

/// Judges each watched allocation; `watched_for` is how long the server has watched, which is the silence of a node that it never heard.
pub fn judge(watched: &[Watched], silences: &BTreeMap<NodeId, Silence>, watched_for: Millis) -> Verdicts {
    let mut verdicts = Verdicts::default();
    for one in watched {
        let silence = silences.get(&one.node).copied().unwrap_or(Silence { observed: watched_for, heard: false });
        let silent = silence.observed >= one.lost_after;
        match one.lost {
            false if silent => verdicts.lost.push(one.alloc),
            // A server that has just started knows nothing of a node that it has not heard: the verdict from before stands.
            true if !silent && silence.heard => verdicts.back.push(one.alloc),
            _ => {}
        }
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let node = NodeId::new([1; 16]);
        for (observed, heard, lost_before, lost, back) in [
            (9_999, true, false, 0, 0),
            (10_000, true, false, 1, 0),
            // Never heard by this server, but watched for long enough.
            (10_000, false, false, 1, 0),
            (9_999, false, false, 0, 0),
            (10_000, true, true, 0, 0),
            // Just started: what was lost stays lost until it is heard.
            (0, false, true, 0, 0),
            (0, true, true, 0, 1),
        ] {
            let watched = [Watched { alloc: AllocId::new([2; 16]), node, lost_after: Millis(10_000), lost: lost_before }];
            let silence = Silence { observed: Millis(observed), heard };
            let verdicts = judge(&watched, &[(node, silence)].into(), Millis(1 << 40));
            assert_eq!((verdicts.lost.len(), verdicts.back.len()), (lost, back), "{silence:?} {lost_before}");
            assert_eq!(verdicts.is_empty(), lost + back == 0);
            if !heard {
                assert_eq!(judge(&watched, &BTreeMap::new(), Millis(observed)), verdicts, "a node that was never heard");
            }
        }
    }
}
