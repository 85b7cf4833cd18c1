//! Finding the fields of a program that hold addresses. A cheap look at the bytes, without knowing where instructions begin: what is
//! wrongly taken for a field only costs bytes.

use super::debug::{Debug, Item};
use super::program::{FILE, Holds, LINE, Machine, Part, Program, u32_at, u64_at};
use super::targets::Use;

/// So many bytes ahead of a place decide what is there.
pub(super) const AHEAD: usize = 24;

/// A field, in bytes from where it was looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Field {
    pub at: usize,
    pub form: Form,
    pub kind: Use,
    /// The address that it refers to.
    pub target: u64,
}

/// How a field holds an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// Four bytes: how far from the place so many bytes after where it was looked for.
    Near { after: u64 },
    /// Four bytes: how far back from there.
    Back { after: u64 },
    /// Four bytes: how far from the start of the unwinding table.
    Table,
    /// Eight bytes: the address.
    Whole,
    /// Four bytes: how far behind the place where this byte of the old file went.
    From { base: u64 },
    /// Four bytes: which entry of 24 bytes behind the place where this byte of the old file went.
    Index { base: u64 },
    /// Two bytes: a number of a line.
    Line,
    /// Bits of an instruction: how many words from here.
    Branch { low: u32, len: u32 },
    /// An instruction that puts a page into a register.
    Page { register: usize },
    /// An instruction that adds the rest to that register.
    Rest { register: usize, scale: u32 },
}

impl Form {
    /// Bytes of the field.
    pub(super) fn len(self) -> usize {
        match self {
            Self::Whole => 8,
            Self::Line => 2,
            _ => 4,
        }
    }
}

/// What was found: how many bytes were understood, and the fields in them.
pub(super) enum Found {
    Nothing,
    One(usize, Field),
    /// An unwinding entry, and what a language adds to it.
    Entry(usize, [Field; 2], Option<Field>),
}

impl Found {
    /// Bytes that were understood, 0 when nothing was found.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::One(len, _) | Self::Entry(len, ..) => *len,
        }
    }

    /// The fields in the order of their places.
    pub(super) fn fields(&self) -> impl Iterator<Item = &Field> {
        let (fields, own): (&[Field], _) = match self {
            Self::Nothing => (&[], &None),
            Self::One(_, field) => (std::slice::from_ref(field), &None),
            Self::Entry(_, fields, own) => (fields, own),
        };
        fields.iter().chain(own)
    }
}

/// Looks for fields from place to place.
pub(super) struct Finder<'a> {
    program: &'a Program,
    debug: &'a Debug,
    /// Where the table that this place may be in begins.
    table: Option<u64>,
    /// The last eight bytes, the latest lowest.
    before: u64,
    /// The old page in each register.
    pages: [Option<u64>; 32],
}

const NONE: Found = Found::Nothing;

fn one(len: usize, field: Field) -> Found {
    Found::One(len, field)
}

/// Bytes that an x86 field with its opcode may begin with.
const X86: [bool; 256] = {
    let mut known = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        known[byte] = matches!(byte, 0xe8 | 0xe9 | 0x0f) || byte & 0xc7 == 5;
        byte += 1;
    }
    known
};

impl<'a> Finder<'a> {
    pub(super) fn new(program: &'a Program, debug: &'a Debug) -> Self {
        Self { program, debug, table: None, before: 0, pages: [None; 32] }
    }

    /// Forgets what came before.
    pub(super) fn start(&mut self) {
        self.before = 0;
        self.table = None;
        self.pages = [None; 32];
    }

