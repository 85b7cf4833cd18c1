//! Long equal bytes of two contents, by the hashes of the old one's blocks.

use std::io::{self, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};

use super::Sizes;
use super::pages::Pages;
use crate::hashed::cancelled;
use crate::source::ReadSeek;

/// New bytes read at once.
const WINDOW: usize = 4 << 20;
/// A seed takes so many bytes of memory.
const SEED: u64 = size_of::<Seed>() as u64;

/// Equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed {
    pub(super) new: u64,
    pub(super) old: u64,
    pub(super) len: u64,
}

/// Blocks by their hashes; of equal ones the first.
struct Blocks {
    /// For each slot the number of a block plus one, and some of its hash.
    slots: Vec<(u32, u32)>,
    block: usize,
}

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^ (hash >> 32)
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0u64, |hash, byte| hash.wrapping_mul(FACTOR).wrapping_add(u64::from(*byte) + 1))
}

impl Blocks {
    fn read(old: &mut Pages<'_>, sizes: &Sizes, cancel: &AtomicBool) -> io::Result<Self> {
        // Slots for twice the blocks, eight bytes each, in an eighth of the memory.
        let room = sizes.memory / 8 / 16;
        let mut block = sizes.block;
        while old.size() / block as u64 > room.max(16) {
            block *= 2;
        }
        let count = usize::try_from(old.size()).map_err(io::Error::other)? / block;
        let mut blocks = Self { slots: vec![(0, 0); (2 * count).next_power_of_two().max(2)], block };
        let mut window = vec![0; WINDOW.max(block) / block * block];
        let mut at = 0u64;
        let mut number = 0;
        while number < count {
            if cancel.load(Ordering::Relaxed) {
                return Err(cancelled());
            }
            let some = (window.len() / block).min(count - number);
            old.read(at, &mut window[..some * block])?;
            for bytes in window[..some * block].chunks_exact(block) {
                blocks.add(mix(hash(bytes)), u32::try_from(number).map_err(io::Error::other)?);
                number += 1;
            }
            at += (some * block) as u64;
        }
        Ok(blocks)
    }

    fn slot(&self, mixed: u64) -> usize {
        // The number of slots is a power of two.
        usize::try_from(mixed & (self.slots.len() as u64 - 1)).expect("less than the number of slots")
    }

    fn tag(mixed: u64) -> u32 {
        u32::try_from(mixed >> 32).expect("32 bits")
    }

    fn add(&mut self, mixed: u64, number: u32) {
        let mut slot = self.slot(mixed);
        // A few steps: a table that is nearly full of like blocks must not take long.
        for _ in 0..8 {
            match self.slots[slot] {
                (0, _) => {
                    self.slots[slot] = (number + 1, Self::tag(mixed));
                    return;
                }
                (_, tag) if tag == Self::tag(mixed) => return,
                _ => slot = (slot + 1) & (self.slots.len() - 1),
            }
        }
    }

    fn find(&self, mixed: u64) -> Option<u64> {
        let mut slot = self.slot(mixed);
        for _ in 0..8 {
            match self.slots[slot] {
                (0, _) => return None,
                (number, tag) if tag == Self::tag(mixed) => return Some(u64::from(number - 1) * self.block as u64),
                _ => slot = (slot + 1) & (self.slots.len() - 1),
            }
        }
        None
    }
}

