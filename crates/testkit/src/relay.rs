//! A TCP relay that counts the payload of every connection both ways, without looking into it.
//!
//! What it has counted has left for the other side: it lets little wait in between, so that after a cut the count is true to within
//! 64 KiB.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::{Netns, enter};

/// What may wait in the kernel for the other side; the kernel doubles it.
const SEND_BUFFER: usize = 32 * 1024;

/// A running relay; takes no new connections when dropped.
#[derive(Debug)]
pub struct Relay {
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    /// Towards the clients.
    clients: Mutex<Vec<TcpStream>>,
}

/// What a relay has passed on so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    /// Connections taken.
    pub connections: u64,
    /// Bytes from the client to the server.
    pub up: u64,
    /// Bytes from the server to the client.
    pub down: u64,
}

impl Payload {
    /// Bytes both ways.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.up + self.down
    }

    /// What was passed on since an earlier look.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self { connections: self.connections - earlier.connections, up: self.up - earlier.up, down: self.down - earlier.down }
    }
}

impl Relay {
    /// Listens on `listen` and passes every connection on to `target`; both are addresses in `namespace`, or in the thread's own.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub fn start(namespace: Option<&Netns>, listen: SocketAddr, target: SocketAddr) -> Result<Self> {
        let place = namespace.map(Netns::path);
        let listener =
            in_namespace(place.as_deref(), move || TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}")))?;
        listener.set_nonblocking(true)?;
        let (counters, stop) = (Arc::new(Counters::default()), Arc::new(AtomicBool::new(false)));
        let (sink, end) = (Arc::clone(&counters), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            if place.as_deref().is_some_and(|p| enter(p).is_err()) {
                return;
            }
            while !end.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => pass_on(&client, target, &sink),
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Ok(Self { counters, stop, thread: Some(thread) })
    }

    /// What it has passed on so far.
    #[must_use]
    pub fn payload(&self) -> Payload {
        let of = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Payload { connections: of(&self.counters.connections), up: of(&self.counters.up), down: of(&self.counters.down) }
    }
}

impl Relay {
    /// Ends every connection as a server does that has had enough of it: the client reads its end, and may still say goodbye.
    pub fn hang_up(&self) {
        for client in self.counters.clients.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // One that is gone already has nobody to be told.
            let _ = client.shutdown(Shutdown::Write);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts a thread for each way; a client that cannot be connected is dropped, as an unreachable server would do.
fn pass_on(client: &TcpStream, target: SocketAddr, counters: &Arc<Counters>) {
    let Ok(server) = TcpStream::connect_timeout(&target, Duration::from_secs(5)) else { return };
    counters.connections.fetch_add(1, Ordering::Relaxed);
    if let Ok(client) = client.try_clone() {
        counters.clients.lock().unwrap_or_else(PoisonError::into_inner).push(client);
    }
    for upwards in [true, false] {
        let (from, to) = if upwards { (client, &server) } else { (&server, client) };
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
        let counters = Arc::clone(counters);
        thread::spawn(move || pump(from, to, if upwards { &counters.up } else { &counters.down }));
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, counter: &AtomicU64) {
    // An accepted socket may inherit the listener's mode.
    let _ = from.set_nonblocking(false);
    let _ = to.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&to, SEND_BUFFER);
    let mut part = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut part) {
        // Counted first: whoever has seen an answer must find the question in the count too.
        counter.fetch_add(n as u64, Ordering::SeqCst);
        if to.write_all(&part[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

/// Runs `work` on a thread in a namespace: sockets stay in the namespace that they were made in.
pub(crate) fn in_namespace<T: Send + 'static>(place: Option<&Path>, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let Some(place) = place.map(Path::to_owned) else { return work() };
    let thread = thread::spawn(move || {
        enter(&place)?;
        work()
    });
    thread.join().map_err(|_| anyhow::anyhow!("the thread in the namespace panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;

    #[test]
    fn counts_the_payload_of_both_ways() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let relay = Relay::start(None, free, target).unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut line = String::new();
            std::io::BufReader::new(&stream).read_line(&mut line).unwrap();
            stream.write_all(line.repeat(3).as_bytes()).unwrap();
        });
        let mut client = TcpStream::connect(free).unwrap();
        client.write_all(b"12345\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        echo.join().unwrap();
        assert_eq!(answer, "12345\n".repeat(3));
        assert_eq!(relay.payload(), Payload { connections: 1, up: 6, down: 18 });
    }
}
