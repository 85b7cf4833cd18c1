//! The fields of debugging information (DWARF 2 to 5): where they are, found by walking it once from its start.

use std::io::{self, BufRead, BufReader, Read, SeekFrom};

use crate::source::ReadSeek;

/// Fields of one file; those beyond are not found.
pub(super) const FIELDS: usize = 1 << 18;
/// Units of one file, and bytes of abbreviations that are read for all of them; beyond these no fields are found. A unit can have 11
/// bytes and all abbreviations.
const UNITS: usize = 1 << 15;
const PARSED: u64 = 16 << 20;
/// Bytes of abbreviations.
const ABBREVIATIONS: u64 = 64 << 10;
/// Numbers of abbreviations of one unit.
const CODES: u64 = 4096;
/// Bytes of memory that walking and its fields need.
pub(super) const MEMORY: u64 = 4 * FIELDS as u64 + 4 * UNITS as u64 + 4 * ABBREVIATIONS + 24 * CODES;

/// What a field holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Item {
    /// Eight bytes: an address.
    Address,
    /// Four bytes: a place in the strings.
    Text,
    /// Four bytes: a place in its unit.
    Entry,
    /// Four bytes: a place in the lists of locations.
    Locations,
    /// Four bytes: a place in the lists of ranges.
    Ranges,
    /// Two bytes: a line of the source.
    Line,
}

const ITEMS: [Item; 6] = [Item::Address, Item::Text, Item::Entry, Item::Locations, Item::Ranges, Item::Line];

/// Where the sections of debugging information are in the file.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Places {
    pub info: (u64, u64),
    pub abbreviations: (u64, u64),
    pub text: u64,
    pub locations: u64,
    pub ranges: u64,
}

/// The fields.
#[derive(Debug, Default)]
pub(super) struct Debug {
    pub places: Places,
    /// In order: bytes from the start of the section, times eight, plus the item.
    fields: Vec<u32>,
    /// Where units begin.
    units: Vec<u32>,
}

/// Attributes and their forms.
type Attributes = Vec<(u16, u16)>;

impl Debug {
    /// Walks the information until its end, or until something unknown.
    pub(super) fn read(file: &mut dyn ReadSeek, places: Places) -> io::Result<Self> {
        let mut debug = Self { places, fields: Vec::new(), units: Vec::new() };
        let (start, size) = places.info;
        if size == 0 || size >= 1 << 29 {
            return Ok(debug);
        }
        file.seek(SeekFrom::Start(places.abbreviations.0))?;
        let mut abbreviations = Vec::new();
        file.take(places.abbreviations.1.min(ABBREVIATIONS)).read_to_end(&mut abbreviations)?;
        file.seek(SeekFrom::Start(start))?;
        let mut walk = Walk::new(BufReader::with_capacity(8192, file.take(size)));
        // What cannot be walked has no fields known.
        while debug.fields.len() < FIELDS && debug.units.len() < UNITS && walk.unit(&abbreviations, &mut debug).is_some() {}
        Ok(debug)
    }

    /// Where the first field begins that is no less than so many bytes into the information.
    pub(super) fn next(&self, within: u64) -> Option<u64> {
        let within = u32::try_from(within).ok()?;
        self.fields.get(self.fields.partition_point(|field| field >> 3 < within)).map(|field| u64::from(field >> 3))
    }

    /// The field that begins so many bytes into the information, and where its unit begins.
    pub(super) fn field(&self, within: u64) -> Option<(Item, u64)> {
        let within = u32::try_from(within).ok()?;
        let field = *self.fields.get(self.fields.partition_point(|field| field >> 3 < within))?;
        let unit = self.units.get(self.units.partition_point(|unit| *unit <= within).checked_sub(1)?)?;
        (field >> 3 == within).then(|| (ITEMS[(field & 7) as usize], u64::from(*unit)))
    }
}

struct Walk<R> {
    bytes: R,
    at: u64,
    /// The abbreviations of the last unit and where they are, and bytes read for those of all.
    table: (u64, Vec<Attributes>),
    parsed: u64,
}

