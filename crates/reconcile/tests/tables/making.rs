//! What instances are made of, and files that follow their templates.

use std::collections::BTreeMap;

use skerry_reconcile::{ActionKind, CheckRun, InstancePlan, Step};
use skerry_wire::job::{ChangeMode, Check, CheckKind, DockerConfig, Driver, JobType, ProcessConfig, Service, Task, Template};
use skerry_wire::poll::AllocStatus;
use skerry_wire::{AllocId, Millis};

use crate::bed::{Bed, docker, job, process};

fn template(data: &str, destination: &str, env: bool, change_mode: ChangeMode) -> Template {
    Template {
        data: data.into(),
        destination: destination.into(),
        env,
        change_mode,
        perms: 0o640,
        left_delimiter: "{{".into(),
        right_delimiter: "}}".into(),
        error_on_missing_key: false,
    }
}

fn set(bed: &mut Bed, rate: &str) {
    let items = BTreeMap::from([("rate".to_owned(), rate.to_owned())]);
    bed.manifest.values.variables.insert("till".into(), items);
}

fn with_template(change_mode: ChangeMode, env: bool) -> Bed {
    let mut bed = Bed::new();
    set(&mut bed, "3");
    let mut task = docker("main");
    task.templates = vec![template("RATE={{ with nomadVar \"till\" }}{{ .rate }}{{ end }}\n", "secrets/rate.env", env, change_mode)];
    bed.submit(job(JobType::Service, vec![task]));
    let decision = bed.decide();
    let ActionKind::Create(plan) = &decision.actions[0].kind else { panic!("{decision:?}") };
    let file = &plan.common().files[0];
    let path = format!("/srv/alloc/{}/main/secrets/rate.env", AllocId::new([16; 16]));
    assert_eq!((file.path.as_str(), &file.content[..], file.perms), (path.as_str(), &b"RATE=3\n"[..], 0o640));
    assert_eq!(plan.common().env.get("RATE").map(String::as_str), env.then_some("3"));
    bed.rest();
    bed.said();
    bed
}

#[test]
fn a_value_brings_no_names_into_the_environment() {
    let plan = |data: &str, rate: &str| {
        let mut bed = Bed::new();
        set(&mut bed, rate);
        let mut task = docker("main");
        task.templates = vec![template(data, "secrets/rate.env", true, ChangeMode::Noop)];
        let alloc = bed.submit(job(JobType::Service, vec![task]));
        let decision = bed.decide();
        match decision.actions.first().map(|a| a.kind.clone()) {
            Some(ActionKind::Create(plan)) => Ok(plan.common().env.clone()),
            _ => Err(bed.told(alloc).reason),
        }
    };
    let plain = "RATE={{ with nomadVar \"till\" }}{{ .rate }}{{ end }}\n";
    let evil = "1\nNODE_OPTIONS=--require=/local/x";
    assert_eq!(plan(plain, "1").unwrap()["RATE"], "1");
    assert!(plan(plain, evil).unwrap_err().contains("lines of its own"));
    let decoded = "RATE={{ with nomadVar \"till\" }}{{ base64Decode .rate }}{{ end }}\n";
    assert!(plan(decoded, "MQpMRF9QUkVMT0FEPS94").unwrap_err().contains("lines of its own"));
    let quoted = plan("RATE={{ with nomadVar \"till\" }}{{ quote .rate }}{{ end }}\n", evil).unwrap();
    assert_eq!((quoted["RATE"].as_str(), quoted.contains_key("NODE_OPTIONS")), (evil, false));
}

#[test]
fn files_follow_their_templates() {
    let rows = [
        (ChangeMode::Noop, false, vec!["write main"]),
        (ChangeMode::Signal("SIGHUP".into()), false, vec!["write main", "signal main"]),
        (ChangeMode::Restart, false, vec!["write main", "stop main", "start main"]),
        (ChangeMode::Noop, true, vec!["write main"]),
        (ChangeMode::Restart, true, vec!["write main", "stop main", "remove main", "create main", "start main"]),
    ];
    for (mode, env, expected) in rows {
        let mut bed = with_template(mode.clone(), env);
        set(&mut bed, "4");
        bed.rest();
        assert_eq!(bed.said(), expected, "{mode:?}");
        assert_eq!((bed.view().restarts, bed.running()), (0, vec!["main".to_owned()]), "{mode:?}: no fault");
        // What does not render any more changes nothing, and says so.
        bed.manifest.values.variables.clear();
        bed.rest();
        assert!(bed.said().is_empty());
        assert!(bed.place().decisions.iter().any(|(_, d)| d.contains("files stay as they are") && d.contains("no variables under `till`")));
        bed.end("main", 1);
        bed.pass(20_000);
        assert_eq!(bed.said(), ["start main"], "{mode:?}: starts with what it has");
    }
}

