//! An image's configuration against its base's: digests become numbers in a table, so that one that is known anywhere costs a byte or
//! two, and a new one its 32 bytes once.
//!
//! In the text a digest (64 lower-case hex digits) is replaced by [`MARK`] and its number. The table holds the base's digests in the
//! order of their appearance, then those that both sides know from elsewhere, then the new ones.

use std::collections::HashMap;

/// Stands before a digest's number; JSON has no such byte.
const MARK: u8 = 1;
/// Digests with a number; later ones stay text.
const MAX_DIGESTS: usize = 255;
const HEX: usize = 64;

type Digest = [u8; 32];

/// A text with its digests taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marked {
    /// The text with marks.
    pub text: Vec<u8>,
    /// Digests that were not in the table, in order.
    pub new: Vec<Digest>,
}

/// Both the base's text with its digests taken out, and the table that the target's starts from.
pub(crate) fn base(text: &[u8], known: &[Digest]) -> (Vec<u8>, Vec<Digest>) {
    let mut table = Vec::new();
    let marked = if text.contains(&MARK) { text.to_vec() } else { mark(text, &mut table) };
    for digest in known {
        if !table.contains(digest) && table.len() < MAX_DIGESTS {
            table.push(*digest);
        }
    }
    (marked, table)
}

/// The target's text with its digests taken out; `None` when it has the mark itself.
pub(crate) fn target(text: &[u8], table: &[Digest]) -> Option<Marked> {
    if text.contains(&MARK) {
        return None;
    }
    let mut all = table.to_vec();
    let text = mark(text, &mut all);
    Some(Marked { text, new: all[table.len()..].to_vec() })
}

/// The text with its digests put in again; `None` when a mark has no digest.
pub(crate) fn unmark(text: &[u8], table: &[Digest], new: &[Digest], limit: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        if byte == MARK {
            let number = usize::from(*bytes.next()?);
            let digest = table.get(number).or_else(|| new.get(number.checked_sub(table.len())?))?;
            out.extend(digest.iter().flat_map(|b| [b >> 4, b & 15]).map(|d| b"0123456789abcdef"[usize::from(d)]));
        } else {
            out.push(byte);
        }
        if out.len() > limit {
            return None;
        }
    }
    Some(out)
}

fn mark(text: &[u8], table: &mut Vec<Digest>) -> Vec<u8> {
    let mut numbers: HashMap<Digest, usize> = table.iter().enumerate().map(|(number, digest)| (*digest, number)).collect();
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let run = text[at..].iter().take_while(|b| hex(**b).is_some()).count();
        let digest = if run == HEX { decode(&text[at..at + HEX]) } else { None };
        match digest {
            Some(digest) if numbers.contains_key(&digest) || table.len() < MAX_DIGESTS => {
                let number = *numbers.entry(digest).or_insert_with(|| {
                    table.push(digest);
                    table.len() - 1
                });
                out.extend([MARK, u8::try_from(number).expect("the table has at most MAX_DIGESTS")]);
                at += HEX;
            }
            _ => {
                let len = run.max(1);
                out.extend_from_slice(&text[at..at + len]);
                at += len;
            }
        }
    }
    out
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

fn decode(text: &[u8]) -> Option<Digest> {
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        *byte = hex(pair[0])? << 4 | hex(pair[1])?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_go_out_and_in() {
        let (a, b, c) = ("aa".repeat(32), "0b".repeat(32), "cc".repeat(32));
        let old = format!("{{\"image\":\"sha256:{a}\",\"layers\":[\"{b}\"]}}");
        let new = format!("{{\"image\":\"sha256:{c}\",\"layers\":[\"{b}\",\"{}\"],\"again\":\"{c}\",\"long\":\"{c}0\"}}", "dd".repeat(32));
        let (_, table) = base(old.as_bytes(), &[[0xdd; 32]]);
        let marked = target(new.as_bytes(), &table).unwrap();
        assert_eq!(marked.new, [[0xcc; 32]]);
        assert_eq!(unmark(&marked.text, &table, &marked.new, 1 << 20).unwrap(), new.as_bytes());
        assert_eq!(unmark(&[MARK, 9], &table, &[], 100), None);
        assert_eq!(unmark(&[MARK], &table, &[], 100), None);
    }
}
