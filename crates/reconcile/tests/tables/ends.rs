//! Ends and failures: whose they are, and what follows.

use skerry_reconcile::Step;
use skerry_wire::job::{Hook, Job, JobType, Reschedule, RestartMode, RestartPolicy, Task};
use skerry_wire::poll::AllocStatus;
use skerry_wire::{AllocId, Millis};

use crate::bed::{Bed, docker, hook, job, process};

const ONCE: RestartPolicy = RestartPolicy { attempts: 0, interval: Millis(600_000), delay: Millis(1_000), mode: RestartMode::Fail };

/// `one` comes before `main`.
fn with_prestart(main: Task) -> Bed {
    let mut bed = Bed::with(job(JobType::Service, vec![hook(Hook::Prestart, false, docker("one")), main]));
    bed.end("one", 0);
    bed.rest();
    assert_eq!(bed.running(), ["main"]);
    bed.said();
    bed
}

#[test]
fn what_comes_before_the_main_tasks_comes_again_when_the_node_took_them_down() {
    let again = ["start one", "start main"];
    let mut bed = with_prestart(docker("main"));
    bed.reboot();
    bed.rest();
    assert_eq!(bed.running(), ["one"], "after a reboot");
    bed.end("one", 0);
    bed.rest();
    assert_eq!(bed.said(), again);
    // The engine was away, and took the main task with it.
    bed.end("main", 137);
    bed.interrupted = true;
    bed.rest();
    assert_eq!(bed.running(), ["one"], "after the engine was away");
    bed.end("one", 0);
    bed.rest();
    assert_eq!((bed.said(), bed.view().restarts), (again.map(str::to_owned).into(), 0));
    // It was away, and the main task lives.
    bed.interrupted = true;
    bed.rest();
    assert_eq!((bed.said(), bed.running()), (vec![], vec!["main".to_owned()]));
    // It crashed by itself.
    bed.end("main", 1);
    bed.pass(60_000);
    assert_eq!(bed.said(), ["start main"]);
}

#[test]
fn a_program_that_crashes_while_the_engine_is_away_crashed_by_itself() {
    let mut bed = with_prestart(process("main", "/bin/sleep"));
    bed.end("main", 1);
    bed.interrupted = true;
    bed.pass(60_000);
    assert_eq!((bed.said(), bed.view().restarts), (vec!["start main".to_owned()], 1));
}

#[test]
fn a_failure_is_of_the_task_and_the_allocation_that_it_names() {
    // Of two tasks.
    let mut bed = Bed::new();
    bed.submit(job(JobType::Service, vec![docker("a"), docker("b")]));
    bed.step();
    let decision = bed.decide();
    let start = decision.actions.iter().find(|a| a.step() == Step::Start && a.task == "a").expect("it starts").clone();
    bed.memory = decision.memory;
    bed.fail(&start, Step::Start);
    bed.rest();
    let restarts = |bed: &Bed, task: &str| bed.place().life.tasks[task].restarts;
    assert_eq!((restarts(&bed, "a"), restarts(&bed, "b")), (1, 0));
    bed.pass(60_000);
    assert_eq!(bed.running(), ["a", "b"]);
    // Of two versions: what the next one lacks is no fault of the current one.
    let mut spec = job(JobType::Service, vec![docker("a"), docker("b")]);
    spec.groups[0].tasks[0].env.insert("NEW".into(), "1".into());
    let next = bed.submit(spec);
    let decision = bed.decide();
    let create = decision.actions.iter().find(|a| a.step() == Step::Create && a.task == "a").expect("it is made").clone();
    bed.memory = decision.memory;
    bed.fail(&create, Step::Create);
    bed.step();
    assert_eq!((restarts(&bed, "a"), bed.running().len()), (1, 2));
    assert!(bed.told(next).reason.contains("create failed"), "{}", bed.told(next).reason);
}

