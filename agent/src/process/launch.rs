//! The launcher: `skerry-agent launch`, which becomes a task's program.
//!
//! In: the folder of the process and the number of the run. Out: the program, in place of this process, or one line on standard error
//! that says why not. It takes the lock before anything else, and writes down who it is before it becomes the program: whoever looks, at
//! any instant, sees either the lock or the record of what runs. A run's number is used once, so a launcher that an agent left behind
//! starts nothing that was started meanwhile. Scripts of checks start the same way, without lock and record.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Gid, Uid};
use rustix::io::FdFlags;

use super::record::{Home, Plan, Record, start_time};
use super::user;

/// The launcher's word for "it runs, or ran, under this number already".
pub(crate) const ALREADY: &str = "already";

/// What to launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Launch {
    /// The task's program.
    Program {
        /// Folder of the process.
        folder: PathBuf,
        /// Number of the run.
        run: u64,
    },
    /// A script of a check: program and arguments as JSON.
    Script {
        /// Folder of the process.
        folder: PathBuf,
        /// `["program", "argument"]`
        command: String,
    },
}

impl Launch {
    /// The command line of it, behind the agent's name.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let (folder, key, value) = match self {
            Self::Program { folder, run } => (folder, "--run", run.to_string()),
            Self::Script { folder, command } => (folder, "--script", command.clone()),
        };
        vec!["launch".into(), "--folder".into(), folder.into(), key.into(), value.into()]
    }
}

/// Becomes the program. Comes back only with what went wrong, which was said on standard error.
pub(crate) fn run(launch: &Launch) -> u8 {
    // Standard error becomes the program's own: what fails later is said on a copy, which the program does not get.
    let said = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3);
    let text = match become_program(launch) {
        Ok(None) => ALREADY.to_owned(),
        Ok(Some(never)) => match never {},
        Err(why) => why,
    };
    let written = said.map(|fd: OwnedFd| File::from(fd).write_all(text.as_bytes()));
    u8::from(!matches!(written, Ok(Ok(()))) || text != ALREADY)
}

fn become_program(launch: &Launch) -> Result<Option<Infallible>, String> {
    match launch {
        Launch::Program { folder, run } => program(&Home(folder.clone()), *run),
        Launch::Script { folder, command } => {
            let plan = Home(folder.clone()).plan().ok_or_else(|| format!("{} holds no plan", folder.display()))?;
            let words: Vec<String> = serde_json::from_str(command).map_err(|e| format!("the script's command: {e}"))?;
            let (first, args) = words.split_first().ok_or("the script has no command")?;
            enter(&plan)?;
            let mut command = Command::new(below(&plan.work_dir, Path::new(first)));
            Err(execute(&mut command, &plan, args))
        }
    }
}

fn program(home: &Home, run: u64) -> Result<Option<Infallible>, String> {
    let Some(lock) = home.lock().map_err(|e| format!("its lock: {e}"))? else { return Ok(None) };
    if home.record().is_some_and(|r| r.run >= run) {
        return Ok(None);
    }
    let plan = home.plan().ok_or("its plan is gone")?;
    check(&plan)?;
    let output = plan.log.as_deref().map(|folder| open_output(folder, &plan)).transpose()?;
    // What the kernel counts of a group is of this run alone. One that is not empty stays.
    plan.groups.remove();
    enter(&plan)?;
    let pid = std::process::id().cast_signed();
    let start = start_time(pid).ok_or("its start time cannot be read")?;
    let boot = boot().map_err(|e| format!("the boot cannot be told: {e}"))?;
    home.put_record(&Record { run, pid, start, boot }).map_err(|e| e.to_string())?;
    // From here on the run counts as started. The program keeps the lock as long as it, or what it starts, has it open.
    rustix::io::fcntl_setfd(&lock, FdFlags::empty()).map_err(|e| format!("its lock: {e}"))?;
    let mut command = Command::new(&plan.program);
    if let Some(output) = output {
        let errors = output.try_clone().map_err(|e| format!("its output: {e}"))?;
        command.stdout(output).stderr(errors);
    } else {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    Err(execute(&mut command, &plan, &plan.args))
}

/// What can be seen to be wrong before anything is written down.
fn check(plan: &Plan) -> Result<(), String> {
    let program = plan.program.display();
    let found = fs::metadata(&plan.program).map_err(|e| format!("the program {program} cannot be run: {e}"))?;
    if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
        return Err(format!("the program {program} is not an executable file"));
    }
    Ok(())
}

/// The file of the output. Only root may write in its folder, so nobody can have put a link there.
fn open_output(folder: &Path, plan: &Plan) -> Result<File, String> {
    let task = plan.labels.get(skerry_reconcile::label::TASK).map_or("task", String::as_str);
    let path = super::output_file(folder, task);
    OpenOptions::new().create(true).append(true).mode(0o640).open(&path).map_err(|e| format!("its output {}: {e}", path.display()))
}

/// Session, control group.
fn enter(plan: &Plan) -> Result<(), String> {
    // Fails when it leads a group already, which is all that is wanted.
    let _ = rustix::process::setsid();
    let made = plan.groups.make(plan.memory, plan.reserved, plan.shares).and_then(|()| plan.groups.join());
    // Where limits can be set they must be; without them the node's fingerprint says so.
    if let Err(error) = made
        && plan.groups.bound()
    {
        return Err(format!("its control group: {error}"));
    }
    Ok(())
}

/// User, folder, environment; then the program. Gives what went wrong.
fn execute(command: &mut Command, plan: &Plan, args: &[String]) -> String {
    let prepared = (|| {
        let user = user::find(plan.user.as_deref(), plan.root)?;
        // As root, before the rights go: folders above may be closed to the user.
        std::env::set_current_dir(&plan.work_dir).map_err(|e| format!("the folder {}: {e}", plan.work_dir.display()))?;
        command.args(args).stdin(Stdio::null()).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        for (key, value) in [("HOME", &user.home), ("USER", &user.name)] {
            if let Some(value) = value {
                command.env(key, value);
            }
        }
        command.envs(&plan.env);
        if rustix::process::getuid().is_root() {
            let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
            let groups: Vec<Gid> = user.groups.iter().map(|g| Gid::from_raw(*g)).collect();
            // Of this thread, which is the only one, and the one that becomes the program.
            rustix::thread::set_thread_groups(&groups)
                .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
                .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
                .map_err(|e| format!("user {}: {e}", user.uid))?;
        }
        if !plan.root {
            rustix::thread::set_no_new_privs(true).map_err(|e| format!("no_new_privs: {e}"))?;
        }
        Ok::<(), String>(())
    })();
    match prepared {
        Err(why) => why,
        Ok(()) => {
            let error = command.exec();
            format!("the program {} cannot be run: {error}", Path::new(command.get_program()).display())
        }
    }
}

/// A path below a folder, unless it is absolute. A word without `/` is looked for in PATH.
fn below(folder: &Path, path: &Path) -> PathBuf {
    if path.components().count() > 1 { folder.join(path) } else { path.to_owned() }
}

pub(crate) fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