/// The manifest is lost, and with it what the server gives: that is not the same as that it gives nothing.
#[test]
fn files_stay_as_they_are_without_a_manifest() {
    for (mode, env) in [(ChangeMode::Restart, false), (ChangeMode::Restart, true), (ChangeMode::Noop, false)] {
        let mut bed = Bed::new();
        set(&mut bed, "3");
        let mut task = docker("main");
        task.templates = vec![template("THERE={{ nomadVarExists \"till\" }}\n", "secrets/rate.env", env, mode.clone())];
        bed.submit(job(JobType::Service, vec![task]));
        bed.rest();
        bed.said();
        bed.manifest_lost = true;
        bed.pass(60_000);
        assert_eq!(bed.said(), Vec::<String>::new(), "{mode:?}");
        bed.end("main", 1);
        bed.pass(20_000);
        assert_eq!(bed.said(), ["start main"], "{mode:?}: starts with what it has");
    }
}

#[test]
fn what_does_not_run_gets_its_files_and_no_signal() {
    for mode in [ChangeMode::Signal("SIGHUP".into()), ChangeMode::Restart] {
        let mut bed = with_template(mode.clone(), false);
        bed.end("main", 1);
        bed.rest();
        bed.said();
        set(&mut bed, "4");
        bed.pass(60_000);
        assert_eq!(
            (bed.said(), bed.running()),
            (vec!["write main".to_owned(), "start main".to_owned()], vec!["main".to_owned()]),
            "{mode:?}"
        );
    }
}

#[test]
fn an_instance_that_is_gone_is_not_made_from_what_does_not_render() {
    let mut bed = with_template(ChangeMode::Noop, false);
    bed.manifest.values.variables.clear();
    bed.instances.clear();
    bed.rest();
    assert_eq!(bed.said(), [""; 0]);
    assert!(bed.view().reason.contains("no variables under `till`"), "{}", bed.view().reason);
    set(&mut bed, "4");
    bed.rest();
    assert_eq!(bed.said(), ["create main", "start main"]);
}

#[test]
fn all_templates_of_a_task_together_are_bounded() {
    for (more, allowed) in [(0, true), (1, false), (9_000, false)] {
        let mut task = docker("main");
        let sizes = std::iter::repeat_n(256 * 1024, 8).chain([more]);
        task.templates =
            sizes.enumerate().map(|(n, size)| template(&"x".repeat(size), &format!("local/{n}"), false, ChangeMode::Noop)).collect();
        let mut bed = Bed::new();
        let alloc = bed.submit(job(JobType::Service, vec![task]));
        bed.rest();
        let told = bed.told(alloc);
        assert_eq!(told.reason.contains("may give at most 2048 KiB"), !allowed, "{more}: {}", told.reason);
        assert_eq!(bed.running().is_empty(), !allowed, "{more}");
    }
}

#[test]
fn two_that_do_not_render_do_not_move_the_memory_at_every_look() {
    let mut bed = Bed::new();
    set(&mut bed, "3");
    let task =
        |name: &str| Task { templates: vec![template("{{ key \"till/rate\" }}", "local/x", false, ChangeMode::Noop)], ..docker(name) };
    bed.submit(job(JobType::Service, vec![task("a"), task("b")]));
    bed.pass(20_000);
    bed.manifest.values.variables.clear();
    bed.rest();
    let before = bed.memory.clone();
    bed.rest();
    assert_eq!(bed.memory, before);
    assert_eq!(bed.place().decisions.iter().filter(|(_, d)| d.contains("files stay")).count(), 2);
}

#[test]
fn what_may_not_have_been_written_is_written_again() {
    let mut bed = with_template(ChangeMode::Signal("SIGHUP".into()), false);
    set(&mut bed, "4");
    bed.step();
    assert_eq!(bed.said(), ["write main", "signal main"]);
    // The agent was killed meanwhile.
    bed.memory.after_restart();
    bed.rest();
    assert_eq!(bed.said(), ["write main", "signal main"]);
    bed.memory.after_restart();
    bed.rest();
    assert_eq!(bed.said(), ["write main"], "the signal has arrived");
    // Writing fails: later again.
    set(&mut bed, "5");
    let decision = bed.step();
    bed.said();
    bed.fail(&decision.actions[0], Step::Write);
    bed.rest();
    assert!(bed.said().is_empty());
    bed.pass(7_000);
    assert_eq!(bed.said(), ["write main", "signal main"]);
    assert_eq!(bed.place().life.tasks["main"].write, None, "it begins anew the next time");
}

