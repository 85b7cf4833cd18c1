//! What an old address became: as the runs say, and as fields decoded before tell.

use super::map::Map;
use super::program::{FILE, LINE, Program, Segment};

/// What kind of field refers to an address. Each kind has its own luck with the ways to guess.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Use {
    Call,
    Jump,
    Data,
    Word,
    Place,
    Addend,
    Symbol,
    Unwind,
    Entry,
    Own,
    Index,
    Name,
    Case,
    Text,
    DebugEntry,
    Locations,
    Ranges,
    Line,
    Listed,
    Offset,
}

const USES: usize = 20;
/// Addresses remembered exactly, as a power of two.
const EXACT_LOG: u32 = 16;
/// Neighbourhoods remembered, as a power of two, and bytes of each, as one.
const NEAR_LOG: u32 = 14;
const NEAR: u32 = 6;

/// Bytes of memory of all that is remembered.
pub(super) const MEMORY: u64 = (16 << EXACT_LOG) + (16 << NEAR_LOG);

#[derive(Clone, Copy, Default)]
struct Seen {
    old: u64,
    shift: i64,
}

pub(super) struct Targets<'a> {
    pub old: &'a Program,
    pub new: Program,
    map: &'a Map,
    exact: Vec<Seen>,
    near: Vec<Seen>,
    last: [i64; USES],
    /// For each use and way to guess, how well it did lately.
    score: [[i32; WAYS]; USES],
    guesses: [Option<u64>; WAYS],
}

/// The ways to guess, best first by experience: seen before, in a run, near one seen before, as the last of its use, near a run.
const WAYS: usize = 5;

impl<'a> Targets<'a> {
    pub(super) fn new(old: &'a Program, new: Program, map: &'a Map) -> Self {
        Self {
            old,
            new,
            map,
            exact: vec![Seen::default(); 1 << EXACT_LOG],
            near: vec![Seen::default(); 1 << NEAR_LOG],
            last: [0; USES],
            score: [[40, 30, 20, 0, 10]; USES],
            guesses: [None; WAYS],
        }
    }

    fn slot(&self, address: u64) -> usize {
        (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - EXACT_LOG)) as usize
    }

    fn near_slot(&self, address: u64) -> usize {
        ((address >> NEAR).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - NEAR_LOG)) as usize
    }

    /// The address that an old one became, probably.
    pub(super) fn guess(&mut self, kind: Use, address: u64) -> u64 {
        let exact = self.exact[self.slot(address)];
        let near = self.near[self.near_slot(address)];
        let (mapped, covered) = self.mapped(address);
        let shifted = |shift: i64| address.wrapping_add_signed(shift);
        self.guesses = [
            (exact.old == address).then(|| shifted(exact.shift)),
            covered.then_some(mapped),
            (near.old == address >> NEAR).then(|| shifted(near.shift)),
            Some(shifted(self.last[kind as usize])),
            (!covered).then_some(mapped),
        ];
        let score = &self.score[kind as usize];
        let best = (0..WAYS).filter(|&way| self.guesses[way].is_some()).max_by_key(|&way| (score[way], WAYS - way));
        best.and_then(|way| self.guesses[way]).unwrap_or(address)
    }

    /// Takes note of what the address of the last guess became.
    pub(super) fn learn(&mut self, kind: Use, address: u64, became: u64) {
        for (guess, score) in self.guesses.iter().zip(&mut self.score[kind as usize]) {
            if let Some(guess) = guess {
                let target = if *guess == became { 1 << 12 } else { 0 };
                *score += (target - *score) >> 5;
            }
        }
        if became < LINE && self.new.segment(became).is_none() {
            return;
        }
        let shift = became.wrapping_sub(address).cast_signed();
        let (slot, near) = (self.slot(address), self.near_slot(address));
        self.exact[slot] = Seen { old: address, shift };
        self.near[near] = Seen { old: address >> NEAR, shift };
        self.last[kind as usize] = shift;
    }

    /// The new place of a byte of the old file.
    pub(super) fn place(&self, old: u64) -> u64 {
        let place = u32::try_from(old).map(|old| self.map.place(old).0);
        place.map_or(old, i64::cast_unsigned)
    }

    /// The address that the runs say, and whether a run has it.
    fn mapped(&self, address: u64) -> (u64, bool) {
        if address >= FILE
            && let Ok(offset) = u32::try_from(address - FILE)
        {
            let (place, covered) = self.map.place(offset);
            return (FILE.wrapping_add_signed(place), covered);
        }
        let Some(index) = self.old.segment(address) else { return (address, false) };
        let segment = &self.old.segments[index];
        let within = address - segment.address;
        if within < segment.file_size
            && let Ok(offset) = u32::try_from(segment.offset + within)
        {
            let (place, covered) = self.map.place(offset);
            let address = u64::try_from(place).map_or(FILE, |place| self.new.stretch(place).0);
            if address < FILE {
                return (address, covered);
            }
        }
        // Memory without bytes of the file: as far behind the end of those as before.
        let new = self.new.segments.get(index);
        let shift = |new: &Segment| (new.address + new.file_size).wrapping_sub(segment.address + segment.file_size);
        (address.wrapping_add(new.map_or(0, shift)), false)
    }
}
