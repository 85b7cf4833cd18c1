//! A private engine with its own images, containers and network, beside the machine's own: Docker, or podman behind the same kind of
//! socket ([`crate::podman`] has what is different about it).
//!
//! Goes in: a folder and a namespace. Comes out: a socket to talk to. What it promises: when dropped, its containers, processes,
//! mounts and files are gone, and the machine's own engine was never touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::{self, run, until};
use crate::netns::Netns;
use crate::podman;
use crate::process::Process;

/// An engine answers within this time after its start, on a busy machine.
const START: Duration = Duration::from_secs(60);
/// Starts that are tried of an engine that ends at its start.
const STARTS: usize = 3;
/// An engine ends within this time after SIGTERM.
const STOP: Duration = Duration::from_secs(20);

/// Which program the engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Dockerd,
    Podman,
}

/// A running engine; gone when dropped.
#[derive(Debug)]
pub struct Dockerd {
    program: Program,
    home: PathBuf,
    namespace: Option<PathBuf>,
    driver: &'static str,
    /// Where its programs are looked for first.
    programs: Option<PathBuf>,
    process: Option<Process>,
}

impl Dockerd {
    /// Starts an engine that keeps everything under `home` (short: it holds sockets), in a namespace or beside the machine's own.
    ///
    /// In a namespace it has the default bridge with its own packet filter; in the machine's own it has no bridge, only host
    /// networking, so that it does not meet the machine's engine.
    ///
    /// # Errors
    /// When it does not answer within a minute; the error holds the end of its log.
    pub fn start(home: &Path, namespace: Option<&Netns>) -> Result<Self> {
        fs::create_dir_all(home.join("data"))?;
        Self::start_on(storage_driver(&home.join("data")), home, namespace)
    }

    /// The same with this storage driver.
    ///
    /// # Errors
    /// As [`Dockerd::start`].
    pub fn start_on(driver: &'static str, home: &Path, namespace: Option<&Netns>) -> Result<Self> {
        fs::create_dir_all(home.join("data"))?;
        // A file of its own, or the engine would read the machine's.
        fs::write(home.join("daemon.json"), "{}\n")?;
        Self::start_program(Program::Dockerd, None, driver, home, namespace)
    }

    /// The same, its programs out of this folder and its images in containerd's store.
    ///
    /// # Errors
    /// As [`Dockerd::start`].
    pub fn start_containerd_store(programs: &Path, home: &Path, namespace: Option<&Netns>) -> Result<Self> {
        fs::create_dir_all(home.join("data"))?;
        fs::write(home.join("daemon.json"), "{\"features\": {\"containerd-snapshotter\": true}}\n")?;
        Self::start_program(Program::Dockerd, Some(programs), "overlayfs", home, namespace)
    }

    /// Starts podman's service in a namespace; the bridge and the ports of its containers are there, too.
    ///
    /// # Errors
    /// As [`Dockerd::start`].
    pub fn start_podman(home: &Path, namespace: &Netns) -> Result<Self> {
        fs::create_dir_all(home.join("data"))?;
        // Through FUSE podman wants a program named beside the driver.
        let driver = if storage_driver(&home.join("data")) == "overlay2" { "overlay" } else { "vfs" };
        podman::prepare(home)?;
        Self::start_program(Program::Podman, None, driver, home, Some(namespace))
    }

    fn start_program(
        program: Program,
        programs: Option<&Path>,
        driver: &'static str,
        home: &Path,
        namespace: Option<&Netns>,
    ) -> Result<Self> {
        let (home, namespace, programs) = (home.to_owned(), namespace.map(Netns::path), programs.map(Path::to_owned));
        let mut engine = Self { program, home, namespace, driver, programs, process: None };
        engine.start_again()?;
        Ok(engine)
    }

