//! Whether the write-ahead log beside the database is whole, before SQLite reads it.
//!
//! SQLite takes the log up to the first frame that is not as it was written, and forgets the rest: so it must after a power cut, which tears
//! the transaction under way. A disk that garbles a frame further up looks the same to it, and what was acknowledged since would be lost
//! without a word. The two can be told apart: a transaction is begun in the log only when the one before it is on the disk. What lies after
//! the end of a transaction proves that all of it was there.
//!
//! Damage to the last transaction, to the head of the last frame of the one before it, or a log cut short or gone, cannot be told from a power
//! cut; it is as if an older copy was put back. A power cut leaves or takes whole sectors, so a head that lies in two of them is believed
//! only when its sum is right.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

/// Bytes of the log's head.
const HEAD: usize = 32;
/// Bytes before the page of each frame.
const FRAME_HEAD: usize = 24;
/// Bytes of a page, as the server's databases have them.
const PAGE: u32 = 4096;
/// The first word of a log whose checksums are over little-endian words; the other one is over big-endian ones.
const LITTLE: u32 = 0x377f_0682;
/// Looks until a log that another process writes meanwhile stands still.
const LOOKS: usize = 8;

/// What a disk writes whole or not at all, bytes.
const SECTOR: usize = 512;

type Sum = (u32, u32);

/// A frame as it says of itself.
#[derive(Debug, Clone, Copy)]
struct Frame {
    salt: [u8; 8],
    /// Does a transaction end with it?
    ends: bool,
    /// Is it as it was written, if the one before it has the sum that it says?
    follows: bool,
    /// The same, or the one before it has the sum that its bytes have.
    after: bool,
}

/// The log of a database.
pub(super) fn path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// The number of the frame from which on the log is damaged, though more was written after it; none when nothing is known to be lost.
pub(super) fn damaged(database: &Path) -> io::Result<Option<usize>> {
    let log = path(database);
    let mut last = None;
    for _ in 0..LOOKS {
        let Some(head) = head(&log)? else { return Ok(None) };
        let Some(frame) = look(&log, &head)? else { return Ok(None) };
        // A server that runs may have been at just this frame, or have begun the log anew: then it looks otherwise now.
        if last.replace((head, frame)) == Some((head, frame)) {
            return Ok(Some(frame));
        }
    }
    Ok(None)
}

fn head(log: &Path) -> io::Result<Option<[u8; HEAD]>> {
    let mut bytes = [0; HEAD];
    match File::open(log).and_then(|mut file| file.read_exact(&mut bytes)) {
        Ok(()) => Ok(Some(bytes)),
        // SQLite makes it; a shorter one has nothing in it.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => Ok(None),
        Err(error) => Err(error),
    }
}

fn look(log: &Path, head: &[u8; HEAD]) -> io::Result<Option<usize>> {
    let little = word(head, 0) == LITTLE;
    let sound = word(head, 0) | 1 == LITTLE | 1 && sum(little, (0, 0), &head[..24]) == (word(head, 24), word(head, 28));
    // A head that is garbled may say anything: then the log is read as this machine's SQLite writes it.
    let (little, page) = if sound { (little, word(head, 8)) } else { (cfg!(target_endian = "little"), PAGE) };
    let page = usize::try_from(page).map_err(io::Error::other)?;
    let gone = |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof);
    let opened = File::open(log).map(BufReader::new).and_then(|mut file| file.read_exact(&mut [0; HEAD]).map(|()| file));
    // A server that was just stopping took it away.
    let mut file = match opened {
        Err(error) if gone(&error) => return Ok(None),
        opened => opened?,
    };
    let (mut bytes, mut frames) = (vec![0; FRAME_HEAD + page], Vec::<Frame>::new());
    let mut before = (word(head, 24), word(head, 28));
    let mut made = before;
    loop {
        match file.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
        let on = |before| sum(little, sum(little, before, &bytes[..8]), &bytes[FRAME_HEAD..]);
        let (said, stored) = ((word(&bytes, 16), word(&bytes, 20)), on(before));
        let frame = Frame {
            salt: bytes[8..16].try_into().expect("eight bytes"),
            ends: word(&bytes, 4) != 0,
            follows: stored == said,
            after: stored == said || on(made) == said,
        };
        (before, made) = (said, stored);
        frames.push(frame);
    }
    // What SQLite takes. Frames of another salt are left from before the log was begun anew.
    let taken = if sound { frames.iter().take_while(|f| f.follows && f.salt == head[16..24]).count() } else { 0 };
    let current = |frame: &Frame| !sound || frame.salt == head[16..24];
    let in_a_sector = |index: usize| (HEAD + index * (FRAME_HEAD + page)) % SECTOR + FRAME_HEAD <= SECTOR;
    let mut pairs = frames[taken..].windows(2).zip(taken..);
    let lost = pairs.any(|(two, index)| two[0].ends && (two[0].follows || in_a_sector(index)) && two[1].after && current(&two[1]));
    Ok(lost.then_some(taken + 1))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The log's checksum, gone on with over bytes whose number eight divides.
