//! One condition of the network in the middle of an update: what the node does while it lasts, how soon it is current after it, and how
//! many bytes all of it took.
//!
//! In: a link and a size. The first version runs and is asked ten times a second; the second is ordered, and a part of it has passed the
//! link when the test makes its condition. What every course promises ([`Course::finish`]): the old container is not touched until the
//! switch, no question goes without an answer but for the switch, the new version comes, and no byte twice but for a chunk per cut.
//!
//! Each course prints one row of a table, and appends it to the file that `SKERRY_TABLE` names.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use skerry_testkit::app::{PORT, VERSION_PATH, WebApp};
use skerry_testkit::command::until;
use skerry_testkit::dockerd::Container;
use skerry_testkit::image::Archive;
use skerry_testkit::relay::Payload;
use skerry_testkit::{Bed, Nat, Probe, Way, need};

use crate::stage::{self, DEPLOY};

/// What a cut may cost.
pub const CHUNK: u64 = 64 * 1024;
/// The link while nothing is measured.
const FAST: [Way; 2] = [Way::new(100_000.0, 1.0, 0.0), Way::new(100_000.0, 1.0, 0.0)];
/// A small line in the field: 2 Mbit/s down, a quarter of it up, 60 ms there and back.
pub const USUAL: [Way; 2] = [Way::new(2_000.0, 30.0, 0.0), Way::new(500.0, 30.0, 0.0)];
/// Both ways are gone, silently.
pub const CUT: [Way; 2] = [Way::DOWN, Way::DOWN];
/// More of the bundle came: not just an answer to a poll.
const FLOWS: u64 = 16 * 1024;
/// A handshake and the heads of a request and its answer.
const CONNECTION: u64 = 6 * 1024;
/// Between two looks at what the node says.
const TICK: Duration = Duration::from_millis(300);
/// The answer to a poll, with facts that it repeats.
const POLL: u64 = 1024;

/// What a course begins with.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Bytes of the new version that are in no older one.
    pub bulk: u64,
    /// The link, before and after the condition.
    pub link: [Way; 2],
    /// Does the node know the server by a name?
    pub named: bool,
    /// How the node is joined to the link.
    pub stands: Stands,
}

/// How the node is joined to the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// It has an address on it.
    OnTheLink,
    /// The same, and will have another ([`renumber`]).
    Moves,
    /// A router with address translation is between, which has the address on it. The node is told nothing when
    /// that changes.
    BehindNat,
}

/// A network that joins the server's machine and the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The address of the server's machine.
    pub gateway: &'static str,
    /// The node's.
    pub node: &'static str,
}

/// That of the bed.
pub const HOME: Network = Network { gateway: "10.77.0.1", node: "10.77.0.2" };
/// Another one.
pub const ABROAD: Network = Network { gateway: "10.78.0.1", node: "10.78.0.2" };

/// The address of the node's end of the link changes, with its network, as when a provider gives another one: the new one comes, the old
/// one goes, the route is replaced.
///
/// # Errors
/// When `ip` fails.
pub fn renumber(bed: &Bed, from: Network, to: Network) -> Result<()> {
    bed.server_link.ensure_address(&format!("{}/24", to.gateway))?;
    bed.link.add_address(&format!("{}/24", to.node))?;
    bed.link.default_via(to.gateway)?;
    bed.link.remove_address(&format!("{}/24", from.node))
}

impl Plan {
    /// Some ten seconds of the usual link.
    pub const USUAL: Self = Self { bulk: 2_400_000, link: USUAL, named: false, stands: Stands::OnTheLink };
}

