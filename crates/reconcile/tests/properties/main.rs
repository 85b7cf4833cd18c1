//! What must hold whatever happens: never two versions of a group at once, nothing stops without a reason, what was stopped never
//! starts; and when things calm down, what is wanted runs and nothing more is done.

mod world;

use proptest::prelude::*;
use skerry_reconcile::{Slot, State};
use skerry_wire::poll::{AllocStatus, Event};
use world::{IMAGES, Op, World, op};

/// Lets everything come to rest: images arrive, nothing fails, time passes.
fn settle(world: &mut World) {
    for n in 0..IMAGES {
        world.apply(&Op::ImageArrives(n));
    }
    for _ in 0..500 {
        let decision = world.decide();
        world.persist(&decision);
        if !decision.actions.is_empty() {
            world.perform(&decision.actions, usize::MAX, None);
        } else if let Some(at) = decision.wake_at {
            assert!(at > world.ms, "asks to be woken in the past");
            world.ms = at;
        } else {
            assert!(decision.needed.is_empty(), "nothing is lacking any more: {:?}", decision.needed);
            return;
        }
    }
    panic!("does not come to rest");
}

fn check_rest(world: &World) {
    let again = world.decide();
    assert!(again.actions.is_empty() && again.events.is_empty(), "not a fixpoint: {again:?}");
    assert_eq!(again.memory, world.memory, "memory moves at rest");
    let running =
        |slot: &Slot| -> Vec<_> { world.containers.values().filter(|c| c.labels.slot == *slot && c.state == State::Running).collect() };
    for (slot, memory) in &world.memory.slots {
        if let Some(current) = memory.current.as_ref().filter(|_| memory.failed.is_none()) {
            assert!(!running(slot).is_empty() && running(slot).iter().all(|c| c.labels.alloc == current.born), "{slot} does not run");
        }
        assert!(memory.next.is_none(), "{slot} is still on its way");
    }
    let Some(manifest) = &world.manifest else { return };
    let stopped = |id| manifest.tombstones.iter().any(|t| t.id == id);
    for alloc in manifest.allocs.iter().filter(|a| !stopped(a.id)) {
        let current = world.memory.slots.get(&Slot::from(alloc)).and_then(|m| m.current.as_ref());
        assert_eq!(current.map(|c| c.alloc), Some(alloc.id), "{} is not what it should be", Slot::from(alloc));
    }
    for stone in &manifest.tombstones {
        let slot = Slot::from(stone);
        if !manifest.allocs.iter().any(|a| Slot::from(a) == slot) && world.memory.slots.get(&slot).is_none_or(|m| m.current.is_none()) {
            assert!(running(&slot).is_empty(), "{slot} was stopped and runs");
        }
    }
    // No container without an owner, and no two owners of one port.
    for container in world.containers.values() {
        let memory = world.memory.slots.get(&container.labels.slot);
        let owner = memory.and_then(|m| m.current.as_ref());
        assert_eq!(owner.map(|c| c.born), Some(container.labels.alloc), "{} is left over", container.name);
    }
    let mut ports: Vec<u16> = world.memory.slots.values().flat_map(|m| &m.current).flat_map(|c| c.ports.values().copied()).collect();
    let all = ports.len();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), all, "one port for two");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn safe_always_and_right_in_the_end(ops in proptest::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        settle(&mut world);
        check_rest(&world);
    }

    /// Without a server, and after a reboot, exactly what ran runs again.
    #[test]
    fn a_reboot_offline_changes_nothing(ops in proptest::collection::vec(op(), 1..40), lost in any::<bool>()) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        settle(&mut world);
        let before: Vec<_> = world.containers.values().filter(|c| c.state == State::Running).map(|c| c.name.clone()).collect();
        world.apply(&Op::Reboot);
        if lost {
            world.apply(&Op::LoseManifest);
        }
        settle(&mut world);
        for name in before {
            let state = world.containers.get(&name).map(|c| &c.state);
            prop_assert_eq!(state, Some(&State::Running), "{} does not run", name);
        }
    }
}

/// The one container of a job with one.
fn state_of(world: &World, job: &str) -> State {
    world.containers.values().find(|c| c.labels.slot.job == job).expect("it has a container").state.clone()
}

#[test]
fn an_allocation_named_again_with_another_specification_goes_on_and_says_why() {
    let mut world = World::new();
    world.apply(&Op::Submit { job: 1, image: 0 });
    settle(&mut world);
    let id = world.manifest.as_ref().unwrap().allocs[0].id;
    world.apply(&Op::Submit { job: 1, image: 1 });
    world.manifest.as_mut().unwrap().allocs[0].id = id;
    world.apply(&Op::ImageVanishes(1));
    let decision = world.decide();
    assert!(decision.actions.is_empty() && decision.needed.is_empty(), "{decision:?}");
    let [Event::Alloc { alloc, status: AllocStatus::Running, reason, .. }] = &decision.events[..] else { panic!("{:?}", decision.events) };
    assert!(*alloc == id && reason.contains("submit the job again"), "{reason}");
    world.persist(&decision);
    assert!(world.decide().events.is_empty(), "told once");
}

#[test]
fn a_group_that_gave_up_is_tried_again_when_the_engine_was_away() {
    let mut world = World::new();
    world.apply(&Op::Submit { job: 2, image: 0 });
    settle(&mut world);
    while world.memory.slots.values().all(|m| m.failed.is_none()) {
        world.apply(&Op::Crash(0));
        settle(&mut world);
    }
    assert_ne!(state_of(&world, "job2"), State::Running);
    world.apply(&Op::EngineRestart);
    settle(&mut world);
    assert_eq!(state_of(&world, "job2"), State::Running);
}
