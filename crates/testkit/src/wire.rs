//! A link between two network namespaces with delay, jitter, loss and rate for each way, changed while it runs.
//!
//! It carries the frames of two TAP devices, one in each namespace, so that TCP itself sees what a bad link does, which a TCP proxy would
//! hide from it. Frames are never reordered. It needs nothing of the kernel but TAP: no netem.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::netns::enter;

/// Longest wait of a frame for its turn; what comes later is dropped, as a modem does.
const QUEUE: Duration = Duration::from_secs(1);
/// Frames between the two threads of one way.
const FRAMES: usize = 4096;
/// How often a way looks whether it should end.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// What one way of the link does to a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Way {
    /// Does it carry anything?
    pub up: bool,
    /// Delay of every frame.
    pub delay_ms: f64,
    /// The delay varies by as much either way.
    pub jitter_ms: f64,
    /// Of a hundred frames so many are lost.
    pub loss_percent: f64,
    /// Rate; 0 is no limit.
    pub kbit: f64,
}

impl Way {
    /// Nothing passes.
    pub const DOWN: Self = Self { up: false, ..Self::new(0.0, 0.0, 0.0) };

    /// A way that is up and does not vary.
    #[must_use]
    pub const fn new(kbit: f64, delay_ms: f64, loss_percent: f64) -> Self {
        Self { up: true, delay_ms, jitter_ms: 0.0, loss_percent, kbit }
    }
}

/// A running link; its devices are gone when it is dropped.
#[derive(Debug)]
pub struct Wire {
    ways: [Arc<Shared>; 2],
    threads: Vec<JoinHandle<()>>,
}

/// What the threads of one way share.
#[derive(Debug)]
struct Shared {
    way: Mutex<Way>,
    bytes: AtomicU64,
    stop: AtomicBool,
}

impl Wire {
    /// Makes a device of this name in each of two namespaces (the files of `/run/netns`) and carries frames between them; both devices
    /// are down and without an address.
    ///
    /// # Errors
    /// When a namespace or `/dev/net/tun` is not there, or the names are no good.
    pub fn start(a: (&Path, &str), b: (&Path, &str), ways: [Way; 2]) -> Result<Self> {
        let (left, right) = (tap(a.0, a.1)?, tap(b.0, b.1)?);
        let ways = ways.map(|way| Arc::new(Shared { way: Mutex::new(way), bytes: AtomicU64::new(0), stop: AtomicBool::new(false) }));
        let mut threads = Vec::new();
        threads.extend(carry(left.try_clone()?, right.try_clone()?, &ways[0], 1));
        threads.extend(carry(right, left, &ways[1], 2));
        Ok(Self { ways, threads })
    }

    /// Changes both ways: from the first namespace to the second, and back.
    pub fn set(&self, ways: [Way; 2]) {
        for (shared, way) in self.ways.iter().zip(ways) {
            *shared.way.lock().unwrap_or_else(PoisonError::into_inner) = way;
        }
    }

    /// Bytes of the frames that each way has carried so far.
    #[must_use]
    pub fn bytes(&self) -> [u64; 2] {
        self.ways.each_ref().map(|w| w.bytes.load(Ordering::Relaxed))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for way in &self.ways {
            way.stop.store(true, Ordering::Relaxed);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Makes a TAP device in a namespace. A thread of its own enters the namespace; the open device stays bound to it.
fn tap(namespace: &Path, interface: &str) -> Result<File> {
    if interface.is_empty() || interface.len() >= libc::IFNAMSIZ {
        bail!("an interface's name has 1 to {} bytes: {interface}", libc::IFNAMSIZ - 1);
    }
    let (namespace, interface) = (namespace.to_owned(), interface.to_owned());
    let work = move || -> Result<File> {
        enter(&namespace)?;
        let device = File::options().read(true).write(true).open("/dev/net/tun").context("cannot open /dev/net/tun")?;
        attach(&device, &interface).with_context(|| format!("cannot make {interface} in {}", namespace.display()))?;
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
fn carry(from: File, mut to: File, shared: &Arc<Shared>, seed: u64) -> [JoinHandle<()>; 2] {
    let (queue, turn) = mpsc::sync_channel::<(Instant, Vec<u8>)>(FRAMES);
    let writer = thread::spawn(move || {
        for (due, frame) in turn {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // A device that is down refuses the frame: it is lost, as on a real link.
            let _ = to.write(&frame);
        }
    });
    let shared = Arc::clone(shared);
    [writer, thread::spawn(move || decide(from, &queue, &shared, seed))]
}

/// Takes frames until the way ends; dropping the queue ends its writer.
fn decide(mut from: File, queue: &mpsc::SyncSender<(Instant, Vec<u8>)>, shared: &Shared, seed: u64) {
    let (mut buffer, mut random) = (vec![0; 65536], Random(0x9e37_79b9_7f4a_7c15 ^ seed));
    let (mut free, mut last) = (Instant::now(), Instant::now());
    while !shared.stop.load(Ordering::Relaxed) {
        let mut waiting = [PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)];
        match poll(&mut waiting, Some(&TICK)) {
            Ok(1..) => {}
            _ => continue,
        }
        let Ok(length @ 1..) = from.read(&mut buffer) else {
            // A device that is down has nothing to read and says so at once.
            thread::sleep(Duration::from_millis(20));
            continue;
        };
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
