//! The agent of a node: keeps its allocations running, with or without its server.
//!
//! In: a configuration, manifests and bundles that trusted keys signed, and what the engine shows. Out: containers that run the last
//! specification that the node switched to, and reports that reach the server once.
//!
//! It may be killed at any instant: what it means to do is on disk before it is done, and every step may be repeated.

mod accept;
mod args;
mod blocking;
mod checks;
mod clock;
mod config;
mod control;
mod dispositions;
mod engine_facts;
mod facts;
mod fetch;
mod files;
mod fingerprint;
mod hints;
mod images;
mod lean;
mod ledger;
mod lock;
mod logs;
mod look;
mod marks;
mod needed;
mod newer;
mod process;
mod run;
mod runner;
mod silence;
#[cfg(feature = "simulation")]
pub mod simulate;
mod spending;
mod start;
mod status;
pub mod steps;
mod task_files;
mod trust;
mod update_lock;
mod uplink;
mod work;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use args::Command;
use lock::LockError;

/// The command line, or the configuration, is wrong.
const USAGE_ERROR: u8 = 2;
/// Another agent has the data folder.
const HELD: u8 = 3;

/// What the program does.
pub fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        // Before anything else, and with nothing but this thread: it becomes another program.
        Ok(Command::Launch(launch)) => process::launch::run(&launch).into(),
        Ok(command) => match perform(command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&mut std::io::stderr(), &format!("skerry-agent: {}\n", told(&error)));
                exit_code(&error)
            }
        },
        Err(error) => {
            say(&mut std::io::stderr(), &format!("skerry-agent: {error}\n\n{}", args::USAGE));
            USAGE_ERROR.into()
        }
    }
}

/// An error and its causes, but for those that the one before ends with: some errors say their cause themselves.
fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string).filter(|c| !c.is_empty()) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<config::ConfigError>() {
        USAGE_ERROR.into()
    } else if matches!(error.downcast_ref(), Some(LockError::Held { .. })) {
        HELD.into()
    } else if error.is::<images::child::NoRoom>() {
        images::child::NO_ROOM.into()
    } else {
        ExitCode::FAILURE
    }
}

fn perform(command: Command) -> Result<()> {
    match command {
        Command::Run(args) => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
            runtime()?.block_on(Box::pin(start::run(args)))
        }
        Command::Status { data, json } => {
            let status = runtime()?.block_on(status::fetch(&data))?;
            let text = if json { serde_json::to_string_pretty(&status)? + "\n" } else { status.text() };
            say(&mut std::io::stdout(), &text);
            Ok(())
        }
        Command::Logs(args) => runtime()?.block_on(Box::pin(logs::show::show(&args))),
        Command::Tell { data, request } => {
            let answer: serde_json::Value = runtime()?.block_on(control::order(&data, request))?;
            let text = match answer {
                serde_json::Value::Object(meta) => {
                    meta.iter().map(|(k, v)| format!("{k} = {}\n", v.as_str().unwrap_or_default())).collect::<String>()
                }
                other => {
                    format!("noted for allocation {}; `skerry-agent status` shows what comes of it\n", other.as_str().unwrap_or_default())
                }
            };
            say(&mut std::io::stdout(), &text);
            Ok(())
        }
        Command::Launch(launch) => anyhow::bail!("{launch:?} is begun before the runtime"),
        Command::Reconstruct => images::child::run(),
        Command::Version => {
            say(&mut std::io::stdout(), concat!("skerry-agent ", env!("CARGO_PKG_VERSION"), "\n"));
            Ok(())
        }
        Command::Help => {
            say(&mut std::io::stdout(), args::USAGE);
            Ok(())
        }
    }
}

/// One thread, and at most two more for blocking work, which end soon when they are idle: memory is dear.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(2).thread_keep_alive(Duration::from_secs(1));
    builder.build().context("cannot start the runtime")
}

/// Writes for people. Nobody left to read it is no error.
fn say(to: &mut dyn Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::Error::msg("disk full").context("cannot write: disk full").context("no room");
        assert_eq!(told(&error), "no room: cannot write: disk full");
        assert_eq!(told(&anyhow::Error::msg("disk full").context("no room")), "no room: disk full");
        assert_eq!(told(&anyhow::Error::msg("")), "");
    }
}
