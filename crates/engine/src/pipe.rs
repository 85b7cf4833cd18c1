//! From a thread that writes an archive to a task that loads it.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::sync::mpsc;

use crate::ArchiveStream;

/// Bytes handed over at once.
const CHUNK: usize = 64 * 1024;
/// Chunks on their way.
const CHUNKS: usize = 4;

/// The writing end: blocks while the engine is slower, so it belongs on a thread of its own. An archive counts as whole only after
/// [`ArchivePipe::finish`]: dropped before, the other end fails and the engine takes nothing.
#[derive(Debug)]
pub struct ArchivePipe {
    buffer: BytesMut,
    chunks: mpsc::Sender<Option<Bytes>>,
}

/// A pipe of at most 320 KiB: the writing end, and the stream for [`crate::Engine::load`].
pub fn archive_pipe() -> (ArchivePipe, ArchiveStream) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    (ArchivePipe { buffer: BytesMut::with_capacity(CHUNK), chunks: sender }, Box::pin(Receiving { chunks: receiver, ended: false }))
}

impl ArchivePipe {
    /// The archive is whole.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.send(None)
    }

    fn send(&self, chunk: Option<Bytes>) -> io::Result<()> {
        self.chunks.blocking_send(chunk).map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the engine stopped taking the archive"))
    }
}

impl Write for ArchivePipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&buf[..n]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(CHUNK));
        self.send(Some(chunk.freeze()))
    }
}

struct Receiving {
    chunks: mpsc::Receiver<Option<Bytes>>,
    ended: bool,
}

impl Stream for Receiving {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.chunks.poll_recv(cx).map(|chunk| match chunk {
            Some(Some(chunk)) => Some(Ok(chunk)),
            Some(None) => {
                self.ended = true;
                None
            }
            None => {
                self.ended = true;
                Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive was given up before its end")))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    async fn received(finish: bool) -> (usize, bool) {
        let (mut pipe, mut stream) = archive_pipe();
        let writer = std::thread::spawn(move || {
            pipe.write_all(&vec![7; 3 * CHUNK + 5]).unwrap();
            if finish {
                pipe.finish().unwrap();
            }
        });
        let (mut size, mut failed) = (0, false);
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => size += chunk.len(),
                Err(_) => failed = true,
            }
        }
        writer.join().unwrap();
        (size, failed)
    }

    #[tokio::test]
    async fn whole_or_failed() {
        assert_eq!(received(true).await, (3 * CHUNK + 5, false));
        assert_eq!(received(false).await, (3 * CHUNK, true));
    }

    #[test]
    fn nobody_reads() {
        let (mut pipe, stream) = archive_pipe();
        drop(stream);
        assert_eq!(pipe.write_all(&vec![0; CHUNK]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