    /// These bytes are behind.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        for byte in &bytes[bytes.len().saturating_sub(8)..] {
            self.before = self.before << 8 | u64::from(*byte);
        }
    }

    /// How many of the first `bytes` begin nothing for sure: [`find`](Self::find) would find nothing there and note nothing.
    pub(super) fn skip(&self, part: &Part, bytes: &[u8], here: u64, within: u64) -> usize {
        // To the next of these places in rows of so many bytes.
        let to = |at: u64, row: u64, places: &[u64]| {
            let at = at % row;
            let next = places.iter().copied().chain([row]).find(|place| *place >= at).unwrap_or(row);
            usize::try_from(next - at).unwrap_or(0)
        };
        let skip = match (part.holds, self.program.machine) {
            (Holds::Code, Machine::X86) => return bytes.iter().position(|byte| X86[usize::from(*byte)]).unwrap_or(bytes.len()),
            (Holds::Code, Machine::Arm) | (Holds::Constants, _) => to(here, 4, &[0]),
            (Holds::Relocations, _) => to(within, 24, &[0, 12, 16]),
            (Holds::Symbols, _) => to(within, 24, &[0, 8]),
            (Holds::Unwind | Holds::UnwindTable, _) => to(within, 4, &[0]),
            (Holds::Words, _) => to(within, 8, &[0]),
            (Holds::ClassData, _) => to(within, 4, &[0]),
            (Holds::Debug, _) => self.debug.next(within).map_or(bytes.len(), |next| usize::try_from(next - within).unwrap_or(bytes.len())),
            (Holds::Addresses, _) => 0,
        };
        skip.min(bytes.len())
    }

    /// What begins here: `bytes` at this address, so many bytes into their part. A length of 0 when it is nothing known.
    pub(super) fn find(&mut self, part: &Part, bytes: &[u8], here: u64, within: u64) -> Found {
        match (part.holds, self.program.machine) {
            (Holds::Code, Machine::X86) => self.x86(bytes, here),
            (Holds::Code, Machine::Arm) => self.arm(bytes, here),
            (Holds::Relocations, _) => self.relocation(bytes, within, part.link),
            (Holds::Symbols, _) => self.symbol(bytes, within, part.link),
            (Holds::Unwind, _) => self.unwind(bytes, here, within),
            (Holds::UnwindTable, _) => self.unwind_table(bytes, within),
            (Holds::Words, _) => self.word(bytes, within),
            (Holds::ClassData, _) => self.class_data(bytes, within),
            (Holds::Constants, _) => self.constant(bytes, here),
            (Holds::Debug, _) => self.debug(bytes, within),
            (Holds::Addresses, _) => self.address(bytes),
        }
    }

    fn class_data(&self, bytes: &[u8], within: u64) -> Found {
        if within.is_multiple_of(8) {
            let whole = self.word(bytes, within);
            if whole.len() > 0 {
                return whole;
            }
        }
        // Tables of names have rows of a hash and an offset.
        let offset = |at: usize| u32_at(bytes, at).filter(|number| self.program.is_offset(*number));
        let is_hash = |at: usize| {
            u32_at(bytes, at).is_some_and(|number| self.program.segment(self.program.unwind_table + u64::from(number)).is_none())
        };
        match (offset(0), offset(8), offset(16)) {
            (Some(number), Some(_), Some(_)) if is_hash(4) && is_hash(12) => {
                let target = self.program.unwind_table.wrapping_add(u64::from(number));
                one(4, Field { at: 0, form: Form::Table, kind: Use::Offset, target })
            }
            _ => NONE,
        }
    }

    fn x86(&self, bytes: &[u8], here: u64) -> Found {
        let (at, after, kind, code) = match *bytes {
            [0xe8, ..] => (1, 5, Use::Call, true),
            [0xe9, ..] => (1, 5, Use::Jump, true),
            [0x0f, 0x80..=0x8f, ..] => (2, 6, Use::Jump, true),
            [modrm, ..] if modrm & 0xc7 == 5 => match x86_behind(self.before, modrm) {
                Some(behind) => (1, 5 + behind, if modrm == 0x15 || modrm == 0x25 { Use::Word } else { Use::Data }, false),
                None => return NONE,
            },
            _ => return NONE,
        };
        let Some(by) = u32_at(bytes, at) else { return NONE };
        let target = here.wrapping_add(after).wrapping_add_signed(i64::from(by.cast_signed()));
        let likely = if code { self.program.is_code(target) } else { self.program.segment(target).is_some() };
        if likely { one(at + 4, Field { at, form: Form::Near { after }, kind, target }) } else { NONE }
    }

    fn arm(&mut self, bytes: &[u8], here: u64) -> Found {
        let Some(word) = u32_at(bytes, 0).filter(|_| here.is_multiple_of(4)) else { return NONE };
        let (low, len, kind) = match word >> 24 {
            0x94..=0x97 => (0, 26, Use::Call),
            0x14..=0x17 => (0, 26, Use::Jump),
            0x54 if word & 0x10 == 0 => (5, 19, Use::Jump),
            0x34 | 0x35 | 0xb4 | 0xb5 => (5, 19, Use::Jump),
            0x36 | 0x37 | 0xb6 | 0xb7 => (5, 14, Use::Jump),
            0x90 | 0xb0 | 0xd0 | 0xf0 => return self.arm_page(bytes, word, here),
            _ => return self.arm_rest(word),
        };
        let target = here.wrapping_add_signed(arm_branch(word, low, len));
        if !self.program.is_code(target) {
            return NONE;
        }
        one(4, Field { at: 0, form: Form::Branch { low, len }, kind, target })
    }

    fn arm_page(&mut self, bytes: &[u8], word: u32, here: u64) -> Found {
        let page = arm_page(word, here);
        let register = (word & 31) as usize;
        self.pages[register] = None;
        if self.program.segment(page | 0xfff).is_none() && self.program.segment(page).is_none() {
            return NONE;
        }
        self.pages[register] = Some(page);
        // The rest of the address is in an instruction that follows soon.
        let uses = |next: u32| if (next >> 5 & 31) as usize == register { arm_offset(next) } else { None };
        let rest = (1..AHEAD / 4).filter_map(|n| u32_at(bytes, n * 4)).find_map(uses);
        one(4, Field { at: 0, form: Form::Page { register }, kind: Use::Data, target: page | rest.unwrap_or(0) })
    }

    fn arm_rest(&mut self, word: u32) -> Found {
        let register = (word >> 5 & 31) as usize;
        let (Some(offset), Some(page)) = (arm_offset(word), self.pages[register]) else { return NONE };
        if (word & 31) as usize == register {
            self.pages[register] = None;
        }
        one(4, Field { at: 0, form: Form::Rest { register, scale: arm_scale(word) }, kind: Use::Data, target: page | offset })
    }

    fn relocation(&self, bytes: &[u8], within: u64, link: u64) -> Found {
        const RELATIVE: [u32; 4] = [8, 37, 1027, 1032];
        let kind = match within % 24 {
            0 => Use::Place,
            12 if link != 0 => {
                let index = |index: u32| {
                    one(4, Field { at: 0, form: Form::Index { base: link }, kind: Use::Index, target: FILE + link + 24 * u64::from(index) })
                };
                return u32_at(bytes, 0).filter(|index| *index != 0).map_or(NONE, index);
            }
            16 if RELATIVE.contains(&((self.before >> 32) as u32).swap_bytes()) => Use::Addend,
            _ => return NONE,
        };
        u64_at(bytes, 0).map_or(NONE, |target| one(8, Field { at: 0, form: Form::Whole, kind, target }))
    }

    fn symbol(&self, bytes: &[u8], within: u64, link: u64) -> Found {
        match within % 24 {
            0 if link != 0 => {
                let name = |name: u32| {
                    one(4, Field { at: 0, form: Form::From { base: link }, kind: Use::Name, target: FILE + link + u64::from(name) })
                };
                u32_at(bytes, 0).filter(|name| *name != 0).map_or(NONE, name)
            }
            8 => {
                let value = u64_at(bytes, 0).filter(|value| self.program.segment(*value).is_some() && *value != 0);
                value.map_or(NONE, |target| one(8, Field { at: 0, form: Form::Whole, kind: Use::Symbol, target }))
            }
            _ => NONE,
        }
    }

    /// An entry of a table of cases says how far the case is from the start of its table.
    fn constant(&mut self, bytes: &[u8], here: u64) -> Found {
        if !here.is_multiple_of(4) {
            return NONE;
        }
        let Some(by) = u32_at(bytes, 0) else { return NONE };
        let start = self.table.unwrap_or(here);
        let target = start.wrapping_add_signed(i64::from(by.cast_signed()));
        if by == 0 || !self.program.is_code(target) {
            self.table = None;
            return NONE;
        }
        self.table = Some(start);
        one(4, Field { at: 0, form: Form::Near { after: start.wrapping_sub(here) }, kind: Use::Case, target })
    }

    fn debug(&self, bytes: &[u8], within: u64) -> Found {
        let Some((item, unit)) = self.debug.field(within) else { return NONE };
        let places = &self.debug.places;
        let from = |base: u64, kind: Use| {
            let target = u32_at(bytes, 0).map(|value| FILE + base + u64::from(value));
            target.map_or(NONE, |target| one(4, Field { at: 0, form: Form::From { base }, kind, target }))
        };
        match item {
            Item::Address => self.address(bytes),
            Item::Text => from(places.text, Use::Text),
            Item::Entry => from(places.info.0 + unit, Use::DebugEntry),
            Item::Locations => from(places.locations, Use::Locations),
            Item::Ranges => from(places.ranges, Use::Ranges),
            Item::Line => match *bytes {
                [low, high, ..] => {
                    let line = u64::from(u16::from_le_bytes([low, high]));
                    one(2, Field { at: 0, form: Form::Line, kind: Use::Line, target: LINE | line })
                }
                _ => NONE,
            },
        }
    }

    fn address(&self, bytes: &[u8]) -> Found {
        let value = u64_at(bytes, 0).filter(|value| *value > 0x200 && self.program.segment(*value).is_some());
        value.map_or(NONE, |target| one(8, Field { at: 0, form: Form::Whole, kind: Use::Listed, target }))
    }

    fn unwind(&self, bytes: &[u8], here: u64, within: u64) -> Found {
        let (Some(len), Some(back), Some(by)) = (u32_at(bytes, 0), u32_at(bytes, 4), u32_at(bytes, 8)) else { return NONE };
        let place = |at: u64, by: u32| here.wrapping_add(at).wrapping_add_signed(i64::from(by.cast_signed()));
        let target = place(8, by);
        let likely = within.is_multiple_of(4)
            && (12..1 << 16).contains(&len)
            && len.is_multiple_of(4)
            && back != 0
            && u64::from(back) <= within + 4
            && bytes.len() >= 16;
        if !likely || !self.program.is_code(target) {
            return NONE;
        }
        let entry = Field { at: 4, form: Form::Back { after: 4 }, kind: Use::Entry, target: here + 4 - u64::from(back) };
        let code = Field { at: 8, form: Form::Near { after: 8 }, kind: Use::Unwind, target };
        // What a language adds: where its own table for the function is.
        let own = match (bytes.get(16), u32_at(bytes, 17)) {
            (Some(4), Some(by)) => Some(place(17, by)).filter(|target| self.program.segment(*target).is_some()),
            _ => None,
        };
        let own = own.map(|target| Field { at: 17, form: Form::Near { after: 17 }, kind: Use::Own, target });
        Found::Entry(if own.is_some() { 21 } else { 16 }, [entry, code], own)
    }

    fn unwind_table(&self, bytes: &[u8], within: u64) -> Found {
        let Some(by) = u32_at(bytes, 0).filter(|_| within >= 12 && within.is_multiple_of(4)) else { return NONE };
        let target = self.program.unwind_table.wrapping_add_signed(i64::from(by.cast_signed()));
        let kind = if within % 8 == 4 { Use::Unwind } else { Use::Entry };
        one(4, Field { at: 0, form: Form::Table, kind, target })
    }

    fn word(&self, bytes: &[u8], within: u64) -> Found {
        let value = u64_at(bytes, 0).filter(|value| within.is_multiple_of(8) && *value > 0x200 && self.program.segment(*value).is_some());
        value.map_or(NONE, |target| one(8, Field { at: 0, form: Form::Whole, kind: Use::Word, target }))
    }
}

