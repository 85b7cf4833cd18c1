//! Who has the lock of a process open: the program, and whatever it started and did not let go of it.
//!
//! In: the process's folder, and /proc. Out: those that may be ended with it, and the record of a program whose own record is broken.
//! A program can hand its lock on to anybody: what runs as an ordinary user ends nothing that this user could not end.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::Pid;

use super::record::{Home, Plan, Record, start_time};
use super::user;

/// Above every number that a launcher of an agent before this one was given.
const JUMP: u64 = 1 << 32;

/// Processes that have the lock file open.
pub(super) fn holders(home: &Home) -> Vec<Pid> {
    let Ok(lock) = std::fs::metadata(home.path("lock")) else { return vec![] };
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else { return vec![] };
    let holds = |pid: &u32| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        fds.filter_map(|fd| std::fs::metadata(fd.path()).ok()).any(|m| (m.dev(), m.ino()) == (lock.dev(), lock.ino()))
    };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let pids = pids.filter(|pid| *pid != own).filter(holds);
    pids.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).collect()
}

/// Does what this process becomes, or starts, get the lock from it?
fn hands_on(home: &Home, pid: Pid) -> bool {
    let Ok(lock) = std::fs::metadata(home.path("lock")) else { return false };
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    let fds = std::fs::read_dir(format!("{folder}/fd")).into_iter().flatten().flatten();
    let of_lock = fds.filter(|fd| std::fs::metadata(fd.path()).is_ok_and(|m| (m.dev(), m.ino()) == (lock.dev(), lock.ino())));
    let flags = |name: &OsStr| {
        let info = std::fs::read_to_string(Path::new(&folder).join("fdinfo").join(name)).ok()?;
        u32::from_str_radix(info.lines().find_map(|l| l.strip_prefix("flags:"))?.trim(), 8).ok()
    };
    of_lock.filter_map(|fd| flags(&fd.file_name())).any(|flags| flags & rustix::fs::OFlags::CLOEXEC.bits() == 0)
}

/// Those of them that belong to the process.
pub(super) fn own_holders(home: &Home, plan: Option<&Plan>) -> Vec<Pid> {
    let Some(plan) = plan else { return vec![] };
    let mut holders = holders(home);
    if !plan.root {
        // New privileges are closed to it and to all that it starts: what is its own runs as its user.
        let uid = user::find(plan.user.as_deref(), false).ok().map(|u| u.uid);
        holders.retain(|pid| is_launcher(*pid, &home.0) || uid.is_some() && user_of(*pid) == uid);
    }
    holders
}

/// The record of a program that runs and whose record cannot be read, or is gone. It is written down; a disk that does not take it changes
/// nothing of what runs. A launcher that has not written its record yet is none: it has the lock open in a way that no program inherits.
pub(super) fn found_again(home: &Home, plan: Option<&Plan>, boot: &str) -> Option<Record> {
    let leads = |pid: &Pid| stat(pid.as_raw_nonzero().get()).is_some_and(|s| s.get(3) == Some(&pid.to_string()));
    let leaders = own_holders(home, plan).into_iter().filter(leads).filter(|pid| hands_on(home, *pid));
    let leaders = leaders.map(|pid| pid.as_raw_nonzero().get());
    let (start, pid) = leaders.filter_map(|pid| Some((start_time(pid)?, pid))).min()?;
    // A launcher writes its record before it lets the lock be inherited: what was not there a moment ago may be by now.
    if let Some(record) = home.record() {
        return Some(record);
    }
    let record = Record { run: home.last_run().saturating_add(JUMP), pid, start, boot: boot.to_owned() };
    match home.put_record(&record) {
        Ok(()) => tracing::warn!("the record of the process in {} was lost, and was made anew from process {pid}", home.0.display()),
        Err(error) => tracing::warn!("{error}"),
    }
    Some(record)
}

/// As `found_again`, when no record can be read.
pub(super) fn found_again_if_lost(home: &Home, boot: &str) -> Option<Record> {
    if home.record().is_some() { None } else { found_again(home, home.plan().as_ref(), boot) }
}

/// What the kernel says of a process behind its name: state, parent, group, session, and more.
fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// The user that a process runs as.
fn user_of(pid: Pid) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
}

/// Is it a launcher of this very process, not yet the program?
fn is_launcher(pid: Pid, folder: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
    let of_folder =
        words.get(1..4).is_some_and(|w| w[..2] == [&b"launch"[..], b"--folder"] && Path::new(OsStr::from_bytes(w[2])) == folder);
    of_folder && user_of(pid) == Some(0)
}
