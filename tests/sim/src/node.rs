//! One node: its machine, its data folder on a watched disk, and the agent, as long as there is one.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use skerry_agent::simulate::{self, Machine, Parts};
use skerry_testkit::powercut::{Chance, Watched};
use skerry_wire::BootId;
use skerry_wire::node::Fingerprint;
use skerry_wire::poll::Event;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::book::Book;
use crate::engine::{self, Docker};
use crate::host::Host;
use crate::keys;
use crate::library;
use crate::link::{BREAK, Wires};
use crate::server::{Server, token};

/// Reports looked at in an outbox.
const REPORTS: usize = 4096;

/// A node.
pub(crate) struct Node {
    pub(crate) host: Arc<Host>,
    pub(crate) number: u8,
    pub(crate) data: PathBuf,
    allocs: PathBuf,
    root: PathBuf,
    server: Arc<Mutex<Server>>,
    agent: Option<Agent>,
    boots: u64,
    /// Why the agent does not start, as last said.
    refusal: Option<String>,
}

struct Agent {
    runtime: Runtime,
    task: JoinHandle<()>,
}

impl Node {
    pub(crate) fn new(number: u8, folder: &std::path::Path, server: &Arc<Mutex<Server>>, book: &Arc<Book>, chance: Chance) -> Result<Self> {
        let folder = folder.join(format!("node{number}"));
        let (data, allocs, root) = (folder.join("data"), folder.join("allocs"), folder.join("root.cose"));
        std::fs::create_dir_all(&data)?;
        std::fs::write(&root, &*keys::ROOT)?;
        // As if the first boot had made it.
        let text = skerry_trust::SigningKey::to_text(&keys::pkcs8(10 + number));
        std::fs::write(data.join("node.key"), &text)?;
        std::fs::write(data.join("node.key.copy"), &text)?;
        let host = Arc::new(Host::new(format!("node{number}"), Arc::clone(book), chance));
        let server = Arc::clone(server);
        let mut node = Self { host, number, data, allocs, root, server, agent: None, boots: 0, refusal: None };
        node.boot()?;
        Ok(node)
    }

    fn machine(&self) -> Arc<dyn Machine> {
        Arc::clone(&self.host) as Arc<dyn Machine>
    }

    /// The power comes, or comes back.
    fn boot(&mut self) -> Result<()> {
        self.boots += 1;
        self.refusal = None;
        let mut id = [self.number; 16];
        id[..8].copy_from_slice(&self.boots.to_be_bytes());
        self.watch()?;
        let now = self.host.now();
        {
            let mut state = self.host.state();
            (state.boot, state.booted, state.disturbed) = (BootId::new(id), now, now);
            // Where the system's clock is vouched for it may be wrong all the same.
            state.wall = match state.chance.below(6) {
                0 => Some(0),
                1 => Some(-1_790_000_000_000),
                2 => Some(2_147_483_647_000 - 1_790_000_000_000),
                3 => Some(315_576_000_000),
                _ => None,
            };
            state.end_all();
            state.lose_unsynced();
        }
        Ok(())
    }

    /// The power goes, and comes back. What was written since the last sync may be lost.
    pub(crate) fn power_cut(&mut self, chance: Chance) -> Result<()> {
        self.host.tell("the power goes");
        if let Some(watched) = self.host.watched().as_ref() {
            watched.cut_after(0, chance);
        }
        self.after_cut()
    }

    /// If the power has gone: what it left is what there is.
    pub(crate) fn after_cut(&mut self) -> Result<()> {
        if !self.host.is_cut() {
            return Ok(());
        }
        self.host.tell("the power is back");
        self.forget_agent(BREAK);
        let left = self.host.watched().take().and_then(Watched::end);
        if let Some(disk) = left {
            disk.replace(&self.data)?;
        }
        self.boot()
    }

    /// The agent is killed. Containers go on.
    pub(crate) fn kill(&mut self) {
        if let Some(watched) = self.host.watched().as_ref() {
            watched.kill();
        }
        self.forget_agent(0);
        if let Some(watched) = self.host.watched().as_ref() {
            watched.revive();
        }
        self.host.disturb();
    }

    /// The agent is no more. Of each bundle that was on its way a chunk that had come may have to come again; and `garbled` bytes, which shows
    /// once their chunk was completed.
    fn forget_agent(&mut self, garbled: u64) {
        let before: Vec<_> = self.host.state().fetched.iter().map(|(digest, fetched)| (*digest, fetched.allowed)).collect();
        *self.host.view() = None;
        // What a program still does while it is dropped is lost by now.
        self.agent = None;
        let mut state = self.host.state();
        for (digest, allowed) in before {
            let here = library::target(&digest).is_some_and(|image| state.images.contains_key(&image));
            let Some(fetched) = state.fetched.get_mut(&digest) else { continue };
            fetched.reached = 0;
            fetched.unsure |= garbled > 0;
            // What its link brought last is allowed for by now.
            if fetched.bytes > 0 && !here {
                fetched.allowed = fetched.allowed.max(allowed + fetched.bytes.min(BREAK) + garbled);
            }
        }
    }

