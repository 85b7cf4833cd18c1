//! `skerry`: the operator's command.
//!
//! In: a command line and a configuration. Out: text for people or, with `--json`, for programs, on standard output; findings and
//! progress on standard error. Exit code 0 when what was asked for was done, 1 when not, 2 when the command line makes no sense.
//!
//! It signs releases and specifications with a key that the server never sees.
#![forbid(unsafe_code)]

mod alloc;
mod args;
mod config;
mod delta;
mod delta_apply;
mod delta_args;
mod delta_image;
mod delta_inspect;
mod delta_key;
mod delta_rank;
mod delta_shares;
mod deployment;
mod engine_source;
mod image;
mod job;
mod key;
mod logs;
mod node;
mod output;
mod publish;
mod stop;
mod unknown;
mod var;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::args::{Cli, Command, ImageCommand};
use crate::config::Config;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.context("starting the runtime").and_then(|runtime| {
        let result = runtime.block_on(run(cli));
        // What was given up is not waited for.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let json = cli.global.json;
    let command = match cli.command {
        Command::Key(command) => return key::run(command, json),
        Command::Delta(command) => return delta::run(command, json).await,
        Command::Image(ImageCommand::Rank(args)) => return delta_rank::rank(args, json).await,
        Command::Job(command) => match job::offline(command, json)? {
            Some(command) => Command::Job(command),
            None => return Ok(()),
        },
        other => other,
    };
    let config = Config::load(cli.global.config.as_deref())?;
    let client = config.client()?;
    match command {
        Command::Image(command) => image::run(&config, &client, command, json).await,
        Command::Job(command) => job::run(&config, &client, command, json).await,
        Command::Deployment(command) => deployment::run(&client, command, json).await,
        Command::Node(command) => node::node(&config, &client, command, json).await,
        Command::Alloc(command) => alloc::run(&config, &client, command, json).await,
        Command::Var(command) => var::run(&client, command, json).await,
        Command::Token(command) => node::token(&client, command, json).await,
        Command::Bundle(command) => node::bundle(&client, command, json).await,
        Command::Status => node::status(&client, json).await,
        Command::Key(_) | Command::Delta(_) => unreachable!("done without a server"),
    }
}
