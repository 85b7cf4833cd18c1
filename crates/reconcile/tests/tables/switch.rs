//! From one version to the next, and back.

use skerry_reconcile::{Closed, Order, OrderKind};
use skerry_wire::job::{JobType, Update};
use skerry_wire::poll::{AllocStatus, Event};
use skerry_wire::{AllocId, Digest, ImageId, Millis};

use crate::bed::{Bed, docker, job};

fn version(n: &str) -> skerry_wire::job::Job {
    let mut spec = job(JobType::Service, vec![docker("main")]);
    spec.groups[0].tasks[0].env.insert("VERSION".into(), n.into());
    spec.groups[0].update = Update { lock_limit: Millis(3_600_000), ..Update::default() };
    spec
}

fn healthy() -> Bed {
    let mut bed = Bed::with(version("1"));
    bed.pass(10_000);
    assert_eq!(bed.view().healthy, Some(true));
    bed.said();
    bed
}

fn current(bed: &Bed) -> u64 {
    bed.place().current.as_ref().map_or(0, |c| c.version)
}

#[test]
fn the_new_one_is_made_before_the_old_one_stops_and_starts_after_it() {
    let mut bed = healthy();
    bed.obedient = false;
    bed.submit(version("2"));
    bed.step();
    assert_eq!(bed.said(), ["create main"]);
    bed.step();
    assert_eq!(bed.said(), ["stop main"]);
    let waits = bed.view();
    assert_eq!((waits.reason.as_str(), waits.current), ("waits until version 1 has stopped", true));
    bed.ms += 600_000;
    assert!(bed.step().actions.is_empty(), "the deadline does not run while the old one stops");
    bed.end("main", 0);
    bed.rest();
    assert_eq!(bed.said(), ["start main", "remove main"]);
    assert_eq!(bed.view().healthy, None);
}

#[test]
fn what_is_not_healthy_in_time_is_left_and_remembered() {
    let mut bed = healthy();
    let bad = bed.submit(version("2"));
    bed.rest();
    assert_eq!(current(&bed), 2);
    // It crashes again and again.
    while current(&bed) == 2 && bed.ms < 900_000 {
        if !bed.running().is_empty() {
            bed.end("main", 1);
        }
        bed.pass(5_000);
    }
    assert_eq!(current(&bed), 1);
    assert!(bed.ms > 300_000 && bed.ms < 330_000, "after its deadline: {}", bed.ms);
    bed.pass(60_000);
    let told = bed.told(bad);
    assert_eq!((told.status, told.healthy), (AllocStatus::Failed, Some(false)));
    assert!(told.reason.contains("was not healthy within 5m") && told.reason.contains("goes back to version 1"), "{}", told.reason);
    let reported = bed
        .events
        .iter()
        .any(|e| matches!(e, Event::Alloc { alloc, status: AllocStatus::Failed, healthy: Some(false), .. } if *alloc == bad));
    assert!(reported, "{:?}", bed.events);
    // Neither time nor a reboot brings it back; an order does, once.
    bed.said();
    bed.reboot();
    bed.pass(4_000_000);
    assert_eq!((current(&bed), bed.said()), (1, vec!["start main".to_owned()]));
    bed.manifest.allocs[0].retry = 1;
    bed.rest();
    assert_eq!(current(&bed), 2);
    bed.pass(11_000);
    assert_eq!((bed.view().healthy, bed.view().version), (Some(true), Some(2)));
    assert!(bed.place().bad.is_empty());
}

#[test]
fn a_version_that_takes_the_node_down_is_left_after_three_boots() {
    let mut bed = healthy();
    bed.submit(version("2"));
    bed.rest();
    for boot in 0..3 {
        assert_eq!(current(&bed), 2, "boot {boot}");
        bed.reboot();
        bed.pass(5_000);
    }
    bed.rest();
    assert_eq!(current(&bed), 1);
    assert!(bed.place().bad.values().any(|w| w.contains("the node restarted 3 times")));
}

