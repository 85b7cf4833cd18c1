//! True programs, started by this test's own program in the place of the agent.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use skerry_reconcile::{CommonPlan, Slot};
use skerry_wire::job::Logs;
use skerry_wire::{AllocId, Digest, Millis, NodeId};

use super::launch::Launch;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Not a test by itself: becomes the program when it is started as the launcher.
#[test]
fn as_launcher() {
    let Ok(words) = std::env::var("SKERRY_TEST_LAUNCH") else { return };
    let words: Vec<&str> = words.split('\n').collect();
    let folder = PathBuf::from(words[2]);
    let launch = match words[3] {
        "--run" => Launch::Program { folder, run: words[4].parse().unwrap() },
        _ => Launch::Script { folder, command: words[4].to_owned() },
    };
    std::process::exit(launch::run(&launch).into());
}

/// Not a test by itself: an agent that starts one program and lives until it is killed.
#[tokio::test]
async fn as_agent() {
    let Ok(folder) = std::env::var("SKERRY_TEST_AGENT") else { return };
    let bed = Bed::at(PathBuf::from(folder));
    bed.processes.create(&bed.plan("exec sleep 1000"), &bed.alloc()).unwrap();
    bed.processes.start(&bed.name()).await.unwrap();
    tokio::time::sleep(PATIENCE).await;
}

/// Not a test by itself: leads a session and has a lock, as a launcher before it becomes the program.
#[test]
fn as_holder() {
    let Ok(folder) = std::env::var("SKERRY_TEST_HOLD") else { return };
    rustix::process::setsid().unwrap();
    let _held = Home(folder.into()).lock().unwrap().unwrap();
    std::thread::sleep(PATIENCE);
}

/// This test's own program, running one test.
pub(crate) fn itself(test: &str) -> (PathBuf, Vec<OsString>) {
    let words = [&format!("process::tests::{test}"), "--exact", "--nocapture", "--test-threads=1", "-q"];
    (std::env::current_exe().unwrap(), words.map(OsString::from).into())
}

struct Bed {
    folder: PathBuf,
    processes: Processes,
    ended: Arc<Notify>,
    _kept: Option<tempfile::TempDir>,
}

impl Bed {
    fn new() -> Self {
        let kept = tempfile::tempdir().unwrap();
        let bed = Self::at(kept.path().to_owned());
        Self { _kept: Some(kept), ..bed }
    }

    fn at(folder: PathBuf) -> Self {
        let ended = Arc::new(Notify::new());
        let processes = Processes::with_launcher(&folder.join("run"), Arc::clone(&ended), itself("as_launcher")).unwrap();
        Self { folder, processes, ended, _kept: None }
    }

    /// As another agent on the same folder.
    fn again(&self) -> Self {
        Self::at(self.folder.clone())
    }

    fn alloc(&self) -> PathBuf {
        self.folder.join("alloc/09")
    }

    /// Notes each start, then does what the script says.
    fn plan(&self, script: &str) -> ProcessPlan {
        let script = format!("echo started >> {}/starts; {script}", self.folder.display());
        let labels = Labels {
            node: NodeId::new([1; 16]),
            alloc: AllocId::new([9; 16]),
            slot: Slot { job: "j".into(), group: "g".into(), index: 0 },
            task: "t".into(),
            version: 1,
            specification: Digest::new([2; 32]),
            kill_timeout: Millis(500),
            ports: BTreeMap::new(),
        };
        let common = CommonPlan {
            name: self.name(),
            env: BTreeMap::from([("COLOUR".into(), "blue".into())]),
            labels,
            binds: vec![],
            files: vec![],
            work_dir: None,
            user: None,
            memory_limit: 64 << 20,
            memory_reservation: None,
            cpu_shares: 100,
            logs: Logs::default(),
            kill_timeout: Millis(500),
            kill_signal: None,
        };
        ProcessPlan { common, program: "/bin/sh".into(), args: vec!["-c".into(), script], root: true }
    }