    /// Replaces its `daemon.json`, for its next start.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&self, text: &str) -> Result<()> {
        fs::write(self.home.join("daemon.json"), text).context("cannot write daemon.json")
    }

    /// From its next start on it is the engine whose programs are in this folder; what that lacks is the machine's.
    pub fn use_programs(&mut self, folder: &Path) {
        self.programs = Some(folder.to_owned());
    }

    /// Version that it says it has.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn version(&self) -> Result<String> {
        run(self.docker().args(["version", "--format", "{{.Server.Version}}"])).map(|v| v.trim().to_owned())
    }

    /// Starts it again after [`Dockerd::stop`] or [`Dockerd::kill9`]; its images and containers are those of before. One that ends at its
    /// start is started anew, as a service manager does: it gives its containerd 15 s, which a busy machine may need to read the program.
    ///
    /// # Errors
    /// As [`Dockerd::start`].
    pub fn start_again(&mut self) -> Result<()> {
        for _ in 1..STARTS {
            if self.start_once()? {
                return Ok(());
            }
        }
        if self.start_once()? {
            return Ok(());
        }
        bail!("the engine ended at its start, {STARTS} times:\n{}", self.process.as_ref().map(Process::log_tail).unwrap_or_default());
    }

    /// Did it answer, or end?
    fn start_once(&mut self) -> Result<bool> {
        let (name, mut command) = match self.program {
            Program::Dockerd => ("dockerd", self.dockerd()?),
            Program::Podman => ("podman", self.podman_service()),
        };
        let mut process = Process::spawn(name, &mut command, &self.home.join(format!("{name}.log")))?;
        let answer = until("the engine to answer", START, || {
            if !process.is_running() {
                return Ok(Some(false));
            }
            Ok(command::output(self.docker().arg("version"))?.status.success().then_some(true))
        });
        let log = process.log_tail();
        self.process = Some(process);
        answer.with_context(|| log)
    }

    fn dockerd(&self) -> Result<Command> {
        // A killed engine leaves its id file behind, and another process may have that id by now.
        let _ = fs::remove_file(self.home.join("dockerd.pid"));
        let mut command = match &self.namespace {
            Some(path) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", path.display())).args(["--", "dockerd"]);
                command
            }
            None => {
                let mut command = Command::new("dockerd");
                command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false"]);
                command
            }
        };
        if let Some(programs) = &self.programs {
            let path = std::env::var_os("PATH").unwrap_or_default();
            command.env("PATH", std::env::join_paths([programs.clone()].into_iter().chain(std::env::split_paths(&path)))?);
        }
        let at = |name: &str| self.home.join(name).display().to_string();
        command.args(["--config-file", &at("daemon.json"), "--data-root", &at("data"), "--exec-root", &at("run")]);
        command.args(["--pidfile", &at("dockerd.pid"), "--host", &self.address(), "--storage-driver", self.driver]);
        Ok(command)
    }

    fn podman_service(&self) -> Command {
        // A killed one leaves its socket behind, and the next cannot listen there.
        let _ = fs::remove_file(self.home.join("docker.sock"));
        let mut command = podman::command(&self.home, self.namespace.as_deref(), self.driver);
        command.args(["system", "service", "--time", "0", &self.address()]);
        command
    }

    /// Stops the engine as an operator would; its data stays, and podman's containers go on without it.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.terminate(STOP).map(drop),
            None => Ok(()),
        }
    }

    /// Kills the engine; its containers go on without it.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn kill9(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill9(),
            None => Ok(()),
        }
    }

    /// The power goes: the engine, its containerd, its shims and its containers are killed before any can take note of it, and what a
    /// boot does not find again, mounts and the folder of what runs, is gone. What it has on its disk stays.
    ///
    /// # Errors
    /// When the signal cannot be sent, or something of it lives on.
    pub fn cut_power(&mut self) -> Result<()> {
        self.kill9()?;
        until("the end of all that the engine ran", STOP, || Ok((kill_remains(&self.home) == 0).then_some(())))?;
        unmount_below(&self.home.join("data"));
        unmount_below(&self.home.join("run"));
        match fs::remove_dir_all(self.home.join("run")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("cannot remove the folder of what runs"),
            _ => Ok(()),
        }
    }

    /// `unix:///.../docker.sock`
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.home.join("docker.sock").display())
    }

    /// The storage driver that was chosen.
    #[must_use]
    pub fn storage_driver(&self) -> &'static str {
        self.driver
    }

    /// The folder that the engine keeps images and containers in.
    #[must_use]
    pub fn data_root(&self) -> PathBuf {
        self.home.join("data")
    }

    /// A `docker` command that talks to this engine.
    #[must_use]
    pub fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.address()]).env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT");
        command
    }

    /// Loads a `docker save` archive.
    ///
    /// # Errors
    /// When the engine refuses it.
    pub fn load(&self, archive: &Path) -> Result<()> {
        run(self.docker().args(["load", "--quiet", "--input"]).arg(archive)).map(drop)
    }

    /// Image ids that the engine has (`sha256:...`), sorted.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn images(&self) -> Result<Vec<String>> {
        let text = run(self.docker().args(["image", "ls", "--all", "--quiet", "--no-trunc"]))?;
        let mut ids = text.lines().map(|id| self.image_id(id)).collect::<Result<Vec<_>>>()?;
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// The digest of an image's configuration, by the engine's own id of it. In containerd's store that is the digest of its manifest.
    fn image_id(&self, own: &str) -> Result<String> {
        let content = self.data_root().join("containerd/daemon/io.containerd.content.v1.content/blobs/sha256");
        let Ok(manifest) = fs::read(content.join(own.trim_start_matches("sha256:"))) else { return Ok(own.to_owned()) };
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).with_context(|| format!("the manifest of {own}"))?;
        Ok(manifest["config"]["digest"].as_str().with_context(|| format!("{own} names no configuration"))?.to_owned())
    }

    /// The running containers, oldest first.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let ids = run(self.docker().args(["ps", "--quiet", "--no-trunc"]))?;
        let ids: Vec<_> = ids.lines().collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let text = run(self.docker().args(["inspect", "--format", "{{.Id}} {{.State.StartedAt}} {{.Image}}"]).args(ids))?;
        let mut containers = Vec::new();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            let mut word = || words.next().with_context(|| format!("docker inspect said \"{line}\""));
            containers.push(Container { id: word()?, started_at: word()?, image: self.image_id(&word()?)? });
        }
        containers.sort_by(|a, b| a.started_at.cmp(&b.started_at));
        Ok(containers)
    }

    fn remove_everything(&mut self) {
        if self.program == Program::Podman {
            // By the command: the service may just be stopped while its containers go on.
            let mut command = podman::command(&self.home, self.namespace.as_deref(), self.driver);
            let _ = command::output(command.args(["rm", "--all", "--force", "--time", "0", "--volumes"]));
        } else if self.process.as_mut().is_some_and(Process::is_running)
            && let Ok(ids) = run(self.docker().args(["ps", "--all", "--quiet"]))
            && !ids.trim().is_empty()
        {
            let _ = command::output(self.docker().args(["rm", "--force", "--volumes"]).args(ids.lines()));
        }
        let _ = self.stop();
        remove_remains(&self.home);
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.remove_everything();
    }
}