#[test]
fn without_a_good_version_before_it_goes_on() {
    let mut bed = Bed::with(version("1"));
    for _ in 0..60 {
        if !bed.running().is_empty() {
            bed.end("main", 1);
        }
        bed.pass(19_000);
    }
    assert_eq!((current(&bed), bed.view().healthy), (1, Some(false)));
    bed.pass(7_200_000);
    bed.pass(7_200_000);
    assert_eq!((bed.running(), bed.view().healthy), (vec!["main".to_owned()], Some(true)));
}

#[test]
fn an_update_lock_puts_the_switch_off() {
    let held = |bed: &mut Bed| {
        bed.locked = [AllocId::new([16; 16])].into();
        let alloc = bed.submit(version("2"));
        bed.pass(60_000);
        assert_eq!(current(bed), 1);
        let told = bed.told(alloc);
        assert!(told.reason.contains("holds its update lock") && told.until.is_some(), "{}", told.reason);
        let events = bed.events.len();
        bed.pass(60_000);
        assert_eq!(bed.events.len(), events, "told once");
        alloc
    };
    // Let go of.
    let mut bed = healthy();
    held(&mut bed);
    bed.locked.clear();
    bed.rest();
    assert_eq!(current(&bed), 2);
    // Overridden in the manifest, or on the node.
    let mut bed = healthy();
    held(&mut bed);
    bed.manifest.allocs[0].override_lock = true;
    bed.rest();
    assert_eq!(current(&bed), 2);
    let mut bed = healthy();
    let alloc = held(&mut bed);
    bed.orders.push(Order { id: 1, alloc, kind: OrderKind::OverrideLock });
    bed.rest();
    assert_eq!(current(&bed), 2);
    // Held for too long.
    let mut bed = healthy();
    held(&mut bed);
    bed.pass(3_600_000 - 121_000);
    assert_eq!(current(&bed), 1);
    bed.pass(1_100);
    assert_eq!(current(&bed), 2);
    // Another allocation's lock is nothing to it.
    let mut bed = healthy();
    bed.locked = [AllocId::new([99; 16])].into();
    bed.submit(version("2"));
    bed.rest();
    assert_eq!(current(&bed), 2);
}

#[test]
fn a_closed_apply_window_puts_the_switch_off_and_nothing_else() {
    let closed = |until| Some(Closed { until });
    // What starts where nothing runs disturbs nothing.
    let mut bed = Bed::new();
    bed.apply_closed = closed(None);
    bed.submit(version("1"));
    bed.rest();
    assert_eq!(current(&bed), 1);
    let held = |until: Option<u64>, says: &str| {
        let mut bed = healthy();
        bed.apply_closed = closed(until);
        let alloc = bed.submit(version("2"));
        bed.pass(60_000);
        let told = bed.told(alloc);
        assert_eq!((current(&bed), told.until), (1, until));
        assert!(told.reason.contains(says), "{}", told.reason);
        assert_eq!(bed.running(), ["main"]);
        (bed, alloc)
    };
    // It opens.
    let (mut bed, _) = held(Some(400_000), "waits for the apply window");
    bed.apply_closed = None;
    bed.rest();
    assert_eq!(current(&bed), 2);
    // The operator overrides it.
    let (mut bed, alloc) = held(None, "time of day");
    bed.orders.push(Order { id: 1, alloc, kind: OrderKind::OverrideLock });
    bed.rest();
    assert_eq!(current(&bed), 2);
    // A stop does not wait for it, nor does the way back to the last good version.
    let (mut bed, _) = held(None, "time of day");
    bed.bury();
    bed.rest();
    assert!(bed.running().is_empty());
    let mut bed = healthy();
    bed.submit(version("2"));
    bed.rest();
    assert_eq!(current(&bed), 2);
    bed.apply_closed = closed(None);
    while current(&bed) == 2 && bed.ms < 900_000 {
        if !bed.running().is_empty() {
            bed.end("main", 1);
        }
        bed.pass(5_000);
    }
    assert_eq!(current(&bed), 1);
}