impl<R: BufRead> Walk<R> {
    fn new(bytes: R) -> Self {
        Self { bytes, at: 0, table: (u64::MAX, Vec::new()), parsed: 0 }
    }

    fn unit(&mut self, abbreviations: &[u8], debug: &mut Debug) -> Option<()> {
        let start = self.at;
        let end = self.at.checked_add(4)?.checked_add(self.fixed(4)?).filter(|end| *end < 1 << 29)?;
        let version = self.fixed(2)?;
        let (table, plain) = match version {
            2..=4 => (self.fixed(4)?, self.fixed(1)? == 8),
            5 => {
                let plain = matches!(self.fixed(1)?, 1 | 3);
                let plain = self.fixed(1)? == 8 && plain;
                (self.fixed(4)?, plain)
            }
            _ => return None,
        };
        if self.table.0 != table {
            let (attributes, len) = parse(abbreviations.get(usize::try_from(table).ok()?..)?)?;
            self.parsed += len;
            if self.parsed > PARSED {
                return None;
            }
            self.table = (table, attributes);
        }
        // Not put back when something is unknown: the walk ends there.
        let (place, table) = std::mem::take(&mut self.table);
        debug.units.push(u32::try_from(start).ok()?);
        while plain && self.at < end && debug.fields.len() < FIELDS {
            let code = self.leb()?;
            if code == 0 {
                continue;
            }
            for &(attribute, form) in table.get(usize::try_from(code).ok()?)? {
                self.attribute(attribute, form, debug)?;
            }
        }
        self.table = (place, table);
        self.skip(end.checked_sub(self.at)?)
    }

    fn attribute(&mut self, attribute: u16, form: u16, debug: &mut Debug) -> Option<()> {
        let mut note = |item: Item, at: u64| {
            if let (true, Ok(at)) = (debug.fields.len() < FIELDS && at < 1 << 29, u32::try_from(at)) {
                debug.fields.push(at << 3 | item as u32);
            }
        };
        let len = match form {
            0x01 => {
                note(Item::Address, self.at);
                8
            }
            0x0e => {
                note(Item::Text, self.at);
                4
            }
            0x13 => {
                note(Item::Entry, self.at);
                4
            }
            0x17 => {
                match attribute {
                    0x10 => {}
                    0x55 => note(Item::Ranges, self.at),
                    _ => note(Item::Locations, self.at),
                }
                4
            }
            0x05 => {
                if matches!(attribute, 0x3b | 0x59) {
                    note(Item::Line, self.at);
                }
                2
            }
            0x03 => self.fixed(2)?,
            0x04 => self.fixed(4)?,
            0x0a => self.fixed(1)?,
            0x09 => self.leb()?,
            0x18 => {
                let len = self.leb()?;
                let first = if len >= 9 { self.fixed(1)? } else { 0 };
                // An expression that begins with an address.
                if first == 3 {
                    note(Item::Address, self.at);
                }
                if len >= 9 { len - 1 } else { len }
            }
            0x08 => {
                while self.fixed(1)? != 0 {}
                0
            }
            0x0d | 0x0f | 0x15 | 0x1a | 0x1b | 0x22 | 0x23 => {
                self.leb()?;
                0
            }
            0x0b | 0x0c | 0x11 | 0x25 | 0x29 => 1,
            0x12 | 0x26 | 0x2a => 2,
            0x27 | 0x2b => 3,
            0x06 | 0x10 | 0x1c | 0x1d | 0x1f | 0x28 | 0x2c => 4,
            0x07 | 0x14 | 0x20 => 8,
            0x1e => 16,
            0x19 | 0x21 => 0,
            _ => return None,
        };
        self.skip(len)
    }

    fn fixed(&mut self, len: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        self.bytes.read_exact(&mut bytes[..len]).ok()?;
        self.at += len as u64;
        Some(u64::from_le_bytes(bytes))
    }

