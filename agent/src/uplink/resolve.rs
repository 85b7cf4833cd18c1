//! From the server's name to addresses: asked for anew with every connection, and remembered for when names do not resolve.
//!
//! In: a name. Out: the addresses to try, in order. A resolver of the network that is silent, fails, denies or lies keeps no node from a
//! server whose address is still the same: the address that led to it last is tried too, first or last by turns until one is proven
//! again. Whether it is the server is TLS's to decide, so a wrong address costs time, never trust.
//!
//! A question runs on a thread of its own, one at a time: the system's resolver may stand still for half a minute, and must not hold the
//! few threads that everything else needs.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::oneshot;
use tower_service::Service;

use crate::files;

/// How long names are waited for when an address is remembered.
const PATIENCE: Duration = Duration::from_secs(3);
/// Addresses tried for one connection: they share the time that it may take.
const TRIED: usize = 4;
/// The longest name with its address that is read back.
const FILE: usize = 512;
/// Stack of the thread that asks.
const STACK: usize = 256 * 1024;

/// The resolver of the one server's name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Resolver {
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// The name that was asked for; none while the server is known by an address.
    name: Option<String>,
    /// What names gave last.
    given: Vec<IpAddr>,
    /// The address that led to the server last.
    proven: Option<IpAddr>,
    /// At the next connection the proven address comes before the given ones.
    proven_first: bool,
    /// A question is under way.
    asking: bool,
    /// Where the proven address outlives the agent.
    file: Option<PathBuf>,
}

impl Resolver {
    /// Keeps the proven address of `name` in a file, and takes up what is there.
    pub(super) fn remember(&self, name: &str, file: &Path) {
        let read = files::read(file, FILE).ok().flatten().unwrap_or_default();
        let mut known = self.known();
        known.proven = known.proven.or_else(|| parse(&read, name));
        known.file = Some(file.to_owned());
    }

