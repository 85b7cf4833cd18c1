//! The Python service is made of this machine's packages: does it run in an image of its own?
//!
//! Needs root and Docker.

use std::time::Duration;

use anyhow::{Result, ensure};
use skerry_testkit::command::run;
use skerry_testkit::{Bed, app, need};

#[test]
fn both_versions_run_and_say_who_they_are() -> Result<()> {
    if !need::bed()? {
        return Ok(());
    }
    let bed = Bed::start()?;
    let (old, new) = app::python_pair(bed.folder())?;
    ensure!(old.image_id != new.image_id && old.size > 20_000_000, "{old:?} {new:?}");
    for (archive, version) in [(old, "1"), (new, "2")] {
        bed.engine.load(&archive.path)?;
        let id = run(bed.engine.docker().args(["run", "--detach", "--rm", "--network", "host", &archive.reference]))?;
        bed.wait_version(version, Duration::from_secs(20))?;
        run(bed.engine.docker().args(["stop", id.trim()]))?;
    }
    Ok(())
}
