//! What the agent shows of itself, on the node, with or without the server: the `status` command.
//!
//! In: the newest decision, checks, images on their way. Out: JSON, or text for people: what runs, why, and what it waits for, until when.
//! When no agent runs, the command reads the ledger instead and says so.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use skerry_reconcile::{AllocView, CheckId, CheckState, Memory, NeededImage};
use skerry_transfer::Budget;
use skerry_wire::manifest::Mark;
use skerry_wire::poll::AllocStatus;
use skerry_wire::{AllocId, ImageId, Millis, NodeId, Timestamp, cbor};
use tokio::sync::watch;

use crate::checks::Checks;
use crate::clock::boottime_ms;
use crate::control::{self, Request};
use crate::ledger::{Ledger, Removed};
use crate::lock::{Lock, LockError};
use crate::silence::Silence;
use crate::spending::Spending;
use crate::uplink::Contact;

/// Decisions shown of each allocation.
const DECISIONS: usize = 5;
/// Removals shown.
const REMOVED: usize = 5;

/// Everything that is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Version of the agent that answers.
    pub(crate) version: String,
    /// Does the agent run? Else this is what its ledger says.
    pub(crate) running: bool,
    /// The node's id, once it has enrolled.
    pub(crate) node: Option<NodeId>,
    /// The node's name.
    pub(crate) name: Option<String>,
    /// The server, as far as it is known.
    pub(crate) contact: Contact,
    /// Mark of the manifest in force.
    pub(crate) mark: Mark,
    /// Allocations, by place.
    pub(crate) allocs: Vec<AllocView>,
    /// Images on their way.
    pub(crate) images: Vec<ImageReport>,
    /// The engine.
    pub(crate) engine: EngineReport,
    /// Bytes that the month took, both ways.
    #[serde(default)]
    pub(crate) spent: u64,
    /// Bytes that a month may take; none: as many as it needs.
    #[serde(default)]
    pub(crate) budget: Option<u64>,
    /// Images that were removed, oldest first.
    #[serde(default)]
    pub(crate) removed: Vec<Removed>,
    /// What the checks found last.
    #[serde(default)]
    pub(crate) checks: Vec<CheckReport>,
    /// How long no answer came from the server, in milliseconds; none before the first.
    #[serde(default)]
    pub(crate) silent: Option<Millis>,
    /// Milliseconds of the boot when this was said: times of decisions and waits count from the same instant.
    #[serde(default)]
    pub(crate) at: u64,
}

/// What a check found last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CheckReport {
    /// The allocation, as its instances are labelled.
    pub(crate) alloc: AllocId,
    /// The service.
    pub(crate) service: String,
    /// The check.
    pub(crate) check: String,
    /// Runs in a row that passed.
    pub(crate) passed: u32,
    /// Runs in a row that failed.
    pub(crate) failed: u32,
    /// When the last run ended, in milliseconds of the boot.
    pub(crate) at: u64,
    /// What it said.
    pub(crate) output: String,
}

/// An image that is needed and lacking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageReport {
    /// Which, and for what.
    #[serde(flatten)]
    pub(crate) needed: NeededImage,
    /// How far it is, for people.
    pub(crate) state: String,
}

/// The engine as the main loop sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EngineReport {
    /// Path of its socket.
    pub(crate) socket: String,
    /// Version and storage driver, once it answered.
    pub(crate) about: Option<String>,
    /// Why it cannot be worked with now.
    pub(crate) error: Option<String>,
    /// How often its word broke off since the agent began: it may be another one since.
    #[serde(default)]
    pub(crate) interruptions: u64,
}

/// The newest decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AllocReport {
    /// Allocations, by place.
    pub(crate) allocs: Vec<AllocView>,
    /// Images that are lacking.
    pub(crate) needed: Vec<NeededImage>,
}

/// How far each image is, for people.
pub(crate) type Progress = Arc<BTreeMap<ImageId, String>>;

/// Where the pieces of a status come from.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// The node's name.
    pub(crate) name: String,
    /// The ledger.
    pub(crate) ledger: Ledger,
    /// The uplink.
    pub(crate) contact: watch::Receiver<Contact>,
    /// The main loop.
    pub(crate) allocs: watch::Receiver<Arc<AllocReport>>,
    /// Those who fetch images.
    pub(crate) progress: watch::Receiver<Progress>,
    /// The main loop.
    pub(crate) engine: watch::Receiver<EngineReport>,
    /// The checks.
    pub(crate) checks: Checks,
    /// How long the server is silent.
    pub(crate) silence: Silence,
    /// What the month took.
    pub(crate) spending: Spending,
    /// What a month may take.
    pub(crate) budget: Option<Budget>,
}

