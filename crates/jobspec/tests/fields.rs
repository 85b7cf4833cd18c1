//! Every field of a job: the diff shows its change, the rules bear any value of it, and the defaults are those of the type.

use serde_json::{Map, Value, json};
use skerry_jobspec::{Images, Severity, Variables, diff, parse, render, validate};
use skerry_wire::Millis;
use skerry_wire::job::{ChangeMode, CheckKind, Driver, Hook, Job, Reconcile, Reschedule, RestartMode, RestartPolicy, Update};

const FULL: &str = include_str!("full.hcl");

fn read(source: &str) -> Job {
    let parsed = parse(source, &Variables::new());
    let text: String = parsed.diagnostics.iter().map(|d| render(d, source, "job.hcl")).collect();
    assert_eq!(text, "");
    parsed.job.expect("a job without a finding")
}

/// A job with something in every field, optional ones included.
fn full() -> Job {
    let mut job = read(FULL);
    for config in job.groups.iter_mut().flat_map(|g| &mut g.tasks) {
        if let Driver::Docker(config) = &mut config.driver {
            config.image_id = Some(skerry_wire::ImageId(skerry_wire::Digest::new([7; 32])));
        }
    }
    job
}

/// Paths to every value that has no others inside.
fn leaves(value: &Value, path: String, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| leaves(v, format!("{path}/{}", k.replace('~', "~0").replace('/', "~1")), out)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| leaves(v, format!("{path}/{i}"), out)),
        _ => out.push(path),
    }
}

/// The jobs that come of putting `new(old)` in the place of each value, where that is a job at all.
fn changed(job: &Job, new: impl Fn(&Value) -> Vec<Value>) -> Vec<(String, Job)> {
    let whole = serde_json::to_value(job).expect("a job");
    let mut paths = Vec::new();
    leaves(&whole, String::new(), &mut paths);
    assert!(paths.len() > 150, "{} fields", paths.len());
    let mut out = Vec::new();
    for path in paths {
        for value in new(whole.pointer(&path).expect("a value")) {
            let mut whole = whole.clone();
            *whole.pointer_mut(&path).expect("a value") = value;
            if let Ok(job) = serde_json::from_value(whole) {
                out.push((path.clone(), job));
            }
        }
    }
    out
}

/// Other values of every enum of a job, by the value that the full job has.
const WORDS: [&str; 31] = [
    "service",
    "system",
    "batch",
    "sysbatch",
    "delay",
    "fail",
    "constant",
    "exponential",
    "fibonacci",
    "checks",
    "task_states",
    "keep_original",
    "keep_replacement",
    "longest_running",
    "skip",
    "once",
    "interval",
    "closed",
    "prestart",
    "poststart",
    "poststop",
    "host",
    "bridge",
    "none",
    "equal",
    "is_set",
    "noop",
    "restart",
    "hold",
    "retry",
    "full",
];

#[test]
fn the_diff_shows_a_change_of_every_field() {
    let job = full();
    assert!(diff(&job, &job).is_empty());
    let other = |old: &Value| match old {
        Value::Bool(b) => vec![json!(!b)],
        Value::Number(n) => vec![json!(n.as_u64().unwrap() + 1)],
        Value::String(s) => {
            let words = WORDS.iter().filter(|w| *w != s).map(|w| json!(w));
            words
                .chain([json!(format!("{s}x")), json!(format!("{s} ")), json!(s.replace("sha256:", "sha256:0").get(..71).unwrap_or("x"))])
                .collect()
        }
        Value::Null => vec![json!("x"), json!(5)],
        _ => Vec::new(),
    };
    let all = changed(&job, other);
    let mut seen = std::collections::BTreeSet::new();
    for (path, new) in all {
        assert_eq!(diff(&job, &new).is_empty(), job == new, "{path} changed, and the diff is: {}", diff(&job, &new));
        assert_eq!(diff(&new, &job).is_empty(), job == new, "{path}");
        if job != new {
            seen.insert(path);
        }
    }
    // Each of them could be changed to something else.
    let mut paths = Vec::new();
    leaves(&serde_json::to_value(&job).unwrap(), String::new(), &mut paths);
    let kept: Vec<&String> = paths.iter().filter(|p| !seen.contains(*p)).collect();
    // The type of a check cannot be changed without its fields.
    assert!(kept.iter().all(|p| p.contains("/checks/") && p.ends_with("/type")), "{kept:?}");
}

/// Does some field of the job have the default that a jobspec without it gets? The full job must say something else everywhere.
#[test]
fn the_diff_shows_what_is_taken_away() {
    let job = full();
    let whole = serde_json::to_value(&job).unwrap();
    let mut objects = Vec::new();
    fn walk(value: &Value, path: String, out: &mut Vec<(String, String)>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    out.push((path.clone(), key.clone()));
                    walk(value, format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), out);
                }
            }
            Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| walk(v, format!("{path}/{i}"), out)),
            _ => {}
        }
    }
    walk(&whole, String::new(), &mut objects);
    let mut gone = 0;
    for (path, key) in objects {
        let mut whole = whole.clone();
        whole.pointer_mut(&path).and_then(Value::as_object_mut).map(|map: &mut Map<String, Value>| map.remove(&key)).unwrap();
        let Ok(new) = serde_json::from_value::<Job>(whole) else { continue };
        assert_eq!(diff(&job, &new).is_empty(), job == new, "{path}/{key}");
        gone += usize::from(job != new);
    }
    assert!(gone > 60, "{gone}");
}

