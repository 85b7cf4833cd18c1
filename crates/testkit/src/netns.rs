//! Network namespaces, and links between them that can be cut, slowed and counted.
//!
//! Names start with the process id of the test, so that several runs do not meet, and so that [`sweep`] knows what a dead run left.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, getpid, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command::run;
use crate::wire::{Way, Wire};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace; gone when dropped, with the processes in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

/// One end of a veth pair.
#[derive(Debug, Clone)]
pub struct Interface {
    namespace: String,
    name: String,
}

/// Bytes that an interface has seen since it was made, headers included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes {
    /// Received.
    pub received: u64,
    /// Sent.
    pub sent: u64,
}

impl Netns {
    /// Makes a namespace with its loopback up; `role` is a short word for its name.
    ///
    /// # Errors
    /// When `ip` fails, most often for want of root.
    pub fn create(role: &str) -> Result<Self> {
        let name = format!("sk{}-{}-{role}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        ip(&["-n", &namespace.name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, as in `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file, for `nsenter --net=`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A command that will run in the namespace.
    ///
    /// By `nsenter`, not by `ip netns exec`: the latter mounts another /sys and so hides the cgroups from a Docker engine.
    /// nsenter replaces itself by the program, so the id of the child is the program's.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program.as_ref());
        command
    }

    /// Moves the calling thread into the namespace, for good: sockets that it opens from now on are there.
    ///
    /// # Errors
    /// When the namespace is gone or the thread may not enter it.
    pub fn enter(&self) -> Result<()> {
        enter(&self.path())
    }

    /// Joins two namespaces by a veth pair with one address (`10.1.2.3/24`) each; both ends are up.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn join(a: (&Self, &str), b: (&Self, &str)) -> Result<(Interface, Interface)> {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let end = |side: char, namespace: &Self| Interface {
            namespace: namespace.name.clone(),
            name: format!("v{}{side}{id}", std::process::id()),
        };
        let (left, right) = (end('a', a.0), end('b', b.0));
        let peer = ["peer", "name", &right.name, "netns", &right.namespace];
        ip(&[&["link", "add", &left.name, "netns", &left.namespace, "type", "veth"], &peer[..]].concat())?;
        for (interface, address) in [(&left, a.1), (&right, b.1)] {
            interface.add_address(address)?;
            interface.up()?;
        }
        Ok((left, right))
    }

    /// Joins two namespaces as [`Netns::join`] does, by a [`Wire`] that can be slowed and cut for each way; the first way is from `a` to `b`.
    ///
    /// # Errors
    /// When `ip` fails, or there is no TAP.
    pub fn wire(a: (&Self, &str), b: (&Self, &str), ways: [Way; 2]) -> Result<(Wire, Interface, Interface)> {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let end = |side: char, namespace: &Self| Interface {
            namespace: namespace.name.clone(),
            name: format!("w{}{side}{id}", std::process::id()),
        };
        let (left, right) = (end('a', a.0), end('b', b.0));
        let wire = Wire::start((&a.0.path(), &left.name), (&b.0.path(), &right.name), ways)?;
        for (interface, address) in [(&left, a.1), (&right, b.1)] {
            interface.add_address(address)?;
            interface.up()?;
        }
        Ok((wire, left, right))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the next run sweeps.
        let _ = remove(&self.name);
    }
}

/// Moves the calling thread into the namespace of this file.
pub(crate) fn enter(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open the namespace {}", path.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).with_context(|| format!("cannot enter {}", path.display()))
}

impl Interface {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Brings the link up.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn up(&self) -> Result<()> {
        ip(&["-n", &self.namespace, "link", "set", &self.name, "up"]).map(drop)
    }