/// Bytes of an instruction behind a displacement, from the bytes before its ModRM byte; `None` when there is no such instruction.
fn x86_behind(before: u64, modrm: u8) -> Option<u64> {
    let [.., five, four, three, escape, opcode] = before.to_be_bytes();
    if escape == 0x0f || three == 0xc5 || four == 0xc4 {
        let immediate = matches!(opcode, 0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6);
        return Some(u64::from(immediate || four == 0xc4 && three & 31 == 3));
    }
    if three == 0x0f && (escape == 0x38 || escape == 0x3a) {
        return Some(u64::from(escape == 0x3a));
    }
    match (opcode, modrm >> 3 & 7) {
        (0x80 | 0x83 | 0x6b | 0xc0 | 0xc1 | 0xc6, _) | (0xf6, 0..2) => Some(1),
        (0x81 | 0xc7, _) if escape == 0x66 => Some(2),
        (0x81 | 0xc7 | 0x69, _) | (0xf7, 0..2) => Some(4),
        (0x63 | 0x84..=0x8d | 0xd0..=0xd3 | 0xd8..=0xdf | 0xf6 | 0xf7 | 0xfe | 0xff, _) => Some(0),
        (opcode, _) if opcode & 0xc4 == 0 => Some(0),
        _ => (five == 0x62).then_some(0),
    }
}

