//! One life: a fleet, its orders, its faults, and the checks after every step.

pub(crate) mod idle;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Result;
use skerry_engine::ContainerStatus;
use skerry_reconcile::Slot;
use skerry_server::store::NodeOrder;
use skerry_testkit::powercut::Chance;
use skerry_wire::{ImageId, NodeId, Timestamp};

use crate::book::Book;
use crate::check::runs;
use crate::clocks::Clocks;
use crate::fault::Event;
use crate::host::{BEGAN, State, Wire};
use crate::library::{IMAGES, SICK, image};
use crate::node::Node;
use crate::server::Server;
use crate::{jobs, tamper};

/// Nodes of a fleet.
const NODES: u8 = 5;
/// Steps of a life, and as many more as its manifests need.
const STEPS: usize = 15;
/// Manifests of a life, over all nodes, and the most steps until there are so many.
const MANIFESTS: u64 = 20;
const LONGEST: usize = 60;
/// After so long in peace everything must run.
const PEACE: u64 = 8 * 60_000;
/// Slices of a minute in which a fleet that nothing disturbs any more must come to rest.
const REST: usize = 90;

/// How a life is played.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// Is its story wanted?
    pub tell: bool,
    /// What the system's clocks say.
    pub clocks: Clocks,
    /// Are there no jobs that are timed by their nature?
    pub untimed: bool,
}

/// What came of a life.
#[derive(Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Promises that were broken; none when all is well.
    pub broken: Vec<String>,
    /// What happened, if it was asked for.
    pub story: Option<String>,
    /// Digest of what happened.
    pub digest: u64,
    /// After each step, what each node has accepted and switched to, and what runs there.
    pub course: Vec<String>,
    /// Faults that there were.
    pub faults: BTreeSet<String>,
    /// Manifests that were signed, over all nodes.
    pub manifests: u64,
    /// Its length, in milliseconds of its own time.
    pub lasted: u64,
}

struct Life {
    rules: Rules,
    chance: Chance,
    book: Arc<Book>,
    server: Arc<Mutex<Server>>,
    nodes: Vec<Node>,
    now: u64,
    faults: BTreeSet<String>,
    restored: bool,
    live: BTreeSet<u8>,
}

/// Plays the life of a seed.
///
/// # Errors
/// When the machine that plays it fails, not when a promise is broken.
pub fn play(seed: u64, rules: Rules) -> Result<Outcome> {
    let shared = Path::new("/dev/shm");
    let folder = tempfile::tempdir_in(if shared.is_dir() { shared } else { Path::new("/tmp") })?;
    let book = Arc::new(Book::default());
    book.pages().story = rules.tell.then(String::new);
    let lived = catch_unwind(AssertUnwindSafe(|| Life::new(seed, rules, folder.path(), &book)?.live()));
    let (faults, manifests, lasted) = match lived {
        Ok(lived) => lived?,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            book.broken(0, "no panic", text.unwrap_or("something panicked"));
            Default::default()
        }
    };
    let mut pages = book.pages();
    let (broken, story, digest) = (std::mem::take(&mut pages.broken), pages.story.take(), pages.digest);
    let course = std::mem::take(&mut pages.course);
    Ok(Outcome { seed, broken, story, digest, course, faults, manifests, lasted })
}

