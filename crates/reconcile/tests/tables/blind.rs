//! What is decided before the engine has answered: containers may be there that nobody sees.

use skerry_wire::ImageId;
use skerry_wire::job::{JobType, Task};
use skerry_wire::poll::{AllocStatus, Event};

use crate::bed::{Bed, docker, job, process};

/// Another agent starts while the engine does not answer.
fn blind(bed: &mut Bed) {
    bed.memory.after_restart();
    bed.blind = true;
    bed.events.clear();
    bed.said();
}

fn ends_told(bed: &Bed) -> usize {
    bed.events.iter().filter(|e| matches!(e, Event::Alloc { status: AllocStatus::Complete, .. })).count()
}

#[test]
fn an_order_to_stop_is_not_told_as_done_before_it_is() {
    for reboot in [false, true] {
        let mut bed = Bed::with(job(JobType::Service, vec![docker("main")]));
        bed.pass(20_000);
        if reboot {
            bed.reboot();
        }
        blind(&mut bed);
        bed.bury();
        let decision = bed.rest();
        assert_eq!((ends_told(&bed), bed.instances.len()), (0, 1), "reboot: {reboot}");
        let alloc = bed.manifest.tombstones[0].id;
        assert!(decision.folders.contains(&alloc), "what it wrote stays until it is gone");
        bed.blind = false;
        bed.rest();
        assert_eq!((ends_told(&bed), bed.instances.len()), (1, 0), "reboot: {reboot}");
    }
}

#[test]
fn without_containers_no_engine_is_waited_for() {
    let mut bed = Bed::with(job(JobType::Service, vec![process("main", "/bin/sleep")]));
    bed.pass(20_000);
    blind(&mut bed);
    bed.bury();
    bed.rest();
    assert_eq!((ends_told(&bed), bed.instances.len()), (1, 0));
}

#[test]
fn what_never_had_an_instance_ends_at_once() {
    let mut bed = Bed::new();
    let images = std::mem::take(&mut bed.images);
    bed.submit(job(JobType::Service, vec![docker("main")]));
    bed.rest();
    bed.images = images;
    blind(&mut bed);
    bed.bury();
    bed.rest();
    assert_eq!(ends_told(&bed), 1);
}

#[test]
fn a_lost_memory_waits_for_the_engine() {
    let mut bed = Bed::with(job(JobType::Service, vec![docker("main")]));
    bed.pass(20_000);
    let before = bed.place().current.clone();
    blind(&mut bed);
    bed.memory = Default::default();
    let images: std::collections::BTreeSet<ImageId> = std::mem::take(&mut bed.images);
    bed.rest();
    bed.images = images;
    bed.blind = false;
    bed.rest();
    assert_eq!((bed.place().current.clone(), bed.said()), (before, vec![]), "it runs on as it is");
}

#[test]
fn nothing_is_made_beside_what_is_not_seen() {
    let tasks = || vec![docker("main"), process("side", "/bin/sleep")];
    let mut bed = Bed::with(job(JobType::Service, tasks()));
    bed.pass(20_000);
    bed.said();
    // The next version is switched to while the old container takes its time.
    bed.obedient = false;
    let newer = tasks().into_iter().map(|t| Task { env: [("VERSION".to_owned(), "2".to_owned())].into(), ..t }).collect();
    bed.submit(job(JobType::Service, newer));
    bed.step();
    bed.step();
    bed.end("side", 0);
    bed.stopping.clear();
    blind(&mut bed);
    bed.rest();
    assert!(!bed.said().contains(&"start side".to_owned()), "never two versions at once");
    assert!(bed.view().reason.contains("engine"), "{}", bed.view().reason);
    bed.blind = false;
    bed.obedient = true;
    bed.rest();
    assert_eq!(bed.running(), ["main", "side"]);
}
