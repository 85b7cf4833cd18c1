//! `skerry-server`: the command line of the server; the server itself is the library beside it, see [`skerry_server`].
//!
//! In: a command and a configuration. Out: a server that runs until it is told to stop, or an error on standard error. Exit code 64
//! when command line or configuration make no sense, before anything is started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use skerry_server::config::Config;
use skerry_server::run::{DataLock, Server};
use skerry_server::store::Role;
use skerry_server::{admin, descriptors, dev};
use skerry_trust::PublicKey;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Bad command line or configuration (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

/// The Skerry server.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server.
    Run {
        /// The configuration; server.example.toml documents every key.
        #[arg(long)]
        config: PathBuf,
    },
    /// Checks a configuration and ends.
    Check {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Runs a server for development, which makes and holds all keys itself.
    Dev {
        /// Folder for everything; made on first start, kept on later ones.
        #[arg(long)]
        data: PathBuf,
        /// Address and port to listen on.
        #[arg(long, default_value = "127.0.0.1:7443")]
        listen: SocketAddr,
        /// Where nodes and operators reach it, when that is not the listen address: `https://HOST:PORT`.
        #[arg(long)]
        advertise: Option<String>,
    },
    /// Operators' tokens; while the server runs, too.
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Makes the trust of a new fleet: root.key (keep it offline), director.key (for the server), root.cose (for server and nodes).
    Trust {
        /// Folder for the files; none of them may be there.
        #[arg(long)]
        out: PathBuf,
        /// Public half of a release key, as `skerry key generate` shows it; may be given several times.
        #[arg(long = "release", value_name = "PUBLIC_KEY", required = true)]
        release: Vec<PublicKey>,
    },
    /// Makes the root document that follows the newest one, where root.key is kept: after it every node takes a manifest anew, those too
    /// that lost their marks. Its file goes to the end of trust.roots.
    RenewRoot {
        /// The newest root document.
        #[arg(long)]
        root: PathBuf,
        /// A root key; as many of them as the root asks for.
        #[arg(long = "root-key", value_name = "FILE", required = true)]
        keys: Vec<PathBuf>,
        /// File for the new root document; it must not be there.
        #[arg(long)]
        out: PathBuf,
        /// Public half of a release key, in place of those before; may be given several times.
        #[arg(long = "release", value_name = "PUBLIC_KEY")]
        release: Vec<PublicKey>,
        /// Public half of a director key, in place of those before; may be given several times.
        #[arg(long = "director", value_name = "PUBLIC_KEY")]
        director: Vec<PublicKey>,
    },
}

#[derive(Debug, Subcommand)]
enum OperatorCommand {
    /// Makes an operator's token and prints it; it cannot be shown again.
    Add {
        /// The server's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Whose it is, for the audit log.
        #[arg(long)]
        name: String,
        /// What it may do: reader, operator (jobs), publisher (images) or admin.
        #[arg(long, value_parser = role)]
        role: Role,
    },
    /// Lists operators and their roles.
    List {
        /// The server's configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Takes an operator's tokens away.
    Remove {
        /// The server's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Whose.
        #[arg(long)]
        name: String,
    },
}

fn role(name: &str) -> Result<Role, String> {
    Role::from_name(name).ok_or_else(|| "not a role: write reader, operator, publisher or admin".to_owned())
}

fn main() -> ExitCode {
    let args = Args::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        std::process::exit(if error.use_stderr() { i32::from(EXIT_USAGE) } else { 0 });
    });
    match prepare(args.command).and_then(|ready| ready.map_or(Ok(()), run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            eprintln!("skerry-server: {error:#}");
            ExitCode::from(code)
        }
    }
}

/// A configuration that was checked, and the data folder.
struct Ready {
    config: Config,
    lock: DataLock,
    /// For a development server: the address that others are told.
    advertise: Option<dev::Address>,
}

type Failed = (u8, anyhow::Error);