    fn leb(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.fixed(1)?;
            value |= (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn skip(&mut self, len: u64) -> Option<()> {
        let mut left = len;
        while left > 0 {
            let held = self.bytes.fill_buf().ok()?.len();
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(held);
            if step == 0 {
                return None;
            }
            self.bytes.consume(step);
            left -= step as u64;
        }
        self.at += len;
        Some(())
    }
}

/// The abbreviations of a unit, by their codes, and how many bytes they have.
fn parse(bytes: &[u8]) -> Option<(Vec<Attributes>, u64)> {
    let mut walk = Walk::new(bytes);
    let mut table = Vec::new();
    loop {
        let code = walk.leb()?;
        if code == 0 {
            return Some((table, walk.at));
        }
        if code >= CODES {
            return None;
        }
        walk.leb()?;
        walk.fixed(1)?;
        let mut attributes = Vec::new();
        loop {
            let (attribute, form) = (walk.leb()?, walk.leb()?);
            if form == 0x21 {
                walk.leb()?;
            }
            if (attribute, form) == (0, 0) {
                break;
            }
            attributes.push((u16::try_from(attribute).ok()?, u16::try_from(form).ok()?));
        }
        let code = usize::try_from(code).ok()?;
        if table.len() <= code {
            table.resize(code + 1, Vec::new());
        }
        table[code] = attributes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_field_of_a_unit() {
        let abbreviations =
            [1, 0x2e, 0, 0x11, 0x01, 0x03, 0x08, 0x49, 0x13, 0x02, 0x17, 0x55, 0x17, 0x3b, 0x05, 0x02, 0x18, 0x03, 0x0e, 0, 0, 0];
        let entry =
            [1, 1, 2, 3, 4, 5, 6, 7, 8, b'a', 0, 9, 9, 9, 9, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 9, 3, 0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4];
        let unit = [&[7 + 2 * 39, 0, 0, 0, 4, 0, 0, 0, 0, 0, 8][..], &entry, &entry].concat();
        let file = [&unit[..], &unit, &[0xff; 9], &abbreviations].concat();
        let info = (0, 2 * unit.len() as u64 + 9);
        let places = Places { info, abbreviations: (info.1, abbreviations.len() as u64), ..Places::default() };
        let debug = Debug::read(&mut io::Cursor::new(&file), places).unwrap();
        let at = |start: usize| {
            (0..unit.len() as u64).filter_map(|at| debug.field(start as u64 + at).map(|(item, unit)| (at, item, unit))).collect::<Vec<_>>()
        };
        let expected = [
            (12, Item::Address),
            (22, Item::Entry),
            (26, Item::Locations),
            (30, Item::Ranges),
            (34, Item::Line),
            (38, Item::Address),
            (46, Item::Text),
        ];
        for start in [0, unit.len()] {
            let both = [0, 39].iter().flat_map(|by| expected.iter().map(move |(at, item)| (at + by, *item, start as u64)));
            assert_eq!(at(start), both.collect::<Vec<_>>());
        }
    }

    fn units(places: &[u32], abbreviations: &[u8]) -> usize {
        let unit = |place: &u32| [&[7, 0, 0, 0, 4, 0][..], &place.to_le_bytes(), &[8]].concat();
        let file = [&places.iter().flat_map(unit).collect::<Vec<_>>()[..], abbreviations].concat();
        let info = (0, 11 * places.len() as u64);
        let places = Places { info, abbreviations: (info.1, abbreviations.len() as u64), ..Places::default() };
        Debug::read(&mut io::Cursor::new(&file), places).unwrap().units.len()
    }

    #[test]
    fn units_without_fields_are_not_walked_for_ever() {
        assert_eq!(units(&[0; 100], &[0]), 100);
        assert_eq!(units(&[0; UNITS + 5], &[0]), UNITS);
        // Two long tables in turn.
        let table = [&[1, 0x2e, 0][..], &[0x03, 0x19].repeat(15_000), &[0, 0, 0]].concat();
        let places: Vec<_> = [0, u32::try_from(table.len()).unwrap()].repeat(5000);
        let walked = units(&places, &table.repeat(2));
        assert!((500..600).contains(&walked), "{walked}");
        assert_eq!(units(&vec![0; 5000], &table), 5000);
    }
}
