//! A thread that asks an HTTP service for an answer ten times a second and writes down every failure.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::http;
use crate::netns::{Netns, enter};

/// From one question to the next.
pub const INTERVAL: Duration = Duration::from_millis(100);
/// An answer that takes longer is a failure.
pub const TIMEOUT: Duration = Duration::from_millis(1000);

/// A running probe; ends when dropped.
#[derive(Debug)]
pub struct Probe {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// One question and what became of it.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it was asked.
    pub asked: Instant,
    /// When the answer or the failure was there.
    pub done: Instant,
    /// The answer's body, or why there was none.
    pub answer: Result<String, String>,
}

impl Probe {
    /// Starts asking `http://ADDRESS/PATH` from within a namespace, or from the thread's own.
    #[must_use]
    pub fn start(namespace: Option<&Netns>, address: SocketAddr, path: &str) -> Self {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (place, path) = (namespace.map(Netns::path), path.to_owned());
        let (sink, end) = (Arc::clone(&samples), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let entered = place.map_or(Ok(()), |p| enter(&p)).map_err(|e| format!("{e:#}"));
            let mut next = Instant::now();
            loop {
                // What was seen to be so before the end was ordered is in the last answer.
                let last = end.load(Ordering::Relaxed);
                let asked = Instant::now();
                let answer = entered.clone().and_then(|()| http::get(address, &path, TIMEOUT).map_err(|e| format!("{e:#}")));
                lock(&sink).push(Sample { asked, done: Instant::now(), answer });
                if last {
                    break;
                }
                next = (next + INTERVAL).max(Instant::now());
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        Self { samples, stop, thread: Some(thread) }
    }

    /// Ends the probe after one more question, and returns all that it saw.
    #[must_use]
    pub fn stop(mut self) -> Vec<Sample> {
        self.join();
        std::mem::take(&mut lock(&self.samples))
    }

    /// All samples so far.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        lock(&self.samples).clone()
    }

    /// The last answer, when the last question had one.
    #[must_use]
    pub fn last_answer(&self) -> Option<String> {
        lock(&self.samples).last().and_then(|s| s.answer.clone().ok())
    }

    /// Questions without an answer so far.
    #[must_use]
    pub fn failures(&self) -> usize {
        failures(&lock(&self.samples))
    }

    /// The longest time without service so far.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        longest_gap(&lock(&self.samples))
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.join();
    }
}

/// Questions without an answer.
#[must_use]
pub fn failures(samples: &[Sample]) -> usize {
    samples.iter().filter(|s| s.answer.is_err()).count()
}

/// The longest run of failures, from the first failed question to the next answer (or the last sample).
#[must_use]
pub fn longest_gap(samples: &[Sample]) -> Duration {
    let mut longest = Duration::ZERO;
    let mut since = None;
    for sample in samples {
        if sample.answer.is_err() && since.is_none() {
            since = Some(sample.asked);
        }
        if let Some(start) = since {
            longest = longest.max(sample.done.duration_since(start));
        }
        if sample.answer.is_ok() {
            since = None;
        }
    }
    longest
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_runs_from_the_first_failure_to_the_next_answer() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let sample = |asked, done, good: bool| Sample {
            asked: at(asked),
            done: at(done),
            answer: if good { Ok("1".into()) } else { Err("x".into()) },
        };
        let gap = |rows: &[(u64, u64, bool)]| longest_gap(&rows.iter().map(|&(a, d, g)| sample(a, d, g)).collect::<Vec<_>>());
        assert_eq!(gap(&[]), Duration::ZERO);
        assert_eq!(gap(&[(0, 5, true), (100, 105, true)]), Duration::ZERO);
        assert_eq!(gap(&[(0, 5, true), (100, 600, false), (600, 605, true)]), Duration::from_millis(505));
        assert_eq!(gap(&[(0, 50, false), (100, 105, true), (200, 300, false), (300, 700, false)]), Duration::from_millis(500));
    }
}
