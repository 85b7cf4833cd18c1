//! Programs made up and edited come back bit for bit, however they are cut; foreign bytes do no harm.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the numbers are small by how they are made"
)]
#![allow(clippy::type_complexity, reason = "made once, used once")]

use super::*;
use crate::stream::StreamsWriter;
use proptest::prelude::*;

/// A repeatable source of numbers.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % below
    }
}

/// Name, type, flags and content of each section.
type Sections = Vec<(&'static str, u32, u64, Vec<u8>)>;

/// A file with these sections after its headers; those with the flag 2 are in memory at their offset.
fn file(machine: u16, sections: &Sections) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(HEAD + 64, 0);
    let mut names = vec![0];
    let mut headers = vec![0; 64];
    let mut put = |bytes: &mut Vec<u8>, name: &str, kind: u32, flags: u64, content: &[u8]| {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let mut header = [0; 64];
        header[..4].copy_from_slice(&(names.len() as u32).to_le_bytes());
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        let address = if flags & 2 != 0 { bytes.len() as u64 } else { 0 };
        for (i, value) in [flags, address, bytes.len() as u64, content.len() as u64].into_iter().enumerate() {
            header[8 + 8 * i..16 + 8 * i].copy_from_slice(&value.to_le_bytes());
        }
        header[40] = 1;
        headers.extend(header);
        names.extend(name.bytes().chain([0]));
        if kind == 3 {
            bytes.extend(&names);
            let own = headers.len() - 32;
            headers[own..own + 8].copy_from_slice(&(names.len() as u64).to_le_bytes());
        } else {
            bytes.extend(content);
        }
    };
    for (name, kind, flags, content) in sections {
        put(&mut bytes, name, *kind, *flags, content);
    }
    let end = bytes.len() as u64;
    put(&mut bytes, ".shstrtab", 3, 0, &[]);
    let count = headers.len() / 64;
    let mut set = |at: usize, value: u64, len: usize| bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    set(18, machine.into(), 2);
    set(32, 64, 8);
    set(54, 56, 2);
    set(56, 2, 2);
    set(60, count as u64, 2);
    set(62, count as u64 - 1, 2);
    for (i, (kind, flags, address, size)) in [(1u64, 5u64, 0, end), (0x6474_e550, 4, HEAD as u64 + 64, 64)].into_iter().enumerate() {
        let at = 64 + 56 * i;
        set(at, kind, 4);
        set(at + 4, flags, 4);
        set(at + 8, address, 8);
        set(at + 16, address, 8);
        set(at + 32, size, 8);
        set(at + 40, size + 4096, 8);
    }
    let start = bytes.len() as u64;
    bytes[40..48].copy_from_slice(&start.to_le_bytes());
    bytes.extend(headers);
    bytes
}

/// Functions of random code for both machines that call each other; a function's bytes do not depend on where it is.
fn functions(seed: u64, machine: u16, changed: usize) -> Vec<u8> {
    const COUNT: u64 = 60;
    let bodies: Vec<(Vec<u8>, Vec<(usize, u64)>)> = (0..COUNT)
        .map(|function| {
            let mut dice = Dice(seed ^ function << 20);
            let (mut body, mut calls) = (Vec::new(), Vec::new());
            for _ in 0..20 + dice.next(40) + if function as usize == changed { 9 } else { 0 } {
                if dice.next(4) == 0 {
                    calls.push((body.len(), dice.next(COUNT)));
                    body.extend(if machine == 62 { &[0xe8, 0, 0, 0, 0][..] } else { &[0, 0, 0, 0x94] });
                } else {
                    body.extend((0..if machine == 62 { 3 } else { 4 }).map(|_| 0x20 + dice.next(64) as u8));
                }
            }
            body.resize(body.len().next_multiple_of(16), 0x1f);
            (body, calls)
        })
        .collect();
    let starts: Vec<usize> = bodies.iter().scan(0, |at, (body, _)| Some(std::mem::replace(at, *at + body.len()))).collect();
    let mut code = Vec::new();
    for (mut body, calls) in bodies {
        for (at, to) in calls {
            let by = starts[to as usize] as i64 - (code.len() + at) as i64;
            if machine == 62 {
                body[at + 1..at + 5].copy_from_slice(&((by - 5) as i32).to_le_bytes());
            } else {
                body[at..at + 4].copy_from_slice(&(0x9400_0000 | (by / 4) as u32 & 0x03ff_ffff).to_le_bytes());
            }
        }
        code.extend(body);
    }
    code
}

fn streams(difference: &Difference) -> crate::stream::Written {
    let mut writer = StreamsWriter::default();
    difference.write(&mut writer, Kind::Program).unwrap();
    writer.finish(8 << 20).unwrap()
}