impl Life {
    fn new(seed: u64, rules: Rules, folder: &Path, book: &Arc<Book>) -> Result<Self> {
        let mut chance = Chance::new(seed.wrapping_add(1));
        for _ in 0..8 {
            chance.below(2);
        }
        let server = Arc::new(Mutex::new(Server::new(&folder.join("server"))?));
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let own = Chance::new(seed.wrapping_mul(1000).wrapping_add(u64::from(number) + 7));
            nodes.push(Node::new(number, folder, &server, book, own)?);
            nodes.last().iter().for_each(|n| n.host.state().clocks = rules.clocks);
        }
        let (now, faults) = (0, BTreeSet::new());
        Ok(Self { rules, chance, book: Arc::clone(book), server, nodes, now, faults, restored: false, live: BTreeSet::new() })
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().expect("no life goes on after a panic")
    }

    fn time(&self) -> Timestamp {
        Timestamp(BEGAN + i64::try_from(self.now).unwrap_or(0))
    }

    fn live(mut self) -> Result<(BTreeSet<String>, u64, u64)> {
        self.pass(30_000)?;
        for step in 0..LONGEST {
            if step >= STEPS && self.server().is_up() && self.manifests()? >= MANIFESTS {
                break;
            }
            let event = Event::draw(|n| self.chance.below(n));
            // At least so many manifests a life.
            let event = if step % 3 == 0 { Event::Submit } else { event };
            if step % 3 == 0 {
                self.server().start()?;
            }
            self.happen(event)?;
            // Mostly in the middle of what goes on; at times until all has settled.
            let span = match self.chance.below(20) {
                0..9 => 4_000 + self.chance.below(40_000),
                9..17 => 40_000 + self.chance.below(60_000),
                17..19 => 5 * 60_000,
                _ => 12 * 60_000,
            };
            self.pass(span as u64)?;
            if !self.book.pages().broken.is_empty() {
                break;
            }
        }
        if self.book.pages().broken.is_empty() {
            self.rest()?;
        }
        let manifests = self.manifests()?;
        Ok((self.faults, manifests, self.now))
    }

    /// Manifests that were signed, over all nodes.
    fn manifests(&mut self) -> Result<u64> {
        self.server().start()?;
        let mut manifests = 0;
        for at in 0..self.nodes.len() {
            let newest = self.id(at).map(|id| self.server().manifest(id)).transpose()?.flatten();
            manifests += newest.map_or(0, |m| m.mark.counter);
        }
        Ok(manifests)
    }

    /// Time passes, on every node, and everything is looked at.
    fn pass(&mut self, span: u64) -> Result<()> {
        for node in &mut self.nodes {
            node.run(self.now, span)?;
        }
        self.now += span;
        for node in &mut self.nodes {
            node.check();
            // It went at the change that it was to go at; a cut between two steps is over by now.
            if node.host.is_cut() {
                self.faults.insert(format!("{:?}", Event::PowerCutWithin));
            }
            node.after_cut()?;
            let now = node.host.course();
            self.book.pages().course.push(format!("{} s: {now}", self.now / 1000));
            let troubled = {
                let mut state = node.host.state();
                let troubled = state.away || state.full || state.failing > 0 || state.lying > 0;
                if troubled {
                    state.disturbed = self.now;
                }
                troubled
            };
            if !troubled {
                node.host.check_runs(PEACE);
            }
            if let Some(why) = node.refusal().filter(|_| !node.host.state().full) {
                node.host.broken("P9", &format!("the agent does not start: {why}"));
            }
        }
        if self.server().is_up() {
            let time = self.time();
            self.server().build(time)?;
        }
        Ok(())
    }

    fn tell(&self, text: &str) {
        self.book.tell(self.now, text);
    }

    fn any(&mut self) -> usize {
        self.chance.below(self.nodes.len())
    }

    fn submit(&mut self, number: u8, image_number: u8, variant: u8) -> Result<()> {
        let number = if self.rules.untimed && number == jobs::TIMED { 6 } else { number };
        let job = jobs::job(number, image_number, variant);
        let time = self.time();
        let digest = self.server().submit(job.clone(), time)?;
        self.tell(&format!("submit {} of image{image_number}, variant {variant}", job.id));
        self.book.pages().specifications.insert(digest, job);
        self.live.insert(number);
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<()> {
        let at = self.any();
        let name = self.nodes[at].host.name.clone();
        // Does it take effect, and now?
        let felt = match event {
            Event::Submit if self.server().is_up() => {
                let number = u8::try_from(self.chance.below(usize::from(jobs::JOBS)))?;
                let sick = number == 2 && self.chance.one_in(4);
                let image_number = if sick { SICK } else { u8::try_from(self.chance.below(usize::from(IMAGES) - 1))? };
                let variant = u8::try_from(self.chance.below(3))?;
                self.submit(number, image_number, variant)?;
                return Ok(());
            }
            Event::StopJob if self.server().is_up() => {
                let number = u8::try_from(self.chance.below(usize::from(jobs::JOBS)))?;
                let mut pages = self.book.pages();
                let of_it = pages.specifications.iter().filter(|(_, job)| job.id == jobs::name(number));
                let stopped: Vec<_> = of_it.map(|(digest, _)| *digest).collect();
                pages.stopped.extend(stopped);
                drop(pages);
                self.tell(&format!("stop {}", jobs::name(number)));
                let time = self.time();
                self.server().stop_job(jobs::name(number), time)?;
                self.live.remove(&number);
                return Ok(());
            }
            Event::Submit | Event::StopJob => false,
            Event::Calm => {
                self.calm()?;
                return self.pass(PEACE + 60_000);
            }
            Event::Crash => {
                let count = self.nodes[at].host.state().containers.len().max(1);
                let which = self.chance.below(count);
                let host = Arc::clone(&self.nodes[at].host);
                let crashed = {
                    let mut state = host.state();
                    let found = state.containers.iter_mut().nth(which).filter(|(_, c)| runs(c.status) && c.ends.is_none());
                    found.map(|(name, container)| {
                        container.status = ContainerStatus::Exited { code: 1, out_of_memory: false };
                        name.clone()
                    })
                };
                let Some(container) = crashed else { return Ok(()) };
                host.disturb();
                host.tell(&format!("{container} crashes"));
                host.changed.notify_one();
                true
            }
            Event::ImageLost => {
                let now = self.now;
                let mut state = self.nodes[at].host.state();
                // An engine keeps what a container is made of.
                let unused = |id: &&ImageId| !state.containers.values().any(|c| c.image == **id);
                let unused: Vec<ImageId> = state.images.keys().filter(unused).copied().collect();
                if unused.is_empty() {
                    return Ok(());
                }
                let which = unused[self.chance.below(unused.len())];
                state.images.remove(&which);
                state.vanished.insert(which, now);
                // What made it has to come again.
                state.fetched.retain(|digest, _| crate::library::target(digest) != Some(which));
                state.fetched.values_mut().for_each(|fetched| fetched.reached = 0);
                state.disturbed = now;
                drop(state);
                self.tell(&format!("{name}: {} vanishes", crate::library::name(&which)));
                true
            }
            Event::EngineRestart => {
                let keeps = self.chance.one_in(2);
                self.tell(&format!("{name}: the engine goes away{}", if keeps { ", containers go on" } else { "" }));
                let host = Arc::clone(&self.nodes[at].host);
                host.state().away = true;
                host.changed.notify_one();
                let span = 2_000 + self.chance.below(60_000) as u64;
                self.pass(span)?;
                let mut state = host.state();
                state.away = false;
                if !keeps {
                    state.end_all();
                }
                drop(state);
                self.tell(&format!("{name}: the engine is back"));
                true
            }
            Event::EngineRefuses => {
                let failing = [0, 30, 200, 900][self.chance.below(4)];
                self.tell(&format!("{name}: the engine refuses {failing} of 1000"));
                self.nodes[at].host.state().failing = failing;
                failing > 0
            }
            Event::EngineLies => {
                let lying = [0, 300, 1000][self.chance.below(3)];
                self.tell(&format!("{name}: the engine lies about {lying} of 1000 loads"));
                self.nodes[at].host.state().lying = lying;
                lying > 0
            }
            Event::AgentKilled => {
                self.tell(&format!("{name}: the agent is killed"));
                self.nodes[at].kill();
                true
            }
            Event::PowerCut => {
                let chance = Chance::new(self.chance.below(1 << 30) as u64);
                self.nodes[at].power_cut(chance)?;
                true
            }
            Event::PowerCutWithin => {
                let changes = 1 + self.chance.below(60) as u64;
                let chance = Chance::new(self.chance.below(1 << 30) as u64);
                self.tell(&format!("{name}: the power goes at the change {changes} from now"));
                if let Some(watched) = self.nodes[at].host.watched().as_ref() {
                    watched.cut_after(changes, chance);
                }
                false
            }
            Event::LinkDown => {
                let mut state = self.nodes[at].host.state();
                state.wire.down = !state.wire.down;
                let down = state.wire.down;
                drop(state);
                self.tell(&format!("{name}: the link is {}", if down { "down" } else { "up" }));
                down
            }
            Event::LinkBad => {
                let loss = [0, 50, 300][self.chance.below(3)];
                let cuts = [0, 50, 300][self.chance.below(3)];
                let slow = [0, 300, 4_000][self.chance.below(3)];
                self.tell(&format!("{name}: the link loses {loss}, cuts {cuts} of 1000, waits {slow} ms"));
                self.nodes[at].host.state().wire = Wire { down: false, loss, cuts, slow };
                loss + cuts > 0 || slow > 0
            }
            Event::AllLinksDown => {
                self.tell("all links are down");
                self.nodes.iter().for_each(|n| n.host.state().wire.down = true);
                true
            }
            Event::DiskFull => {
                let full = !self.nodes[at].host.state().full;
                self.tell(&format!("{name}: the disk is {}", if full { "full" } else { "empty again" }));
                self.set_full(at, full);
                full
            }
            Event::ServerDown => {
                let up = self.server().is_up();
                self.tell(if up { "the server goes down" } else { "the server is back" });
                if up {
                    self.server().stop();
                    self.server().back_up()?;
                } else {
                    self.server().start()?;
                }
                up
            }
            Event::ServerRestored => {
                let which = self.chance.below(100);
                if self.server().restore(which)? {
                    self.tell("the server is put back to an old backup");
                    self.restored = true;
                    true
                } else {
                    self.server().back_up()?;
                    false
                }
            }
            Event::FileGarbled => {
                let mut chance = Chance::new(self.chance.below(1 << 30) as u64);
                let mut told = None;
                self.nodes[at].tamper(|data| {
                    told = tamper::garble(data, &mut chance)?;
                    Ok(())
                })?;
                let Some(what) = told else { return Ok(()) };
                self.tell(&format!("{name}: {what}"));
                let name = what.split(' ').next().unwrap_or_default();
                if matches!(name, "ledger.sqlite" | "ledger.sqlite-wal") {
                    self.nodes[at].forget_reports();
                }
                for (digest, fetched) in &mut self.nodes[at].host.state().fetched {
                    if name.contains(&digest.hex()) {
                        let size = crate::library::by_digest(digest).map_or(0, |bundle| bundle.bytes.len() as u64);
                        // All that had come, and what completes a chunk before its hash shows that it is garbled.
                        fetched.allowed += fetched.bytes.min(size) + crate::link::BREAK;
                        fetched.unsure = true;
                    }
                }
                true
            }
            Event::ClockJumps => {
                let wrong = [Some(-1_790_000_000_000), Some(357_483_647_000), Some(315_576_000_000), Some(0), None][self.chance.below(5)];
                self.tell(&format!("{name}: the clock is wrong by {wrong:?} ms"));
                self.nodes[at].host.state().wall = wrong;
                wrong.is_some_and(|wrong| wrong != 0)
            }
            Event::Drain if self.server().is_up() => {
                let Some(id) = self.id(at) else { return Ok(()) };
                let drains = self.chance.one_in(2);
                self.book.pages().drained |= drains;
                self.tell(&format!("{name} is {}", if drains { "drained" } else { "not drained any more" }));
                let order = if drains { NodeOrder::Drain { deadline: None, ignore_system: true } } else { NodeOrder::Undrain };
                let time = self.time();
                self.server().order_node(id, order, time)?;
                drains
            }
            Event::Drain => false,
        };
        if felt {
            self.faults.insert(format!("{event:?}"));
        }
        Ok(())
    }

    fn id(&self, at: usize) -> Option<NodeId> {
        let view = self.nodes[at].host.view().clone()?;
        view.manifest().map(|m| m.node)
    }

    fn set_full(&mut self, at: usize, full: bool) {
        let host = &self.nodes[at].host;
        if let Some(watched) = host.watched().as_ref() {
            watched.set_full(full);
        }
        let mut state = host.state();
        (state.full, state.free) = (full, if full { 1 << 20 } else { 8 << 30 });
        state.fetched.values_mut().for_each(|fetched| fetched.reached = 0);
        state.disturbed = self.now;
    }

    /// Everything that is wrong is put right.
    fn calm(&mut self) -> Result<()> {
        self.tell("calm");
        self.server().start()?;
        for at in 0..self.nodes.len() {
            self.set_full(at, false);
            let mut state = self.nodes[at].host.state();
            let State { wire, away, failing, lying, .. } = &mut *state;
            (*wire, *away, *failing, *lying) = (Wire::default(), false, 0, 0);
        }
        Ok(())
    }

    /// Nothing goes wrong any more: what is wanted comes to run, and the server knows it.
    fn rest(&mut self) -> Result<()> {
        self.calm()?;
        for at in 0..self.nodes.len() {
            if let Some(id) = self.id(at) {
                let time = self.time();
                self.server().order_node(id, NodeOrder::Undrain, time)?;
            }
        }
        if self.restored {
            // What the server forgot is ordered anew, as its operator would.
            for number in self.live.clone() {
                self.submit(number, 1, 9)?;
                self.pass(1_000)?;
                self.submit(number, 2, 8)?;
            }
        }
        let mut why = String::new();
        for _ in 0..REST {
            self.pass(60_000)?;
            if !self.book.pages().broken.is_empty() {
                return Ok(());
            }
            match self.unrest()? {
                None => return Ok(()),
                Some(reason) => why = reason,
            }
        }
        self.book.broken(self.now, "rest", &why);
        Ok(())
    }

    /// Why the fleet is not at rest.
    fn unrest(&self) -> Result<Option<String>> {
        for (at, node) in self.nodes.iter().enumerate() {
            let name = &node.host.name;
            let (Some(id), Some(view)) = (self.id(at), node.host.view().clone()) else {
                return Ok(Some(format!("{name} has no manifest")));
            };
            let Some(manifest) = self.server().manifest(id)? else { return Ok(Some(format!("{name}: none was made"))) };
            if view.mark() != manifest.mark {
                return Ok(Some(format!("{name} holds {}, the newest is {}", view.mark(), manifest.mark)));
            }
            let waiting = node.host.state().pending.len();
            if waiting > 0 {
                return Ok(Some(format!("{name}: {waiting} reports wait")));
            }
            let state = node.host.state();
            let pages = self.book.pages();
            for alloc in &manifest.allocs {
                let slot = Slot::from(alloc);
                let Some(job) = pages.specifications.get(&alloc.specification) else { continue };
                let sick = job.id == jobs::name(2) && job.images().any(|c| c.image_id == Some(image(SICK)));
                if job.kind.runs_to_end() || sick {
                    continue;
                }
                let wanted = job.group(&alloc.group).map_or(0, |g| g.tasks.len());
                let running = state.running(&slot).count();
                let bad = view.memory().slots.get(&slot).is_some_and(|m| m.bad.contains_key(&alloc.specification));
                if running != wanted && !bad {
                    return Ok(Some(format!("{name}: of {slot} {running} of {wanted} tasks run")));
                }
            }
            for stone in &manifest.tombstones {
                let slot = Slot::from(stone);
                let listed = manifest.allocs.iter().any(|a| Slot::from(a) == slot);
                if !listed && !self.restored && state.running(&slot).next().is_some() {
                    return Ok(Some(format!("{name}: {slot} was stopped and runs")));
                }
            }
        }
        Ok(None)
    }
}