/// How far a branch goes, in bytes.
pub(super) fn arm_branch(word: u32, low: u32, len: u32) -> i64 {
    i64::from((word << (32 - low - len)).cast_signed() >> (32 - len)) * 4
}

/// The page that an instruction at this address puts into its register.
pub(super) fn arm_page(word: u32, here: u64) -> u64 {
    let pages = ((word >> 5 & 0x7_ffff) << 13 | (word >> 29 & 3) << 11).cast_signed() >> 11;
    (here & !0xfff).wrapping_add_signed(i64::from(pages) << 12)
}

/// The low bits of an address that an instruction adds to its base; `None` when it is none that does.
fn arm_offset(word: u32) -> Option<u64> {
    let offset = u64::from(word >> 10 & 0xfff);
    match word >> 24 {
        0x91 if word >> 22 & 3 == 0 => Some(offset),
        0x39 | 0x79 | 0xb9 | 0xf9 | 0x3d | 0x7d | 0xbd | 0xfd => Some(offset << arm_scale(word)).filter(|offset| *offset < 0x1000),
        _ => None,
    }
}

/// How far the low bits are shifted, by the size of what is loaded or stored.
fn arm_scale(word: u32) -> u32 {
    match word >> 24 {
        0x91 => 0,
        0x3d if word >> 23 & 1 == 1 => 4,
        _ => word >> 30,
    }
}