#[test]
fn processes_see_real_paths() {
    let mut task = process("tool", "local/bin/${NOMAD_TASK_NAME}");
    task.templates =
        vec![template("x", "${NOMAD_TASK_DIR}/conf/x", false, ChangeMode::Noop), template("y", "alloc/y", false, ChangeMode::Noop)];
    if let Driver::Exec(config) = &mut task.driver {
        config.work_dir = Some("local".into());
        config.args = vec!["${NOMAD_ALLOC_DIR}".into(), "${meta.site}".into()];
    }
    let root = Task::new("root", Driver::RawExec(ProcessConfig { command: "/usr/bin/env".into(), args: vec![], work_dir: None }));
    let mut bed = Bed::new();
    bed.manifest.values.meta.insert("site".into(), "quay".into());
    bed.submit(job(JobType::Service, vec![task, root]));
    let decision = bed.decide();
    let plans: Vec<_> = decision
        .actions
        .iter()
        .filter_map(|a| match &a.kind {
            ActionKind::Create(plan) => Some(plan),
            _ => None,
        })
        .collect();
    let alloc = format!("/srv/alloc/{}", AllocId::new([16; 16]));
    let (InstancePlan::Process(tool), InstancePlan::Process(root)) = (&**plans[0], &**plans[1]) else { panic!("{plans:?}") };
    assert_eq!((tool.program.clone(), tool.root), (format!("{alloc}/tool/local/bin/tool"), false));
    assert_eq!(tool.args, [format!("{alloc}/alloc"), "quay".to_owned()]);
    assert_eq!(tool.common.work_dir, Some(format!("{alloc}/tool/local")));
    let paths: Vec<_> = tool.common.files.iter().map(|f| f.path.clone()).collect();
    assert_eq!(paths, [format!("{alloc}/tool/local/conf/x"), format!("{alloc}/alloc/y")]);
    assert_eq!(tool.common.env["NOMAD_SECRETS_DIR"], format!("{alloc}/tool/secrets"));
    assert_eq!((root.program.as_str(), root.root, root.common.work_dir.clone()), ("/usr/bin/env", true, None));
}

#[test]
fn checks_name_addresses_and_instances() {
    let mut spec = job(JobType::Service, vec![docker("main"), process("tool", "/bin/true")]);
    spec.groups[0].network.ports.push(skerry_wire::job::Port { label: "http".into(), fixed: Some(8080), to: Some(80) });
    let check = |name: &str, kind, task: Option<&str>| Check {
        name: name.into(),
        kind,
        interval: Millis(10),
        timeout: Millis(700_000),
        success_before_passing: 0,
        failures_before_critical: 0,
        check_restart: None,
        task: task.map(str::to_owned),
    };
    let http = CheckKind::Http { port: None, path: "/up".into(), method: "GET".into(), headers: BTreeMap::new(), body: String::new() };
    let script = CheckKind::Script { command: "local/ok".into(), args: vec!["${NOMAD_PORT_http}".into()] };
    let checks = vec![
        check("http", http, None),
        check("tcp", CheckKind::Tcp { port: Some("8443".into()) }, None),
        check("script", script, Some("tool")),
        check("absolute", CheckKind::Script { command: "/bin/ok".into(), args: vec![] }, Some("tool")),
        check("inside", CheckKind::Script { command: "local/ok".into(), args: vec![] }, Some("main")),
        check("lost", CheckKind::Tcp { port: Some("no".into()) }, None),
    ];
    spec.groups[0].services.push(Service { name: "web".into(), port: Some("http".into()), tags: vec![], checks, check_restart: None });
    let bed = Bed::with(spec);
    let checks = bed.decide().checks;
    assert_eq!(checks.len(), 5, "{checks:?}");
    assert!(matches!(&checks[0].kind, CheckRun::Http { address, path, .. } if address == "10.0.0.1:8080" && path == "/up"));
    assert!(matches!(&checks[1].kind, CheckRun::Tcp { address } if address == "10.0.0.1:8443"));
    let own = format!("/srv/alloc/{}/tool/local/ok", AllocId::new([16; 16]));
    assert!(
        matches!(&checks[2].kind, CheckRun::Script { instance, command } if instance.starts_with("skerry-tool-") && command == &[own.clone(), "8080".to_owned()])
    );
    for (n, expected) in [(3, "/bin/ok"), (4, "local/ok")] {
        assert!(matches!(&checks[n].kind, CheckRun::Script { command, .. } if command == &[expected]), "{:?}", checks[n]);
    }
    assert_eq!(checks[0].interval, Millis(1_000), "no check runs more often than once a second");
    assert_eq!(bed.view().status, AllocStatus::Running);
}

#[test]
fn containers_get_what_the_policy_allows() {
    let mut spec = job(JobType::Service, vec![docker("main")]);
    if let Driver::Docker(config) = &mut spec.groups[0].tasks[0].driver {
        let device = skerry_wire::job::Device { host_path: "/dev/ttyUSB0".into(), container_path: None, cgroup_permissions: "rw".into() };
        *config = DockerConfig { privileged: true, cap_add: vec!["NET_ADMIN".into()], devices: vec![device], ..config.clone() };
    }
    let mut bed = Bed::new();
    bed.policy.privileged = true;
    bed.policy.cap_add = vec!["net_admin".into()];
    bed.policy.devices = vec!["/dev".into()];
    bed.devices.insert("/dev/ttyUSB0".into());
    bed.submit(spec);
    let decision = bed.decide();
    let ActionKind::Create(plan) = &decision.actions[0].kind else { panic!("{decision:?}") };
    let InstancePlan::Container(plan) = &**plan else { panic!("no container") };
    assert!(plan.privileged && plan.cap_add == ["NET_ADMIN"] && plan.devices.len() == 1);
    assert_eq!(plan.common.env["NOMAD_ALLOC_DIR"], "/alloc");
}
