//! Facts of the node: read from /proc, /sys and the engine.
//!
//! What cannot be read is left out; nothing here fails.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;

use skerry_engine::go_architecture;
use skerry_wire::node::{Engine, Fingerprint};

use crate::config::Config;
use crate::process::cgroup::Cgroups;

/// Free disk is told in steps of this many bytes, so that it does not change with every poll.
const DISK_STEP: u64 = 64 << 20;
/// It is told anew when it moved by this part of what was told: news of it are a commit of the ledger.
const DISK_PART: u64 = 32;

/// What does not change while the agent runs.
pub(crate) fn collect(config: &Config, features: Vec<String>, cgroups: &Cgroups, folder: &Path) -> Fingerprint {
    let uname = rustix::system::uname();
    let text = |c: &std::ffi::CStr| c.to_string_lossy().into_owned();
    let (host, machine) = (text(uname.nodename()), text(uname.machine()));
    let memory = memory_bytes();
    let mut attributes = BTreeMap::new();
    let mut set = |key: &str, value: String| {
        if !value.is_empty() {
            attributes.insert(key.to_owned(), value);
        }
    };
    set("kernel.name", text(uname.sysname()).to_lowercase());
    set("kernel.version", text(uname.release()));
    set("kernel.arch", machine.clone());
    set("arch", go_architecture(&machine).to_owned());
    set("cpu.arch", go_architecture(&machine).to_owned());
    set("cpu.numcores", std::thread::available_parallelism().map_or(String::new(), |n| n.to_string()));
    set("memory.totalbytes", memory.to_string());
    set("unique.hostname", host.clone());
    set("unique.network.ip-address", address(&config.server).map_or(String::new(), |a| a.to_string()));
    set("driver.exec", "1".to_owned());
    set("driver.raw_exec", "1".to_owned());
    set("cgroup", cgroups.fact().to_owned());
    let release = read("/etc/os-release");
    for (key, name) in [("os.name", "ID"), ("os.version", "VERSION_ID")] {
        let value = release.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
        set(key, value.trim_matches('"').to_owned());
    }
    Fingerprint {
        name: config.name.clone().unwrap_or(host),
        datacenter: config.datacenter.clone(),
        attributes,
        meta: config.meta.clone(),
        memory_mib: memory >> 20,
        disk_free: disk_told(None, disk_free(folder)),
        engine: None,
        hardware: hardware(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        features,
        trouble: None,
    }
}

/// Free disk as it is told, after `before` was: what moves to and fro between two steps is not told again and again.
pub(crate) fn disk_told(before: Option<u64>, free: u64) -> u64 {
    let near = |told: u64| free.abs_diff(told) < DISK_STEP.max(told / DISK_PART);
    before.filter(|told| near(*told)).unwrap_or(free / DISK_STEP * DISK_STEP)
}

/// Adds what the engine said; of its free disk what is to be told.
pub(crate) fn with_engine(mut facts: Fingerprint, info: &skerry_engine::Info, abilities: skerry_engine::Abilities) -> Fingerprint {
    facts.attributes.insert("driver.docker".to_owned(), "1".to_owned());
    facts.attributes.insert("driver.docker.version".to_owned(), info.version.clone());
    facts.engine = Some(Engine {
        version: info.version.clone(),
        storage_driver: info.storage_driver.clone(),
        accepts_partial_load: abilities.accepts_partial_load,
        layers_in_place: abilities.layers_in_place,
    });
    if let Some(free) = info.disk_free {
        facts.disk_free = disk_told(None, free);
    }
    facts
}

/// Bytes that an ordinary user may still write on the disk of a folder.
pub(crate) fn disk_free(folder: &Path) -> u64 {
    #[cfg(feature = "simulation")]
    if let Some(machine) = crate::simulate::machine() {
        return machine.disk_free();
    }
    rustix::fs::statvfs(folder).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize))
}

/// The node's own address on the way to the server. Nothing is sent.
fn address(server: &str) -> Option<IpAddr> {
    let host = server.strip_prefix("https://")?.split('/').next()?;
    let bare = host.trim_start_matches('[').split(']').next()?;
    let target = if host.contains(':') && !host.ends_with(']') { host.to_owned() } else { format!("{host}:443") };
    // A name that is not an address would need a resolver, which may be away for minutes: then any way out will do.
    let is_address = bare.parse::<IpAddr>().is_ok() || bare.rsplit_once(':').is_some_and(|(h, _)| h.parse::<IpAddr>().is_ok());
    let target = if is_address { target } else { "192.0.2.1:443".to_owned() };
    let target = target.to_socket_addrs().ok()?.next()?;
    let socket = UdpSocket::bind(if target.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn memory_bytes() -> u64 {
    let meminfo = read("/proc/meminfo");
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024)
}

/// Serials that a copied disk does not carry along.
fn hardware() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut set = |key: String, value: &str| {
        let value = value.trim().trim_end_matches('\0');
        if !value.is_empty() {
            found.insert(key, value.to_owned());
        }
    };
    set("board".to_owned(), &read("/sys/firmware/devicetree/base/serial-number"));
    set("product".to_owned(), &read("/sys/class/dmi/id/product_uuid"));
    for device in names("/sys/block") {
        set(format!("disk.{device}"), &read(&format!("/sys/block/{device}/device/cid")));
    }
    for device in names("/sys/class/net") {
        // Bridges and virtual devices have no hardware behind them.
        if Path::new(&format!("/sys/class/net/{device}/device")).exists() {
            set(format!("net.{device}"), &read(&format!("/sys/class/net/{device}/address")));
        }
    }
    found
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// A small file of the kernel as text; empty when it is not there.
fn read(path: &str) -> String {
    fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_servers() {
        assert_eq!(address("https://127.0.0.1:7443"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(address("https://127.0.0.1"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(address("ftp://127.0.0.1"), None);
    }

    #[test]
    fn this_machine() {
        let text = "server = \"https://127.0.0.1\"\nca = \"c\"\nroot = \"r\"\nname = \"n1\"";
        let (config, _) = Config::parse(Path::new("/x"), text).unwrap();
        let none = Cgroups::none("not here");
        let again = || collect(&config, vec!["bundle/1".into()], &none, Path::new("/"));
        let facts = again();
        assert_eq!((facts.attributes["driver.raw_exec"].as_str(), facts.attributes["cgroup"].as_str()), ("1", "none"));
        assert_eq!((facts.name.as_str(), facts.attributes["kernel.name"].as_str()), ("n1", "linux"));
        assert!(facts.memory_mib > 0 && facts.attributes.contains_key("cpu.arch"));
        assert_eq!(Fingerprint { disk_free: 0, ..facts }, Fingerprint { disk_free: 0, ..again() }, "the same every time");
    }
}
