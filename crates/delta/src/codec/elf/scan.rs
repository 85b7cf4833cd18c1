//! A run of old bytes becomes new ones, its addresses as expected.
//!
//! Both sides do this over the same old bytes in the same order. The maker turns new bytes into differences, whoever applies turns
//! differences into new bytes; what both learn on the way is the same.

#![expect(clippy::cast_possible_truncation, reason = "fields hold the low bits of what they stand for")]

use super::fields::{AHEAD, Field, Finder, Form, arm_branch, arm_page};
use super::program::{FILE, LINE, Part};
use super::targets::Targets;
use crate::varint::{unzigzag, zigzag};

/// Which way the bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// New bytes become differences.
    Make,
    /// Differences become new bytes.
    Apply,
}

/// Goes through the runs of a content.
pub(super) struct Scan<'a> {
    targets: Targets<'a>,
    finder: Finder<'a>,
    parts: &'a [Part],
    way: Way,
    /// The new page in each register.
    pages: [u64; 32],
}

impl<'a> Scan<'a> {
    pub(super) fn new(targets: Targets<'a>, finder: Finder<'a>, parts: &'a [Part], way: Way) -> Self {
        Self { targets, finder, parts, way, pages: [0; 32] }
    }

    /// A run begins.
    pub(super) fn start(&mut self) {
        self.finder.start();
    }

    /// Goes on in a run at these places of both contents. Of `old` and `data` as many bytes are done as it says: all when they
    /// are the `last` of the run, otherwise all but fewer than [`AHEAD`].
    pub(super) fn go(&mut self, old_at: u64, new_at: u64, old: &[u8], data: &mut [u8], last: bool) -> usize {
        let stop = if last { old.len() } else { old.len().saturating_sub(AHEAD - 1) };
        let mut at = 0;
        while at < stop {
            let place = old_at + at as u64;
            let part = self.parts[self.parts.partition_point(|part| part.end <= place)..].first();
            let (part, end) = match part {
                Some(part) if part.start <= place => (Some(part), part.end),
                Some(part) => (None, part.start),
                None => (None, u64::MAX),
            };
            // Fields do not reach over the end of their part, nor over that of a segment.
            let (old_address, old_end) = self.targets.old.stretch(place);
            let (new_address, new_end) = self.targets.new.stretch(new_at + at as u64);
            let room = (end - place).min(old_end - place).min(new_end - new_at - at as u64);
            let end = at.saturating_add(usize::try_from(room).unwrap_or(usize::MAX)).min(old.len());
            let stop = stop.min(end);
            let Some(part) = part else {
                plain(self.way, &old[at..stop], &mut data[at..stop]);
                at = stop;
                continue;
            };
            let from = at;
            while at < stop {
                let within = |at: usize| (at - from) as u64;
                // Most bytes are no part of a field: they go together.
                let skip = self.finder.skip(part, &old[at..stop], old_address + within(at), place - part.start + within(at));
                plain(self.way, &old[at..at + skip], &mut data[at..at + skip]);
                self.finder.pass(&old[at..at + skip]);
                at += skip;
                if at == stop {
                    break;
                }
                let done = within(at);
                let found = self.finder.find(part, &old[at..end], old_address + done, place - part.start + done);
                let len = found.len().max(1);
                let mut next = at;
                for field in found.fields() {
                    let begin = at + field.at;
                    plain(self.way, &old[next..begin], &mut data[next..begin]);
                    next = begin + self.field(field, &old[begin..], &mut data[begin..], new_address + done);
                }
                plain(self.way, &old[next..at + len], &mut data[next..at + len]);
                self.finder.pass(&old[at..at + len]);
                at += len;
            }
        }
        at
    }