#[test]
fn what_cannot_be_run_is_refused_and_what_runs_goes_on() {
    use skerry_wire::job::{Device, DockerConfig, Driver, Job, Port, Task};
    fn image(change: impl Fn(&mut DockerConfig)) -> impl Fn(&mut Job) {
        move |job| match &mut job.groups[0].tasks[0].driver {
            Driver::Docker(config) => change(config),
            _ => panic!("no container"),
        }
    }
    let device = |path: &str| Device { host_path: path.into(), container_path: None, cgroup_permissions: "rwm".into() };
    let port = |label: &str, n| Port { label: label.into(), fixed: Some(n), to: None };
    let template = |data: &str, destination: &str| skerry_wire::job::Template {
        data: data.into(),
        destination: destination.into(),
        env: true,
        change_mode: skerry_wire::job::ChangeMode::Noop,
        perms: 0o644,
        left_delimiter: String::new(),
        right_delimiter: String::new(),
        error_on_missing_key: false,
    };
    type Change = Box<dyn Fn(&mut Job)>;
    let rows: Vec<(&str, Change)> = vec![
        ("needs 2000 MiB of memory, the node has 1024", Box::new(|j| j.groups[0].tasks[0].resources.memory = 2000)),
        ("needs 2000000 MiB of disk", Box::new(|j| j.groups[0].tasks[0].resources.disk = 2_000_000)),
        ("device /dev/ttyUSB0 is not on the node", Box::new(image(move |c| c.devices = vec![device("/dev/ttyUSB0")]))),
        ("uses the device /dev/sda", Box::new(image(move |c| c.devices = vec![device("/dev/sda")]))),
        ("all rights (`privileged`)", Box::new(image(|c| c.privileged = true))),
        ("the right `sys_admin`", Box::new(image(|c| c.cap_add = vec!["sys_admin".into()]))),
        (
            "port 80 is asked for twice, as `a` and as `b`",
            Box::new(move |j| j.groups[0].network.ports = vec![port("a", 80), port("b", 80)]),
        ),
        (
            "line 1: this node was given no variables under `x`",
            Box::new(move |j| j.groups[0].tasks[0].templates = vec![template("{{ nomadVar \"x\" }}", "local/x")]),
        ),
        ("no `KEY=value`", Box::new(move |j| j.groups[0].tasks[0].templates = vec![template("nonsense", "local/x")])),
        ("below `local/`", Box::new(move |j| j.groups[0].tasks[0].templates = vec![template("A=1", "/etc/passwd")])),
        ("below `local/`", Box::new(move |j| j.groups[0].tasks[0].templates = vec![template("A=1", "local/../../x")])),
        (
            "with `raw_exec` under",
            Box::new(|j| {
                j.groups[0].tasks[0] = Task::new(
                    "main",
                    Driver::RawExec(skerry_wire::job::ProcessConfig { command: "/bin/true".into(), args: vec![], work_dir: None }),
                )
            }),
        ),
        ("with `exec` under", Box::new(|j| j.groups[0].tasks[0] = crate::bed::process("main", "/bin/true"))),
        (
            "a path may not contain `..`",
            Box::new(image(|c| {
                c.volumes = vec![skerry_wire::job::Volume { source: "../x".into(), destination: "/x".into(), read_only: false }]
            })),
        ),
    ];
    for (expected, change) in rows {
        let mut bed = healthy();
        bed.policy = skerry_reconcile::Policy { devices: vec!["/dev/ttyUSB0".into()], ..Default::default() };
        let mut spec = version("2");
        change(&mut spec);
        let alloc = bed.submit(spec);
        bed.pass(400_000);
        let told = bed.told(alloc);
        assert!(told.status == AllocStatus::Failed && told.reason.contains(expected), "{expected}: {}", told.reason);
        assert_eq!((bed.running(), bed.said()), (vec!["main".to_owned()], vec![]), "{expected}");
    }
}