#[test]
fn the_rules_bear_any_value() {
    let job = full();
    let hostile = |old: &Value| match old {
        Value::Number(_) => [0, 1, 255, 65_535, u64::from(u32::MAX), u64::MAX].into_iter().map(|n| json!(n)).collect(),
        Value::String(_) => {
            let long = "x".repeat(5000);
            ["", "\0", "${", "${node.x}", "../..", "/", "a\n", "{{ if", "\u{1F600}", "*/0 * * * *", &long]
                .iter()
                .map(|s| json!(s))
                .collect()
        }
        _ => Vec::new(),
    };
    for (path, new) in changed(&job, hostile) {
        for problem in validate(&new, Images::Resolved) {
            assert!(!problem.message.is_empty() && problem.message.chars().count() < 6000, "{path}: {problem}");
        }
    }
}

/// What may hold anything: the rules do not object to an odd value there.
#[test]
fn an_empty_text_is_refused_or_meant() {
    let job = full();
    let empty = |old: &Value| if old.is_string() { vec![json!("")] } else { Vec::new() };
    let free: Vec<String> = changed(&job, empty)
        .into_iter()
        .filter(|(_, new)| *new != job && validate(new, Images::Resolved).iter().all(|p| p.severity == Severity::Warning))
        .map(|(path, _)| path.rsplit('/').next().unwrap().to_owned())
        .collect();
    let meant = ["site", "A", "Accept", "body", "data", "0", "1"];
    assert!(free.iter().all(|f| meant.contains(&f.as_str())), "{free:?}");
}

#[test]
fn a_full_job_says_what_it_says() {
    let job = full();
    assert_eq!(validate(&job, Images::Resolved), []);
    let periodic = job.periodic.as_ref().unwrap();
    assert_eq!(
        (periodic.crons.len(), periodic.time_zone.as_str(), periodic.prohibit_overlap, periodic.enabled),
        (2, "Asia/Tokyo", true, false)
    );
    let group = &job.groups[0];
    assert_eq!((group.shutdown_delay, group.max_run_duration), (Millis(1000), Some(Millis(3_600_000))));
    // The job says delay, the group max_delay.
    assert_eq!((group.reschedule.delay, group.reschedule.max_delay, group.reschedule.unlimited), (Millis(7000), Millis(60_000), true));
    assert_eq!((group.update.min_healthy_time, group.update.auto_revert), (Millis(11_000), false));
    assert_eq!((group.disconnect.reconcile, group.disconnect.replace), (Reconcile::LongestRunning, true));
    assert_eq!(job.groups[1].disconnect.stop_on_client_after, Some(Millis(7_200_000)));
    let task = &group.tasks[0];
    let restart = task.restart.unwrap();
    assert_eq!((restart.attempts, restart.delay, restart.mode), (4, Millis(3000), RestartMode::Delay));
    assert_eq!(group.tasks[1].lifecycle.map(|l| (l.hook, l.sidecar)), Some((Hook::Prestart, true)));
    assert_eq!(task.templates[0].change_mode, ChangeMode::Signal("SIGUSR1".to_owned()));
    assert_eq!((task.templates[0].destination.as_str(), task.templates[0].perms), ("local/a.conf", 0o640));
    let CheckKind::Http { headers, .. } = &group.services[0].checks[0].kind else { panic!() };
    assert_eq!(headers["Accept"], "text/plain, text/html");
    let Driver::Docker(config) = &task.driver else { panic!() };
    assert_eq!((config.cap_add.as_slice(), config.devices.len()), (["net_admin".to_owned()].as_slice(), 2));
}

#[test]
fn defaults_are_those_of_the_type() {
    for (kind, restart, reschedule) in [
        ("service", RestartPolicy::EDGE, Reschedule::SERVICE),
        ("system", RestartPolicy::EDGE, Reschedule::SERVICE),
        ("batch", RestartPolicy::BATCH, Reschedule::BATCH),
        ("sysbatch", RestartPolicy::BATCH, Reschedule::BATCH),
    ] {
        let task = "task \"a\" {\n driver = \"docker\"\n config {\n image = \"t\"\n }\n }\n";
        for body in [task.to_owned(), format!("group \"g\" {{\n {task} }}\n")] {
            let job = read(&format!("job \"t\" {{\n type = \"{kind}\"\n {body} }}\n"));
            let group = &job.groups[0];
            assert_eq!((group.restart, group.reschedule, group.update), (restart, reschedule, Update::default()), "{kind}");
            assert_eq!((group.tasks[0].restart, group.tasks[0].lifecycle, job.periodic.as_ref()), (None, None, None));
        }
        // What is not written stays as the type has it.
        let job = read(&format!("job \"t\" {{\n type = \"{kind}\"\n group \"g\" {{\n restart {{\n attempts = 1\n }}\n {task} }}\n }}\n"));
        assert_eq!(job.groups[0].restart, RestartPolicy { attempts: 1, ..restart }, "{kind}");
        // Who counts attempts means a limit.
        let written = format!("job \"t\" {{\n type = \"{kind}\"\n reschedule {{\n attempts = 0\n }}\n {task} }}\n");
        assert_eq!(read(&written).groups[0].reschedule, Reschedule { attempts: 0, unlimited: false, ..reschedule }, "{kind}");
    }
}

#[test]
fn the_size_of_ephemeral_disk_is_disk_of_the_first_task() {
    let task = |name: &str| format!("task \"{name}\" {{\n driver = \"docker\"\n config {{\n image = \"t\"\n }}\n }}\n");
    let job = read(&format!("job \"t\" {{\n group \"g\" {{\n ephemeral_disk {{\n size = 70\n }}\n {}{} }}\n }}\n", task("a"), task("b")));
    assert_eq!(job.groups[0].tasks.iter().map(|t| t.resources.disk).collect::<Vec<_>>(), [70, 0]);
}