#[test]
fn what_fails_before_it_was_healthy_is_left_and_after_it_is_made_anew() {
    let spec = |n: &str| {
        let mut spec = job(JobType::Service, vec![Task { restart: Some(ONCE), ..docker("main") }]);
        spec.groups[0].tasks[0].env.insert("VERSION".into(), n.into());
        spec.groups[0].reschedule = Reschedule { delay: Millis(5_000), ..Reschedule::SERVICE };
        spec
    };
    let version = |bed: &Bed| bed.place().current.as_ref().map(|c| c.version);
    let mut bed = Bed::with(spec("1"));
    bed.pass(20_000);
    let failing = bed.submit(spec("2"));
    bed.rest();
    bed.end("main", 1);
    bed.pass(20_000);
    assert_eq!((version(&bed), bed.running()), (Some(1), vec!["main".to_owned()]), "back to what was good");
    assert!(bed.told(failing).reason.contains("failed before it was healthy"), "{}", bed.told(failing).reason);
    bed.submit(spec("3"));
    bed.pass(20_000);
    assert_eq!((version(&bed), bed.view().healthy), (Some(3), Some(true)));
    // With the good version before it remembered: one that was healthy is not left for it.
    bed.memory.slots.values_mut().for_each(|m| {
        let last = m.last_good.as_mut().expect("it was healthy");
        (last.born, last.specification) = (AllocId::new([16; 16]), skerry_wire::Digest::new([0xa1; 32]));
    });
    bed.end("main", 1);
    bed.rest();
    assert!(bed.place().bad.len() <= 1 && bed.view().until.is_some(), "{}", bed.view().reason);
    bed.pass(20_000);
    assert_eq!((version(&bed), bed.running(), bed.view().restarts), (Some(3), vec!["main".to_owned()], 1));
}

#[test]
fn a_run_counts_as_running_as_long_as_one_of_its_main_tasks_does() {
    let mut bed = Bed::with(job(JobType::Batch, vec![hook(Hook::Prestart, false, docker("one")), docker("a"), docker("b")]));
    let told = |bed: &Bed| (bed.view().status, bed.view().reason);
    assert_eq!(told(&bed), (AllocStatus::Pending, "task `one` runs".to_owned()));
    bed.end("one", 0);
    bed.rest();
    assert_eq!(told(&bed), (AllocStatus::Running, "its tasks run".to_owned()));
    bed.end("a", 7);
    bed.rest();
    assert_eq!(told(&bed), (AllocStatus::Running, "task `a` ended with exit code 7".to_owned()), "the other one runs");
    bed.end("b", 8);
    bed.rest();
    assert_eq!(bed.view().status, AllocStatus::Pending, "none runs");
}

#[test]
fn what_is_gone_from_the_engine_is_made_again_and_its_image_fetched() {
    let mut bed = Bed::with(job(JobType::Service, vec![docker("main"), hook(Hook::Poststop, false, docker("last"))]));
    bed.said();
    bed.instances.retain(|_, i| i.labels.task != "last");
    bed.rest();
    assert_eq!(bed.said(), ["create last"], "before it is needed: then nothing may be");
    bed.instances.retain(|_, i| i.labels.task != "main");
    let images = std::mem::take(&mut bed.images);
    let decision = bed.rest();
    assert_eq!((bed.said().len(), decision.needed.len()), (0, 1));
    assert!(bed.view().reason.contains("fetches the image again"), "{}", bed.view().reason);
    bed.images = images;
    bed.rest();
    assert_eq!(bed.said(), ["create main", "start main"]);
}

#[test]
fn what_is_gone_back_to_gets_new_instances() {
    let spec = |n: &str| {
        let mut spec = job(JobType::Service, vec![Task { restart: Some(ONCE), ..docker("main") }]);
        spec.groups[0].tasks[0].env.insert("VERSION".into(), n.into());
        spec
    };
    let mut bed = Bed::with(spec("1"));
    bed.pass(20_000);
    let old = bed.instances.clone();
    bed.submit(spec("2"));
    bed.rest();
    bed.end("main", 1);
    for _ in 0..20 {
        if bed.place().next.as_ref().is_some_and(|n| n.reverts) {
            break;
        }
        bed.step();
        bed.ms += 1;
    }
    assert!(bed.place().next.as_ref().is_some_and(|n| n.reverts), "it goes back");
    // What the engine would not remove is still there, as it was when it ended.
    bed.instances.retain(|name, _| !old.contains_key(name));
    bed.instances.extend(old);
    let state = skerry_reconcile::State::Exited { code: Some(0), out_of_memory: false, mark: "old".into() };
    bed.instances.values_mut().filter(|i| i.labels.version == 1).for_each(|i| i.state = state.clone());
    bed.said();
    bed.pass(20_000);
    assert!(bed.said().contains(&"create main".to_owned()));
    assert_eq!((bed.place().current.as_ref().map(|c| c.version), bed.running()), (Some(1), vec!["main".to_owned()]));
}