fn applied(old: &[u8], size: usize, difference: &Difference, buffer: usize) -> io::Result<Vec<u8>> {
    let written = streams(difference);
    let mut reader = StreamsReader::open(&written.sections, |i| Ok(Box::new(&written.bytes[i][..])))?;
    let mut made = Vec::new();
    let mut out = |bytes: &[u8]| {
        made.extend_from_slice(bytes);
        Ok(())
    };
    let sizes = [old.len() as u64, size as u64];
    apply(&mut reader, Kind::Program, &mut Cursor::new(old), sizes, &mut Buffers::new(buffer), &mut out)?;
    assert!(reader.unread().is_none());
    Ok(made)
}

fn cost(difference: &Difference) -> usize {
    difference.parts().iter().map(|part| zstd::bulk::compress(part, 19).unwrap().len()).sum()
}

#[test]
fn a_longer_function_costs_little() {
    for machine in [62, 183] {
        let make = |changed| file(machine, &vec![(".text", 1, 6, functions(7, machine, changed))]);
        let (old, new) = (make(usize::MAX), make(3));
        let found = difference(&old, &new, &AtomicBool::new(false)).unwrap().expect("both are programs");
        assert_eq!(applied(&old, new.len(), &found, 4096).unwrap(), new);
        let (ours, plain) = (cost(&found), cost(&bidiff::difference(&old, &new)));
        assert!(ours * 2 < plain, "{ours} bytes, and {plain} without addresses");
    }
}

#[test]
fn others_are_no_programs() {
    let program = file(62, &vec![(".text", 1, 6, vec![0x90; 100])]);
    for (at, byte) in [(0, 0), (4, 1), (5, 2), (18, 3), (54, 55), (64, 0)] {
        let mut other = program.clone();
        other[at] = byte;
        assert!(!is_program(&other), "byte {at}");
        assert_eq!(difference(&program, &other, &AtomicBool::new(false)).unwrap(), None);
    }
    assert!(is_program(&program));
    assert!(!is_program(&program[..HEAD]));
}

/// Where class data is meant to be.
const BASE: u64 = 0x8_0000_0000;

/// Class data: every other word is the address of another word; then rows of a hash and the offset of a word.
fn class_data() -> Vec<u8> {
    let mut bytes = b"\xa2\xab\x0b\xf0\0\0\0\0".to_vec();
    // A version, then a region and an empty one.
    for word in [11, 0, 4096, 0, 112_000, 7, 118_784, 114_688, 0] {
        bytes.extend(u64::to_le_bytes(word));
    }
    bytes.resize(4096, 0);
    let mut dice = Dice(11);
    for word in 0..12_000 {
        let value = if word % 2 == 0 { BASE + 8 * dice.next(12_000) } else { dice.next(1 << 31) << 9 };
        bytes.extend(value.to_le_bytes());
    }
    for _ in 0..2000 {
        bytes.extend((1 << 31 | dice.next(1 << 31) as u32).to_le_bytes());
        bytes.extend((8 * (512 + dice.next(11_000)) as u32).to_le_bytes());
    }
    bytes.extend([5; 100]);
    bytes
}

#[test]
fn addresses_in_class_data_are_expected() {
    let old = class_data();
    assert!(is_program(&old));
    // Words more at three places: addresses behind them become larger.
    let more = [704, 9000, 30_000];
    let moved = |place: u64| place + 8 * more.iter().filter(|at| **at < place).count() as u64;
    let mut new = old[..4096].to_vec();
    new[40..48].copy_from_slice(&112_024u64.to_le_bytes());
    for (at, word) in (0u64..).step_by(8).zip(old[4096..].chunks(8)) {
        match <[u8; 8]>::try_from(word).map(u64::from_le_bytes) {
            Ok(row) if (96_000..112_000).contains(&at) => {
                new.extend((moved(row >> 32) << 32 | row & u64::from(u32::MAX)).to_le_bytes());
            }
            Ok(value) if (BASE..BASE + 96_000).contains(&value) => new.extend((BASE + moved(value - BASE)).to_le_bytes()),
            _ => new.extend(word),
        }
        if more.contains(&at) {
            new.extend([9; 8]);
        }
    }
    let found = difference(&old, &new, &AtomicBool::new(false)).unwrap().expect("both are class data");
    assert_eq!(applied(&old, new.len(), &found, 4096).unwrap(), new);
    let (ours, plain) = (cost(&found), cost(&bidiff::difference(&old, &new)));
    assert!(ours * 20 < plain, "{ours} bytes, and {plain} without addresses");
    // Without regions, and with another kind of program.
    let mut other = old.clone();
    other[40..48].fill(0);
    assert!(!is_program(&other));
    let program = file(62, &vec![(".text", 1, 6, vec![0x90; 100])]);
    assert_eq!(difference(&program, &new, &AtomicBool::new(false)).unwrap(), None);
}

