//! `docker pull` beside Skerry: the same two images over the same link with the same fault.
//!
//! In: a [`Case`], a link and what happens to it, and the size of the images. Out: a [`Row`] for each image and each of the two ways,
//! with all bytes of the frames that came to the node, how long it took and how it ended.
//!
//! The fault begins when a third of what is to come has come: of the layers as the registry keeps them, or of the bundle.

mod registry;
mod stock;

use std::cell::Cell;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use skerry_testkit::command::{run, until};
use skerry_testkit::image::Archive;
use skerry_testkit::{Bed, Way};

use crate::course::{ABROAD, CUT, HOME, renumber};
use crate::stage;
pub use registry::Registry;
pub use stock::pair;

/// The link while nothing is measured.
const FAST: [Way; 2] = [Way::new(400_000.0, 1.0, 0.0), Way::new(400_000.0, 1.0, 0.0)];
/// Between two looks at the count of the link.
const TICK: Duration = Duration::from_millis(5);

/// What happens to the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing passes, and no end is told.
    Silence(Duration),
    /// The server's machine answers with resets.
    Resets(Duration),
    /// The node has another address at once.
    Address,
}

/// A link and what happens to it.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name in the table.
    pub name: String,
    /// kbit/s to the node; a quarter of it back.
    pub kbit: f64,
    /// What happens.
    pub fault: Fault,
    /// How long each transfer is waited for.
    pub limit: Duration,
}

/// What came of one image in one way.
#[derive(Debug, Clone)]
pub struct Row {
    /// The case.
    pub case: String,
    /// The image.
    pub image: &'static str,
    /// What was to come: layers as the registry keeps them, or the bundle.
    pub file: u64,
    /// Bytes of all frames to the node.
    pub received: u64,
    /// Until the image was complete.
    pub took: Duration,
    /// None: it is complete. Else what was said last.
    pub failed: Option<String>,
}

impl Case {
    fn ways(&self) -> [Way; 2] {
        [Way::new(self.kbit, 30.0, 0.0), Way::new(self.kbit / 4.0, 30.0, 0.0)]
    }

    /// `docker pull` of both images, one after the other.
    ///
    /// # Errors
    /// When the bed or the registry does not start; a pull that fails is a row.
    pub fn pull(&self, images: &[Archive; 2], folder: &Path) -> Result<[Row; 2]> {
        let mut bed = Bed::start_wired(FAST)?;
        let registry = Registry::start(&mut bed, folder)?;
        let files = registry.publish(&bed, images)?;
        let pulled = |at: usize, image: &'static str| -> Result<Row> {
            let link = Link::of(self, &bed, Registry::PORT)?;
            let name = registry.name(&images[at].reference);
            let log = bed.folder().join("pull.log");
            let mut command = bed.engine.docker();
            command.args(["pull", &name]).stdin(Stdio::null());
            command.stdout(File::create(&log)?).stderr(File::options().append(true).open(&log)?);
            let mut child = command.spawn().context("cannot start docker")?;
            let mut ended = || -> Result<Option<bool>> { Ok(child.try_wait()?.map(|status| status.success())) };
            let (took, good) = link.watch(files[at] / 3, &mut ended)?;
            if good.is_none() {
                child.kill()?;
                child.wait()?;
            }
            let said = std::fs::read_to_string(&log)?.trim().lines().last().unwrap_or_default().to_owned();
            let failed = match good {
                Some(true) => None,
                Some(false) => Some(said),
                None => Some(format!("given up; {said}")),
            };
            let received = link.received()?;
            link.restore()?;
            if failed.is_some() {
                // The update begins from an image that is there.
                run(bed.engine.docker().args(["pull", "--quiet", &name]))?;
            }
            Ok(Row { case: self.name.clone(), image, file: files[at], received, took, failed })
        };
        Ok([pulled(0, FIRST)?, pulled(1, UPDATE)?])
    }

    /// The same images by Skerry.
    ///
    /// # Errors
    /// When the bed does not start; a transfer that is not done in time is a row.
    pub fn skerry(&self, images: &[Archive; 2]) -> Result<[Row; 2]> {
        let mut bed = Bed::start_wired(FAST)?;
        bed.start_server()?;
        bed.start_agent()?;
        stage::wait_enrolled(&bed, 1)?;
        for image in images {
            bed.publish(&image.path, &image.reference)?;
        }
        let port = bed.server_address().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).context("no port")?;
        let brought = |at: usize, title: &'static str| -> Result<Row> {
            let image = &images[at];
            let link = Link::of(self, &bed, port)?;
            bed.run_job("web", &image.reference)?;
            // Built with the order; what it is to bring is known then, and nothing of it has passed.
            let size = || Ok(bed.newest_set("web")?["rows"][0]["size"].as_u64().filter(|size| *size > 0));
            let file = until("the bundle", stage::DEPLOY, size).with_context(|| bed.logs())?;
            let mut looked = Instant::now();
            let mut ended = || -> Result<Option<bool>> {
                if looked.elapsed() < Duration::from_millis(300) {
                    return Ok(None);
                }
                looked = Instant::now();
                Ok(bed.engine.images()?.contains(&image.image_id).then_some(true))
            };
            let (took, good) = link.watch(file / 3, &mut ended)?;
            let received = link.received()?;
            link.restore()?;
            bed.wait_deployed("web", stage::DEPLOY)?;
            let failed = if good.is_some() { None } else { Some("given up".to_owned()) };
            Ok(Row { case: self.name.clone(), image: title, file, received, took, failed })
        };
        Ok([brought(0, FIRST)?, brought(1, UPDATE)?])
    }
}