#[test]
fn a_removal_that_fails_is_tried_again_later() {
    let mut bed = Bed::with(job(JobType::Service, vec![docker("main")]));
    bed.bury();
    bed.step();
    let decision = bed.decide();
    let remove = decision.actions.iter().find(|a| a.step() == Step::Remove).expect("it is removed").clone();
    bed.memory = decision.memory;
    bed.said();
    bed.fail(&remove, Step::Remove);
    bed.rest();
    bed.pass(4_900);
    assert_eq!((bed.said().len(), bed.instances.len()), (0, 1));
    bed.pass(1_500);
    assert_eq!(bed.said(), ["remove main"]);
}

#[test]
fn a_reboot_is_among_what_is_kept_for_people_and_the_first_look_is_none() {
    let noted = |bed: &Bed| bed.place().decisions.iter().filter(|(_, d)| d == "the node restarted").count();
    let mut bed = Bed::with(job(JobType::Service, vec![docker("main")]));
    assert_eq!(noted(&bed), 0);
    bed.reboot();
    bed.rest();
    assert_eq!(noted(&bed), 1);
    bed.memory = Default::default();
    bed.rest();
    assert_eq!(noted(&bed), 0);
}

fn with_last(main: Task) -> Job {
    job(JobType::Batch, vec![main, hook(Hook::Poststop, false, docker("last"))])
}

#[test]
fn a_last_task_that_fails_is_told_and_changes_nothing() {
    for (code, reason) in [(0, "all its tasks are done"), (3, "all its tasks are done; after it: task `last` ended with exit code 3")] {
        let mut bed = Bed::with(with_last(docker("main")));
        bed.end("main", 0);
        bed.rest();
        bed.end("last", code);
        bed.pass(60_000);
        assert_eq!((bed.view().status, bed.view().reason.as_str()), (AllocStatus::Complete, reason));
        assert!(bed.running().is_empty());
    }
}

/// Whether its last task is there, nobody knows before the engine has answered; of a program that is known at once.
#[test]
fn a_last_task_waits_for_an_engine_that_has_not_answered() {
    let mut bed = Bed::with(with_last(process("main", "/bin/true")));
    bed.blind = true;
    bed.end("main", 0);
    bed.pass(60_000);
    assert_eq!((bed.view().status, bed.view().reason.as_str()), (AllocStatus::Running, "all its tasks are done; ends"));
    bed.blind = false;
    bed.rest();
    assert_eq!(bed.running(), ["last"]);

    let mut bed =
        Bed::with(job(JobType::Batch, vec![process("main", "/bin/true"), hook(Hook::Poststop, false, process("last", "/bin/true"))]));
    bed.instances.retain(|_, i| i.labels.task != "last");
    bed.blind = true;
    bed.end("main", 0);
    bed.rest();
    assert_eq!(bed.view().status, AllocStatus::Complete, "there is nothing to run");
}

fn over(bed: &Bed) -> Vec<AllocId> {
    bed.memory.over.iter().map(|o| o.alloc).collect()
}

/// A server that is put back to a backup from before the stop names the allocation again.
fn put_back(bed: &mut Bed, allocs: &[skerry_wire::manifest::ManifestAlloc]) {
    bed.manifest.tombstones.clear();
    bed.manifest.allocs = allocs.to_vec();
    bed.rest();
}