/// Equal bytes of at least a block, in the order of the new content, none over another.
pub(super) fn find(
    old: &mut Pages<'_>,
    new: &mut dyn ReadSeek,
    new_size: u64,
    sizes: &Sizes,
    cancel: &AtomicBool,
) -> io::Result<Vec<Seed>> {
    let blocks = Blocks::read(old, sizes, cancel)?;
    let block = blocks.block;
    let out = (0..block).fold(1u64, |power, _| power.wrapping_mul(FACTOR));
    let most = usize::try_from(sizes.memory / 8 / SEED).unwrap_or(usize::MAX).max(16);
    let mut least = block as u64;
    let mut seeds: Vec<Seed> = Vec::new();
    let mut window = vec![0; WINDOW.max(2 * block)];
    let mut start = 0u64;
    while start + block as u64 <= new_size {
        if cancel.load(Ordering::Relaxed) {
            return Err(cancelled());
        }
        let len = usize::try_from(new_size - start).unwrap_or(usize::MAX).min(window.len());
        new.seek(SeekFrom::Start(start))?;
        new.read_exact(&mut window[..len])?;
        let bytes = &window[..len];
        let mut at = 0;
        // Nothing before this may be taken again.
        let mut free = 0;
        // The last seed goes on.
        if let Some(last) = seeds.last_mut().filter(|last| last.new + last.len == start) {
            let more = forward(old, last.old + last.len, bytes)?;
            last.len += more as u64;
            (at, free) = (more, more);
        }
        let mut rolled = None;
        while at + block <= len {
            let value = match rolled {
                Some(value) => value,
                None => hash(&bytes[at..at + block]),
            };
            let found = match blocks.find(mix(value)) {
                Some(place) => longest(old, place, seeds.last(), start, bytes, at, free, block)?,
                None => None,
            };
            if let Some(seed) = found {
                at = usize::try_from(seed.new + seed.len - start).map_err(io::Error::other)?;
                free = at;
                rolled = None;
                match seeds.last_mut() {
                    Some(last) if last.new + last.len == seed.new && last.old + last.len == seed.old => last.len += seed.len,
                    _ if seed.len >= least => seeds.push(seed),
                    _ => {}
                }
                if seeds.len() >= most {
                    // The short ones go.
                    least *= 2;
                    seeds.retain(|seed| seed.len >= least);
                }
                continue;
            }
            rolled = bytes.get(at + block).map(|&next| {
                let gone = out.wrapping_mul(u64::from(bytes[at]) + 1);
                value.wrapping_mul(FACTOR).wrapping_add(u64::from(next) + 1).wrapping_sub(gone)
            });
            at += 1;
        }
        // The last bytes are looked at again with those that follow.
        start += at.min(len) as u64;
    }
    Ok(seeds)
}

/// The equal bytes around `bytes[at..]` and this old place, or where the last seed leads when those are as good.
#[expect(clippy::too_many_arguments, reason = "the parts of `find` that it reads")]
fn longest(
    old: &mut Pages<'_>,
    place: u64,
    last: Option<&Seed>,
    start: u64,
    bytes: &[u8],
    at: usize,
    free: usize,
    block: usize,
) -> io::Result<Option<Seed>> {
    let here = start + at as u64;
    let along = last.map(|last| last.old + (here - last.new)).filter(|along| *along != place);
    let mut best: Option<Seed> = None;
    for place in along.into_iter().chain([place]) {
        let ahead = forward(old, place, &bytes[at..])?;
        if ahead < block {
            continue;
        }
        let behind = backward(old, place, &bytes[free..at])?;
        let seed = Seed { new: here - behind as u64, old: place - behind as u64, len: (ahead + behind) as u64 };
        if best.is_none_or(|best| seed.len > best.len) {
            best = Some(seed);
        }
    }
    Ok(best)
}

/// How many bytes from an old place on are these.
fn forward(old: &mut Pages<'_>, mut place: u64, bytes: &[u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        let page = old.from(place)?;
        let step = page.len().min(bytes.len() - len);
        let same = crate::codec::common(&page[..step], &bytes[len..len + step]);
        len += same;
        place += same as u64;
        if same < step || step == 0 {
            break;
        }
    }
    Ok(len)
}

/// How many bytes up to an old place are the last of these.
fn backward(old: &mut Pages<'_>, mut place: u64, bytes: &[u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        let page = old.to(place)?;
        let rest = &bytes[..bytes.len() - len];
        let step = page.len().min(rest.len());
        let same = page.iter().rev().zip(rest.iter().rev()).take_while(|(a, b)| a == b).count();
        len += same;
        place -= same as u64;
        if same < step || step == 0 {
            break;
        }
    }
    Ok(len)
}
