//! A proxy in front of an engine's socket that can lie: it says that it loaded an image, and passes nothing on.
//!
//! In: the engine's socket. Out: another socket that answers like it, until it is told to lie. One request per connection is looked at, as
//! the agent makes them; all others of a connection pass.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result};

/// The longest head of a request.
const HEAD: usize = 64 * 1024;
/// The end of a body in chunks.
const END: &[u8] = b"\r\n0\r\n\r\n";

/// A running proxy; takes no new connections when dropped.
#[derive(Debug)]
pub struct Liar {
    socket: PathBuf,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    lies: AtomicBool,
    told: AtomicU64,
    stop: AtomicBool,
}

impl Liar {
    /// Listens at `socket` for the engine at `engine`: `unix:///...`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(socket: &Path, engine: &str) -> Result<Self> {
        let engine = PathBuf::from(engine.trim_start_matches("unix://"));
        let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen at {}", socket.display()))?;
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (engine, state) = (engine.clone(), Arc::clone(&shared));
                // A connection that breaks is its client's to tell.
                thread::spawn(move || drop(serve(client, &engine, &state)));
            }
        });
        Ok(Self { socket: socket.to_owned(), state })
    }

    /// `unix:///...`
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Lies from now on, or no more.
    pub fn lie(&self, yes: bool) {
        self.state.lies.store(yes, Ordering::SeqCst);
    }

    /// Lies told.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.state.told.load(Ordering::SeqCst)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.socket);
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn serve(mut client: UnixStream, engine: &Path, state: &State) -> std::io::Result<()> {
    let (mut head, mut piece) = (Vec::new(), [0; 16 * 1024]);
    while !head.windows(4).any(|w| w == b"\r\n\r\n") && head.len() < HEAD {
        match client.read(&mut piece)? {
            0 => return Ok(()),
            n => head.extend_from_slice(&piece[..n]),
        }
    }
    let line = String::from_utf8_lossy(head.split(|b| *b == b'\r').next().unwrap_or_default()).into_owned();
    if state.lies.load(Ordering::SeqCst) && line.starts_with("POST ") && line.contains("/images/load") {
        return swallow(client, head, state);
    }
    let mut server = UnixStream::connect(engine)?;
    server.write_all(&head)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let up = thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let down = std::io::copy(&mut server, &mut client).map(drop);
    let _ = client.shutdown(Shutdown::Both);
    let _ = up.join();
    down
}

/// Takes the archive to its end and says that all is well.
fn swallow(mut client: UnixStream, mut last: Vec<u8>, state: &State) -> std::io::Result<()> {
    let mut piece = [0; 16 * 1024];
    while !last.ends_with(END) {
        match client.read(&mut piece)? {
            0 => return Ok(()),
            n => last.extend_from_slice(&piece[..n]),
        }
        last.drain(..last.len().saturating_sub(END.len()));
    }
    state.told.fetch_add(1, Ordering::SeqCst);
    let body = "{\"stream\":\"Loaded image ID: sha256:0000000000000000000000000000000000000000000000000000000000000000\\n\"}\r\n";
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    client.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_on_what_is_no_load_and_swallows_what_is() {
        let folder = tempfile::tempdir().unwrap();
        let engine = UnixListener::bind(folder.path().join("engine")).unwrap();
        thread::spawn(move || {
            for mut client in engine.incoming().flatten() {
                let mut asked = [0; 12];
                client.read_exact(&mut asked).unwrap();
                client.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            }
        });
        let liar = Liar::start(&folder.path().join("liar"), &format!("unix://{}", folder.path().join("engine").display())).unwrap();
        let ask = |text: &str| {
            let mut client = UnixStream::connect(folder.path().join("liar")).unwrap();
            client.write_all(text.as_bytes()).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        };
        let load = "POST /images/load HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert!(ask(load).contains(" 204 "));
        liar.lie(true);
        assert!(ask(load).contains("Loaded image"));
        assert!(ask("GET /images/json HTTP/1.1\r\n\r\n").contains(" 204 "));
        assert_eq!(liar.told(), 1);
    }
}
