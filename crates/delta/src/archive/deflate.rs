//! Which deflate gives a stream: stock zlib or GNU gzip, and at which level.
//!
//! A level is a number: that of zlib, or that of gzip and [`GNU`].

use std::io::{self, Write};

use flate2::write::DeflateEncoder;

use super::gnu;
use super::zlib;

/// What a level of GNU gzip has beyond its number.
pub(crate) const GNU: u8 = 16;

/// Levels in the order in which they are likely.
const LEVELS: [u8; 18] = [6, 9, 1, 5, 8, 7, 4, 3, 2, GNU + 9, GNU + 6, GNU + 8, GNU + 7, GNU + 5, GNU + 1, GNU + 4, GNU + 3, GNU + 2];

/// Whether this is a level.
pub(crate) fn is_level(level: u8) -> bool {
    LEVELS.contains(&level)
}

/// A deflating stream.
pub(crate) enum Deflate<W: Write> {
    Zlib(DeflateEncoder<W>),
    Gnu(Box<gnu::Deflater<W>>),
}

impl<W: Write> Deflate<W> {
    pub(crate) fn new(to: W, level: u8) -> Self {
        match level.checked_sub(GNU) {
            Some(level) => Self::Gnu(Box::new(gnu::Deflater::new(to, level))),
            None => Self::Zlib(zlib::deflate(to, level)),
        }
    }

    /// Ends the stream; with how many plain bytes there were.
    pub(crate) fn finish(self) -> io::Result<(W, u64)> {
        match self {
            Self::Zlib(mut encoder) => {
                encoder.try_finish()?;
                let plain = encoder.total_in();
                Ok((encoder.finish()?, plain))
            }
            Self::Gnu(deflater) => {
                let plain = deflater.total_in();
                Ok((deflater.finish()?, plain))
            }
        }
    }
}

impl<W: Write> Write for Deflate<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Zlib(encoder) => encoder.write(bytes),
            Self::Gnu(deflater) => deflater.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All of `plain`, deflated by a level of zlib, 1 to 9, or of GNU gzip, 17 to 25; an error for another level.
pub fn deflated(plain: &[u8], level: u8) -> io::Result<Vec<u8>> {
    if !is_level(level) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{level} is no level of deflate")));
    }
    let mut deflate = Deflate::new(Vec::new(), level);
    deflate.write_all(plain)?;
    Ok(deflate.finish()?.0)
}

/// The level by which `plain` gives exactly `coded`, `first` tried before all others.
pub(crate) fn level(plain: &[u8], coded: &[u8], first: u8) -> Option<u8> {
    let others = LEVELS.into_iter().filter(|level| *level != first);
    std::iter::once(first).filter(|level| is_level(*level)).chain(others).find(|&level| {
        let mut deflate = Deflate::new(Same(coded), level);
        deflate.write_all(plain).is_ok() && deflate.finish().is_ok_and(|(rest, _)| rest.0.is_empty())
    })
}

/// Takes only these bytes.
struct Same<'a>(&'a [u8]);

impl Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::zlib::inflate;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_level_is_found_and_steps_do_not_matter(
            plain in proptest::collection::vec(0u8..9, 0..90_000),
            level in 0..LEVELS.len(),
            steps in proptest::collection::vec(1usize..50_000, 1..6),
        ) {
            let whole = |level: u8| {
                let mut deflate = Deflate::new(Vec::new(), level);
                deflate.write_all(&plain).unwrap();
                deflate.finish().unwrap()
            };
            let (coded, len) = whole(LEVELS[level]);
            prop_assert_eq!(len, plain.len() as u64);
            let mut deflate = Deflate::new(Vec::new(), LEVELS[level]);
            let mut rest = &plain[..];
            for step in steps.into_iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at(step.min(rest.len()));
                deflate.write_all(now).unwrap();
                rest = later;
            }
            prop_assert!(deflate.finish().unwrap().0 == coded);
            let found = super::level(&plain, &coded, 6).unwrap();
            prop_assert!(whole(found).0 == coded);
            let mut back = Vec::new();
            inflate(&coded[..], coded.len() as u64, plain.len() as u64, &mut back).unwrap();
            prop_assert!(back == plain);
            prop_assert!(inflate(&coded[..], coded.len() as u64, plain.len() as u64 + 1, &mut io::sink()).is_err());
        }
    }

    #[test]
    fn bytes_of_another_program_have_no_level() {
        assert_eq!(level(b"plain", b"something else", 6), None);
    }

    /// What the zlib 1.2.13 of Python 3.11 made of words and of noughts and ones at levels 1 to 9, its length and checksum:
    /// `zlib.compressobj(level, zlib.DEFLATED, -15)`.
    #[test]
    fn bytes_of_stock_zlib() {
        let mut state = 31u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap()
        };
        let crc = |bytes: &[u8]| {
            let mut crc = flate2::Crc::new();
            crc.update(bytes);
            crc.sum()
        };
        let words: Vec<String> = (0..300).map(|_| format!("{:x}", next() % 4096)).collect();
        let mut text = Vec::new();
        for _ in 0..40_000 {
            let (word, most) = (next(), 1 + next() % 300);
            text.push(&words[word % most][..]);
        }
        let mut plain = text.join(" ").into_bytes();
        plain.extend((0..100_000).map(|_| if next() % 2 == 0 { b'0' } else { b'1' }));
        assert_eq!((plain.len(), crc(&plain)), (258_568, 1_860_753_104));
        let made: Vec<_> = (1..=9).map(|level| deflated(&plain, level).unwrap()).map(|coded| (coded.len(), crc(&coded))).collect();
        let stock = [
            (90_356, 3_058_161_790),
            (89_986, 3_273_582_758),
            (87_729, 1_743_090_073),
            (85_229, 2_232_593_441),
            (80_546, 454_702_461),
            (76_753, 4_163_330_013),
            (76_425, 3_750_638_869),
            (76_124, 3_794_433_864),
            (76_080, 2_471_210_564),
        ];
        assert_eq!(made, stock);
    }
}