impl Sources {
    pub(crate) fn status(&self) -> Status {
        let report = self.allocs.borrow().clone();
        let progress = self.progress.borrow().clone();
        let state = |image| progress.get(image).cloned().unwrap_or_else(|| "waits for its turn".to_owned());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            running: true,
            node: self.ledger.node(),
            name: Some(self.name.clone()),
            contact: self.contact.borrow().clone(),
            mark: self.ledger.desired().mark,
            allocs: report.allocs.clone(),
            images: report.needed.iter().map(|n| ImageReport { needed: n.clone(), state: state(&n.image) }).collect(),
            engine: self.engine.borrow().clone(),
            spent: self.spending.spent().bytes,
            budget: self.budget.as_ref().map(Budget::monthly),
            removed: self.ledger.keep().removed.clone(),
            checks: self.checks(),
            silent: self.silence.so_far(boottime_ms()),
            at: boottime_ms(),
        }
    }

    fn checks(&self) -> Vec<CheckReport> {
        let report = |(id, state): (CheckId, CheckState)| CheckReport {
            alloc: id.alloc,
            service: id.service,
            check: id.check,
            passed: state.passed,
            failed: state.failed,
            at: state.at,
            output: state.output,
        };
        self.checks.states().into_iter().map(report).collect()
    }
}

/// The status of a data folder: from the agent, else from its ledger.
pub(crate) async fn fetch(folder: &Path) -> Result<Status> {
    if let Some(status) = control::ask(folder, Request::Status).await? {
        return Ok(status);
    }
    let lock = match Lock::take_existing(folder) {
        Ok(lock) => lock,
        Err(LockError::Held { .. }) => bail!("the agent on {} runs but does not answer yet; try again", folder.display()),
        Err(error) => return Err(error.into()),
    };
    let status = from_ledger(folder);
    drop(lock);
    status
}

/// What is known while the agent is down.
fn from_ledger(folder: &Path) -> Result<Status> {
    if !folder.join("ledger.sqlite").exists() {
        bail!("{} has no ledger: no agent ran on it yet", folder.display());
    }
    let ledger = Ledger::open(folder, Timestamp(0))?;
    let desired = ledger.desired();
    let memory: Memory = ledger.memory().and_then(|m| cbor::decode(&m, 16 << 20).ok()).unwrap_or_default();
    let mut allocs = Vec::new();
    for (slot, held) in &memory.slots {
        let current = held.current.as_ref().map(|v| (v, true));
        let next = held.next.as_ref().map(|n| (&n.version, false));
        for (version, current) in current.into_iter().chain(next) {
            let last = held.reported.get(&version.alloc);
            allocs.push(AllocView {
                id: version.alloc,
                job: slot.job.clone(),
                group: slot.group.clone(),
                index: slot.index,
                version: Some(version.version),
                current,
                status: last.map_or(AllocStatus::Pending, |r| r.status),
                reason: last.map_or_else(String::new, |r| r.reason.clone()),
                restarts: last.map_or(0, |r| r.restarts),
                ports: version.ports.clone(),
                healthy: None,
                until: None,
                decisions: vec![],
            });
        }
    }
    let reports = ledger.watch_outbox().borrow().pending;
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        running: false,
        node: ledger.node(),
        name: None,
        contact: Contact { node: ledger.node(), reports, ..Contact::default() },
        mark: desired.mark,
        allocs,
        images: vec![],
        engine: EngineReport::default(),
        spent: ledger.keep().spent.bytes,
        budget: None,
        removed: ledger.keep().removed.clone(),
        checks: vec![],
        silent: None,
        at: boottime_ms(),
    })
}

