//! Answers the server's order for the end of what a task wrote.
//!
//! In: the order. Out: the lines, packed, or why there are none. What it promises: no more than [`limits::LOG_ANSWER`] bytes, the newest
//! lines that fit, and a word where some are left out; it takes [`WITHIN`] at most, because the poll waits for it; nothing is kept, for what was not taken is ordered again.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use skerry_engine::{DockerEngine, Engine};
use skerry_wire::logs::{LogAnswer, LogLines, LogOrder};
use skerry_wire::{Blob, limits};

use super::{End, LogsError, Place, containers, end_of_both, pick, processes};
use crate::blocking;

/// The engine has this long to give what it has.
const WITHIN: Duration = Duration::from_secs(10);

/// Where output is looked for.
#[derive(Debug, Clone)]
pub(crate) struct Outputs {
    /// The agent's data folder.
    pub(crate) data: PathBuf,
    /// The engine.
    pub(crate) engine: Option<DockerEngine>,
}

impl Outputs {
    /// The answer to an order, of at most about `room` bytes.
    pub(crate) async fn answer(&self, order: LogOrder, room: usize) -> LogAnswer {
        let id = order.id;
        let lines = match tokio::time::timeout(WITHIN, self.lines(order, room.min(limits::LOG_ANSWER))).await {
            Ok(Ok(lines)) => Ok(lines),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the node's engine gave no output within {} s", WITHIN.as_secs())),
        };
        LogAnswer { id, lines }
    }

    async fn lines(&self, order: LogOrder, room: usize) -> Result<LogLines, LogsError> {
        let data = self.data.clone();
        let mut tasks = blocking::run(move || processes(&data)).await.unwrap_or_default();
        if let Some(engine) = &self.engine {
            match containers(engine).await {
                Ok(found) => tasks.extend(found),
                // Programs have their output all the same.
                Err(error) if !tasks.keys().any(|(alloc, _)| *alloc == order.alloc) => return Err(error.into()),
                Err(_) => {}
            }
        }
        let (task, place) = pick(&tasks, order.alloc, order.task.as_deref())?;
        let lines = order.lines.min(limits::LOG_LINES);
        let end = match (place, &self.engine) {
            (Place::File(path), _) => blocking::run(move || end_of_both(&path, lines)).await.map_err(|_| LogsError::Ending)??,
            (Place::Container(name), Some(engine)) => {
                let text = engine.logs(&name, lines).await?;
                End::of(&text, lines, text.len() >= skerry_engine::LOG_TAIL)
            }
            _ => return Err(LogsError::NotKept(task)),
        };
        let (packed, cut) = blocking::run(move || pack(&end.bytes, room)).await.map_err(|_| LogsError::Ending)?;
        Ok(LogLines { task, packed: Blob(packed), cut: cut || end.cut })
    }
}

/// Packs as much of the end as there is room for, from the beginning of a line; was anything left out?
fn pack(text: &[u8], room: usize) -> (Vec<u8>, bool) {
    let mut rest = text;
    loop {
        let packed = zlib(rest);
        if packed.len() <= room || rest.is_empty() {
            return (packed, rest.len() < text.len());
        }
        // As much less as it is too long, and a little: each time some are left out, so this ends.
        let keep = rest.len() * room / packed.len() * 15 / 16;
        let end = &rest[rest.len() - keep..];
        rest = end.iter().position(|byte| *byte == b'\n').filter(|at| at + 1 < end.len()).map_or(end, |at| &end[at + 1..]);
    }
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing to memory cannot fail; an empty answer would be noticed as one that is not packed as agreed.
    packer.write_all(text).and_then(|()| packer.finish()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn unpacked(packed: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        flate2::read::ZlibDecoder::new(packed).read_to_end(&mut text).unwrap();
        text
    }

    #[test]
    fn the_newest_lines_that_fit() {
        let short = b"one\ntwo\n".to_vec();
        assert_eq!((unpacked(&pack(&short, limits::LOG_ANSWER).0), pack(&short, limits::LOG_ANSWER).1), (short, false));
        assert_eq!((unpacked(&pack(b"", 0).0), pack(b"", 0).1), (Vec::new(), false));
        // Lines that hardly pack, from a fixed seed.
        let mut state = 7u64;
        let mut long = Vec::new();
        for line in 0..6000 {
            let noise: String = (0..8)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    format!("{:08x}", state >> 32)
                })
                .collect();
            long.extend(format!("{line} {noise}\n").bytes());
        }
        let (packed, cut) = pack(&long, limits::LOG_ANSWER);
        let text = unpacked(&packed);
        assert!(cut && packed.len() <= limits::LOG_ANSWER && packed.len() > limits::LOG_ANSWER / 2, "{}", packed.len());
        assert!(long.ends_with(&text) && long[long.len() - text.len() - 1] == b'\n');
        // One line that is too long is cut within.
        let one: Vec<u8> = long.iter().copied().filter(|b| *b != b'\n').collect();
        let (packed, cut) = pack(&one, limits::LOG_ANSWER);
        assert!(cut && packed.len() <= limits::LOG_ANSWER && one.ends_with(&unpacked(&packed)));
    }
}
