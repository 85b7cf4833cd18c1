//! Starts the agent: takes the data folder, opens everything, joins the parts by channels, runs until it is told to end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use skerry_engine::DockerEngine;
use skerry_transfer::Pace;
use skerry_wire::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};

use crate::args::RunArgs;
use crate::checks::Checks;
use crate::clock::{Clock, boottime_ms};
use crate::config::Config;
use crate::control::{self, Control};
use crate::engine_facts::{Outlets, watch_engine};
use crate::facts::Facts;
use crate::images::Images;
use crate::images::admission::Terms;
use crate::ledger::Ledger;
use crate::lock::Lock;
use crate::logs::answer::Outputs;
use crate::needed::Needed;
use crate::process::{Processes, output};
use crate::run::Allocator;
use crate::runner::Drivers;
use crate::silence::Silence;
use crate::spending::Spending;
use crate::status::{AllocReport, EngineReport, Sources};
use crate::trust::{RootStore, node_key};
use crate::uplink::client::Client;
use crate::uplink::meter::Meter;
use crate::uplink::{self, Contact, Uplink, Wires};
use crate::{dispositions, files, fingerprint, hints};

/// No clock of a node is right before this: 2026-01-01, in milliseconds.
pub(crate) const BUILT: Timestamp = Timestamp(1_767_225_600_000);
/// Hints that may wait; one is as good as many.
const HINTS: usize = 8;

