//! Threads for work that takes seconds to minutes on all cores: bundles and indexes. They have a low priority, so that nodes and operators are
//! answered, and what else runs on the machine runs, while bundles are made.
//!
//! Each piece of work has a thread of its own; what it does on all cores at once goes to the process's one pool of threads.

use std::sync::Once;

use tokio::task::JoinError;

/// So much nicer than the rest of the server: a tenth of the share of an ordinary thread that wants the same core.
const NICE: i32 = 10;

/// Does some work at a low priority. A panic in it is the error.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    tokio::task::spawn_blocking(move || {
        lower_the_pool();
        // Not on this thread: what was lowered stays low, and this one has other work after it.
        std::thread::scope(|threads| {
            let thread = threads.spawn(move || {
                lower();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
    .await
}

/// The threads that share work on all cores, unless somebody in this process started them before.
fn lower_the_pool() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let pool = rayon::ThreadPoolBuilder::new().thread_name(|index| format!("background-{index}")).start_handler(|_| lower());
        if let Err(error) = pool.build_global() {
            tracing::debug!("the threads for bundles run already: {error}");
        }
    });
}

/// On Linux of the calling thread alone, and inherited by those that it starts.
fn lower() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::warn!("bundles are made at the priority of everything else: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_work_has_a_low_priority_and_what_waits_for_it_has_not() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let (own, inner) = run(move || (nice(), std::thread::spawn(nice).join().unwrap())).await.unwrap();
        let lower = (before + NICE).min(19);
        assert_eq!((own, inner, nice()), (lower, lower, before));
        assert!(run(|| panic!("told")).await.unwrap_err().is_panic());
        assert_eq!(run(|| 7).await.unwrap(), 7, "after a panic");
    }
}
