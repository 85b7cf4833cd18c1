//! Conditions of the field's networks, each in the middle of an update: what the node does while it lasts, how soon it is
//! current after it, bytes over the wire; and never a stopped allocation.
//!
//! Needs root, Docker and the built programs. `make conditions` prints the table. Longer than every day: `SKERRY_CUT_S`,
//! `SKERRY_OFFLINE_S` (seconds), `SKERRY_WEAK_BYTES` (new bytes of the version that comes over the weakest link).

use std::time::Duration;

use anyhow::Result;
use skerry_testkit::{Resolver, Way};
use skerry_tests::course::{ABROAD, CUT, Course, HOME, Plan, Stands, USUAL, number, renumber, seconds};

/// A third of the usual bundle.
const PART: u64 = 800_000;
/// A link that is back is used again within this time: a try of every few seconds, a handshake, and the longest pause of TCP between two.
const SOON: Duration = Duration::from_secs(20);

/// Sixty-four kbit/s, 600 ms there and back, every twentieth packet lost.
const WEAK: [Way; 2] = [Way::new(64.0, 300.0, 5.0), Way::new(64.0, 300.0, 5.0)];

#[test]
fn long_cut() -> Result<()> {
    let Some(mut course) = Course::begin(Plan::USUAL)? else { return Ok(()) };
    course.wait_down(PART)?;
    course.bed.wire()?.set(CUT);
    course.last(seconds("SKERRY_CUT_S", 40))?;
    let healed = course.heal()?;
    course.finish("long cut", healed, 1, SOON).map(drop)
}

/// Links that come and go before a back-off of tries could end: with and without the interface.
#[test]
fn flapping() -> Result<()> {
    let Some(mut course) = Course::begin(Plan::USUAL)? else { return Ok(()) };
    course.wait_down(PART / 2)?;
    const FLAPS: u64 = 8;
    for flap in 0..FLAPS {
        if flap % 2 == 0 {
            course.bed.link.down()?;
        } else {
            course.bed.wire()?.set(CUT);
        }
        course.last(Duration::from_secs(3))?;
        course.bed.link.up()?;
        course.bed.wire()?.set(USUAL);
        std::thread::sleep(Duration::from_millis(1500));
    }
    let healed = course.heal()?;
    course.finish("flapping, 1.5 s up, 3 s down", healed, FLAPS, Duration::from_secs(12)).map(drop)
}

/// Off for long, restarted meanwhile, and the world has moved on: the newest version comes, not the one that was under way.
#[test]
#[ignore = "takes minutes: make faults"]
fn long_offline_node() -> Result<()> {
    let Some(mut course) = Course::begin(Plan::USUAL)? else { return Ok(()) };
    course.wait_down(PART)?;
    course.bed.link.down()?;
    let offline = seconds("SKERRY_OFFLINE_S", 30);
    course.last(offline / 2)?;
    course.bed.agent()?.kill9()?;
    course.bed.start_agent()?;
    course.order_another(Plan::USUAL.bulk)?;
    std::thread::sleep(Duration::from_secs(1));
    course.last(offline / 2)?;
    course.bed.link.up()?;
    let healed = course.heal()?;
    // What had come of the version that nobody wants any more was fetched for nothing: it counts as cuts.
    course.finish("long offline, a newer version meanwhile", healed, PART.div_ceil(64 * 1024) + 2, SOON).map(drop)
}

/// What the node sends arrives; what the server sends does not.
#[test]
#[ignore = "takes minutes: make faults"]
fn node_reaches_server_but_not_the_other_way() -> Result<()> {
    one_way("node reaches server, not the other way", [Way::DOWN, USUAL[1]])
}

/// What the server sends arrives; what the node sends does not.
#[test]
#[ignore = "takes minutes: make faults"]
fn server_cannot_be_reached_but_sends() -> Result<()> {
    one_way("server cannot be reached but sends", [USUAL[0], Way::DOWN])
}

fn one_way(name: &str, ways: [Way; 2]) -> Result<()> {
    let Some(mut course) = Course::begin(Plan::USUAL)? else { return Ok(()) };
    course.wait_down(PART)?;
    course.bed.wire()?.set(ways);
    course.last(Duration::from_secs(25))?;
    let healed = course.heal()?;
    course.finish(name, healed, 1, SOON).map(drop)
}

/// Names do not resolve any more, in each of the ways that this happens, and stay so: every new connection, and an agent that was started
/// anew, finds the server all the same.
#[test]
#[ignore = "takes minutes: make faults"]
fn names_that_break() -> Result<()> {
    let Some(mut course) = Course::begin(Plan { bulk: 2 * Plan::USUAL.bulk, named: true, ..Plan::USUAL })? else { return Ok(()) };
    course.wait_down(PART)?;
    // Another machine of that network, where nobody is.
    let lie = Resolver::Answers([10, 77, 0, 99].into());
    for (state, restart) in [(Resolver::IsSilent, false), (Resolver::Denies, true), (lie, false)] {
        course.bed.names()?.set(state);
        if restart {
            course.bed.agent()?.kill9()?;
            course.bed.start_agent()?;
        } else {
            course.bed.refuse_node(true)?;
            course.last(Duration::from_secs(1))?;
            course.bed.refuse_node(false)?;
        }
        let took = course.more(PART / 3, SOON)?;
        println!("{state:?}, agent restarted: {restart}: more of the bundle after {:.1} s", took.as_secs_f64());
    }
    course.bed.names()?.set(Resolver::Fails);
    course.bed.agent()?.kill9()?;
    course.bed.start_agent()?;
    let last = course.heal()?;
    course.finish("names break: silence, denial, a lie, failure; agent killed at two of them", last, 4, SOON).map(drop)
}

/// The weakest link of the field, with an agent that is started anew on it: the transfer passes, and the node knows where it is.
#[test]
#[ignore = "takes minutes: make faults"]
fn very_low_bandwidth() -> Result<()> {
    let bytes = number("SKERRY_WEAK_BYTES", 160_000);
    let Some(mut course) = Course::begin(Plan { bulk: bytes, link: WEAK, ..Plan::USUAL })? else { return Ok(()) };
    course.wait_down(bytes / 3)?;
    course.bed.agent()?.kill9()?;
    course.bed.start_agent()?;
    // A kbyte a second, and a minute for all that is lost.
    course.until_current(Duration::from_secs(120 + bytes / 1_000))?;
    let healed = course.heal()?;
    course.finish("64 kbit/s, 600 ms, 5 % lost; agent killed", healed, 2, SOON).map(drop)
}

/// The node has another address from one moment to the next.
#[test]
#[ignore = "takes minutes: make faults"]
fn address_that_changes() -> Result<()> {
    renumbered("the node's address changes", Stands::Moves)
}

/// The router on the way has another address, and the node is not told.
#[test]
#[ignore = "takes minutes: make faults"]
fn address_of_the_nat_that_changes() -> Result<()> {
    renumbered("the address of the router before the node changes", Stands::BehindNat)
}

fn renumbered(name: &str, stands: Stands) -> Result<()> {
    let Some(mut course) = Course::begin(Plan { stands, ..Plan::USUAL })? else { return Ok(()) };
    course.wait_down(PART)?;
    renumber(&course.bed, HOME, ABROAD)?;
    let changed = course.heal()?;
    course.last(Duration::from_secs(2))?;
    course.finish(name, changed, 1, SOON).map(drop)
}
