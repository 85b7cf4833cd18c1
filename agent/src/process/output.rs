//! The output of programs, bounded on the disk.
//!
//! A program appends to one file, which it keeps open; when the file is full it is copied aside and cut to nothing. How soon that is
//! noticed: while a file grows it is looked at the sooner the faster it grows; one that rests is watched by the kernel and costs nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use skerry_reconcile::label;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use super::{Processes, output_file};

/// The shortest and the longest time between two looks at a file that grows.
const SOON: Duration = Duration::from_millis(100);
const LATE: Duration = Duration::from_secs(5);
/// How often the list of files is made anew.
const LIST: Duration = Duration::from_secs(60);
/// Copied at once.
const PIECE: usize = 32 * 1024;

/// Bounds of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    size: u64,
    files: u32,
}

#[derive(Debug)]
struct Watched {
    bounds: Bounds,
    length: u64,
    /// Looked at then, when it grows; else the kernel tells.
    next: Option<Instant>,
    seen: Instant,
    mark: Option<i32>,
}

/// Keeps the output of all processes within its bounds, for ever. `changed` says that there may be other processes than before.
pub(crate) async fn keep_bounded(processes: Processes, changed: std::sync::Arc<tokio::sync::Notify>) {
    let notify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
    let notify = notify.map_err(io::Error::from).and_then(super::watch::readable);
    let notify = match notify {
        Ok(fd) => Some(fd),
        Err(error) => {
            tracing::warn!("output of programs is looked at every {LATE:?}, because the kernel does not watch files: {error}");
            None
        }
    };
    let mut files: BTreeMap<PathBuf, Watched> = BTreeMap::new();
    let mut list = Instant::now();
    loop {
        let now = Instant::now();
        if list <= now {
            relist(&processes, &mut files, notify.as_ref());
            // Only what runs can write: without processes there is nothing to come back for.
            list = now + if files.is_empty() { LIST * 60 } else { LIST };
        }
        for (path, file) in &mut files {
            if file.next.is_some_and(|at| at <= now) {
                file.look(path, now, notify.as_ref());
            }
        }
        let next = files.values().filter_map(|f| f.next).min().unwrap_or(list).min(list);
        tokio::select! {
            () = sleep_until(next) => {}
            () = changed.notified() => list = Instant::now(),
            grown = grown(notify.as_ref()) => {
                let soon = Instant::now() + SOON;
                for file in files.values_mut().filter(|f| f.mark.is_some_and(|m| grown.contains(&m))) {
                    (file.mark, file.next) = (None, Some(soon));
                }
            }
        }
    }
}

/// The marks of files that were written to.
async fn grown(notify: Option<&AsyncFd<OwnedFd>>) -> Vec<i32> {
    let Some(notify) = notify else { return std::future::pending().await };
    let Ok(mut ready) = notify.readable().await else { return std::future::pending().await };
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut reader = Reader::new(notify.get_ref(), &mut buffer);
    let mut marks = Vec::new();
    while let Ok(event) = reader.next() {
        marks.push(event.wd());
    }
    ready.clear_ready();
    marks
}

fn relist(processes: &Processes, files: &mut BTreeMap<PathBuf, Watched>, notify: Option<&AsyncFd<OwnedFd>>) {
    let plans = processes.names().into_iter().filter_map(|n| processes.plan(&n));
    let wanted: BTreeMap<PathBuf, Bounds> = plans
        .filter_map(|p| {
            let path = output_file(p.log.as_deref()?, p.labels.get(label::TASK)?);
            Some((path, Bounds { size: p.log_size, files: p.log_files }))
        })
        .collect();
    files.retain(|path, file| {
        let kept = wanted.contains_key(path);
        if let (false, Some(mark), Some(notify)) = (kept, file.mark, notify) {
            // Fine when the file is gone.
            let _ = inotify::remove_watch(notify.get_ref(), mark);
        }
        kept
    });
    let now = Instant::now();
    for (path, bounds) in wanted {
        let new = || Watched { bounds, length: 0, next: Some(now), seen: now, mark: None };
        files.entry(path).or_insert_with(new).bounds = bounds;
    }
}

impl Watched {
    /// Looks how long the file is, cuts it when it is full, and says when to look again.
    fn look(&mut self, path: &Path, now: Instant, notify: Option<&AsyncFd<OwnedFd>>) {
        let length = fs::metadata(path).map_or(0, |m| m.len());
        let grown = length.saturating_sub(self.length);
        let after = u64::try_from(now.duration_since(self.seen).as_millis()).unwrap_or(u64::MAX).max(1);
        (self.length, self.seen) = (length, now);
        if length >= self.bounds.size {
            if let Err(error) = rotate(path, self.bounds.files) {
                tracing::warn!("the output {} is cut without a copy: {error}", path.display());
                let _ = OpenOptions::new().write(true).open(path).and_then(|f| f.set_len(0));
            }
            self.length = 0;
        }
        // One that writes now and then is waited for too: it would be looked at more often than it writes.
        let seldom = u128::from(after) >= 2 * LATE.as_millis() && self.length < self.bounds.size / 2;
        let rests = (grown == 0 || seldom) && path.exists();
        if rests && let Some(notify) = notify {
            let flags = WatchFlags::MODIFY | WatchFlags::ONESHOT;
            if let Ok(mark) = inotify::add_watch(notify.get_ref(), path, flags) {
                (self.mark, self.next) = (Some(mark), None);
                // What came between the look and the watch.
                if fs::metadata(path).map_or(0, |m| m.len()) == self.length {
                    return;
                }
            }
        }
        // Half of the time that is left at this pace.
        let left = self.bounds.size.saturating_sub(self.length);
        let wait = (grown > 0).then(|| Duration::from_millis(left.saturating_mul(after) / grown.max(1) / 2));
        self.next = Some(now + wait.unwrap_or(LATE).clamp(SOON, LATE));
    }
}

/// `x.log` to `x.log.1`, `x.log.1` to `x.log.2`, until there are `files`; `x.log` is then empty, and the same file.
fn rotate(path: &Path, files: u32) -> io::Result<()> {
    let numbered = |n: u32| PathBuf::from(format!("{}.{n}", path.display()));
    let mut current = OpenOptions::new().read(true).write(true).open(path)?;
    if files > 1 {
        for n in (1..files - 1).rev() {
            match fs::rename(numbered(n), numbered(n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let mut copy = File::create(numbered(1))?;
        let mut buffer = vec![0; PIECE];
        // To its present end: of a program that writes faster than this copies, the rest is lost, not the disk.
        let mut left = current.metadata()?.len();
        current.seek(SeekFrom::Start(0))?;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let n = current.read(&mut buffer[..most])?;
            if n == 0 {
                break;
            }
            copy.write_all(&buffer[..n])?;
            left = left.saturating_sub(n as u64);
        }
    }
    current.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_goes_on_in_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.log");
        let mut program = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        for n in 0..4 {
            program.write_all(format!("part {n}\n").as_bytes()).unwrap();
            rotate(&path, 3).unwrap();
        }
        program.write_all(b"last\n").unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!((read("t.log"), read("t.log.1"), read("t.log.2")), ("last\n".into(), "part 3\n".into(), "part 2\n".into()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        rotate(&path, 1).unwrap();
        assert_eq!(read("t.log"), "");
    }
}
