//! `skerry job`: from a jobspec to a signed specification, and what became of it.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;
use skerry_client::Client;
use skerry_jobspec::{Severity, Variables};
use skerry_trust::{TrustedRoot, envelope};
use skerry_wire::api::{JobSummary, PlanReply, PlanRequest, StopRequest, SubmitRequest};
use skerry_wire::job::Job;
use skerry_wire::release::{Release, Specification};
use skerry_wire::{Blob, ImageId, limits};

use crate::args::{JobCommand, RunArgs, SpecArgs};
use crate::config::Config;
use crate::publish::split_reference;
use crate::{alloc, deployment, output};

/// What `skerry job init` writes.
const EXAMPLE: &str = include_str!("example.hcl");

/// `skerry job init` and `skerry job validate`: what needs no server. Gives back what does.
pub(crate) fn offline(command: JobCommand, json: bool) -> Result<Option<JobCommand>> {
    match command {
        JobCommand::Init { file } => {
            let mut made = OpenOptions::new().write(true).create_new(true).open(&file).map_err(|e| match e.kind() {
                io::ErrorKind::AlreadyExists => anyhow!("{} is there already; it is left as it is", file.display()),
                _ => anyhow!("writing {}: {e}", file.display()),
            })?;
            made.write_all(EXAMPLE.as_bytes()).with_context(|| format!("writing {}", file.display()))?;
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
            let change = match &plan.job {
                Some(planned) => change(client, &plan, planned).await?,
                None => String::new(),
            };
            output::print(&(change + &describe(&plan)))
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
                alloc::table(&status.allocs),
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
    // Asked for now: after the submit the current version is this one.
    let change = match (json, args.again && plan.unchanged) {
        (true, _) => String::new(),
        (false, true) => format!("Job `{}` is unchanged (version {}), and ordered to run again.\n", resolved.id, plan.version),
        (false, false) => change(client, &plan, &resolved).await?,
    };
    let specification = envelope::seal(&key, Specification::PURPOSE, &Specification { job: resolved, signed_at: output::now() });
    let reply = client
        .submit_job(&SubmitRequest { specification: specification.into(), source, submitter, max_bytes: args.max_bytes, again: args.again })
        .await?;
    if !json {
        output::print(&(change + &describe(&reply.plan)))?;
        output::print(&format!("Job `{}` version {}, deployment set {}\n", reply.job, reply.version, reply.set))?;
    }
    if !args.wait {
        if json {
            return output::json(&reply);
        }
        output::note(&format!("Follow it with: skerry deployment status {}", reply.set.short()));
        return Ok(());
    }
    let (status, fault) = deployment::wait(client, &reply.set, args.timeout).await?;
    if json {
        output::json(&json!({ "submit": reply, "set": status }))?;
    } else {
        output::print(&deployment::describe(&status))?;
    }
    fault.map_or(Ok(()), |fault| Err(anyhow!(fault)))
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
        vouched(root, &release_of(client, &config.image, id).await?.0, &config.image, id)?;
    }
    // Only the ids are taken from the server: everything else is what was written here.
    let mut ours = job.clone();
    let mut ids = proposed.into_iter();
    for group in &mut ours.groups {
        for task in &mut group.tasks {
            let skerry_wire::job::Driver::Docker(config) = &mut task.driver else { continue };
            config.image_id = ids.next().flatten();
        }
    }
    Ok(ours)
}

/// The release by which `written` is `id`. An image may have been released under several names, and a name for several architectures:
/// what the name stands for comes first.
async fn release_of(client: &Client, written: &str, id: ImageId) -> Result<Blob> {
    match client.image(written).await {
        Ok(detail) if detail.summary.image_id == id => return Ok(detail.release),
        Ok(_) => {}
        Err(e) if e.code() == Some("unknown_image") => {}
        Err(e) => return Err(e.into()),
    }
    Ok(client.image(&id.to_string()).await?.release)
}

/// Does a release key say that `written` is the image `id`?
fn vouched(root: &TrustedRoot, release: &[u8], written: &str, id: ImageId) -> Result<()> {
    let (release, _): (Release, _) =
        root.open_release(release, Release::PURPOSE, limits::RELEASE).with_context(|| format!("release of image `{written}` ({id})"))?;
    ensure!(release.image_id == id, "the server proposes {id} for `{written}`, but the release is of {}", release.image_id);
    let named = if written.starts_with("sha256:") {
        written == id.to_string()
    } else {
        let (name, tag) = split_reference(written);
        name == release.name && tag.unwrap_or("latest") == release.tag
    };
    ensure!(named, "the server proposes `{}` for `{written}`: not what the jobspec asks for", release.reference());
    Ok(())
}

/// Reads and checks a jobspec; findings go to standard error with the lines they are about.
fn read(args: &SpecArgs) -> Result<(Job, String)> {
    let (name, source) = if args.file == Path::new("-") {
        ("<stdin>".to_owned(), text(io::stdin()).context("reading standard input")?)
    } else {
        let name = args.file.display().to_string();
        let source = fs::File::open(&args.file).and_then(text).with_context(|| format!("jobspec {name}"))?;
        (name, source)
    };
    let parsed = skerry_jobspec::parse(&source, &variables(args)?);
    for diagnostic in &parsed.diagnostics {
        output::note(&skerry_jobspec::render(diagnostic, &source, &name));
    }
    let errors = parsed.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    match parsed.job {
        Some(job) if errors == 0 => Ok((job, source)),
        _ => bail!("{name} is not a valid jobspec: {errors} error{}", if errors == 1 { "" } else { "s" }),
    }
}

/// A text of at most the length of a jobspec, and one byte more when it is longer: the parser says so.
fn text(from: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.take(limits::JOBSPEC as u64 + 1).read_to_end(&mut bytes)?;
    // The cut may be in the middle of a character.
    if bytes.len() > limits::JOBSPEC {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8 text"))
    })
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
        let text = fs::File::open(file).and_then(text).with_context(|| format!("variables file {name}"))?;
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

/// What a submit of `job` changes about the version that is current now, for people.
async fn change(client: &Client, plan: &PlanReply, job: &Job) -> Result<String> {
    if plan.unchanged {
        return Ok(format!("Job `{}` is unchanged (version {}).\n", job.id, plan.version));
    }
    if plan.version <= 1 {
        return Ok(format!("+ Job `{}`: new\n\n", job.id));
    }
    match client.job(&job.id).await {
        Ok(current) => Ok(format!("{}\n", skerry_jobspec::diff(&current.job, job))),
        Err(e) if e.code() == Some("unknown_job") => Ok(String::new()),
        Err(e) => Err(e.into()),
    }
}

/// A plan for people: what is placed where, and the price.
fn describe(plan: &PlanReply) -> String {
    let mut text = String::new();
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
    text
}

fn table(jobs: &[JobSummary]) -> String {
    output::table(
        &["JOB", "TYPE", "VERSION", "STATUS", "DESIRED", "RUNNING", "HEALTHY", "COMPLETE", "FAILED", "LOST", "SUBMITTED"],
        &["VERSION", "DESIRED", "RUNNING", "HEALTHY", "COMPLETE", "FAILED", "LOST"],
        jobs.iter().map(|j| {
            vec![
                j.id.clone(),
                format!("{:?}", j.kind).to_lowercase(),
                j.version.to_string(),
                if j.stopped { "stopped" } else { "running" }.to_owned(),
                j.desired.to_string(),
                j.running.to_string(),
                j.health.healthy.to_string(),
                j.health.complete.to_string(),
                j.failed.to_string(),
                j.health.lost.to_string(),
                output::time(j.submitted_at),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ring::rand::SystemRandom;
    use skerry_trust::{Role, RoleKeys, Root, SigningKey, sign_root};
    use skerry_wire::{Digest, Timestamp};

    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_pkcs8(&SigningKey::generate(&SystemRandom::new()).unwrap()).unwrap()
    }

    fn root(release: &SigningKey) -> TrustedRoot {
        let own = key();
        let role = |key: &SigningKey| RoleKeys { keys: vec![key.public()], threshold: 1 };
        let roles = BTreeMap::from([(Role::Root, role(&own)), (Role::Release, role(release)), (Role::Director, role(&own))]);
        TrustedRoot::first(&sign_root(&Root { version: 1, roles, time_cap: Timestamp(i64::MAX) }, &[&own])).unwrap()
    }

    fn release(key: &SigningKey, name: &str, tag: &str, id: ImageId) -> Vec<u8> {
        let release = Release {
            name: name.to_owned(),
            tag: tag.to_owned(),
            image_id: id,
            diff_ids: Vec::new(),
            architecture: "arm64".to_owned(),
            os: "linux".to_owned(),
            size: 0,
            signed_at: Timestamp(1),
        };
        envelope::seal(key, Release::PURPOSE, &release)
    }

    #[test]
    fn only_what_a_release_names() {
        let (ours, foreign) = (key(), key());
        let root = root(&ours);
        let (id, other) = (ImageId(Digest::new([1; 32])), ImageId(Digest::new([2; 32])));
        let by_id = id.to_string();
        for (written, name, tag) in [
            ("shop/till:2", "shop/till", "2"),
            ("shop/till", "shop/till", "latest"),
            ("host:5000/till", "host:5000/till", "latest"),
            ("host:5000/till:2", "host:5000/till", "2"),
            (by_id.as_str(), "shop/till", "2"),
        ] {
            vouched(&root, &release(&ours, name, tag, id), written, id).unwrap();
            assert!(vouched(&root, &release(&foreign, name, tag, id), written, id).is_err(), "{written} by another key");
            assert!(vouched(&root, &release(&ours, name, tag, other), written, id).is_err(), "{written} of another image");
        }
        let other_id = other.to_string();
        for (written, name, tag) in [
            ("shop/till:2", "shop/till", "3"),
            ("shop/till", "shop/till", "2"),
            ("shop/till:2", "Shop/till", "2"),
            ("host:5000/till", "host", "5000/till"),
            ("shop/till:2", "shop/till:2", "latest"),
            // A release that calls itself by another image's id.
            (other_id.as_str(), "sha256", &other_id["sha256:".len()..]),
        ] {
            assert!(vouched(&root, &release(&ours, name, tag, id), written, id).is_err(), "{written} by {name} {tag}");
        }
    }

    #[test]
    fn texts_are_bounded_and_tell_the_line() {
        assert_eq!(text("job \"a\" {}".as_bytes()).unwrap(), "job \"a\" {}");
        let error = text(&b"one\ntwo\n\xff"[..]).unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
        assert!(text(io::repeat(b'a')).unwrap().len() > limits::JOBSPEC);
        // The cut is inside of a character.
        assert!(text("\u{20ac}".repeat(limits::JOBSPEC).as_bytes()).unwrap().len() > limits::JOBSPEC);
    }
}
