//! The program gzip itself gives the same bytes, whatever the content and the level.

use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::Deflater;

fn ours(plain: &[u8], level: u8) -> Vec<u8> {
    let mut deflater = Deflater::new(Vec::new(), level);
    deflater.write_all(plain).unwrap();
    deflater.finish().unwrap()
}

/// What `gzip` makes of a file of these bytes, without the ten bytes before and the eight after.
fn theirs(plain: &[u8], level: u8) -> Vec<u8> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(plain).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let done = Command::new("gzip").args(["-nc", &format!("-{level}")]).stdin(file).stderr(Stdio::inherit()).output().unwrap();
    assert!(done.status.success(), "gzip ended with {}", done.status);
    done.stdout[10..done.stdout.len() - 8].to_vec()
}

fn check(plain: &[u8], level: u8) {
    let (ours, theirs) = (ours(plain, level), theirs(plain, level));
    let same = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
    assert!(ours == theirs, "level {level}, {} plain bytes: {} coded, {} by gzip, {same} alike", plain.len(), ours.len(), theirs.len());
}

/// Numbers that look random.
fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

fn byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

/// Contents of several kinds: noise, few different bytes, words, lines with a little of their own, zeros with bytes between them,
/// pieces of what was before, and all of them in turn.
fn content(kind: u64, seed: u64, len: usize) -> Vec<u8> {
    let mut next = random(seed);
    let mut out = Vec::with_capacity(len + 400);
    let words: Vec<Vec<u8>> = (0..800).map(|_| (0..2 + next(9)).map(|_| b'a' + byte(next(26))).collect()).collect();
    while out.len() < len {
        let turn = if kind == 6 { out.len() as u64 / 20_000 % 6 } else { kind };
        match turn {
            0 => out.push(byte(next(256))),
            1 => out.push(b'a' + byte(next(3))),
            2 => {
                // Some words are far more frequent.
                let word = next(800) * next(800) / 800;
                out.extend(&words[usize::try_from(word).unwrap()]);
                out.push(if next(12) == 0 { b'\n' } else { b' ' });
            }
            3 => out.extend(format!("  * a line of a log, number {}, with {:x}\n", next(50), next(1 << 20)).into_bytes()),
            4 => {
                out.resize(out.len() + usize::try_from(next(300)).unwrap(), 0);
                out.push(byte(next(256)));
            }
            _ => {
                let back = usize::try_from(next(40_000)).unwrap().min(out.len());
                let copy = out[out.len() - back..].iter().copied().take(usize::try_from(next(400)).unwrap()).collect::<Vec<_>>();
                out.extend(copy);
                out.push(byte(next(256)));
            }
        }
    }
    out.truncate(len);
    out
}

#[test]
fn sizes_at_which_something_changes() {
    // None, less than a match; a window, two, and what is left of them when they move; blocks of bytes alone.
    let around = |size: usize| size.saturating_sub(3)..size + 3;
    let sizes = (0..6).chain([258, 262, 32_767, 65_274, 65_536, 65_536 + 32_768 - 262, 98_304, 131_072].into_iter().flat_map(around));
    for (size, seed) in sizes.zip(0..) {
        for kind in [0, 1, 3] {
            check(&content(kind, seed, size), if seed % 2 == 0 { 9 } else { 1 + byte(seed % 9) });
        }
    }
}

#[test]
fn every_level_of_every_kind() {
    for kind in 0..7 {
        let plain = content(kind, kind, 400_000);
        (1..=9).for_each(|level| check(&plain, level));
    }
}

#[test]
fn codes_of_the_longest_bits() {
    // Bytes as frequent as the numbers of Fibonacci: their code would be deeper than it may be.
    let mut plain = Vec::new();
    let (mut a, mut b) = (1usize, 1usize);
    for byte in 0..20u8 {
        plain.extend(std::iter::repeat_n(byte, a));
        (a, b) = (b, a + b);
    }
    // Shuffled, so that there are no long matches.
    let mut next = random(5);
    for at in (1..plain.len()).rev() {
        plain.swap(at, usize::try_from(next(at as u64 + 1)).unwrap());
    }
    (1..=9).for_each(|level| check(&plain, level));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_content(kind in 0u64..7, seed in any::<u64>(), len in prop_oneof![0usize..3000, 0usize..300_000], level in 1u8..=9) {
        check(&content(kind, seed, len), level);
    }
}

/// What `gzip` 1.12 made of a content of each kind, by the checksum of what it made.
#[test]
fn fixed_vectors() {
    let sums: Vec<(usize, u32)> = [(2, 9), (3, 6), (4, 1), (6, 9), (6, 4)]
        .into_iter()
        .map(|(kind, level)| {
            let coded = ours(&content(kind, 7, 200_000), level);
            let mut crc = flate2::Crc::new();
            crc.update(&coded);
            (coded.len(), crc.sum())
        })
        .collect();
    assert_eq!(
        sums,
        [(66267, 3_844_769_712), (27034, 2_490_852_189), (6494, 4_027_319_287), (80514, 3_465_615_432), (83520, 1_983_812_515)]
    );
}
