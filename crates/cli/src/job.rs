//! `skerry job`: from a jobspec to a signed specification, and what became of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use skerry_client::Client;
use skerry_jobspec::{Severity, Variables};
use skerry_trust::{TrustedRoot, envelope};
use skerry_wire::api::{JobSummary, PlanReply, PlanRequest, StopRequest, SubmitRequest};
use skerry_wire::job::Job;
use skerry_wire::release::{Release, Specification};
use skerry_wire::{ImageId, limits};

use crate::args::{JobCommand, RunArgs, SpecArgs};
use crate::config::Config;
use crate::{deployment, node, output};

/// What `skerry job init` writes.
const EXAMPLE: &str = include_str!("example.hcl");

/// `skerry job init` and `skerry job validate`: what needs no server. Gives back what does.
pub(crate) fn offline(command: JobCommand, json: bool) -> Result<Option<JobCommand>> {
    match command {
        JobCommand::Init { file } => {
            ensure!(!file.exists(), "{} is there already; it is left as it is", file.display());
            fs::write(&file, EXAMPLE).with_context(|| format!("writing {}", file.display()))?;
            output::note(&format!("Wrote {}. Next: skerry job plan {}", file.display(), file.display()));
            Ok(None)
        }
        JobCommand::Validate(args) => {
            let (job, _) = read(&args)?;
            if json {
                output::json(&job)?
            } else {
                output::print(&format!("Job `{}` is valid.\n", job.id))?
            }
            Ok(None)
        }
        other => Ok(Some(other)),
    }
}

/// `skerry job ...`
pub(crate) async fn run(config: &Config, client: &Client, command: JobCommand, json: bool) -> Result<()> {
    match command {
        JobCommand::Init { .. } | JobCommand::Validate(_) => unreachable!("done offline"),
        JobCommand::Plan(args) => {
            let (job, _) = read(&args)?;
            let plan = client.plan_job(&PlanRequest { job }).await?;
            if json {
                return output::json(&plan);
            }
            output::print(&describe(client, &plan).await?)
        }
        JobCommand::Run(args) => submit(config, client, args, json).await,
        JobCommand::Status { id: None } => {
            let jobs = client.jobs().await?;
            if json { output::json(&jobs) } else { output::print(&table(&jobs)) }
        }
        JobCommand::Status { id: Some(id) } => {
            let status = client.job(&id).await?;
            if json {
                return output::json(&status);
            }
            output::print(&format!(
                "{}\n{}\n{}",
                table(std::slice::from_ref(&status.summary)),
                node::allocs(&status.allocs),
                deployment::table(&status.sets)
            ))
        }
        JobCommand::Stop { id } => {
            let summary = client.stop_job(&id, &StopRequest { submitter: config.submitter()? }).await?;
            if json { output::json(&summary) } else { output::print(&format!("Job `{id}` is ordered to stop on its nodes.\n")) }
        }
    }
}

async fn submit(config: &Config, client: &Client, args: RunArgs, json: bool) -> Result<()> {
    let (job, source) = read(&args.spec)?;
    let (key, submitter) = (config.release_key(args.key.as_deref())?, config.submitter()?);
    let root = config.root()?.context(
        "no root document to check the server's word with\n  Set `root` in the configuration: what you sign names images, and only the root says which releases are genuine.",
    )?;
    let plan = client.plan_job(&PlanRequest { job: job.clone() }).await?;
    let resolved = resolve(client, &root, &job, &plan).await?;
    let specification = envelope::seal(&key, Specification::PURPOSE, &Specification { job: resolved, signed_at: output::now() });
    let reply =
        client.submit_job(&SubmitRequest { specification: specification.into(), source, submitter, max_bytes: args.max_bytes }).await?;
    if !json {
        output::print(&describe(client, &reply.plan).await?)?;
        output::print(&format!("Job `{}` version {}, deployment set {}\n", reply.job, reply.version, reply.set))?;
    }
    if !args.wait {
        if json {
            return output::json(&reply);
        }
        output::note(&format!("Follow it with: skerry deployment status {}", reply.set.short()));
        return Ok(());
    }
    let status = deployment::wait(client, &reply.set, args.timeout).await?;
    if json { output::json(&json!({ "submit": reply, "set": status })) } else { output::print(&deployment::describe(&status)) }
}

/// The job with every image's id, after checking that a release key vouches for each: the server proposes, the root decides.
async fn resolve(client: &Client, root: &TrustedRoot, job: &Job, plan: &PlanReply) -> Result<Job> {
    let answered = plan.job.as_ref().context("the server's plan does not resolve the job's images")?;
    let proposed: Vec<Option<ImageId>> = answered.images().map(|i| i.image_id).collect();
    ensure!(proposed.len() == job.images().count(), "the server's plan is of another job");
    let mut genuine = BTreeSet::new();
    for (config, id) in job.images().zip(&proposed) {
        let id = id.with_context(|| format!("the server does not know image `{}`", config.image))?;
        if !genuine.insert((config.image.clone(), id)) {
            continue;
        }
        let detail = client.image(&id.to_string()).await?;
        let (release, _): (Release, _) = root
            .open_release(&detail.release.0, Release::PURPOSE, limits::RELEASE)
            .with_context(|| format!("release of image `{}` ({id})", config.image))?;
        ensure!(release.image_id == id, "the server proposes {id} for `{}`, but the release is of {}", config.image, release.image_id);
        let named = config.image == release.reference()
            || config.image == id.to_string()
            || (release.tag == "latest" && config.image == release.name);
        ensure!(named, "the server proposes `{}` for `{}`: not what the jobspec asks for", release.reference(), config.image);
    }
    // Only the ids are taken from the server: everything else is what was written here.
    let mut ours = job.clone();
    let mut ids = proposed.into_iter();
    for group in &mut ours.groups {
        for task in &mut group.tasks {
            let skerry_wire::job::Driver::Docker(config) = &mut task.driver;
            config.image_id = ids.next().flatten();
        }
    }
    Ok(ours)
}