/// An update under way.
#[derive(Debug)]
pub struct Course {
    /// Where it happens.
    pub bed: Bed,
    /// The link without the condition.
    pub link: [Way; 2],
    _nat: Option<Nat>,
    old: Container,
    target: Archive,
    version: String,
    probe: Probe,
    before: Payload,
    frames: [u64; 2],
    /// What the node said of itself while the condition lasted, last of all.
    said: String,
    began: Instant,
    lasted: Duration,
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct Row {
    /// From the end of the condition until more of the bundle came; none when all of it had come before.
    pub flows: Option<Duration>,
    /// From the end of the condition until the new version answered; zero when it did before.
    pub current: Duration,
    /// Bytes of the bundle.
    pub bundle: u64,
    /// TCP payload to the node.
    pub down: u64,
}

impl Course {
    /// The first version runs and is asked; the second is ordered. None when tests of this kind are skipped here.
    ///
    /// # Errors
    /// When something does not start.
    pub fn begin(plan: Plan) -> Result<Option<Self>> {
        if !need::bed()? {
            return Ok(None);
        }
        let mut bed = Bed::start_wired(FAST)?;
        let nat = if plan.stands == Stands::BehindNat { Some(Nat::between(&mut bed)?) } else { None };
        if plan.named {
            bed.name_server()?;
        }
        bed.start_server()?;
        bed.count_payload()?;
        bed.start_agent()?;
        stage::wait_enrolled(&bed, 1)?;
        let one = app("1", plan.bulk).write(bed.folder())?;
        let old = stage::deploy(&bed, "web", &one, "1")?;
        let target = app("2", plan.bulk).write(bed.folder())?;
        bed.publish(&target.path, &target.reference)?;
        // The node itself asks; an address that goes away must not take its questions with it.
        let asked = match plan.stands {
            Stands::OnTheLink => bed.app_address()?,
            Stands::Moves | Stands::BehindNat => SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
        };
        let probe = Probe::start(Some(&bed.node), asked, VERSION_PATH);
        bed.wire()?.set(plan.link);
        let (before, frames) = (bed.relay()?.payload(), bed.wire()?.bytes());
        bed.run_job("web", &target.reference)?;
        let (link, now) = (plan.link, Instant::now());
        let (version, said, lasted) = ("2".to_owned(), String::new(), Duration::ZERO);
        Ok(Some(Self { bed, link, _nat: nat, old, target, version, probe, before, frames, said, began: now, lasted }))
    }

    /// Orders a third version while the second is on its way.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn order_another(&mut self, bulk: u64) -> Result<()> {
        self.target = app("3", bulk).write(self.bed.folder())?;
        "3".clone_into(&mut self.version);
        self.bed.publish(&self.target.path, &self.target.reference)?;
        self.bed.run_job("web", &self.target.reference)
    }

    /// Payload to the node since the order.
    ///
    /// # Errors
    /// Never on this bed.
    pub fn down(&self) -> Result<u64> {
        Ok(self.bed.relay()?.payload().since(&self.before).down)
    }

    /// Waits until so many bytes came, and begins the condition.
    ///
    /// # Errors
    /// When they do not come.
    pub fn wait_down(&mut self, bytes: u64) -> Result<()> {
        until(&format!("{bytes} bytes to the node"), DEPLOY, || Ok((self.down()? >= bytes).then_some(())))
            .with_context(|| self.bed.logs())?;
        self.began = Instant::now();
        Ok(())
    }