/// Sections of everything that has fields, of random bytes in which some are likely.
fn any_sections(seed: u64, machine: u16, len: usize) -> Sections {
    let mut dice = Dice(seed);
    let mut words = |size: usize| -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let small = dice.next(6000);
            match dice.next(5) {
                0 => bytes.extend(&dice.next(1 << 31).to_le_bytes()[..size.min(4)]),
                1 => bytes.extend([0xe8, 0x0f, 0x84, 0x48, 0x8d, 0x05, 0x94, 0xf0, 0x91][dice.next(9) as usize..].iter().take(1)),
                2 => bytes.extend([8, 0, 0, 0, 1, 0, 0, 0]),
                _ => bytes.extend(&small.to_le_bytes()[..size]),
            }
        }
        bytes
    };
    let mut sections: Sections = vec![
        (".eh_frame_hdr", 1, 2, words(4)),
        (".rela.dyn", 4, 2, words(8)),
        (".dynsym", 11, 2, words(8)),
        (".eh_frame", 1, 2, words(4)),
        (".text", 1, 6, functions(seed, machine, seed as usize % 70)),
        (".init", 1, 6, words(4)),
        (".rodata", 1, 2, words(4)),
        (".data.rel.ro", 1, 3, words(8)),
        (".debug_loc", 1, 0, words(8)),
        (".debug_str", 1, 0, words(4)),
    ];
    // One unit of entries with every kind of field: an abbreviation of six attributes.
    let abbreviation = [1, 0x2e, 0, 0x11, 0x01, 0x03, 0x0e, 0x49, 0x13, 0x02, 0x17, 0x55, 0x17, 0x3b, 0x05, 0x02, 0x18, 0, 0, 0];
    let mut info = vec![4, 0, 0, 0, 0, 0, 8];
    for _ in 0..len / 30 {
        info.push(1);
        info.extend(dice.next(6000).to_le_bytes());
        info.extend((0..4).flat_map(|_| (dice.next(4000) as u32).to_le_bytes()));
        info.extend((dice.next(4000) as u16).to_le_bytes());
        info.extend([9, 3]);
        info.extend(dice.next(6000).to_le_bytes());
    }
    let unit = [&(info.len() as u32).to_le_bytes()[..], &info].concat();
    sections.push((".debug_info", 1, 0, unit));
    sections.push((".debug_abbrev", 1, 0, abbreviation.to_vec()));
    sections
}

fn edit(bytes: &mut Vec<u8>, edits: &[(prop::sample::Index, u8, usize)]) {
    for (at, byte, len) in edits {
        let at = HEAD.min(bytes.len() - 1) + at.index(bytes.len() - HEAD.min(bytes.len() - 1));
        match len {
            0 => bytes[at] = *byte,
            n if n % 2 == 0 => drop(bytes.splice(at..at, std::iter::repeat_n(*byte, *n))),
            n => drop(bytes.drain(at..(at + n).min(bytes.len() - 1))),
        }
    }
}

fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, usize)>> {
    proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0usize..60), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_programs(seed in any::<u64>(), other in any::<bool>(), arm in any::<bool>(), len in 100usize..900, edits in edits(), buffer in 1usize..5000) {
        let machine = if arm { 183 } else { 62 };
        let old = file(machine, &any_sections(seed, machine, len));
        let mut new = file(machine, &any_sections(if other { seed + 1 } else { seed }, machine, len + seed as usize % 40));
        edit(&mut new, &edits);
        let found = difference(&old, &new, &AtomicBool::new(false)).unwrap().expect("both are programs");
        for buffer in [buffer, 1 << 16] {
            prop_assert!(applied(&old, new.len(), &found, buffer).unwrap() == new);
        }
    }

    #[test]
    fn any_class_data(edits in edits(), buffer in 1usize..5000) {
        let old = class_data();
        let mut new = old.clone();
        edit(&mut new, &edits);
        let found = difference(&old, &new, &AtomicBool::new(false)).unwrap().expect("both are class data");
        prop_assert!(applied(&old, new.len(), &found, buffer).unwrap() == new);
    }

    #[test]
    fn foreign_bytes_do_no_harm(seed in any::<u64>(), edits in edits(), head in proptest::collection::vec((0usize..300, any::<u8>()), 0..6), which in 0usize..5, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut old = file(62, &any_sections(seed, 62, 300));
        let new = file(62, &any_sections(seed + 1, 62, 300));
        let mut found = difference(&old, &new, &AtomicBool::new(false)).unwrap().expect("both are programs");
        edit(&mut old, &edits);
        for (at, byte) in head {
            old[at] = byte;
        }
        let part = [&mut found.add, &mut found.insert, &mut found.seek, &mut found.differences, &mut found.new][which].as_mut_slice();
        if !part.is_empty() {
            let at = at.index(part.len());
            part[at] = byte;
        }
        // An error or other bytes, and never more of them.
        let written = streams(&found);
        let mut reader = StreamsReader::open(&written.sections, |i| Ok(Box::new(&written.bytes[i][..]))).unwrap();
        let mut made = 0;
        let mut out = |bytes: &[u8]| { made += bytes.len(); Ok(()) };
        let sizes = [old.len() as u64, new.len() as u64];
        let _ = apply(&mut reader, Kind::Program, &mut Cursor::new(&old), sizes, &mut Buffers::new(4096), &mut out);
        prop_assert!(made <= new.len());
    }
}
