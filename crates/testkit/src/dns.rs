//! A resolver that knows one address, and can be broken in the ways that resolvers break.
//!
//! It answers every question for an IPv4 address over UDP with that address, and every other question with no record.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::relay::in_namespace;

/// How often it looks whether it should end.
const TICK: Duration = Duration::from_millis(100);
/// Seconds that an answer may be kept: none, so that every connection asks anew.
const KEEP: u32 = 0;
/// Bytes of a question's head.
const HEAD: usize = 12;

/// What becomes of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    /// Answered with this address.
    Answers(Ipv4Addr),
    /// Answered with SERVFAIL.
    Fails,
    /// Answered that there is no such name.
    Denies,
    /// Not answered.
    IsSilent,
}

/// A running resolver; ends when dropped.
#[derive(Debug)]
pub struct Names {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<Resolver>,
    asked: AtomicU64,
    stop: AtomicBool,
}

impl Names {
    /// Listens on an address of a namespace and answers with `address`.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub fn start(namespace: &Netns, listen: SocketAddr, address: Ipv4Addr) -> Result<Self> {
        let place = namespace.path();
        let socket =
            in_namespace(Some(&place), move || UdpSocket::bind(listen).with_context(|| format!("cannot listen on {listen} for names")))?;
        socket.set_read_timeout(Some(TICK))?;
        let state = Mutex::new(Resolver::Answers(address));
        let shared = Arc::new(Shared { state, asked: AtomicU64::new(0), stop: AtomicBool::new(false) });
        let seen = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut question = [0; 1500];
            while !seen.stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut question) else { continue };
                seen.asked.fetch_add(1, Ordering::Relaxed);
                let state = *seen.state.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(answer) = question.get(..length).and_then(|q| answer(q, state)) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// From now on questions are treated so.
    pub fn set(&self, state: Resolver) {
        *self.shared.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Questions so far.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The answer to a question; none when there is to be none, or it is no question.
fn answer(question: &[u8], state: Resolver) -> Option<Vec<u8>> {
    // After the head: labels with their lengths, a zero, type and class.
    let labels = question.get(HEAD..)?.iter().position(|b| *b == 0)?;
    let end = HEAD + labels + 1;
    let kind = question.get(end..end + 2)?;
    let asked = question.get(HEAD..end + 4)?;
    let (code, address) = match state {
        Resolver::Answers(address) => (0, Some(address).filter(|_| kind == [0, 1])),
        Resolver::Fails => (2, None),
        Resolver::Denies => (3, None),
        Resolver::IsSilent => return None,
    };
    let mut bytes = question.get(..2)?.to_vec();
    // An answer, recursion asked for and there; one question, no or one answer.
    bytes.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    bytes.extend(asked);
    if let Some(address) = address {
        // The name is that of the question, at offset 12.
        bytes.extend([0xc0, 12, 0, 1, 0, 1]);
        bytes.extend(KEEP.to_be_bytes());
        bytes.extend([0, 4]);
        bytes.extend(address.octets());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x04test\x00\x00\x01\x00\x01";

    #[test]
    fn answers_fails_and_keeps_silent() {
        let address = Ipv4Addr::new(10, 1, 2, 3);
        let good = answer(QUESTION, Resolver::Answers(address)).unwrap();
        assert_eq!(good[..12], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert!(good.ends_with(&[0, 4, 10, 1, 2, 3]));
        assert_eq!(answer(QUESTION, Resolver::Fails).unwrap()[3], 0x82);
        assert_eq!(answer(QUESTION, Resolver::Denies).unwrap()[3], 0x83);
        assert_eq!(answer(QUESTION, Resolver::IsSilent), None);
        // For an IPv6 address: there is none.
        let mut six = QUESTION.to_vec();
        let at = six.len() - 3;
        six[at] = 28;
        assert_eq!(answer(&six, Resolver::Answers(address)).unwrap()[7], 0);
        for cut in 0..QUESTION.len() {
            assert_eq!(answer(&QUESTION[..cut], Resolver::Fails), None, "{cut}");
        }
    }
}