#[test]
fn an_image_that_lacks_holds_the_switch_up() {
    let mut bed = healthy();
    let mut spec = version("2");
    if let skerry_wire::job::Driver::Docker(config) = &mut spec.groups[0].tasks[0].driver {
        config.image_id = Some(ImageId(Digest::new([2; 32])));
    }
    let alloc = bed.submit(spec);
    let decision = bed.rest();
    assert_eq!((decision.needed.len(), bed.told(alloc).reason.as_str(), current(&bed)), (1, "waits for app:1", 1));
    assert!(bed.said().is_empty());
    bed.images.insert(ImageId(Digest::new([2; 32])));
    bed.rest();
    assert_eq!(current(&bed), 2);
}

/// What several jobs need comes by the highest of their priorities, whatever the order in which they were submitted.
#[test]
fn images_are_needed_in_the_order_of_priorities() {
    let mut bed = Bed::new();
    for (id, image, priority) in [("logs", 3, 10), ("sign", 2, 50), ("ads", 4, 5), ("till", 4, 90), ("news", 1, 100), ("menu", 5, 50)] {
        let mut spec = job(JobType::Service, vec![docker("main")]);
        (spec.id, spec.priority) = (id.to_owned(), priority);
        if let skerry_wire::job::Driver::Docker(config) = &mut spec.groups[0].tasks[0].driver {
            config.image_id = Some(ImageId(Digest::new([image; 32])));
        }
        bed.submit(spec);
    }
    let needed: Vec<_> = bed.decide().needed.iter().map(|n| (n.image.digest().as_bytes()[0], n.priority)).collect();
    assert_eq!(needed, [(4, 90), (2, 50), (5, 50), (3, 10)], "image 1 is there");
}

/// However long the fetching takes: the deadline of health counts from when the version may start.
#[test]
fn the_deadline_of_health_begins_when_the_images_are_there() {
    let mut bed = healthy();
    let mut spec = version("2");
    spec.groups[0].update = Update { healthy_deadline: Millis(60_000), ..Update::default() };
    if let skerry_wire::job::Driver::Docker(config) = &mut spec.groups[0].tasks[0].driver {
        config.image_id = Some(ImageId(Digest::new([2; 32])));
    }
    bed.submit(spec);
    bed.pass(3_600_000);
    bed.reboot();
    bed.pass(3_600_000);
    assert_eq!((current(&bed), bed.place().bad.len()), (1, 0));
    bed.images.insert(ImageId(Digest::new([2; 32])));
    bed.pass(9_000);
    assert_eq!((current(&bed), bed.view().healthy, bed.place().bad.len()), (2, None, 0));
    bed.pass(10_000);
    assert_eq!(bed.view().healthy, Some(true));
}

#[test]
fn an_order_to_stop_is_for_what_it_names_and_what_is_older() {
    use skerry_wire::manifest::Tombstone;
    let stone = |id| Tombstone { id, job: "till".into(), group: "g".into(), index: 0, reason: "stopped by ada".into(), version: 0 };
    // Of one that the node never had: what is older in its place stops with it.
    let mut bed = healthy();
    bed.manifest.allocs.clear();
    bed.manifest.tombstones.push(stone(AllocId::new([77; 16])));
    bed.rest();
    assert!(bed.instances.is_empty());
    let ended: Vec<_> = bed
        .events
        .iter()
        .filter(|e| matches!(e, Event::Alloc { status: AllocStatus::Complete, reason, .. } if reason == "stopped by ada"))
        .collect();
    assert_eq!(ended.len(), 2, "{:?}", bed.events);
    // What is wanted stays; so does what came after an order that was carried out.
    let mut bed = healthy();
    bed.manifest.tombstones.push(stone(AllocId::new([77; 16])));
    bed.rest();
    bed.manifest.allocs.clear();
    bed.rest();
    assert_eq!(bed.running(), ["main"]);
    // What was stopped does not start again under its name.
    let mut bed = healthy();
    let named = bed.manifest.allocs.clone();
    bed.bury();
    bed.rest();
    bed.manifest.allocs = named;
    bed.rest();
    assert!(bed.instances.is_empty());
}