/// Everything that can go wrong before anything is started.
fn prepare(command: Command) -> Result<Option<Ready>, Failed> {
    let usage = |error: anyhow::Error| (EXIT_USAGE, error);
    let failed = |error: anyhow::Error| (1, error);
    let load = |path: &Path| Config::load(path).map_err(|e| usage(e.into()));
    Ok(match command {
        Command::Check { config } => {
            load(&config)?;
            println!("{}: ok", config.display());
            None
        }
        Command::Operator(command) => {
            let (OperatorCommand::Add { config, .. } | OperatorCommand::List { config } | OperatorCommand::Remove { config, .. }) =
                &command;
            let config = load(config)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| failed(e.into()))?;
            runtime.block_on(operator(&config, &command)).map_err(failed)?;
            None
        }
        Command::Trust { out, release } => {
            admin::make_trust(&out, &release).map_err(failed)?;
            println!("{}: made; take root.key away from this machine, and keep it safe", out.display());
            None
        }
        Command::RenewRoot { root, keys, out, release, director } => {
            let version = admin::renew_root(&root, &keys, admin::Renewal { release, director }, &out).map_err(failed)?;
            println!(
                "{}: root version {version}; add it to the end of trust.roots of the server and start it again: nodes follow by themselves. Where keys were exchanged, operators need it, too (`root` in cli.toml)",
                out.display()
            );
            None
        }
        Command::Run { config } => {
            let config = load(&config)?;
            let lock = DataLock::take(&config.data).map_err(|e| failed(e.into()))?;
            Some(Ready { config, lock, advertise: None })
        }
        Command::Dev { data, listen, advertise } => {
            let advertise = dev::Address::new(listen, advertise.as_deref()).map_err(|e| usage(e.into()))?;
            let lock = DataLock::take(&data).map_err(|e| failed(e.into()))?;
            let config = dev::prepare(&data, &advertise).map_err(failed)?;
            eprintln!("skerry-server: this server holds ALL keys of its fleet in {}: for development only", data.display());
            Some(Ready { config, lock, advertise: Some(advertise) })
        }
    })
}

async fn operator(config: &Config, command: &OperatorCommand) -> anyhow::Result<()> {
    match command {
        OperatorCommand::Add { name, role, .. } => println!("{}", admin::add_operator(config, name, *role).await?),
        OperatorCommand::List { .. } => {
            for operator in admin::operators(config).await? {
                println!("{}  {}", operator.role.name(), operator.name);
            }
        }
        OperatorCommand::Remove { name, .. } => admin::remove_operator(config, name).await?,
    }
    Ok(())
}

fn run(ready: Ready) -> Result<(), Failed> {
    // The scheduler tells of its own start at `info`; what is written in the configuration comes after and wins.
    let filter = EnvFilter::try_new(format!("tokio_cron_scheduler=warn,{}", ready.config.log))
        .map_err(|e| (EXIT_USAGE, anyhow::anyhow!("log: `{}`: {e}\nhelp: write a level such as \"info\"", ready.config.log)))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    descriptors::raise(ready.config.limits.connections);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| (1, e.into()))?;
    runtime.block_on(serve(ready)).map_err(|e| (1, e))
}

/// Between two times that free memory goes back to the system.
const TRIM: Duration = Duration::from_secs(30);

/// Gives what was freed back to the system. glibc keeps it for a thread that may want it again: what one planning of 10,000 nodes needs, or
/// requests of many nodes at once, would count as the server's for ever.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the only way to ask the C library for it")]
fn trim() {
    unsafe extern "C" {
        /// malloc_trim(3): keeps `pad` bytes at the top of the heap.
        fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    // SAFETY: it may be called at any time from any thread, and touches no memory that is in use.
    unsafe { malloc_trim(0) };
}

/// Other C libraries have no such call.
#[cfg(not(target_env = "gnu"))]
fn trim() {}

async fn serve(ready: Ready) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = Server::start(ready.config, ready.lock).await?;
    // The first line is for whoever started the server and waits for it.
    match ready.advertise {
        None => println!("ready https://{}", server.address()),
        Some(advertise) => {
            dev::finish(server.app(), &advertise.url(server.address())).await?;
            println!("ready https://{}", server.address());
        }
    }
    let trimming = async {
        loop {
            tokio::time::sleep(TRIM).await;
            // It walks the whole heap, one arena after the other; who allocates there meanwhile waits.
            let _ = tokio::task::spawn_blocking(trim).await;
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = trimming => {}
    }
    tracing::info!("stopping");
    server.stop().await;
    Ok(())
}
