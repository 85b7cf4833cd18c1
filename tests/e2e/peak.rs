//! An update takes no more of a disk than it was admitted for: what the agent asks to be free before the first byte is what the disk is
//! seen to lose at most, of the agent's folder and of the engine's each.
//!
//! Needs root, Docker and the built programs.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use skerry_testkit::app::WebApp;
use skerry_testkit::command::until;
use skerry_testkit::{Bed, SmallDisk};
use skerry_tests::stage::{self, DEPLOY};

use crate::full::small;

/// Bytes that must stay free for everything else (`agent/src/images/space.rs`); an update is not admitted with as little as half of them.
const SPARE: u64 = 32 << 20;
/// How often the disks are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Bytes that the agent asks to be free on the disk of a folder, as the deployment says; the disk must be nearly full.
fn needed(bed: &Bed, folder: &Path) -> Result<u64> {
    let before = format!("not enough space on the disk of {}", folder.display());
    let mut last = String::new();
    let found = until("the reason of the failure", DEPLOY, || {
        bed.newest_set("web")?["rows"][0]["reason"].as_str().unwrap_or_default().clone_into(&mut last);
        let rest = last.split_once(&before).and_then(|(_, rest)| rest.split_once(": ")).map(|(_, rest)| rest);
        Ok(rest.and_then(|rest| rest.split_once(" MiB needed")?.0.parse::<u64>().ok()).map(|mib| mib << 20))
    });
    found.with_context(|| format!("last said: {last}\n{}", bed.logs()))
}

#[test]
#[ignore = "takes a minute: make faults"]
fn no_more_of_a_disk_than_was_asked_for_on_vfs() -> Result<()> {
    keeps_within("vfs")
}

#[test]
#[ignore = "takes a minute: make faults"]
fn no_more_of_a_disk_than_was_asked_for_on_overlay2() -> Result<()> {
    keeps_within("overlay2")
}

fn keeps_within(driver: &'static str) -> Result<()> {
    let Some((mut bed, ours, theirs)) = small(driver)? else { return Ok(()) };
    let (one, two) = (WebApp::small("web", "1").write(bed.folder())?, WebApp::bulky("web", "2").write(bed.folder())?);
    let old = stage::deploy(&bed, "web", &one, "1")?;
    bed.publish(&two.path, &two.reference)?;
    let free = [ours.free()?, theirs.free()?];
    ours.fill_but(SPARE / 2)?;
    bed.run_job("web", &two.reference)?;
    let our_need = needed(&bed, &bed.agent_data())?;
    theirs.fill_but(SPARE / 2)?;
    ours.clear()?;
    let their_need = needed(&bed, &bed.engine.data_root())?;

    let done = AtomicBool::new(false);
    let disks: [&SmallDisk; 2] = [&ours, &theirs];
    let lowest = std::thread::scope(|scope| -> Result<[u64; 2]> {
        theirs.clear()?;
        let watch = scope.spawn(|| -> Result<[u64; 2]> {
            let mut lowest = free;
            while !done.load(Ordering::Relaxed) {
                for (lowest, disk) in lowest.iter_mut().zip(disks) {
                    *lowest = (*lowest).min(disk.free()?);
                }
                std::thread::sleep(LOOK);
            }
            Ok(lowest)
        });
        let switched = stage::wait_switch(&bed, &old, &two.image_id, DEPLOY).and_then(|_| bed.wait_version("2", DEPLOY));
        done.store(true, Ordering::Relaxed);
        let lowest = watch.join().map_err(|_| anyhow::anyhow!("the watch of the disks panicked"))?;
        switched?;
        lowest
    })?;
    for ((name, need), (free, lowest)) in [("agent", our_need), ("engine", their_need)].into_iter().zip(free.into_iter().zip(lowest)) {
        let (took, admitted) = (free - lowest, need - SPARE);
        println!("{driver}, disk of the {name}: {} KiB taken at most, {} KiB asked for", took >> 10, admitted >> 10);
        ensure!(took > 0 && took <= admitted, "the update took {took} bytes of the disk of the {name}, and had asked for {admitted}");
    }
    bed.stop_agent()?;
    bed.stop_server()
}