const FIRST: &str = "first image, in full";
const UPDATE: &str = "update, rebuilt";

/// The link during one transfer.
struct Link<'a> {
    case: &'a Case,
    bed: &'a Bed,
    port: u16,
    began: Instant,
    before: u64,
    abroad: Cell<bool>,
}

impl<'a> Link<'a> {
    /// From now on it is the case's.
    fn of(case: &'a Case, bed: &'a Bed, port: u16) -> Result<Self> {
        bed.wire()?.set(case.ways());
        Ok(Self { case, bed, port, began: Instant::now(), before: bed.wire()?.bytes()[0], abroad: Cell::new(false) })
    }

    fn received(&self) -> Result<u64> {
        Ok(self.bed.wire()?.bytes()[0] - self.before)
    }

    /// Makes the fault when so many bytes have come, ends it after its time, and says how long all of it took and how it ended; none when
    /// it did not within the case's limit.
    fn watch(&self, third: u64, ended: &mut dyn FnMut() -> Result<Option<bool>>) -> Result<(Duration, Option<bool>)> {
        let mut fault = None;
        while self.began.elapsed() < self.case.limit {
            if fault.is_none() && self.received()? >= third {
                fault = Some((Instant::now(), true));
                self.begin()?;
            }
            if let Some((at, true)) = fault
                && at.elapsed() >= self.lasts()
            {
                fault = Some((at, false));
                self.end()?;
            }
            if let Some(good) = ended()? {
                let took = self.began.elapsed();
                if matches!(fault, Some((_, true))) {
                    self.end()?;
                }
                return Ok((took, Some(good)));
            }
            std::thread::sleep(TICK);
        }
        Ok((self.began.elapsed(), None))
    }

    fn lasts(&self) -> Duration {
        match self.case.fault {
            Fault::Silence(span) | Fault::Resets(span) => span,
            Fault::Address => Duration::ZERO,
        }
    }

    fn begin(&self) -> Result<()> {
        match self.case.fault {
            Fault::Silence(_) => self.bed.wire()?.set(CUT),
            Fault::Resets(_) => self.bed.server_link.refuse(self.port)?,
            Fault::Address => {
                renumber(self.bed, HOME, ABROAD)?;
                self.abroad.set(true);
            }
        }
        Ok(())
    }

    fn end(&self) -> Result<()> {
        match self.case.fault {
            Fault::Silence(_) => self.bed.wire()?.set(self.case.ways()),
            Fault::Resets(_) => self.bed.server_link.admit()?,
            Fault::Address => {}
        }
        Ok(())
    }

    /// The link is fast again, and the node has the address that it had.
    fn restore(&self) -> Result<()> {
        if self.abroad.take() {
            renumber(self.bed, ABROAD, HOME)?;
        }
        self.bed.wire()?.set(FAST);
        Ok(())
    }
}

/// Both images in a folder, of so many uncompressed bytes each.
///
/// # Errors
/// When the machine has not so many files, or no static busybox.
pub fn images(folder: &Path, bytes: u64) -> Result<[Archive; 2]> {
    let images = pair(folder, bytes)?;
    let least = bytes - bytes / 10;
    ensure!(images.iter().all(|image| image.size >= least), "an image has less than {least} bytes: this machine has too few files");
    Ok(images)
}