/// A server put back to an old backup orders what was right then. What it does not know of goes on.
#[test]
fn an_order_to_stop_that_is_older_than_what_runs_stops_nothing() {
    use skerry_wire::manifest::Tombstone;
    let place = |id, version| Tombstone { id, job: "till".into(), group: "g".into(), index: 0, reason: "stopped by ada".into(), version };
    // Version 2 runs; the order is for the allocation of version 1 which it replaced, or for one that was never here.
    for (id, version, goes_on) in [(16, 1, true), (77, 1, true), (77, 2, true), (77, 3, false), (77, 0, false), (32, 2, false)] {
        for reboot in [false, true] {
            let mut bed = healthy();
            bed.submit(self::version("2"));
            bed.pass(10_000);
            assert_eq!((current(&bed), bed.view().healthy), (2, Some(true)));
            if reboot {
                bed.reboot();
            }
            bed.manifest.allocs.clear();
            bed.manifest.tombstones.push(place(AllocId::new([id; 16]), version));
            bed.events.clear();
            bed.rest();
            let what = format!("{id}, version {version}, after a reboot: {reboot}");
            assert_eq!(bed.running(), if goes_on { vec!["main"] } else { vec![] }, "{what}");
            // The order is acknowledged all the same: the server need not give it for ever.
            let told =
                |e: &Event| matches!(e, Event::Alloc { alloc, status: AllocStatus::Complete, .. } if *alloc == AllocId::new([id; 16]));
            assert!(bed.events.iter().any(told), "{what}: {:?}", bed.events);
            bed.pass(600_000);
            assert_eq!(!bed.running().is_empty(), goes_on, "{what}");
        }
    }
    // What is on its way goes on too.
    let mut bed = healthy();
    bed.images.clear();
    bed.submit(self::version("2"));
    bed.rest();
    bed.images = Bed::new().images;
    let decision = bed.decide();
    bed.memory = decision.memory.clone();
    assert!(bed.place().next.is_some());
    bed.manifest.tombstones.push(place(AllocId::new([77; 16]), 2));
    bed.rest();
    assert_eq!((current(&bed), bed.running()), (2, vec!["main".to_owned()]));
}

#[test]
fn the_way_back_waits_for_a_stop_that_has_not_ended() {
    let mut bed = healthy();
    bed.obedient = false;
    bed.submit(version("2"));
    bed.rest();
    assert_eq!(bed.said(), ["create main", "stop main"]);
    // Somebody takes the old one away; the stop still waits for it.
    bed.instances.retain(|_, i| i.labels.version == 2);
    bed.rest();
    assert_eq!((bed.said(), current(&bed)), (vec!["start main".to_owned()], 2));
    while bed.place().next.is_none() && bed.ms < 900_000 {
        if !bed.running().is_empty() {
            bed.end("main", 1);
        }
        bed.pass(5_000);
    }
    assert!(bed.place().next.is_some(), "it goes back");
    assert!(!bed.said().contains(&"create main".to_owned()), "the stop would end the new one");
    bed.stopping.clear();
    bed.pass(10_000);
    assert_eq!((current(&bed), bed.running()), (1, vec!["main".to_owned()]));
}

#[test]
fn what_fails_of_the_one_that_runs_is_not_laid_to_the_one_that_comes() {
    let mut bed = healthy();
    bed.locked.insert(AllocId::new([16; 16]));
    let coming = bed.submit(version("2"));
    bed.rest();
    let waits = "waits: the application holds its update lock";
    assert_eq!(bed.told(coming).reason, waits);
    bed.end("main", 1);
    bed.rest();
    bed.ms = bed.view().until.expect("it starts again");
    let decision = bed.decide();
    let start = decision.actions.iter().find(|a| a.step() == skerry_reconcile::Step::Start).expect("it starts").clone();
    bed.memory = decision.memory.clone();
    bed.fail(&start, skerry_reconcile::Step::Start);
    bed.rest();
    assert_eq!(bed.told(coming).reason, waits);
    assert!(bed.place().next.as_ref().is_some_and(|n| n.backoff.is_none()));
    assert!(bed.view().reason.contains("start failed"), "{}", bed.view().reason);
}