/// Runs until SIGTERM or SIGINT. Containers go on.
pub(crate) async fn run(args: RunArgs) -> Result<()> {
    let (config, unknown) = read_config(&args)?;
    for key in unknown {
        tracing::warn!("{}: `{key}` is not known to this agent and has no effect", args.config.display());
    }
    let _lock = Lock::take(&args.data).await?;
    let data = std::fs::canonicalize(&args.data).with_context(|| format!("cannot use the data folder {}", args.data.display()))?;
    // Listening from here on: a signal while things are being opened ends the agent just as well.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let _ignored = dispositions::handle_ignored().context("cannot handle the signals that are ignored")?;

    let clock = Clock::new().context("cannot find out which boot this is")?;
    let ledger = Ledger::open(&data, BUILT)?;
    let roots = RootStore::open(&data, &config.root)?;
    ledger.settle_mark(roots.current().root().version).await?;
    let key = Arc::new(node_key(&data)?);
    let ca = std::fs::read(&config.ca).with_context(|| format!("cannot read `ca` {}", config.ca.display()))?;
    let window = usize::try_from(config.receive_window).context("receive_window")?;
    let meter = Meter::default();
    let client = Client::new(&config.server, &ca, window, ledger.watch_time(), meter.clone())?;
    client.remember_address(&data.join("server.address"));
    let reach = client.reach().clone();
    let day = config.transfer.rules.budget.as_ref().map_or(1, skerry_transfer::Budget::day);
    let spending = Spending::new(ledger.clone(), clock.clone(), meter, day);
    let terms = Terms {
        rules: config.transfer.rules.clone(),
        pace: config.transfer.rate.map(|rate| Arc::new(Mutex::new(Pace::new(rate, boottime_ms())))),
        spending: spending.clone(),
        have: Arc::default(),
    };
    let engine = DockerEngine::connect(&config.docker)?;
    let listener = control::listen(&data)?;
    // Tasks run as any user, so the folders in it are open to all; this one is what closes them. Programs that are not root's, and outlived
    // an agent before this one, pass through it.
    let alloc_folder = data.join("alloc");
    files::make_unlisted_folder(&alloc_folder)?;

    let news = Arc::new(Notify::new());
    let processes = Processes::open(&data.join("run"), Arc::clone(&news))?;
    if let Some(lacking) = processes.cgroups().lacking() {
        tracing::warn!("programs run without limits of memory and processor: {lacking}");
    }
    let silence = Silence::open(&data, clock.boot(), boottime_ms())?;
    let plain = fingerprint::collect(&config, features(), processes.cgroups(), &data);
    let name = plain.name.clone();
    let (fingerprint, facts) = Facts::new(plain, ledger.local_meta().await?);
    let (inventory_to, inventory) = watch::channel(None);
    let (unknown_to, unknown) = watch::channel(None);
    let (needed_to, needed) = watch::channel(Arc::new(Needed::default()));
    let (asking_to, asking) = watch::channel(Arc::new(Default::default()));
    let (offers_to, offers) = watch::channel(Arc::new(BTreeMap::new()));
    let (contact_to, contact) = watch::channel(Contact::default());
    let (allocs_to, allocs) = watch::channel(Arc::new(AllocReport::default()));
    let socket = config.docker.display().to_string();
    let (report_to, report) = watch::channel(EngineReport { socket, ..EngineReport::default() });
    let (progress_to, progress) = watch::channel(Arc::new(BTreeMap::new()));
    let (engine_to, engine_facts) = watch::channel(None);
    let (trouble_to, trouble) = watch::channel(None);
    let (told, engine_report, contact_seen, held) = (fingerprint.clone(), report.clone(), contact.clone(), ledger.watch_desired());
    let (hints_to, hints) = mpsc::channel(HINTS);
    let wake = Arc::new(Notify::new());
    let listed = processes.changed();

    let drivers = Drivers {
        engine: engine.clone(),
        processes: processes.clone(),
        policy: Arc::new(config.policy.clone()),
        alloc_folder: Arc::new(alloc_folder),
    };
    let checks = Checks::default();
    let (checks_seen, silence_seen) = (checks.clone(), silence.clone());
    let sources = Sources {
        name,
        ledger: ledger.clone(),
        contact,
        allocs,
        progress,
        engine: report,
        checks: checks_seen,
        silence: silence_seen,
        spending: spending.clone(),
        budget: config.transfer.rules.budget,
    };
    let control = Control { sources, ledger: ledger.clone(), facts: fingerprint.clone() };
    let uplink = Uplink {
        client: client.clone(),
        key,
        clock: clock.clone(),
        silence: silence.clone(),
        token: config.token.clone(),
        poll_interval: config.poll_interval,
        roots: roots.clone(),
        ledger: ledger.clone(),
        outputs: Outputs { data: data.clone(), engine: Some(engine.clone()) },
        wires: Wires {
            facts: facts.clone(),
            inventory,
            unknown,
            asking,
            wake: Arc::clone(&wake),
            offers: offers_to.clone(),
            hints: hints_to.clone(),
            contact: contact_to,
        },
    };
    let allocator = Allocator {
        drivers: drivers.clone(),
        ledger: ledger.clone(),
        clock,
        facts,
        checks: checks.clone(),
        apply: config.transfer.apply.clone(),
        silence,
        needed: needed_to,
        inventory: inventory_to.clone(),
        unknown: unknown_to,
        hints,
        news: Arc::clone(&news),
        reports: (allocs_to, report_to.clone()),
    };
    let images = Images {
        engine: engine.clone(),
        engine_facts,
        ledger: ledger.clone(),
        roots,
        client,
        folder: data.join("bundles"),
        needed,
        offers,
        struck: offers_to,
        asking: asking_to,
        wake,
        inventory: inventory_to,
        progress: progress_to,
        terms,
        marks: config.marks,
        keep_bundles: config.keep_bundles,
        trouble: trouble_to,
    };
    let outlets = Outlets { engine: engine_to, facts: fingerprint, report: report_to };
    tracing::info!("skerry-agent {} on {}", env!("CARGO_PKG_VERSION"), data.display());
    // Each part runs for ever; whichever ends first ends the agent, and a supervisor starts it again. Dropping them loses nothing:
    // every step is on the disk before it is acted on.
    tokio::select! {
        biased;
        _ = terminate.recv() => tracing::info!("told to end; containers and processes go on"),
        _ = interrupt.recv() => tracing::info!("told to end; containers and processes go on"),
        () = allocator.run() => anyhow::bail!("the ledger's thread ended"),
        () = uplink::run(uplink) => {}
        () = uplink::network::follow(reach) => {}
        () = images.run() => {}
        () = told.follow(engine_report, contact_seen, trouble, held) => {}
        () = watch_engine(engine.clone(), data, outlets) => {}
        () = hints::follow(engine, ledger, hints_to) => {}
        () = control::serve(listener, control) => {}
        () = checks.run(drivers, news) => {}
        () = output::keep_bounded(processes, listed) => {}
        () = crate::lean::stay_lean() => {}
    }
    Ok(())
}

/// The configuration, with what the command line says instead.
fn read_config(args: &RunArgs) -> Result<(Config, Vec<String>)> {
    let (mut config, unknown) = Config::read(&args.config)?;
    if let Some(docker) = &args.docker {
        config.docker.clone_from(docker);
    }
    if args.name.is_some() {
        config.name.clone_from(&args.name);
    }
    Ok((config, unknown))
}

/// What this agent can apply.
fn features() -> Vec<String> {
    vec!["bundle/1".to_owned()]
}
