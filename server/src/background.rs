//! Threads for work that takes seconds to minutes on all cores: bundles and indexes. They have a low priority, so that nodes and operators are
//! answered, and what else runs on the machine runs, while bundles are made.

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::task::JoinError;

/// So much nicer than the rest of the server: a tenth of the share of an ordinary thread that wants the same core.
const NICE: i32 = 10;

/// The threads, one per core.
#[derive(Clone)]
pub struct Background(Arc<rayon::ThreadPool>);

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Background({} threads)", self.0.current_num_threads())
    }
}

impl Background {
    /// Starts them.
    pub fn new() -> io::Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .thread_name(|index| format!("background-{index}"))
            .start_handler(|_| {
                // On Linux of the calling thread alone, and inherited by those that it starts.
                if let Err(error) = rustix::process::nice(NICE) {
                    tracing::warn!("bundles are made at the priority of everything else: {error}");
                }
            })
            .build();
        pool.map(|pool| Self(Arc::new(pool))).map_err(io::Error::other)
    }

    /// Does some work on them. A panic in it is the error.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        let pool = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || pool.install(work)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_work_has_a_low_priority_and_what_waits_for_it_has_not() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let background = Background::new().unwrap();
        let (own, inner) = background.run(move || (nice(), std::thread::spawn(nice).join().unwrap())).await.unwrap();
        let lower = (before + NICE).min(19);
        assert_eq!((own, inner, nice()), (lower, lower, before));
        assert!(background.run(|| panic!("told")).await.unwrap_err().is_panic());
        assert_eq!(background.run(|| 7).await.unwrap(), 7, "after a panic");
    }
}