/// Reads and checks a jobspec; findings go to standard error with the lines they are about.
fn read(args: &SpecArgs) -> Result<(Job, String)> {
    let (name, source) = if args.file == Path::new("-") {
        let mut text = String::new();
        io::stdin().take(limits::JOBSPEC as u64 + 1).read_to_string(&mut text).context("reading standard input")?;
        ("<stdin>".to_owned(), text)
    } else {
        let text = fs::read_to_string(&args.file).with_context(|| format!("jobspec {}", args.file.display()))?;
        (args.file.display().to_string(), text)
    };
    let parsed = skerry_jobspec::parse(&source, &variables(args)?);
    for diagnostic in &parsed.diagnostics {
        output::note(&skerry_jobspec::render(diagnostic, &source, &name));
    }
    let errors = parsed.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    match parsed.job {
        Some(job) if errors == 0 => Ok((job, source)),
        _ => bail!("{name}: {errors} error{}; nothing was submitted", if errors == 1 { "" } else { "s" }),
    }
}

/// Values of variables: the environment (`SKERRY_VAR_name`), then files, then `--var`; the last one wins.
fn variables(args: &SpecArgs) -> Result<Variables> {
    let mut all = Variables::new();
    for (key, value) in std::env::vars_os() {
        if let (Some(key), Some(value)) = (key.to_str(), value.to_str())
            && let Some(name) = key.strip_prefix("SKERRY_VAR_")
        {
            all.set_environment(name, value);
        }
    }
    for file in &args.variable_files {
        let name = file.display().to_string();
        let text = fs::read_to_string(file).with_context(|| format!("variables file {name}"))?;
        let findings = all.add_file(&text, &name);
        for finding in &findings {
            output::note(&skerry_jobspec::render(finding, &text, &name));
        }
        ensure!(findings.iter().all(|f| f.severity != Severity::Error), "variables file {name} has errors");
    }
    let mut seen = BTreeSet::new();
    for pair in &args.variables {
        let (name, value) = pair.split_once('=').with_context(|| format!("--var {pair}: expected NAME=VALUE"))?;
        ensure!(seen.insert(name), "--var {name} is given twice");
        all.set_flag(name, value);
    }
    Ok(all)
}

/// A plan for people: the difference to the current version, what is placed where, and the price.
async fn describe(client: &Client, plan: &PlanReply) -> Result<String> {
    let mut text = String::new();
    if let Some(job) = &plan.job {
        if plan.unchanged {
            text.push_str(&format!("Job `{}` is unchanged (version {}).\n", job.id, plan.version));
        } else if plan.version > 1 {
            match client.job(&job.id).await {
                Ok(current) => text.push_str(&format!("{}\n", skerry_jobspec::diff(&current.job, job))),
                Err(e) if e.code() == Some("unknown_job") => {}
                Err(e) => return Err(e.into()),
            }
        } else {
            text.push_str(&format!("+ Job `{}`: new\n\n", job.id));
        }
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (action, list) in [("place", &plan.placements), ("stop", &plan.stops)] {
        for p in list {
            let action = if action == "place" && p.replaces.is_some() { "update" } else { action };
            rows.push(vec![action.to_owned(), p.node_name.clone(), format!("{}[{}]", p.group, p.index)]);
        }
    }
    if !rows.is_empty() {
        text.push_str(&output::table(&["ACTION", "NODE", "GROUP"], &[], rows));
        text.push('\n');
    }
    for f in &plan.failures {
        text.push_str(&format!("Group `{}`: {} allocation(s) find no node\n", f.group, f.missing));
        for reason in &f.reasons {
            text.push_str(&format!("  {reason}\n"));
        }
    }
    if !plan.price.is_empty() {
        let rows = plan.price.iter().map(|p| {
            vec![
                p.node_name.clone(),
                p.reference.clone(),
                p.base.map_or_else(|| "full".to_owned(), |b| b.digest().short()),
                format!("{}{}", if p.built { "" } else { "about " }, output::bytes(p.bytes)),
                output::bytes(p.disk_peak),
            ]
        });
        text.push_str(&output::table(&["NODE", "IMAGE", "BASE", "TO FETCH", "DISK PEAK"], &["TO FETCH", "DISK PEAK"], rows));
        text.push_str(&format!("Together {} to fetch\n\n", output::bytes(plan.price.iter().map(|p| p.bytes).fold(0, u64::saturating_add))));
    }
    Ok(text)
}

fn table(jobs: &[JobSummary]) -> String {
    output::table(
        &["JOB", "TYPE", "VERSION", "STATUS", "DESIRED", "RUNNING", "FAILED", "SUBMITTED"],
        &["VERSION", "DESIRED", "RUNNING", "FAILED"],
        jobs.iter().map(|j| {
            vec![
                j.id.clone(),
                format!("{:?}", j.kind).to_lowercase(),
                j.version.to_string(),
                if j.stopped { "stopped" } else { "running" }.to_owned(),
                j.desired.to_string(),
                j.running.to_string(),
                j.failed.to_string(),
                output::time(j.submitted_at),
            ]
        }),
    )
}