    /// Looks at the changes of the agent's files from now on. A full disk stays full.
    fn watch(&self) -> Result<()> {
        let watched = Watched::start(&self.data)?;
        watched.set_full(self.host.state().full);
        *self.host.watched() = Some(watched);
        Ok(())
    }

    /// Changes files while no agent runs.
    pub(crate) fn tamper(&mut self, change: impl FnOnce(&std::path::Path) -> std::io::Result<()>) -> Result<()> {
        self.kill();
        drop(self.host.watched().take());
        change(&self.data)?;
        self.watch()
    }

    /// Lets this much time pass; the agent is started if there is none.
    pub(crate) fn run(&mut self, from: u64, span: u64) -> Result<()> {
        self.host.state().slice = (from, None);
        if self.agent.as_ref().is_some_and(|a| a.task.is_finished()) {
            self.host.broken("P9", "the agent ended by itself");
            self.kill();
        }
        if self.agent.is_none() {
            self.start();
        }
        if let Some(agent) = &self.agent {
            simulate::play(self.machine(), || {
                agent.runtime.block_on(async {
                    self.host.state().slice = (from, Some(Instant::now()));
                    tokio::time::sleep(Duration::from_millis(span)).await;
                });
            });
        }
        let mut state = self.host.state();
        state.slice = (from + span, None);
        let ended = state.end_due(from + span);
        drop(state);
        if ended {
            self.host.changed.notify_one();
        }
        Ok(())
    }

    fn start(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).max_blocking_threads(1).build();
        let runtime = runtime.expect("a runtime without any driver but time");
        let facts = Fingerprint {
            name: self.host.name.clone(),
            datacenter: "sea".to_owned(),
            attributes: [("cpu.arch".to_owned(), "amd64".to_owned()), ("kernel.name".to_owned(), "linux".to_owned())].into(),
            memory_mib: 4096,
            agent_version: "0.1.0".to_owned(),
            features: vec!["bundle/1".to_owned()],
            ..Fingerprint::default()
        };
        let parts = Parts {
            data: self.data.clone(),
            allocs: self.allocs.clone(),
            root: self.root.clone(),
            ca: keys::CA.clone(),
            boot: self.host.state().boot,
            token: token(),
            facts,
            engine: Docker(Arc::clone(&self.host)),
            info: engine::info(),
            link: Arc::new(Wires { host: Arc::clone(&self.host), server: Arc::clone(&self.server) }),
            poll_interval: Duration::from_secs(300),
        };
        let opened = simulate::play(self.machine(), || runtime.block_on(async { simulate::open(parts) }));
        match opened {
            Ok((view, agent)) => {
                self.refusal = None;
                *self.host.view() = Some(view);
                let task = runtime.spawn(agent);
                self.agent = Some(Agent { runtime, task });
            }
            Err(error) => {
                // Where it lies is not the same twice.
                let text = format!("{error:#}").replace(&self.data.display().to_string(), "data");
                if self.refusal.as_ref() != Some(&text) {
                    self.host.tell(&format!("the agent does not start: {text}"));
                    self.refusal = Some(text);
                }
            }
        }
    }

    /// Why the agent does not start.
    pub(crate) fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// What is looked at after every step.
    pub(crate) fn check(&self) {
        if self.host.is_cut() {
            return;
        }
        let Some(view) = self.host.view().clone() else { return };
        let mark = view.mark();
        let before = std::mem::replace(&mut self.host.state().mark, mark);
        if mark < before {
            self.host.broken("P5", &format!("the node's mark went back from {before} to {mark}"));
        }
        self.check_reports(&view);
        self.host.forget_unneeded(view.manifest().as_ref());
    }

    /// P8: what was in the outbox has reached the server, or is there still, or was counted as dropped.
    fn check_reports(&self, view: &simulate::View) {
        let now = crate::server::block_on(view.reports(REPORTS));
        let mut state = self.host.state();
        let mut dropped = 0;
        for report in &now {
            if let Event::Dropped { count, .. } = report.event
                && state.dropped.insert(report.seq)
            {
                dropped += count;
            }
        }
        let pending: std::collections::BTreeMap<u64, bool> =
            now.iter().map(|r| (r.seq, matches!(r.event, Event::ImageInTransit { .. }))).collect();
        let before = std::mem::replace(&mut state.pending, pending);
        let gone = |(seq, light): &(u64, bool)| !light && !state.pending.contains_key(seq) && !state.delivered.contains(seq);
        let lost: Vec<u64> = before.into_iter().filter(gone).map(|(seq, _)| seq).collect();
        drop(state);
        if lost.len() as u64 > dropped {
            self.host.broken("P8", &format!("reports {lost:?} are gone, never reached the server, and {dropped} are told as dropped"));
        }
    }

    /// The outbox is made anew: what is to be told of it begins here.
    pub(crate) fn forget_reports(&self) {
        let mut state = self.host.state();
        state.pending.clear();
        state.dropped.clear();
    }
}