    /// The condition lasts for `span` more; keeps what the node says of itself meanwhile.
    ///
    /// # Errors
    /// When the agent has nothing to say.
    pub fn last(&mut self, span: Duration) -> Result<()> {
        let end = Instant::now() + span;
        loop {
            let status = self.bed.agent_status()?;
            let contact = match status["contact"]["error"].as_str() {
                Some(error) => format!("server: {error}, {} tries", status["contact"]["failures"]),
                None => "server: answered".to_owned(),
            };
            let image = status["images"][0]["state"].as_str().map_or(String::new(), |state| format!("; image: {state}"));
            let alloc = status["allocs"].as_array().into_iter().flatten().find(|a| a["current"] == true);
            let runs =
                alloc.map_or("nothing runs".to_owned(), |a| format!("version {} {}", a["version"], a["status"].as_str().unwrap_or("?")));
            self.said = format!("{runs}; {contact}{image}");
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(500)));
        }
    }

    /// Waits until so many more bytes came to the node, and says how long that took; keeps what the node says of itself meanwhile.
    ///
    /// # Errors
    /// When they do not come within `limit`.
    pub fn more(&mut self, bytes: u64, limit: Duration) -> Result<Duration> {
        let (start, at) = (Instant::now(), self.down()?);
        while self.down()? < at + bytes {
            ensure!(start.elapsed() < limit, "no {bytes} more bytes within {limit:?}: {}\n{}", self.said, self.bed.logs());
            self.last(TICK)?;
        }
        Ok(start.elapsed())
    }

    /// Waits, in the condition, until the new version answers.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn until_current(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while self.probe.last_answer().is_none_or(|a| a.trim() != self.version) {
            ensure!(start.elapsed() < limit, "not current within {limit:?}: {}\n{}", self.said, self.bed.logs());
            self.last(TICK)?;
        }
        Ok(())
    }

    /// The condition is over: the link is as before.
    ///
    /// # Errors
    /// When the old container was touched.
    pub fn heal(&mut self) -> Result<Instant> {
        let running = self.bed.engine.containers()?;
        let (old, new) = (&self.old, &self.target.image_id);
        ensure!(running.iter().any(|c| c == old || c.image == *new), "the old container was touched: {running:?}\n{}", self.bed.logs());
        self.bed.wire()?.set(self.link);
        self.lasted = self.began.elapsed();
        Ok(Instant::now())
    }

    /// Waits until the node is current and the server knows it, holds what every course promises, and prints the row.
    ///
    /// `healed` is when the condition ended, `cuts` how often it broke the transfer, `within` how soon more of the bundle must come.
    ///
    /// # Errors
    /// When a promise is broken.
    pub fn finish(self, name: &str, healed: Instant, cuts: u64, within: Duration) -> Result<Row> {
        let at_heal = self.down()?;
        let says = |version: &str| self.probe.last_answer().is_some_and(|a| a.trim() == version);
        let flows = until("more of the bundle", DEPLOY, || {
            let done = says(&self.version);
            Ok((done || self.down()? >= at_heal + FLOWS).then(|| (!done).then(|| healed.elapsed())))
        });
        let flows = flows.with_context(|| format!("{} before: {}\n{}", name, self.said, self.bed.logs()))?;
        stage::wait_switch(&self.bed, &self.old, &self.target.image_id, DEPLOY).with_context(|| self.said.clone())?;
        until("an answer of the new version", DEPLOY, || Ok(says(&self.version).then_some(())))?;
        let set = self.bed.wait_deployed("web", DEPLOY)?;
        let payload = self.bed.relay()?.payload().since(&self.before);
        let frames = self.bed.wire()?.bytes()[0] - self.frames[0];
        let samples = self.probe.stop();
        stage::answered_all_the_time(&samples, "1", &self.version, Duration::from_secs(20)).with_context(|| self.bed.logs())?;
        let first = samples.iter().find(|s| s.answer.as_deref().is_ok_and(|a| a.trim() == self.version)).context("no answer")?;
        let current = first.done.saturating_duration_since(healed);
        let bundle = set["rows"][0]["size"].as_u64().with_context(|| format!("no size in {set}"))?;
        let down = payload.down;
        let polls = self.began.elapsed().as_secs().max(10) * POLL;
        // TLS records and HTTP heads take under 1.5 % of chunks of 64 KiB.
        let most = bundle + cuts * CHUNK + bundle / 64 + payload.connections * CONNECTION + polls;
        let flowed = flows.map_or("during it".to_owned(), |f| format!("{:.1} s", f.as_secs_f64()));
        let row = format!(
            "| {name} | {:.0} s | {} | {flowed} | {:.1} s | {bundle} | {down} | {frames} | {} |",
            self.lasted.as_secs_f64(),
            self.said.replace('|', "/"),
            current.as_secs_f64(),
            samples.len(),
        );
        println!("{row}\n(at most {most}; {} connections)", payload.connections);
        if let Some(table) = std::env::var_os("SKERRY_TABLE") {
            writeln!(File::options().create(true).append(true).open(table)?, "{row}")?;
        }
        ensure!(down >= bundle && down <= most, "{down} bytes came to the node for a bundle of {bundle}; at most {most} were allowed");
        ensure!(flows.is_none_or(|f| f <= within), "the transfer went on {flowed} after the end; at most {within:?}\n{}", self.bed.logs());
        Ok(Row { flows, current, bundle, down })
    }
}

/// A version whose bulk is in no other.
fn app(version: &str, bulk: u64) -> WebApp {
    WebApp { bulk, ..WebApp::bulky("web", version) }
}

/// Seconds from the environment, for runs that are longer than those of every day.
#[must_use]
pub fn seconds(variable: &str, usual: u64) -> Duration {
    Duration::from_secs(number(variable, usual))
}

/// A number from the environment.
#[must_use]
pub fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(usual)
}