fn sum(little: bool, (mut a, mut b): Sum, bytes: &[u8]) -> Sum {
    let read = |four: &[u8]| {
        let four = four.try_into().expect("four bytes");
        if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) }
    };
    for eight in bytes.chunks_exact(8) {
        a = a.wrapping_add(read(&eight[..4])).wrapping_add(b);
        b = b.wrapping_add(read(&eight[4..])).wrapping_add(a);
    }
    (a, b)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rusqlite::Connection;

    use super::*;

    /// A database that was killed with so many transactions in its log.
    fn killed(folder: &Path, transactions: i64) -> PathBuf {
        let path = folder.join("test.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x, y)").unwrap();
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        for n in 0..transactions {
            connection.execute("INSERT INTO t VALUES (?1, randomblob(6000))", [n]).unwrap();
        }
        let copy = folder.join("copy.db");
        fs::copy(&path, &copy).unwrap();
        fs::copy(super::path(&path), super::path(&copy)).unwrap();
        copy
    }

    fn rows(path: &Path) -> i64 {
        Connection::open(path).unwrap().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn whatever_is_garbled_is_noticed_or_costs_the_last_two_transactions_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let path = killed(folder.path(), 6);
        let (database, log) = (fs::read(&path).unwrap(), fs::read(super::path(&path)).unwrap());
        assert_eq!(damaged(&path).unwrap(), None);
        let mut noticed = 0;
        for at in (0..log.len()).step_by(509) {
            let mut garbled = log.clone();
            let end = (at + 100).min(log.len());
            garbled[at..end].iter_mut().for_each(|b| *b ^= 0x5a);
            fs::write(&path, &database).unwrap();
            fs::write(super::path(&path), &garbled).unwrap();
            if damaged(&path).unwrap().is_some() {
                noticed += 1;
                continue;
            }
            let left = rows(&path);
            assert!(left >= 5, "bytes {at} to {end} of {}: {left} of 6 rows are left, and nothing was said", log.len());
        }
        assert!(noticed > 20, "{noticed}");
        // The heads of all frames: one field of each, and all of it, which hides the end of the transaction.
        for frame in 0..(log.len() - HEAD) / (FRAME_HEAD + 4096) {
            for (from, to, least) in [(0, 4, 5), (4, 8, 5), (8, 16, 5), (16, 24, 5), (0, 24, 4)] {
                let (mut garbled, head) = (log.clone(), HEAD + frame * (FRAME_HEAD + 4096));
                garbled[head + from..head + to].iter_mut().for_each(|b| *b ^= 0x5a);
                fs::write(&path, &database).unwrap();
                fs::write(super::path(&path), &garbled).unwrap();
                if damaged(&path).unwrap().is_none() {
                    let left = rows(&path);
                    assert!(left >= least, "bytes {from} to {to} of frame {frame}: {left} of 6 rows are left, and nothing was said");
                }
            }
        }
    }

    /// A transaction over frames of the log before, each a transaction of its own; of it the power cut took one sector.
    #[test]
    fn a_torn_transaction_over_an_older_log_is_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x, y)").unwrap();
        connection.execute("INSERT INTO t VALUES (0, 0)", []).unwrap();
        for n in 0..60 {
            connection.execute("UPDATE t SET y = ?1", [n]).unwrap();
        }
        connection.execute_batch("PRAGMA wal_checkpoint(RESTART)").unwrap();
        let before = fs::read(super::path(&path)).unwrap();
        connection.execute("INSERT INTO t VALUES (1, randomblob(200000))", []).unwrap();
        let after = fs::read(super::path(&path)).unwrap();
        let changed: Vec<_> = (0..before.len().min(after.len()) / SECTOR)
            .map(|sector| sector * SECTOR..(sector + 1) * SECTOR)
            .filter(|sector| before[sector.clone()] != after[sector.clone()])
            .collect();
        assert!(changed.len() > 45 * 8, "{}", changed.len());
        for sector in changed {
            let mut torn = after.clone();
            torn[sector.clone()].copy_from_slice(&before[sector.clone()]);
            // SQLite syncs a new head before it writes frames.
            torn[..HEAD].copy_from_slice(&after[..HEAD]);
            fs::write(super::path(&folder.path().join("torn.db")), &torn).unwrap();
            assert_eq!(damaged(&folder.path().join("torn.db")).unwrap(), None, "{sector:?}");
        }
    }

    /// What a power cut may leave is no damage: the log ends anywhere, and its last transaction is torn.
    #[test]
    fn what_a_power_cut_leaves_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = killed(folder.path(), 4);
        let log = fs::read(super::path(&path)).unwrap();
        for length in (0..log.len()).step_by(701) {
            fs::write(super::path(&path), &log[..length]).unwrap();
            assert_eq!(damaged(&path).unwrap(), None, "{length}");
        }
        fs::remove_file(super::path(&path)).unwrap();
        assert_eq!(damaged(&path).unwrap(), None);
    }

    /// A log that was begun anew has frames of the one before it behind its end.
    #[test]
    fn a_log_that_was_begun_anew_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x, y)").unwrap();
        for n in 0..20 {
            connection.execute("INSERT INTO t VALUES (?1, randomblob(6000))", [n]).unwrap();
        }
        connection.execute_batch("PRAGMA wal_checkpoint(RESTART)").unwrap();
        connection.execute("INSERT INTO t VALUES (99, 0)", []).unwrap();
        assert_eq!(damaged(&path).unwrap(), None);
    }
}
