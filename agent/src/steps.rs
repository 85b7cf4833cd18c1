//! Named steps of an update, at each of which the agent can kill itself: power cuts at the worst instants, for tests.
//!
//! In: the environment variable `SKERRY_STOP_AT` with the [name](Step::name) of a step, read when the first step is reached. Out: the
//! process sends itself SIGKILL the first time it reaches that step, so nothing more is written and nobody is told.
//!
//! Only builds with the feature `steps` hold any of it. What ships is built without: there, each call below is an empty function, and
//! the variable means nothing.

/// A step. What lies before it is done, what lies behind it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// New specifications and the manifest have their copies; the ledger knows nothing of them.
    ManifestCopied,
    /// The manifest is in the ledger; its mark is not in the slots.
    ManifestKept,
    /// The manifest is in force.
    ManifestAccepted,
    /// The bundle is in the ledger; there is no file.
    BundleRecorded,
    /// The bundle's empty file has its name.
    BundleNamed,
    /// The table of contents is here and proven.
    TableHere,
    /// The bases have tags that keep them.
    BasesPinned,
    /// The first chunk was written.
    FirstChunk,
    /// Half of the bundle was written.
    HalfFetched,
    /// The last chunk was written, and not synced.
    LastChunk,
    /// The bundle is whole and synced.
    Fetched,
    /// The reconstruct process has its orders.
    ReconstructStarted,
    /// The first piece of the archive went to the engine.
    LoadBegun,
    /// [`HALF`] bytes of the archive went to the engine.
    LoadHalf,
    /// All of the archive went to the engine, which has not answered.
    LoadSent,
    /// The engine has the image, not yet for certain on its disk.
    LoadDone,
    /// The engine's disk is synced; the ledger still has the bundle on its way.
    EngineSynced,
    /// The image counts as present, and its report waits in the outbox.
    ImageRecorded,
    /// Files that are of no use any more are gone.
    BundleTidied,
    /// The switch is decided and the decision on the disk; nothing is done of it.
    SwitchDecided,
    /// The old container was stopped.
    OldStopped,
    /// The old container was removed.
    OldRemoved,
    /// The new container was made.
    NewCreated,
    /// The new container was started; the ledger does not know.
    NewStarted,
    /// The report that the new version runs is in the outbox.
    SwitchTold,
    /// The server has that report; the ledger does not know.
    ReportDelivered,
    /// The report left the outbox.
    ReportForgotten,
}

/// Bytes of an archive after which a load is half done: small images of tests are twice that.
pub const HALF: u64 = 256 * 1024;

#[cfg(feature = "steps")]
mod stop {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};
    use skerry_wire::poll::{AllocStatus, Event};

    use super::{HALF, Step};

    /// The variable that names the step.
    pub const VARIABLE: &str = "SKERRY_STOP_AT";
    /// A whole archive is with the engine after so long, and the engine still at work.
    const HANDED: Duration = Duration::from_millis(10);

    impl Step {
        /// Every step, in the order in which an update passes them.
        pub const ALL: [Self; 27] = [
            Self::ManifestCopied,
            Self::ManifestKept,
            Self::ManifestAccepted,
            Self::BundleRecorded,
            Self::BundleNamed,
            Self::TableHere,
            Self::BasesPinned,
            Self::FirstChunk,
            Self::HalfFetched,
            Self::LastChunk,
            Self::Fetched,
            Self::ReconstructStarted,
            Self::LoadBegun,
            Self::LoadHalf,
            Self::LoadSent,
            Self::LoadDone,
            Self::EngineSynced,
            Self::ImageRecorded,
            Self::BundleTidied,
            Self::NewCreated,
            Self::SwitchDecided,
            Self::OldStopped,
            Self::OldRemoved,
            Self::NewStarted,
            Self::SwitchTold,
            Self::ReportDelivered,
            Self::ReportForgotten,
        ];

        /// Its name: `LoadDone` is `load-done`.
        pub fn name(self) -> String {
            let mut name = String::new();
            for letter in format!("{self:?}").chars() {
                if letter.is_uppercase() && !name.is_empty() {
                    name.push('-');
                }
                name.extend(letter.to_lowercase());
            }
            name
        }
    }

    fn is_chosen(step: Step) -> bool {
        static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
        CHOSEN.get_or_init(|| std::env::var(VARIABLE).ok()).as_deref() == Some(&step.name())
    }

    /// Ends this process here when the step is the chosen one.
    pub(crate) fn reached(step: Step) {
        if is_chosen(step) {
            // Straight to the kernel: a log line would give other threads time.
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }

    /// So many bytes of a bundle's `size` are here.
    pub(crate) fn fetched(have: u64, size: u64) {
        let chunk = skerry_wire::limits::CHUNK as u64;
        for (step, from) in [(Step::FirstChunk, chunk.min(size)), (Step::HalfFetched, size / 2), (Step::LastChunk, size)] {
            if have >= from {
                reached(step);
            }
        }
    }

    /// So many more bytes of an archive go to the engine.
    pub(crate) fn handed_over(bytes: usize) {
        static SUM: AtomicU64 = AtomicU64::new(0);
        let bytes = bytes as u64;
        if SUM.fetch_add(bytes, Ordering::SeqCst) + bytes >= HALF {
            reached(Step::LoadHalf);
        }
        reached(Step::LoadBegun);
    }

    /// The end of an archive goes to the engine.
    pub(crate) fn handed_over_all() {
        if is_chosen(Step::LoadSent) {
            tokio::spawn(async {
                tokio::time::sleep(HANDED).await;
                reached(Step::LoadSent);
            });
        }
    }

    /// Is it the first report that a version runs? That it is healthy comes later.
    pub(crate) fn says_running(event: &Event) -> bool {
        matches!(event, Event::Alloc { status: AllocStatus::Running, healthy: None, .. })
    }
}

#[cfg(feature = "steps")]
pub use stop::VARIABLE;
#[cfg(feature = "steps")]
pub(crate) use stop::{fetched, handed_over, handed_over_all, reached, says_running};

/// What ships: nothing.
#[cfg(not(feature = "steps"))]
mod none {
    use skerry_wire::poll::Event;

    use super::Step;

    pub(crate) fn reached(_: Step) {}
    pub(crate) fn fetched(_: u64, _: u64) {}
    pub(crate) fn handed_over(_: usize) {}
    pub(crate) fn handed_over_all() {}
    pub(crate) fn says_running(_: &Event) -> bool {
        false
    }
}

#[cfg(not(feature = "steps"))]
pub(crate) use none::{fetched, handed_over, handed_over_all, reached, says_running};