    /// Takes the link down: both ends notice at once.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn down(&self) -> Result<()> {
        ip(&["-n", &self.namespace, "link", "set", &self.name, "down"]).map(drop)
    }

    /// Gives it one more address (`10.1.2.3/24`).
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn add_address(&self, address: &str) -> Result<()> {
        ip(&["-n", &self.namespace, "addr", "add", address, "dev", &self.name]).map(drop)
    }

    /// Takes an address from it.
    ///
    /// # Errors
    /// When `ip` fails, for example because it does not have that address.
    pub fn remove_address(&self, address: &str) -> Result<()> {
        ip(&["-n", &self.namespace, "addr", "del", address, "dev", &self.name]).map(drop)
    }

    /// Sends what has no other route to this neighbour; replaces an older such route.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn default_via(&self, gateway: &str) -> Result<()> {
        ip(&["-n", &self.namespace, "route", "replace", "default", "via", gateway, "dev", &self.name]).map(drop)
    }

    /// Moves it into another namespace, where it is down and without an address.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn move_to(&mut self, namespace: &Netns) -> Result<()> {
        ip(&["-n", &self.namespace, "link", "set", &self.name, "netns", &namespace.name])?;
        self.namespace.clone_from(&namespace.name);
        Ok(())
    }

    /// Gives it an address that it may have already.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn ensure_address(&self, address: &str) -> Result<()> {
        ip(&["-n", &self.namespace, "addr", "replace", address, "dev", &self.name]).map(drop)
    }

    /// Drops every packet both ways, silently, as a lost radio link does: no end is told.
    ///
    /// # Errors
    /// When `nft` fails.
    pub fn cut(&self) -> Result<()> {
        let name = &self.name;
        self.nft(&format!(
            "table inet skerry_cut {{
                chain input {{ type filter hook input priority -300; iifname \"{name}\" drop; }}
                chain forward {{ type filter hook forward priority -300; iifname \"{name}\" drop; oifname \"{name}\" drop; }}
                chain output {{ type filter hook output priority -300; oifname \"{name}\" drop; }}
            }}"
        ))
    }

    /// Ends [`Interface::cut`].
    ///
    /// # Errors
    /// When `nft` fails, for example because the link was not cut.
    pub fn heal(&self) -> Result<()> {
        self.nft("delete table inet skerry_cut")
    }

    /// From now on answers every packet of TCP that comes in for `port` with a reset: connections end, and none is made.
    ///
    /// # Errors
    /// When `nft` fails.
    pub fn refuse(&self, port: u16) -> Result<()> {
        let name = &self.name;
        self.nft(&format!(
            "table inet skerry_refuse {{
                chain input {{ type filter hook input priority -300; iifname \"{name}\" tcp dport {port} reject with tcp reset; }}
            }}"
        ))
    }

    /// Ends [`Interface::refuse`].
    ///
    /// # Errors
    /// When `nft` fails, for example because nothing was refused.
    pub fn admit(&self) -> Result<()> {
        self.nft("delete table inet skerry_refuse")
    }

    /// Sends what comes in for TCP port `from` to port `to` of the same namespace.
    ///
    /// # Errors
    /// When `nft` fails.
    pub fn redirect(&self, from: u16, to: u16) -> Result<()> {
        let name = &self.name;
        self.nft(&format!(
            "table ip skerry_redirect {{
                chain prerouting {{ type nat hook prerouting priority -110; iifname \"{name}\" tcp dport {from} redirect to :{to}; }}
            }}"
        ))
    }

    /// Limits what this end sends to `kbit` kbit/s.
    ///
    /// # Errors
    /// When `tc` fails.
    pub fn limit(&self, kbit: u32) -> Result<()> {
        let rate = format!("{kbit}kbit");
        let shape = ["root", "tbf", "rate", &rate, "burst", "16kb", "latency", "200ms"];
        run(self.enter("tc").args(["qdisc", "replace", "dev", &self.name]).args(shape)).map(drop)
    }

    /// Ends [`Interface::limit`].
    ///
    /// # Errors
    /// When `tc` fails, for example because there was no limit.
    pub fn unlimit(&self) -> Result<()> {
        run(self.enter("tc").args(["qdisc", "del", "dev", &self.name, "root"])).map(drop)
    }

    /// What it has counted so far.
    ///
    /// # Errors
    /// When `ip` fails or answers something else than the counters.
    pub fn bytes(&self) -> Result<Bytes> {
        let text = ip(&["-n", &self.namespace, "-s", "-j", "link", "show", "dev", &self.name])?;
        let json: serde_json::Value = serde_json::from_str(&text).context("`ip -j` did not answer JSON")?;
        let count = |way: &str| json[0]["stats64"][way]["bytes"].as_u64().with_context(|| format!("no counters in {text}"));
        Ok(Bytes { received: count("rx")?, sent: count("tx")? })
    }

    fn nft(&self, ruleset: &str) -> Result<()> {
        run(self.enter("nft").arg(ruleset)).map(drop)
    }

    fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).args(["--", program]);
        command
    }
}

/// Removes namespaces, and ends processes in them, that belong to test runs which are no more.
///
/// # Errors
/// When `/run/netns` cannot be read.
pub fn sweep() -> Result<()> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Ok(()) };
    for entry in entries {
        let name = entry.context("cannot list /run/netns")?.file_name().to_string_lossy().into_owned();
        let Some(owner) = name.strip_prefix("sk").and_then(|r| r.split('-').next()).and_then(|p| p.parse::<u32>().ok()) else { continue };
        if Path::new("/proc").join(owner.to_string()).exists() {
            continue;
        }
        remove(&name)?;
    }
    Ok(())
}

/// Removes a namespace and ends what runs in it: a node's processes outlive its agent.
fn remove(name: &str) -> Result<()> {
    for pid in ip(&["netns", "pids", name])?.split_whitespace() {
        match pid.parse().ok().and_then(Pid::from_raw) {
            // The test's own main thread may be in it.
            Some(pid) if pid != getpid() => {
                let _ = kill_process(pid, Signal::KILL);
            }
            _ => {}
        }
    }
    ip(&["netns", "del", name])?;
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<String> {
    run(Command::new("ip").args(arguments))
}