/// Ends what is left of an engine whose own end was not an orderly one, and removes its mounts and files.
pub(crate) fn remove_remains(home: &Path) {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end && kill_remains(home) > 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    podman::remove_remains(home);
    unmount_below(home);
    let _ = fs::remove_dir_all(home);
}

/// Kills shims, monitors, proxies and the engine's containerd, known by the engine's folder in their command line, and containers, known
/// by their id in the name of their cgroup; returns how many there were.
fn kill_remains(home: &Path) -> usize {
    let run_folder = home.join("run").display().to_string();
    let names = fs::read_dir(home.join("data/containers")).map(|e| e.flatten().map(|e| e.file_name().to_string_lossy().into_owned()));
    let mut ids: Vec<String> = names.map(Iterator::collect).unwrap_or_default();
    ids.extend(podman::container_ids(home));
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let mut killed = 0;
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let text = |name: &str| String::from_utf8_lossy(&fs::read(entry.path().join(name)).unwrap_or_default()).into_owned();
        let ours = text("cmdline").contains(&run_folder) || ids.iter().any(|id| text("cgroup").contains(id));
        if ours && let Some(pid) = Pid::from_raw(pid) {
            killed += usize::from(kill_process(pid, Signal::KILL).is_ok());
        }
    }
    killed
}

/// A running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// When it was started, as the engine writes it.
    pub started_at: String,
    /// Id of its image, `sha256:...`.
    pub image: String,
}

/// The best driver for this folder: overlay2 where the kernel can lay one folder over another there, else fuse-overlayfs, else vfs.
fn storage_driver(folder: &Path) -> &'static str {
    let probe = folder.join("overlay-probe");
    let at = |name: &str| probe.join(name);
    let possible = ["lower", "upper", "work", "merged"].iter().all(|n| fs::create_dir_all(at(n)).is_ok()) && {
        let options = format!("lowerdir={},upperdir={},workdir={}", at("lower").display(), at("upper").display(), at("work").display());
        let mount = run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(at("merged")));
        mount.is_ok() && run(Command::new("umount").arg(at("merged"))).is_ok()
    };
    let _ = fs::remove_dir_all(&probe);
    if possible {
        "overlay2"
    } else if crate::need::program("fuse-overlayfs").is_some() && Path::new("/dev/fuse").exists() {
        "fuse-overlayfs"
    } else {
        "vfs"
    }
}

/// Unmounts what is mounted below a folder when it is dropped.
#[derive(Debug)]
pub(crate) struct Below(pub(crate) PathBuf);

impl Drop for Below {
    fn drop(&mut self) {
        unmount_below(&self.0);
    }
}

/// Unmounts whatever is mounted below a folder, the deepest first.
pub(crate) fn unmount_below(folder: &Path) {
    let Ok(table) = fs::read_to_string("/proc/self/mountinfo") else { return };
    let mut points: Vec<_> = table.lines().filter_map(|l| l.split(' ').nth(4)).filter(|p| Path::new(p).starts_with(folder)).collect();
    points.sort_by_key(|p| std::cmp::Reverse(p.len()));
    for point in points {
        let _ = run(Command::new("umount").args(["--lazy", point]));
    }
}
