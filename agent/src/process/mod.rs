//! Programs of the node as instances of tasks: started, adopted, stopped, removed.
//!
//! In: plans and orders of the reconciler. Out: what runs, and how it ended. There is no helper process: the agent starts itself as a
//! launcher, which becomes the program ([`launch`]). What it promises: of one instance at most one program runs, whatever is killed
//! when; after a restart of the agent a program is found again by lock, pid and start time; its end is noticed without polling.

pub(crate) mod cgroup;
mod holders;
pub(crate) mod launch;
pub(crate) mod output;
pub(crate) mod record;
pub(crate) mod signals;
mod start;
mod stop;
pub(crate) mod user;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use skerry_reconcile::{Instance, Labels, ProcessPlan, State};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::files::{self, FileError};
use cgroup::Cgroups;
use record::{Home, Plan};

/// Why a program was not started, stopped or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The launcher said no.
    #[error("{0}")]
    Launch(String),
    /// It has to be stopped first.
    #[error("process `{0}` runs, and is not removed")]
    Runs(String),
    /// It does not end.
    #[error("process `{0}` does not end, not even when it is killed: something holds it in the kernel")]
    Stuck(String),
    /// No such signal.
    #[error("`{0}` is not a signal")]
    Signal(String),
}

/// All processes of a node's agent. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Processes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// One folder per process, closed to everybody but root.
    folder: PathBuf,
    boot: String,
    cgroups: Cgroups,
    /// The launcher: program, and words before its own.
    launcher: (PathBuf, Vec<OsString>),
    /// Told when a program ended.
    ended: Arc<Notify>,
    /// Told when a program was started.
    changed: Arc<Notify>,
    state: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Being started by this agent: nobody else tries their lock.
    starting: BTreeSet<String>,
    /// Children of this agent whose end was not noted yet.
    own: BTreeSet<String>,
    /// Watched, own and adopted: name and run.
    watched: BTreeSet<(String, u64)>,
    /// Those of which it is not clear what holds their lock: how often that was so, and when it is looked at again.
    unclear: BTreeMap<String, (u32, Option<Instant>)>,
}

/// First and longest wait until a lock is looked at again of which nobody says whose it is.
const LOOK: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(60));

/// The file that a task's output goes to, in the folder of its allocation's output.
pub(crate) fn output_file(folder: &Path, task: &str) -> PathBuf {
    folder.join(format!("{task}.log"))
}

impl Processes {
    /// The processes whose folders are in `folder`. `ended` is told whenever one ends.
    pub(crate) fn open(folder: &Path, ended: Arc<Notify>) -> Result<Self, FileError> {
        Self::with_launcher(folder, ended, (PathBuf::from("/proc/self/exe"), vec![]))
    }

    pub(crate) fn with_launcher(folder: &Path, ended: Arc<Notify>, launcher: (PathBuf, Vec<OsString>)) -> Result<Self, FileError> {
        files::make_closed_folder(folder)?;
        let boot = launch::boot().map_err(FileError::at(folder))?;
        let state = Mutex::default();
        Ok(Self(Arc::new(Inner {
            folder: folder.to_owned(),
            boot,
            cgroups: Cgroups::find(),
            launcher,
            ended,
            changed: Arc::default(),
            state,
        })))
    }

    /// Of a machine that is played: none ever runs.
    #[cfg(feature = "simulation")]
    pub(crate) fn played(folder: &Path, ended: Arc<Notify>) -> Self {
        let launcher = (PathBuf::from("/nonexistent"), vec![]);
        let (boot, cgroups) = (String::new(), Cgroups::none("played"));
        Self(Arc::new(Inner {
            folder: folder.to_owned(),
            boot,
            cgroups,
            launcher,
            ended,
            changed: Arc::default(),
            state: Mutex::default(),
        }))
    }

    /// What can be done with control groups here.
    pub(crate) fn cgroups(&self) -> &Cgroups {
        &self.0.cgroups
    }