    /// A field at the start of `data`, found at this new address; its length.
    fn field(&mut self, field: &Field, old: &[u8], data: &mut [u8], here: u64) -> usize {
        let Field { form, kind, target, .. } = *field;
        let guess = self.targets.guess(kind, target);
        let sign = |value: u64| i64::from((value as u32).cast_signed());
        let became = match form {
            Form::Near { after } => {
                let base = here.wrapping_add(after);
                let value = self.number::<4>(data, guess.wrapping_sub(base));
                base.wrapping_add_signed(sign(value))
            }
            Form::Back { after } => {
                let base = here.wrapping_add(after);
                let value = self.number::<4>(data, base.wrapping_sub(guess));
                base.wrapping_sub(value)
            }
            Form::Table => {
                let base = self.targets.new.unwind_table;
                let value = self.number::<4>(data, guess.wrapping_sub(base));
                base.wrapping_add_signed(sign(value))
            }
            Form::Whole => self.number::<8>(data, guess),
            Form::From { base } => {
                let base = FILE.wrapping_add(self.targets.place(base));
                let value = self.number::<4>(data, guess.wrapping_sub(base));
                base.wrapping_add(value)
            }
            Form::Index { base } => {
                let base = FILE.wrapping_add(self.targets.place(base));
                let value = self.number::<4>(data, (guess.wrapping_sub(base).cast_signed() / 24).cast_unsigned());
                base.wrapping_add(24 * value)
            }
            Form::Line => {
                let value = self.number::<2>(data, guess);
                LINE | value
            }
            Form::Branch { low, len } => {
                let value = self.bits(old, data, ((1 << len) - 1) << low, (guess.wrapping_sub(here) >> 2 << low) as u32);
                here.wrapping_add_signed(arm_branch(value, low, len))
            }
            Form::Page { register } => {
                let pages = (guess >> 12).wrapping_sub(here >> 12);
                let bits = ((pages & 3) << 29 | (pages >> 2 & 0x7_ffff) << 5) as u32;
                let value = self.bits(old, data, 0x60ff_ffe0, bits);
                self.pages[register] = arm_page(value, here);
                // Half of an address: the other half is learnt from.
                return 4;
            }
            Form::Rest { register, scale } => {
                let bits = ((guess & 0xfff) >> scale) as u32;
                let value = self.bits(old, data, 0xfff << 10, bits << 10);
                self.pages[register] | u64::from(value >> 10 & 0xfff) << scale
            }
        };
        self.targets.learn(kind, target, became);
        form.len()
    }

    /// `N` bytes that are expected to be those of `guess`: the number that they are.
    fn number<const N: usize>(&self, data: &mut [u8], guess: u64) -> u64 {
        let data: &mut [u8; N] = (&mut data[..N]).try_into().expect("as many bytes");
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(data);
        let given = u64::from_le_bytes(bytes);
        // What of a number is beyond its bytes does not count.
        let unused = 64 - 8 * N as u32;
        let short = |value: u64| value << unused >> unused;
        let (value, put) = match self.way {
            Way::Make => (given, zigzag((given.wrapping_sub(guess) << unused).cast_signed() >> unused)),
            Way::Apply => {
                let value = short(unzigzag(given).cast_unsigned().wrapping_add(guess));
                (value, value)
            }
        };
        data.copy_from_slice(&put.to_le_bytes()[..N]);
        value
    }

    /// An instruction whose bits under `mask` are expected to be those of `bits`, and the others as they were, likewise.
    fn bits(&self, old: &[u8], data: &mut [u8], mask: u32, bits: u32) -> u32 {
        let old = u32::from_le_bytes(old[..4].try_into().expect("four bytes"));
        let guess = (old & !mask | bits & mask).to_le_bytes();
        let data: &mut [u8; 4] = (&mut data[..4]).try_into().expect("four bytes");
        let given = u32::from_le_bytes(*data);
        plain(self.way, &guess, data);
        if self.way == Way::Make { given } else { u32::from_le_bytes(*data) }
    }
}

/// Bytes without an address in them.
pub(super) fn plain(way: Way, old: &[u8], data: &mut [u8]) {
    for (data, old) in data.iter_mut().zip(old) {
        *data = match way {
            Way::Make => data.wrapping_sub(*old),
            Way::Apply => data.wrapping_add(*old),
        };
    }
}
