//! A link between two network namespaces with delay, jitter, loss and rate for each way, changed while it runs.
//!
//! `wire NAMESPACE_A INTERFACE_A NAMESPACE_B INTERFACE_B PARAMETERS` makes a TAP device in each namespace and carries frames between
//! them. PARAMETERS is a file of one line, read again every 100 ms:
//!
//! ```text
//! up|down  DELAY_MS JITTER_MS LOSS_PERCENT KBIT   (A to B)   DELAY_MS JITTER_MS LOSS_PERCENT KBIT   (B to A)
//! ```
//!
//! A missing number is 0, a rate of 0 is no limit. Frames are never reordered; a queue holds 300 ms. At every change the bytes
//! carried so far are printed. Unlike a TCP proxy it lets TCP see the loss and the delay.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Longest wait of a frame for its turn; what comes later is dropped, as a modem does.
const QUEUE: Duration = Duration::from_millis(300);

/// What one way of the link does to a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Way {
    up: bool,
    delay_ms: f64,
    jitter_ms: f64,
    loss_percent: f64,
    kbit: f64,
}

/// What the threads of one way share.
#[derive(Debug, Default)]
struct Shared {
    way: Mutex<Way>,
    bytes: AtomicU64,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [namespace_a, interface_a, namespace_b, interface_b, parameters] = arguments.as_slice() else {
        bail!("usage: wire NAMESPACE_A INTERFACE_A NAMESPACE_B INTERFACE_B PARAMETERS");
    };
    let (a, b) = (tap(namespace_a, interface_a)?, tap(namespace_b, interface_b)?);
    let ways = [Arc::new(Shared::default()), Arc::new(Shared::default())];
    carry(a.try_clone()?, b.try_clone()?, &ways[0], 1);
    carry(b, a, &ways[1], 2);
    let mut last = String::new();
    loop {
        let line = fs::read_to_string(parameters).with_context(|| format!("cannot read {parameters}"))?;
        if line != last {
            for (shared, way) in ways.iter().zip(parse(&line)?) {
                *shared.way.lock().unwrap_or_else(PoisonError::into_inner) = way;
            }
            let bytes = ways.each_ref().map(|w| w.bytes.load(Ordering::Relaxed));
            writeln!(io::stderr(), "{} (so far {} bytes A to B, {} bytes B to A)", line.trim(), bytes[0], bytes[1])?;
            last = line;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn parse(line: &str) -> Result<[Way; 2]> {
    let mut words = line.split_whitespace();
    let up = match words.next() {
        Some("up") => true,
        Some("down") => false,
        other => bail!("the first word must be up or down, not {}", other.unwrap_or("nothing")),
    };
    let numbers = words.map(|w| w.parse::<f64>().with_context(|| format!("\"{w}\" is no number"))).collect::<Result<Vec<_>>>()?;
    let number = |at: usize| numbers.get(at).copied().unwrap_or(0.0).max(0.0);
    Ok([0, 4].map(|at| Way { up, delay_ms: number(at), jitter_ms: number(at + 1), loss_percent: number(at + 2), kbit: number(at + 3) }))
}

/// Makes a TAP device in a namespace. A thread of its own enters the namespace; the open device stays bound to it.
fn tap(namespace: &str, interface: &str) -> Result<File> {
    if interface.is_empty() || interface.len() >= libc::IFNAMSIZ {
        bail!("an interface's name has 1 to {} bytes: {interface}", libc::IFNAMSIZ - 1);
    }
    let (path, interface) = (format!("/run/netns/{namespace}"), interface.to_owned());
    let work = move || -> Result<File> {
        let file = File::open(&path).with_context(|| format!("no namespace {path}"))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).with_context(|| format!("cannot enter {path}"))?;
        let device = File::options().read(true).write(true).open("/dev/net/tun").context("cannot open /dev/net/tun")?;
        attach(&device, &interface).with_context(|| format!("cannot make {interface} in {path}"))?;
        Ok(device)
    };
    thread::spawn(work).join().map_err(|_| anyhow::anyhow!("the thread in the namespace panicked"))?
}

/// Names the opened device and makes it a TAP.
#[expect(unsafe_code, reason = "the standard library has no ioctl")]
fn attach(device: &File, interface: &str) -> io::Result<()> {
    // SAFETY: `ifreq` is a C structure of integers and unions of such; all zeros is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the whole call, and TUNSETIFF reads and writes one `ifreq`, which `request` is.
    let code = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Starts the two threads of one way: one decides what becomes of a frame, one waits until its time and writes it.
fn carry(mut from: File, mut to: File, shared: &Arc<Shared>, seed: u64) {
    let (queue, turn) = mpsc::sync_channel::<(Instant, Vec<u8>)>(4096);
    thread::spawn(move || {
        for (due, frame) in turn {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // A device that is down refuses the frame: it is lost, as on a real link.
            let _ = to.write(&frame);
        }
    });
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let (mut buffer, mut random) = (vec![0; 65536], Random(0x9e37_79b9_7f4a_7c15 ^ seed));
        let (mut free, mut last) = (Instant::now(), Instant::now());
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let way = *shared.way.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if !way.up || random.unit() * 100.0 < way.loss_percent {
                continue;
            }
            free = free.max(now);
            if way.kbit > 0.0 {
                if free - now > QUEUE {
                    continue;
                }
                let bits = u32::try_from(length * 8).unwrap_or(u32::MAX);
                free += Duration::from_secs_f64(f64::from(bits) / (way.kbit * 1000.0));
            } else {
                free = now;
            }
            let late = (way.delay_ms + way.jitter_ms * (2.0 * random.unit() - 1.0)).max(0.0);
            last = last.max(free + Duration::from_secs_f64(late / 1000.0));
            shared.bytes.fetch_add(length as u64, Ordering::Relaxed);
            // A full queue drops, too.
            let _ = queue.try_send((last, buffer[..length].to_vec()));
        }
    });
}

/// Xorshift: repeatable, and good enough to lose frames by.
struct Random(u64);

impl Random {
    /// A number from 0 to 1.
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let bits = u32::try_from(self.0 >> 32).unwrap_or(u32::MAX);
        f64::from(bits) / f64::from(u32::MAX)
    }
}
