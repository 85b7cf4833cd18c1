//! Memory of processes as the kernel counts it: Pss, each shared page divided by its sharers.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

/// Pss of a process in KiB.
///
/// # Errors
/// When the process is gone or is somebody else's.
pub fn pss_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).with_context(|| format!("no Pss in {path}"))?;
    line.trim().trim_end_matches("kB").trim().parse().with_context(|| format!("cannot read {line}"))
}

/// Processes whose parent is `pid`.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let parent_of = |folder: &Path| -> Option<u32> {
        let stat = fs::read_to_string(folder.join("stat")).ok()?;
        // The name in brackets may hold spaces: fields are counted behind it.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let number = |name: &std::ffi::OsStr| name.to_str()?.parse::<u32>().ok();
    entries.flatten().filter(|e| parent_of(&e.path()) == Some(pid)).filter_map(|e| number(&e.file_name())).collect()
}

/// Watches the children of a process, and remembers the highest Pss of any of them and who they were.
#[derive(Debug)]
pub struct ChildrenPeak {
    peak: Arc<AtomicU64>,
    seen: Arc<Mutex<Vec<u32>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ChildrenPeak {
    /// Starts to look every 5 ms.
    #[must_use]
    pub fn watch(pid: u32) -> Self {
        let (peak, seen, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (top, list, end) = (Arc::clone(&peak), Arc::clone(&seen), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                for child in children(pid) {
                    top.fetch_max(pss_kib(child).unwrap_or(0), Ordering::Relaxed);
                    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
                    if !list.contains(&child) {
                        list.push(child);
                    }
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self { peak, seen, stop, thread: Some(thread) }
    }

    /// Highest Pss of any child so far, in KiB; 0 when there was none.
    #[must_use]
    pub fn kib(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Process ids of all children so far.
    #[must_use]
    pub fn seen(&self) -> Vec<u32> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ChildrenPeak {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_sees_its_child() {
        let me = std::process::id();
        assert!(pss_kib(me).unwrap() > 100);
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        assert!(children(me).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
