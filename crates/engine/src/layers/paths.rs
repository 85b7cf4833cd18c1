//! Many paths in little memory: each is kept as what it shares with the one before, and the rest.

use std::io;

/// After so many paths one is kept whole, so that a look-up decodes few.
const RESTART: usize = 16;

/// Bytes that the paths of one layer may take: far above any image's, and less than what a node is sure to have.
const MOST: usize = 32 * 1024 * 1024;

/// Paths by number, in the order they were pushed. A tar lists neighbours after each other, so a path costs about a quarter of its
/// length: 2 to 3 MB for 100,000 files.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// Per path: shared length (u16), rest's length (u16), rest.
    bytes: Vec<u8>,
    /// Where every [`RESTART`]th path begins.
    restarts: Vec<u32>,
    count: usize,
    last: Vec<u8>,
}

impl Paths {
    pub(super) fn push(&mut self, path: &[u8]) -> io::Result<()> {
        let fault = || io::Error::new(io::ErrorKind::InvalidData, "the record of a layer has too many or too long paths");
        let too_long = |_| fault();
        let shared = if self.count.is_multiple_of(RESTART) {
            self.restarts.push(u32::try_from(self.bytes.len()).map_err(too_long)?);
            0
        } else {
            self.last.iter().zip(path).take_while(|(a, b)| a == b).count()
        };
        let rest = &path[shared..];
        if self.bytes.len() + 4 + rest.len() > MOST {
            return Err(fault());
        }
        self.bytes.extend(u16::try_from(shared).map_err(too_long)?.to_le_bytes());
        self.bytes.extend(u16::try_from(rest.len()).map_err(too_long)?.to_le_bytes());
        self.bytes.extend(rest);
        self.count += 1;
        self.last.clear();
        self.last.extend(path);
        Ok(())
    }

    pub(super) fn get(&self, index: u32) -> Option<Vec<u8>> {
        let index = usize::try_from(index).ok().filter(|index| *index < self.count)?;
        let mut at = usize::try_from(*self.restarts.get(index / RESTART)?).ok()?;
        let mut path = Vec::new();
        for _ in 0..=index % RESTART {
            let length = |at: usize| Some(usize::from(u16::from_le_bytes(self.bytes.get(at..at + 2)?.try_into().ok()?)));
            let (shared, rest) = (length(at)?, length(at + 2)?);
            path.truncate(shared);
            path.extend(self.bytes.get(at + 4..at + 4 + rest)?);
            at += 4 + rest;
        }
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_again_and_small() {
        let all: Vec<String> = (0..10_000).map(|i| format!("usr/lib/python3/dist-packages/package{}/module{i}.py", i / 100)).collect();
        let mut paths = Paths::default();
        all.iter().for_each(|path| paths.push(path.as_bytes()).unwrap());
        for (i, path) in (0u32..).zip(&all) {
            assert_eq!(paths.get(i).unwrap(), path.as_bytes());
        }
        assert_eq!(paths.get(10_000), None);
        assert!(paths.bytes.len() < all.iter().map(String::len).sum::<usize>() / 3);
        assert!(Paths::default().push(&vec![b'a'; 70_000]).is_err());
        // A record of a few kilobytes, compressed, can hold any number of long paths.
        let long = [b"ab", b"ba"].map(|start| start.repeat(30_000));
        assert!((0..1000).any(|i| paths.push(&long[i % 2]).is_err()));
        assert!(paths.bytes.len() <= MOST);
    }
}