    /// The server answered from this address.
    pub(super) fn proved(&self, address: IpAddr) {
        let mut known = self.known();
        let Some(name) = known.name.clone() else { return };
        known.proven_first = !known.given.contains(&address);
        if known.proven == Some(address) {
            return;
        }
        known.proven = Some(address);
        let file = known.file.clone();
        drop(known);
        // Without it the name is just asked for.
        if let Some(file) = file
            && let Err(error) = files::replace(&file, format!("{name} {address}\n").as_bytes(), 0o600)
        {
            tracing::warn!("the server's address is not remembered: {error}");
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What names give now.
    async fn ask(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let patience = {
            let mut known = self.known();
            known.name = Some(name.to_owned());
            if known.asking {
                return Err(io::Error::other(format!("the last question for the address of {name} is not answered yet")));
            }
            known.asking = true;
            known.proven.map_or(Duration::MAX, |_| PATIENCE)
        };
        let (answer, answered) = oneshot::channel();
        let (known, asked) = (Arc::clone(&self.known), name.to_owned());
        let thread = std::thread::Builder::new().name("names".to_owned()).stack_size(STACK).spawn(move || {
            let addresses = (asked.as_str(), 0).to_socket_addrs().map(|all| all.map(|a| a.ip()).collect::<Vec<_>>());
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known.asking = false;
            if let Ok(addresses) = &addresses {
                // Also when nobody waits any more: the next connection may use it.
                known.given.clone_from(addresses);
            }
            drop(known);
            let _ = answer.send(addresses);
        });
        if let Err(error) = thread {
            self.known().asking = false;
            return Err(error);
        }
        match tokio::time::timeout(patience, answered).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(_)) => Err(io::Error::other("the thread that asks for names ended unexpectedly")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer to the question for the address of {name}"))),
        }
    }
}

impl Known {
    /// The addresses to try, in order; by turns with the proven one first.
    fn order(&mut self, answer: io::Result<Vec<IpAddr>>) -> io::Result<Vec<IpAddr>> {
        let answered = answer.is_ok();
        let given = match answer {
            Ok(given) => given,
            Err(error) if self.proven.is_none() && self.given.is_empty() => return Err(error),
            Err(_) => self.given.clone(),
        };
        let first = if self.proven_first || !answered { self.proven } else { None };
        self.proven_first = !self.proven_first;
        let mut order: Vec<IpAddr> = Vec::new();
        for address in first.into_iter().chain(given).take(TRIED - 1).chain(self.proven) {
            if !order.contains(&address) {
                order.push(address);
            }
        }
        Ok(order)
    }
}

/// `NAME ADDRESS`
fn parse(text: &[u8], name: &str) -> Option<IpAddr> {
    let (of, address) = std::str::from_utf8(text).ok()?.trim_end().split_once(' ')?;
    if of == name { address.parse().ok() } else { None }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move {
            let answer = resolver.ask(name.as_str()).await;
            let order = resolver.known().order(answer)?;
            // The port is the connector's to set.
            Ok(order.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect::<Vec<_>>().into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn named() -> Resolver {
        let resolver = Resolver::default();
        resolver.known().name = Some("server.example".to_owned());
        resolver
    }

    fn order(resolver: &Resolver, answer: Option<&[u8]>) -> Option<Vec<IpAddr>> {
        let answer = answer.map(|all| all.iter().copied().map(ip).collect::<Vec<_>>()).ok_or_else(|| io::Error::other("no name"));
        if let Ok(given) = &answer {
            resolver.known().given.clone_from(given);
        }
        resolver.known().order(answer).ok()
    }

    #[test]
    fn an_address_that_led_to_the_server_outlives_its_names() {
        let resolver = named();
        assert_eq!(order(&resolver, None), None);
        assert_eq!(order(&resolver, Some(&[1, 2])), Some(vec![ip(1), ip(2)]));
        resolver.proved(ip(2));
        // Nothing is lost while names work.
        assert_eq!(order(&resolver, Some(&[1, 2])), Some(vec![ip(1), ip(2)]));
        resolver.proved(ip(2));
        // Silence and failure: the proven one first, at once.
        for _ in 0..3 {
            assert_eq!(order(&resolver, None), Some(vec![ip(2), ip(1)]));
        }
        // A lie: by turns, until one is proven again.
        resolver.proved(ip(2));
        assert_eq!(order(&resolver, Some(&[9])), Some(vec![ip(9), ip(2)]));
        assert_eq!(order(&resolver, Some(&[9])), Some(vec![ip(2), ip(9)]));
        resolver.proved(ip(2));
        assert_eq!(order(&resolver, Some(&[9])), Some(vec![ip(2), ip(9)]), "the lie is known");
        // The server moved.
        assert_eq!(order(&resolver, Some(&[7])), Some(vec![ip(7), ip(2)]));
        resolver.proved(ip(7));
        assert_eq!(order(&resolver, Some(&[7])), Some(vec![ip(7)]));
        // Many addresses leave room for the proven one.
        let many = order(&resolver, Some(&[11, 12, 13, 14, 15])).unwrap();
        assert!(many.len() <= TRIED && many.contains(&ip(7)), "{many:?}");
    }

    #[test]
    fn the_address_is_kept_for_its_name_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("server.address");
        let resolver = named();
        resolver.remember("server.example", &file);
        resolver.proved(ip(3));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "server.example 10.0.0.3\n");
        let proven = |name: &str| {
            let resolver = Resolver::default();
            resolver.remember(name, &file);
            resolver.known().proven
        };
        assert_eq!(proven("server.example"), Some(ip(3)));
        assert_eq!(proven("other.example"), None);
        for garbled in ["", "server.example", "server.example 10.0.0", "\u{0}\u{0}", "server.example 10.0.0.3 x"] {
            std::fs::write(&file, garbled).unwrap();
            assert_eq!(proven("server.example"), None, "{garbled}");
        }
        // One that is known by an address remembers nothing.
        let plain = Resolver::default();
        plain.proved(ip(4));
        assert_eq!(plain.known().proven, None);
    }

    #[tokio::test]
    async fn a_name_is_asked_for_and_a_second_question_does_not_wait_for_the_first() {
        let mut resolver = Resolver::default();
        let all: Vec<_> = resolver.call("localhost".parse().unwrap()).await.unwrap().map(|a| a.ip()).collect();
        assert!(all.iter().all(IpAddr::is_loopback) && !all.is_empty(), "{all:?}");
        resolver.proved(all[0]);
        resolver.known().asking = true;
        let again: Vec<_> = resolver.call("localhost".parse().unwrap()).await.unwrap().map(|a| a.ip()).collect();
        assert_eq!(again.first(), all.first());
    }
}