#[test]
fn what_ran_to_its_end_does_not_run_again_for_a_server_that_forgot_its_end() {
    for restart in [false, true] {
        let mut bed = Bed::with(job(JobType::Batch, vec![docker("main")]));
        let named = bed.manifest.allocs.clone();
        bed.end("main", 0);
        bed.rest();
        bed.bury();
        bed.rest();
        assert!(bed.instances.is_empty(), "{:?}", bed.instances);
        // The server has heard of it, and tells nothing of it any more.
        bed.manifest.tombstones.clear();
        bed.rest();
        assert!(bed.memory.slots.is_empty() && over(&bed) == [named[0].id], "{:?}", bed.memory);
        if restart {
            bed.reboot();
            bed.memory.after_restart();
        }
        bed.images.clear();
        bed.said();
        bed.events.clear();
        put_back(&mut bed, &named);
        assert_eq!((bed.said(), bed.instances.len()), (vec![], 0));
        assert_eq!(bed.step().needed, [], "its image is not fetched again");
        let told = bed.events.iter().filter_map(|e| match e {
            skerry_wire::poll::Event::Alloc { alloc, status, .. } => Some((*alloc, *status)),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), [(named[0].id, AllocStatus::Complete)]);
        // Another run is another version.
        bed.images.insert(skerry_wire::ImageId(skerry_wire::Digest::new([1; 32])));
        bed.submit(job(JobType::Batch, vec![docker("main")]));
        if restart {
            // The server has forgotten the job altogether, and gives the same name again.
            bed.manifest.allocs[0].id = named[0].id;
            bed.manifest.allocs[0].version = named[0].version;
        }
        bed.rest();
        assert_eq!(bed.running(), ["main"]);
        assert_eq!(over(&bed), [named[0].id]);
    }
}

#[test]
fn an_end_counts_while_poststop_tasks_are_at_work() {
    let mut bed = Bed::with(job(JobType::Batch, vec![docker("main"), hook(Hook::Poststop, false, docker("last"))]));
    let named = bed.manifest.allocs.clone();
    bed.end("main", 0);
    bed.rest();
    assert_eq!(bed.running(), ["last"]);
    bed.bury();
    bed.rest();
    bed.end("last", 0);
    bed.rest();
    put_back(&mut bed, &named);
    assert_eq!((bed.running(), over(&bed)), (vec![], vec![named[0].id]));
}

#[test]
fn what_did_not_run_to_its_end_is_run_for_a_server_that_forgot_its_stop() {
    let of = |kind| job(kind, vec![Task { restart: Some(ONCE), ..docker("main") }]);
    for (kind, exit) in [(JobType::Service, None), (JobType::Batch, None), (JobType::Batch, Some(1))] {
        let mut bed = Bed::with(of(kind));
        let named = bed.manifest.allocs.clone();
        if let Some(code) = exit {
            bed.end("main", code);
            bed.rest();
        }
        bed.bury();
        bed.rest();
        put_back(&mut bed, &named);
        assert_eq!((bed.running(), bed.memory.over.len()), (vec!["main".to_owned()], 0), "{kind:?} {exit:?}");
    }
}

#[test]
fn of_so_many_ends_the_latest_are_remembered() {
    let mut bed = Bed::new();
    bed.submit(job(JobType::Batch, vec![docker("main")]));
    let specification = bed.specifications.values().next().unwrap().clone();
    let ids: Vec<AllocId> = (0..skerry_reconcile::OVER as u128 + 9).map(|n| AllocId::new((n + 1).to_be_bytes())).collect();
    for (version, id) in (1..).zip(&ids) {
        let named = &mut bed.manifest.allocs[0];
        let bytes = [*id.as_bytes(); 2].concat().try_into().unwrap();
        (named.id, named.version, named.specification) = (*id, version, skerry_wire::Digest::new(bytes));
        bed.specifications.insert(named.specification, specification.clone());
        bed.rest();
        bed.end("main", 0);
        bed.rest();
    }
    bed.bury();
    bed.rest();
    assert_eq!(over(&bed), ids[9..]);
    // What a server names that forgot its end is kept, however many come after it.
    bed.manifest.tombstones.clear();
    let of = |n: usize, job: &str| skerry_wire::manifest::ManifestAlloc {
        job: job.into(),
        group: "g".into(),
        index: 0,
        id: ids[n],
        version: n as u64 + 1,
        specification: skerry_wire::Digest::new([*ids[n].as_bytes(); 2].concat().try_into().unwrap()),
        retry: 0,
        override_lock: false,
    };
    bed.manifest.allocs = vec![of(9, "till")];
    bed.rest();
    assert!(bed.running().is_empty());
    let other = Job { id: "other".into(), ..job(JobType::Batch, vec![docker("main")]) };
    for n in 0..9_u8 {
        bed.submit(other.clone());
        bed.manifest.allocs.push(of(9, "till"));
        bed.rest();
        bed.end("main", 0);
        bed.rest();
        assert_eq!(over(&bed)[0], ids[9], "{n}");
    }
    assert!(over(&bed).len() == skerry_reconcile::OVER && !over(&bed).contains(&ids[10]), "{}", over(&bed).len());
}