    /// Unlike that of any other bed: control groups are the machine's.
    fn name(&self) -> String {
        format!("skerry-t{}", self.folder.file_name().unwrap().to_string_lossy())
    }

    fn starts(&self) -> usize {
        fs::read_to_string(self.folder.join("starts")).unwrap_or_default().lines().count()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.alloc().join("logs/t.log")).unwrap_or_default()
    }

    async fn until(&self, what: &str, met: impl Fn(&State) -> bool) -> State {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.processes.observe();
            if let Some(one) = found.first().filter(|one| met(&one.state)) {
                return one.state.clone();
            }
            assert!(Instant::now() < end, "{what}: {found:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn ended(state: &State) -> bool {
    matches!(state, State::Exited { .. })
}

#[tokio::test]
async fn a_program_runs_ends_and_runs_again() {
    let bed = Bed::new();
    bed.processes.create(&bed.plan("echo $COLOUR; pwd; exit 7"), &bed.alloc()).unwrap();
    assert_eq!(bed.processes.observe()[0].state, State::Created);
    bed.processes.start(&bed.name()).await.unwrap();
    bed.ended.notified().await;
    let first = bed.until("the end", ended).await;
    assert!(matches!(&first, State::Exited { code: Some(7), out_of_memory: false, .. }), "{first:?}");
    assert_eq!(bed.log(), format!("blue\n{}\n", bed.alloc().join("t").display()));
    // What the kernel counts of a group is of one run: a kill for want of memory says nothing of the next.
    let group = || bed.processes.plan(&bed.name()).and_then(|p| p.groups.v2).and_then(|g| fs::metadata(g).ok()).map(|m| m.ino());
    let before = group();
    bed.processes.start(&bed.name()).await.unwrap();
    assert!(before.is_none() || group() != before, "the second run has the group of the first");
    let second = bed.until("the second end", |s| ended(s) && *s != first).await;
    assert!(matches!(second, State::Exited { code: Some(7), .. }));
    assert_eq!(bed.starts(), 2);
    // Another agent sees the same end.
    assert_eq!(bed.again().processes.observe()[0].state, second);
    bed.processes.remove(&bed.name()).unwrap();
    bed.processes.remove(&bed.name()).unwrap();
    assert!(bed.processes.observe().is_empty());
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let bed = Bed::new();
    for (program, user, part) in [
        ("/bin/nothing-there", None, "/bin/nothing-there"),
        ("/etc/passwd", None, "not an executable"),
        ("/bin/sh", Some("ghost"), "no user `ghost`"),
    ] {
        let mut plan = bed.plan("true");
        plan.program = program.into();
        plan.common.user = user.map(str::to_owned);
        bed.processes.create(&plan, &bed.alloc()).unwrap();
        let error = bed.processes.start(&bed.name()).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(bed.starts(), 0);
}

#[tokio::test]
async fn a_launcher_that_ends_without_a_word_has_started_nothing() {
    let bed = Bed::new();
    bed.processes.create(&bed.plan("true"), &bed.alloc()).unwrap();
    let silent = (PathBuf::from("/bin/sh"), vec!["-c".into(), "exit 0".into()]);
    let processes = Processes::with_launcher(&bed.folder.join("run"), Arc::default(), silent).unwrap();
    let error = processes.start(&bed.name()).await.unwrap_err().to_string();
    assert!(error.contains("before it became the program"), "{error}");
    assert_eq!(processes.observe()[0].state, State::Created);
}

#[tokio::test]
async fn stops_gently_then_hard_and_with_all_that_it_started() {
    let bed = Bed::new();
    let gentle = bed.plan("trap 'exit 3' TERM; while :; do sleep 0.05; done");
    bed.processes.create(&gentle, &bed.alloc()).unwrap();
    bed.processes.start(&bed.name()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(matches!(bed.processes.remove(&bed.name()), Err(ProcessError::Runs(_))));
    bed.processes.stop(&bed.name(), PATIENCE).await.unwrap();
    assert!(matches!(bed.until("its end", ended).await, State::Exited { code: Some(3), .. }));
    bed.processes.stop(&bed.name(), PATIENCE).await.unwrap();

    // One that ignores its signal, with a child in a session of its own.
    let pid = bed.folder.join("child");
    let stubborn =
        bed.plan(&format!("trap '' TERM; setsid sh -c 'echo $$ > {}; exec sleep 1000' & while :; do sleep 1; done", pid.display()));
    bed.processes.create(&stubborn, &bed.alloc()).unwrap();
    bed.processes.start(&bed.name()).await.unwrap();
    let end = Instant::now() + PATIENCE;
    let child = loop {
        if let Ok(pid) = fs::read_to_string(&pid).unwrap_or_default().trim().parse::<i32>() {
            break pid;
        }
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let began = Instant::now();
    bed.processes.stop(&bed.name(), Duration::from_millis(300)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!(matches!(bed.until("its kill", ended).await, State::Exited { code: Some(137), .. }));
    assert_eq!(record::start_time(child), None, "its child lives on");
    bed.processes.remove(&bed.name()).unwrap();
}

#[tokio::test]
async fn scripts_run_beside_the_program() {
    let bed = Bed::new();
    bed.processes.create(&bed.plan("exec sleep 1000"), &bed.alloc()).unwrap();
    bed.processes.start(&bed.name()).await.unwrap();
    let words = |script: &str| ["/bin/sh", "-c", script].map(str::to_owned);
    // The first words are those of this test's program, which stands in for the agent's.
    let ran = bed.processes.script(&bed.name(), &words("echo $COLOUR; pwd; head -c 9999 /dev/zero; exit 4"), PATIENCE, 64).await.unwrap();
    let said = String::from_utf8_lossy(&ran.output).into_owned();
    assert!((ran.code, ran.output.len()) == (4, 64) && said.contains("blue\n"), "{} {said}", ran.code);
    let late = bed.processes.script(&bed.name(), &words("sleep 1000"), Duration::from_millis(200), 8).await.unwrap_err();
    assert!(late.to_string().contains("200 ms"), "{late}");
    assert_eq!(bed.processes.observe()[0].state, State::Running);
    bed.processes.stop(&bed.name(), Duration::ZERO).await.unwrap();
}

/// An agent is killed at any instant after it began to start a program, fifty times; another takes over: one start each time, and the
/// program that was started is the one that runs.
#[tokio::test]
async fn never_twice_over_fifty_kills() {
    let bed = Bed::new();
    let (program, words) = itself("as_agent");
    let mut found_running = 0;
    for round in 0..50_u64 {
        let _ = fs::remove_file(bed.folder.join("starts"));
        let mut agent = Command::new(&program);
        agent.args(&words).env("SKERRY_TEST_AGENT", &bed.folder).stdout(Stdio::null()).stderr(Stdio::null());
        let mut agent = agent.spawn().unwrap();
        // From before it has begun to after it has ended.
        let home = bed.processes.home(&bed.name());
        let end = Instant::now() + PATIENCE;
        while round % 5 != 0 && !home.path("plan.json").exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_micros(round * 1500 % 40_000));
        agent.kill().unwrap();
        agent.wait().unwrap();

        let other = bed.again();
        other.processes.create(&other.plan("exec sleep 1000"), &other.alloc()).unwrap();
        let before = other.processes.home(&bed.name()).record();
        other.processes.start(&bed.name()).await.unwrap();
        other.until("it runs", |s| *s == State::Running).await;
        let record = other.processes.home(&bed.name()).record().unwrap();
        if let Some(before) = before {
            found_running += 1;
            assert_eq!(record, before, "round {round}: what ran was adopted");
        }
        let end = Instant::now() + PATIENCE;
        while other.starts() == 0 {
            assert!(Instant::now() < end, "round {round}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Long enough for a launcher that was left behind.
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!((other.starts(), record.run), (1, 1), "round {round}");
        assert_eq!(other.processes.home(&bed.name()).record().unwrap(), record);
        other.processes.stop(&bed.name(), Duration::from_secs(5)).await.unwrap();
        other.until("its end", ended).await;
        other.processes.remove(&bed.name()).unwrap();
    }
    assert!(found_running > 0, "no kill came after the start");
}

#[tokio::test]
async fn a_program_that_outlived_its_agent_is_watched() {
    let bed = Bed::new();
    let (program, words) = itself("as_agent");
    let mut agent = Command::new(&program);
    agent.args(&words).env("SKERRY_TEST_AGENT", &bed.folder).stdout(Stdio::null()).stderr(Stdio::null());
    let mut agent = agent.spawn().unwrap();
    let end = Instant::now() + PATIENCE;
    while bed.starts() == 0 {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    agent.kill().unwrap();
    agent.wait().unwrap();
    let other = bed.again();
    other.until("adopted", |s| *s == State::Running).await;
    let pid = other.processes.home(&bed.name()).record().unwrap().process().unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    tokio::time::timeout(PATIENCE, other.ended.notified()).await.unwrap();
    let state = other.until("its end", ended).await;
    assert!(matches!(state, State::Exited { code: None, .. }), "nobody saw how it ended: {state:?}");
    other.processes.remove(&bed.name()).unwrap();
}

/// A record that cannot be read, or is gone, is made anew from the program that runs, which is neither taken for another nor started again.
#[tokio::test]
async fn a_broken_record_is_made_anew() {
    let bed = Bed::new();
    bed.processes.create(&bed.plan("trap 'exit 3' TERM; while :; do sleep 0.05; done"), &bed.alloc()).unwrap();
    bed.processes.start(&bed.name()).await.unwrap();
    let home = bed.processes.home(&bed.name());
    let first = home.record().unwrap();
    let whole = fs::read(home.path("record.json")).unwrap();
    for broken in [Some(&b""[..]), Some(&whole[..whole.len() / 2]), Some(&b"[1, 2]"[..]), None] {
        match broken {
            Some(bytes) => fs::write(home.path("record.json"), bytes).unwrap(),
            None => fs::remove_file(home.path("record.json")).unwrap(),
        }
        let other = bed.again();
        assert_eq!(other.processes.observe()[0].state, State::Running);
        let found = home.record().unwrap();
        assert_eq!((found.pid, found.start, &found.boot), (first.pid, first.start, &first.boot));
        assert!(found.run > first.run, "a launcher that comes late finds its number used");
    }
    // Gone when a stop or a start is what looks first: the program that runs is the one meant.
    fs::remove_file(home.path("record.json")).unwrap();
    bed.again().processes.start(&bed.name()).await.unwrap();
    assert_eq!((home.record().unwrap().pid, bed.starts()), (first.pid, 1));
    let other = bed.again();
    other.until("adopted", |s| *s == State::Running).await;
    // Gently: the program is known by its pid again.
    other.processes.stop(&bed.name(), PATIENCE).await.unwrap();
    assert_eq!(record::start_time(first.pid), None);
    bed.until("its end", ended).await;
    assert_eq!(bed.starts(), 1);
    let run = home.record().unwrap().run;
    other.processes.start(&bed.name()).await.unwrap();
    assert_eq!(home.record().unwrap().run, run + 1);
    other.processes.stop(&bed.name(), Duration::ZERO).await.unwrap();
}

/// Of a lock without a record nobody knows how long it is held: it is looked at ever more seldom.
#[tokio::test]
async fn what_is_not_clear_is_looked_at_ever_more_seldom() {
    let bed = Bed::new();
    bed.processes.create(&bed.plan("true"), &bed.alloc()).unwrap();
    let _held = bed.processes.home(&bed.name()).lock().unwrap().unwrap();
    let end = Instant::now() + Duration::from_millis(2500);
    let mut looks = 0;
    while Instant::now() < end {
        assert_eq!(bed.processes.observe()[0].state, State::Running);
        let left = end.saturating_duration_since(Instant::now());
        looks += usize::from(tokio::time::timeout(left, bed.ended.notified()).await.is_ok());
    }
    assert!((1..=4).contains(&looks), "{looks} looks");
}

/// A launcher that has the lock and has not written its record yet is not the program: it goes on, under its own number.
#[tokio::test]
async fn a_launcher_at_work_is_not_taken_for_a_program_whose_record_is_gone() {
    let bed = Bed::new();
    bed.processes.create(&bed.plan("true"), &bed.alloc()).unwrap();
    let home = bed.processes.home(&bed.name());
    let (program, words) = itself("as_holder");
    let mut other = Command::new(&program);
    let mut other = other.args(&words).env("SKERRY_TEST_HOLD", &home.0).stdout(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + PATIENCE;
    while !home.is_locked() {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((bed.processes.observe()[0].state.clone(), home.record()), (State::Running, None));
    bed.processes.kill_all(&bed.name()).await.unwrap();
    let _ = other.kill();
    other.wait().unwrap();
}

/// The kernel ends a program that takes more memory than it may, all of it, and the end says why. The next run starts with a clean sheet.
#[tokio::test]
async fn a_program_over_its_memory_is_killed_and_says_so() {
    let bed = Bed::new();
    if let Some(lacking) = bed.processes.cgroups().lacking() {
        assert!(std::env::var_os("CI").is_none(), "no limits on this machine: {lacking}");
        eprintln!("left out: {lacking}");
        return;
    }
    // `tail` holds all that has no end of line: more than the limit of 64 MiB, the first time.
    let once =
        format!("test -e {0}/ran && exit 5; touch {0}/ran; head -c 300000000 /dev/zero | tail -n 1 > /dev/null", bed.folder.display());
    bed.processes.create(&bed.plan(&once), &bed.alloc()).unwrap();
    bed.processes.start(&bed.name()).await.unwrap();
    let first = bed.until("its kill", ended).await;
    assert!(matches!(first, State::Exited { code: Some(137), out_of_memory: true, .. }), "{first:?}");
    bed.processes.start(&bed.name()).await.unwrap();
    let second = bed.until("its second end", |s| ended(s) && *s != first).await;
    assert!(matches!(second, State::Exited { code: Some(5), out_of_memory: false, .. }), "{second:?}");
    bed.processes.remove(&bed.name()).unwrap();
}

/// An ordinary user's program that hands its lock on has nobody else's process killed, and starts again all the same.
#[tokio::test]
async fn a_lock_that_was_handed_on_kills_nobody_elses_process() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let bed = Bed::new();
    let mut plan = bed.plan("true");
    (plan.root, plan.args) = (false, vec!["-c".into(), "exit 0".into()]);
    bed.processes.create(&plan, &bed.alloc()).unwrap();
    bed.processes.start(&bed.name()).await.unwrap();
    let first = bed.until("its end", ended).await;
    let home = bed.processes.home(&bed.name());
    let mut foreign = Command::new("/bin/sh");
    foreign.args(["-c", "exec 9<>\"$0\"; flock 9; exec sleep 1000"]).arg(home.path("lock"));
    let mut foreign = foreign.spawn().unwrap();
    let end = Instant::now() + PATIENCE;
    while !home.is_locked() {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bed.processes.start(&bed.name()).await.unwrap();
    bed.until("its second end", |s| ended(s) && *s != first).await;
    assert!(foreign.try_wait().unwrap().is_none(), "somebody else's process was killed");
    foreign.kill().unwrap();
    foreign.wait().unwrap();
}