impl Status {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| {
            // Reasons come from servers and engines: none of them gets at the terminal's controls.
            out.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
            out.push('\n');
        };
        if !self.running {
            line("agent is not running; last known:".to_owned());
        }
        let node = self.node.map_or_else(|| "not enrolled yet".to_owned(), |n| n.to_string());
        line(format!("node      {}{node}", self.name.as_ref().map_or(String::new(), |n| format!("{n} "))));
        if self.running {
            let contact = &self.contact;
            let state = match (&contact.error, contact.last) {
                (Some(error), _) => format!("no answer ({} tries): {error}", contact.failures),
                (None, Some(_)) => "answers".to_owned(),
                (None, None) => "no contact yet".to_owned(),
            };
            let silent = self.silent.filter(|s| contact.error.is_some() && s.0 > 0);
            let silent = silent.map_or(String::new(), |s| format!("; silent for {}", seconds(s.0)));
            line(format!("server    {} {state}{silent}", contact.server));
            let engine = self.engine.about.as_deref().unwrap_or("not asked yet");
            line(format!("engine    {}", self.engine.error.as_deref().unwrap_or(engine)));
        }
        line(format!("manifest  {}", self.mark));
        line(format!("reports   {} waiting", self.contact.reports));
        let budget = self.budget.map_or(String::new(), |budget| format!(" of {budget}"));
        line(format!("month     {}{budget} bytes over the wire", self.spent));
        if self.allocs.is_empty() {
            line("no allocations".to_owned());
        }
        for alloc in &self.allocs {
            let version = alloc.version.map_or(String::new(), |v| format!(" v{v}"));
            let mut text =
                format!("{:<8}  {}.{}[{}]{version} {}", alloc.status.to_string(), alloc.job, alloc.group, alloc.index, alloc.id.short());
            for (label, port) in &alloc.ports {
                let _ = write!(text, " {label}={port}");
            }
            match alloc.healthy {
                Some(true) => text.push_str(" healthy"),
                Some(false) => text.push_str(" unhealthy"),
                None => {}
            }
            let _ = write!(text, " restarts={}: {}", alloc.restarts, alloc.reason);
            if let Some(until) = alloc.until.filter(|_| self.running) {
                let _ = write!(text, " (for {} more)", seconds(until.saturating_sub(self.at)));
            }
            line(text);
            for check in self.checks.iter().filter(|c| c.alloc == alloc.id) {
                let (word, count) = if check.failed > 0 { ("fails", check.failed) } else { ("passes", check.passed) };
                let ago = seconds(self.at.saturating_sub(check.at));
                line(format!("          check {}/{} {word} ({count} in a row, {ago} ago): {}", check.service, check.check, check.output));
            }
            for (at, what) in alloc.decisions.iter().rev().take(DECISIONS).rev() {
                line(format!("          {} ago: {what}", seconds(self.at.saturating_sub(*at))));
            }
        }
        for image in &self.images {
            let needed = &image.needed;
            line(format!("image     {} {} for {}: {}", needed.reference, needed.image.digest().short(), needed.job, image.state));
        }
        for removed in self.removed.iter().rev().take(REMOVED).rev() {
            line(format!("removed   image {}: {}", removed.image.digest().short(), removed.why));
        }
        out
    }
}

/// A span in whole seconds, as people write it.
fn seconds(ms: u64) -> Millis {
    Millis::from_secs(ms / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Status {
        Status {
            version: "1".into(),
            running: true,
            node: None,
            name: None,
            contact: Contact::default(),
            mark: Mark::default(),
            allocs: vec![],
            images: vec![],
            engine: EngineReport::default(),
            spent: 5,
            budget: None,
            removed: vec![],
            checks: vec![],
            silent: None,
            at: 0,
        }
    }

    #[test]
    fn a_hostile_reason_stays_on_its_line() {
        let contact = Contact { error: Some("no\x1b[2J\nnode      enrolled".to_owned()), failures: 2, ..Contact::default() };
        let text = Status { contact, ..plain() }.text();
        assert!(text.contains("no answer (2 tries): no [2J node      enrolled\n") && !text.contains('\x1b'), "{text}");
        assert_eq!(text.lines().count(), 7, "{text}");
    }

    #[test]
    fn what_waits_says_for_what_and_how_much_longer_and_what_was_decided() {
        let alloc = AllocView {
            id: AllocId::new([0xab; 16]),
            job: "till".into(),
            group: "web".into(),
            index: 0,
            version: Some(2),
            current: false,
            status: AllocStatus::Pending,
            reason: "waits for the apply window".into(),
            restarts: 1,
            ports: BTreeMap::from([("http".to_owned(), 8080)]),
            healthy: Some(false),
            until: Some(190_000),
            decisions: (0..7).map(|n| (n * 10_000, format!("decision {n}"))).collect(),
        };
        let check = CheckReport {
            alloc: alloc.id,
            service: "web".into(),
            check: "up".into(),
            passed: 0,
            failed: 3,
            at: 95_000,
            output: "HTTP 503".into(),
        };
        let contact = Contact { error: Some("no route".into()), failures: 9, reports: 4, ..Contact::default() };
        let status = Status {
            allocs: vec![alloc],
            checks: vec![check],
            contact,
            silent: Some(Millis(61_900)),
            at: 100_000,
            budget: Some(900),
            ..plain()
        };
        let expected = "\
node      not enrolled yet
server     no answer (9 tries): no route; silent for 1m1s
engine    not asked yet
manifest  0.0.0
reports   4 waiting
month     5 of 900 bytes over the wire
pending   till.web[0] v2 abababab http=8080 unhealthy restarts=1: waits for the apply window (for 1m30s more)
          check web/up fails (3 in a row, 5s ago): HTTP 503
          1m20s ago: decision 2
          1m10s ago: decision 3
          1m ago: decision 4
          50s ago: decision 5
          40s ago: decision 6
";
        assert_eq!(status.text(), expected);
        // Of an agent that is down nobody knows how long anything waits.
        assert!(!Status { running: false, ..status }.text().contains("more)"));
    }
}