#[test]
fn what_was_done_is_kept_for_people_with_its_reason() {
    let mut bed = healthy();
    bed.submit(version("2"));
    bed.rest();
    let said = |part: &str| bed.place().decisions.iter().any(|(_, d)| d.contains(part));
    for part in
        ["create `main`: version 2 of job `till` is ready", "switches to version 2", "stop `main`: replaced by version 2", "start `main`"]
    {
        assert!(said(part), "{part}: {:?}", bed.place().decisions);
    }
}

#[test]
fn a_way_back_that_is_cut_short_goes_on() {
    let mut bed = healthy();
    bed.submit(version("2"));
    bed.rest();
    let revert = |bed: &mut Bed| {
        for _ in 0..100 {
            if bed.place().next.as_ref().is_some_and(|n| n.reverts) {
                return;
            }
            if !bed.running().is_empty() {
                bed.end("main", 1);
            }
            bed.step();
            bed.ms += 4_000;
        }
        panic!("does not go back");
    };
    revert(&mut bed);
    // While the good version is being made, a newer one comes: it goes first.
    bed.submit(version("3"));
    bed.rest();
    assert_eq!(current(&bed), 3);
    bed.pass(20_000);
    assert_eq!(bed.view().healthy, Some(true));
    // The node restarts while it goes back.
    bed.submit(version("4"));
    bed.rest();
    revert(&mut bed);
    bed.reboot();
    bed.pass(20_000);
    assert_eq!((current(&bed), bed.running()), (3, vec!["main".to_owned()]));
    assert_eq!(bed.instances.len(), 1);
}

#[test]
fn a_stop_that_fails_is_tried_again_later_and_nothing_starts_meanwhile() {
    let mut bed = healthy();
    bed.submit(version("2"));
    bed.step();
    let decision = bed.decide();
    let stop = decision.actions.iter().find(|a| a.step() == skerry_reconcile::Step::Stop).expect("the old one stops").clone();
    bed.memory = decision.memory;
    bed.said();
    bed.fail(&stop, skerry_reconcile::Step::Stop);
    bed.rest();
    bed.pass(4_900);
    assert!(bed.said().is_empty() && bed.place().cleanup.is_some());
    bed.pass(1_500);
    assert_eq!(bed.said(), ["stop main", "start main", "remove main"]);
    bed.rest();
    assert_eq!(bed.place().cleanup, None);
}

#[test]
fn an_order_on_the_node_is_for_the_place_that_it_names() {
    let mut bed = healthy();
    bed.orders.push(Order { id: 1, alloc: AllocId::new([99; 16]), kind: OrderKind::Retry });
    bed.orders.push(Order { id: 2, alloc: AllocId::new([16; 16]), kind: OrderKind::Retry });
    bed.rest();
    assert_eq!(bed.place().decisions.iter().filter(|(_, d)| d.contains("tries again")).count(), 1);
    assert!(bed.said().is_empty() && bed.view().healthy == Some(true), "what is well goes on");
}

#[test]
fn only_some_bad_versions_are_remembered_and_the_last_good_one_is_none_of_them() {
    let mut bed = healthy();
    for n in 2..14 {
        let mut spec = version(&n.to_string());
        spec.groups[0].update.healthy_deadline = Millis(5_000);
        spec.groups[0].update.min_healthy_time = Millis(50_000);
        bed.submit(spec);
        bed.pass(20_000);
        assert_eq!(current(&bed), 1, "version {n}");
        let wanted = bed.manifest.allocs[0].specification;
        assert!(bed.place().bad.contains_key(&wanted) && bed.place().bad.len() <= 8);
    }
    assert_eq!(bed.place().bad.len(), 8);
}