    /// Told when a program was started, whose output is to be bounded from then on.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.0.changed)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn home(&self, name: &str) -> Home {
        Home(self.0.folder.join(name))
    }

    /// Is there a process of this name?
    pub(crate) fn has(&self, name: &str) -> bool {
        self.home(name).path("plan.json").exists()
    }

    /// Names of all.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0.folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| self.has(n)).collect();
        names.sort();
        names
    }

    /// The process that runs, of one.
    #[cfg(test)]
    pub(crate) fn pid(&self, name: &str) -> Option<i32> {
        self.home(name).record().filter(|r| r.is_alive(&self.0.boot)).map(|r| r.pid)
    }

    /// The plan of one.
    pub(crate) fn plan(&self, name: &str) -> Option<Plan> {
        self.home(name).plan()
    }

    /// Every process, as it is now. What runs is watched from now on.
    pub(crate) fn observe(&self) -> Vec<Instance> {
        let one = |name: String| {
            let plan = self.plan(&name)?;
            let labels = Labels::from_map(&plan.labels).inspect_err(|e| tracing::warn!("process {name} is left alone: {e}")).ok()?;
            let state = self.state(&name);
            Some(Instance { name, labels, image: None, state })
        };
        self.names().into_iter().filter_map(one).collect()
    }

    fn state(&self, name: &str) -> State {
        let home = self.home(name);
        let (starting, own) = {
            let known = self.known();
            (known.starting.contains(name), known.own.contains(name))
        };
        if own {
            return State::Running;
        }
        match home.record() {
            Some(record) if record.is_alive(&self.0.boot) => {
                self.known().unclear.remove(name);
                self.adopt(name, &record);
                State::Running
            }
            Some(record) => {
                self.known().unclear.remove(name);
                let exit = home.exit(record.run);
                State::Exited {
                    code: exit.as_ref().map(|e| e.code),
                    out_of_memory: exit.is_some_and(|e| e.out_of_memory),
                    mark: format!("{} {}", record.boot, record.run),
                }
            }
            // A launcher that an agent before this one started: it becomes the program in a moment. Or the record is broken, or lost.
            None if !starting && home.is_locked() => {
                match holders::found_again(&home, home.plan().as_ref(), &self.0.boot) {
                    Some(record) => self.adopt(name, &record),
                    None => self.look_again(name),
                }
                State::Running
            }
            None => State::Created,
        }
    }

    /// Makes the instance; it does not run. One that is there with the same labels is taken as the one meant.
    pub(crate) fn create(&self, plan: &ProcessPlan, alloc: &Path) -> Result<(), ProcessError> {
        let common = &plan.common;
        let task = &common.labels.task;
        let own = alloc.join(task);
        let below = |path: &str| if path.starts_with('/') { PathBuf::from(path) } else { own.join(path) };
        let log = (!common.logs.disabled).then(|| alloc.join("logs"));
        let home = self.home(&common.name);
        let new = Plan {
            labels: common.labels.to_map(),
            program: below(&plan.program),
            args: plan.args.clone(),
            env: common.env.clone(),
            work_dir: common.work_dir.as_deref().map_or_else(|| own.clone(), below),
            user: common.user.clone(),
            root: plan.root,
            memory: common.memory_limit,
            reserved: common.memory_reservation,
            shares: common.cpu_shares,
            log_size: u64::from(common.logs.max_file_size.max(1)) << 20,
            log_files: common.logs.max_files.max(1),
            kill_signal: common.kill_signal.clone(),
            groups: self.0.cgroups.groups(&common.name),
            log,
        };
        files::make_folder(&new.work_dir)?;
        if let Some(log) = &new.log {
            files::make_folder(log)?;
        }
        if home.plan().as_ref() == Some(&new) {
            return Ok(());
        }
        // Its folder is root's alone: what is in it can be believed.
        files::make_closed_folder(&home.0)?;
        files::sync_folder_of(&home.0)?;
        Ok(home.put_plan(&new)?)
    }

    /// Removes what does not run; fine when it is gone.
    pub(crate) fn remove(&self, name: &str) -> Result<(), ProcessError> {
        let home = self.home(name);
        if !home.0.exists() {
            return Ok(());
        }
        if self.state(name) == State::Running {
            return Err(ProcessError::Runs(name.to_owned()));
        }
        // Held until the folder is gone: a launcher that comes late finds another file under the name, or none.
        let lock = home.lock().map_err(FileError::at(&home.0))?;
        if lock.is_none() {
            return Err(ProcessError::Runs(name.to_owned()));
        }
        if let Some(plan) = home.plan() {
            plan.groups.remove();
        }
        fs::remove_dir_all(&home.0).map_err(FileError::at(&home.0))?;
        Ok(files::sync_folder_of(&home.0)?)
    }

    /// Has the main loop look again in a moment; the later the longer it is not clear what runs.
    fn look_again(&self, name: &str) {
        let wait = {
            let mut known = self.known();
            let (looks, due) = known.unclear.entry(name.to_owned()).or_insert((0, None));
            let now = Instant::now();
            if due.is_some_and(|at| at > now) {
                return;
            }
            let wait = LOOK.0.saturating_mul(1 << (*looks).min(10)).min(LOOK.1);
            (*looks, *due) = (looks.saturating_add(1), Some(now + wait));
            wait
        };
        let ended = Arc::clone(&self.0.ended);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            ended.notify_one();
        });
    }
}

#[cfg(test)]
pub(crate) mod tests;
