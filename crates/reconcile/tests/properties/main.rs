//! What must hold whatever happens: never two versions of a group at once, nothing stops without a reason, what was stopped never
//! starts, what was bad or complete does not come again by itself; and when things calm down, what is wanted runs and nothing more is done.

mod jobs;
mod world;

use jobs::IMAGES;
use proptest::prelude::*;
use skerry_reconcile::{Slot, State};
use skerry_wire::poll::{AllocStatus, Event};
use world::{Op, World, op};

/// A wait that is longer than this is no unrest: nothing but the next run by the clock.
const LONG: u64 = 2 * 3_600_000;

/// Lets everything come to rest: images arrive, nothing fails, locks are let go of, what ends ends, time passes.
fn settle(world: &mut World) {
    for n in 0..IMAGES {
        world.apply(&Op::ImageArrives(n));
    }
    world.locked.clear();
    for _ in 0..600 {
        let decision = world.decide();
        let asks = world.asks_more(&decision);
        world.persist(&decision);
        if asks || !decision.memory.orders.is_empty() {
            // What the checks find is news, and that an order is not told again.
            world.perform(&decision.actions, usize::MAX, None);
        } else if !decision.actions.is_empty() {
            world.perform(&decision.actions, usize::MAX, None);
        } else if !world.stopping.is_empty() {
            world.finish_stops();
        } else if world.finish_runs() {
        } else if let Some(at) = decision.wake_at.filter(|at| *at <= world.ms + LONG) {
            assert!(at > world.ms, "asks to be woken in the past");
            world.advance(at - world.ms);
        } else {
            assert!(decision.needed.is_empty(), "nothing is lacking any more: {:?}", decision.needed);
            return;
        }
    }
    panic!("does not come to rest: {:#?}", world.decide());
}

fn check_rest(world: &World) {
    let again = world.decide();
    assert!(again.actions.is_empty() && again.events.is_empty(), "not a fixpoint: {again:?}");
    assert_eq!(again.memory, world.memory, "memory moves at rest");
    let running =
        |slot: &Slot| -> Vec<_> { world.instances.values().filter(|c| c.labels.slot == *slot && c.state == State::Running).collect() };
    for (slot, memory) in &world.memory.slots {
        let batch = world.is_batch(slot);
        if let Some(current) = memory.current.as_ref().filter(|_| memory.life.end.is_none() && !batch) {
            let mains = ["main", "side"];
            assert!(running(slot).iter().any(|c| mains.contains(&c.labels.task.as_str())), "{slot} does not run");
            assert!(running(slot).iter().all(|c| c.labels.alloc == current.born), "{slot} does not run");
        }
        if memory.current.is_some() && batch && (slot.run().is_some() || slot.job == "job3") {
            assert!(memory.life.end.as_ref().is_some_and(|e| e.settled), "{slot} has not ended");
        }
        assert!(memory.next.is_none(), "{slot} is still on its way");
    }
    // No instance without an owner, and no two owners of one port.
    for instance in world.instances.values() {
        let memory = world.memory.slots.get(&instance.labels.slot);
        let owner = memory.and_then(|m| m.current.as_ref());
        assert_eq!(owner.map(|c| c.born), Some(instance.labels.alloc), "{} is left over", instance.name);
    }
    let live = world.memory.slots.values().filter(|m| m.life.end.is_none());
    let mut ports: Vec<u16> = live.flat_map(|m| &m.current).flat_map(|c| c.ports.values().copied()).collect();
    let all = ports.len();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), all, "one port for two");
    let Some(manifest) = &world.manifest else { return };
    let stopped = |id| manifest.tombstones.iter().any(|t| t.id == id);
    for alloc in manifest.allocs.iter().filter(|a| !stopped(a.id)) {
        let memory = world.memory.slots.get(&Slot::from(alloc));
        if let Some(memory) = memory.filter(|m| m.bad.contains_key(&alloc.specification)) {
            assert_eq!(memory.current, memory.last_good, "{} did not go back", Slot::from(alloc));
            continue;
        }
        let current = memory.and_then(|m| m.current.as_ref());
        assert_eq!(current.map(|c| c.alloc), Some(alloc.id), "{} is not what it should be", Slot::from(alloc));
    }
    for stone in &manifest.tombstones {
        let slot = Slot::from(stone);
        if !manifest.allocs.iter().any(|a| Slot::from(a) == slot) && world.memory.slots.get(&slot).is_none_or(|m| m.current.is_none()) {
            assert!(running(&slot).is_empty(), "{slot} was stopped and runs");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn safe_always_and_right_in_the_end(ops in proptest::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        settle(&mut world);
        check_rest(&world);
    }

    /// Without a server, and after a reboot, exactly what ran runs again.
    #[test]
    fn a_reboot_offline_changes_nothing(ops in proptest::collection::vec(op(), 1..50), lost in any::<bool>()) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        settle(&mut world);
        let before: Vec<_> = world.instances.values().filter(|c| c.state == State::Running).map(|c| c.name.clone()).collect();
        world.apply(&Op::Reboot);
        if lost {
            world.apply(&Op::LoseManifest);
        }
        settle(&mut world);
        for name in before {
            let state = world.instances.get(&name).map(|c| &c.state);
            prop_assert_eq!(state, Some(&State::Running), "{} does not run", name);
        }
    }
}

/// The main instance of a job.
fn state_of(world: &World, job: &str) -> State {
    let main = world.instances.values().find(|c| c.labels.slot.job == job && c.labels.task == "main");
    main.expect("it has an instance").state.clone()
}

#[test]
fn an_allocation_named_again_with_another_specification_goes_on_and_says_why() {
    let mut world = World::new();
    world.apply(&Op::Submit { job: 1, image: 0 });
    settle(&mut world);
    let id = world.manifest.as_ref().unwrap().allocs[0].id;
    world.apply(&Op::Submit { job: 1, image: 1 });
    world.manifest.as_mut().unwrap().allocs[0].id = id;
    world.images.remove(&jobs::image(1));
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
    while world.memory.slots.values().all(|m| m.life.end.is_none()) {
        world.apply(&Op::Crash(0));
        settle(&mut world);
    }
    assert_ne!(state_of(&world, "job2"), State::Running);
    world.apply(&Op::EngineRestart);
    settle(&mut world);
    assert_eq!(state_of(&world, "job2"), State::Running);
}

#[test]
fn what_is_sick_is_left_for_what_was_good_until_an_order() {
    let mut world = World::new();
    world.apply(&Op::Submit { job: 1, image: 0 });
    settle(&mut world);
    let good = world.memory.slots.values().next().unwrap().current.clone();
    world.apply(&Op::Submit { job: 1, image: jobs::SICK });
    settle(&mut world);
    check_rest(&world);
    let memory = world.memory.slots.values().next().unwrap();
    assert_eq!((&memory.current, memory.bad.len()), (&good, 1));
    // By the operator's order it is tried again, and left again.
    for on_node in [false, true] {
        world.apply(&Op::Retry { job: 1, on_node });
        let decision = world.decide();
        assert!(!decision.actions.is_empty(), "an order is carried out");
        settle(&mut world);
        check_rest(&world);
        assert_eq!(world.memory.slots.values().next().unwrap().current, good);
    }
}
