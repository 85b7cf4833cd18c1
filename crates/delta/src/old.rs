//! The members of the old layers that a patch refers to, small enough to keep in memory on a node.
//!
//! A reference is the number of an item in these layers, counted from 0 over all of them in their order. Both sides count the same
//! things: modelled members and bare contents; raw bytes are not counted.

use std::collections::BTreeMap;
use std::io;

use crate::apply::too_much;
use crate::source::LayerSource;
use crate::tar::{Form, Item, Items};

/// The number of an old member.
pub(crate) type OldRef = u32;

/// One old member.
#[derive(Clone, Copy, Debug)]
struct Row {
    text: usize,
    path: u32,
    link: u32,
    extras: u32,
    form: u32,
    file: u32,
    layer: u16,
    size: u64,
    mtime: u64,
}

/// Bytes of memory that a member counts beside its texts. On both sides the same, whatever machine they are.
const ROW: u64 = 48;
const _: () = assert!(size_of::<Row>() as u64 <= ROW, "a member needs more than it counts");

const NONE: u32 = u32::MAX;

/// One old member, read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Old<'a> {
    /// Path; empty for a bare content.
    pub path: &'a [u8],
    /// Target of a link.
    pub link: &'a [u8],
    /// What its form says is carried.
    pub extras: &'a [u8],
    /// Number of its form; `None` for a bare content.
    pub form: Option<u32>,
    /// Layer, counted in the order of loading.
    pub layer: u16,
    /// Number of the file with its content, if it has any.
    pub file: Option<u32>,
    /// The size field.
    pub size: u64,
    /// The time field.
    pub mtime: u64,
}

/// Forms by number.
#[derive(Debug, Default)]
pub(crate) struct Forms {
    forms: Vec<Form>,
    numbers: BTreeMap<Form, u32>,
    /// Bytes of memory of both, about.
    bytes: u64,
}

impl Forms {
    /// The number of this form, a new one when it is not known.
    pub(crate) fn number(&mut self, form: &Form) -> u32 {
        match self.numbers.get(form) {
            Some(number) => *number,
            None => self.add(form.clone()),
        }
    }

    /// The number of this form, if it is known.
    pub(crate) fn find(&self, form: &Form) -> Option<u32> {
        self.numbers.get(form).copied()
    }

    /// Adds a form.
    pub(crate) fn add(&mut self, form: Form) -> u32 {
        let number = u32::try_from(self.forms.len()).expect("memory holds fewer than 2^32 forms");
        self.bytes += 2 * form.memory();
        self.forms.push(form.clone());
        self.numbers.insert(form, number);
        number
    }

    /// The form with this number.
    pub(crate) fn get(&self, number: u32) -> Option<&Form> {
        self.forms.get(number as usize)
    }

    /// How many forms there are.
    pub(crate) fn len(&self) -> usize {
        self.forms.len()
    }

    /// True when there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }
}

/// The members of some old layers.
#[derive(Debug, Default)]
pub(crate) struct OldMembers {
    text: Vec<u8>,
    rows: Vec<Row>,
    layers: u16,
    /// Their forms, numbered as they were met.
    pub forms: Forms,
}

impl OldMembers {
    /// Adds a layer. Fails when the table would need more than `limit` bytes.
    pub(crate) fn load(&mut self, layer: &dyn LayerSource, limit: u64) -> io::Result<()> {
        for item in Items::new(layer.segments()?) {
            match item? {
                Item::Member { member, file } => {
                    let text = self.text.len();
                    for part in [&member.path, &member.link, &member.extras] {
                        self.text.extend_from_slice(part);
                    }
                    let form = self.forms.number(&member.form);
                    self.rows.push(Row {
                        text,
                        path: length(&member.path)?,
                        link: length(&member.link)?,
                        extras: length(&member.extras)?,
                        form,
                        file: file.unwrap_or(NONE),
                        layer: self.layers,
                        size: member.size,
                        mtime: member.mtime,
                    });
                }
                Item::Bare { file, size } => self.rows.push(Row {
                    text: self.text.len(),
                    path: 0,
                    link: 0,
                    extras: 0,
                    form: NONE,
                    file,
                    layer: self.layers,
                    size,
                    mtime: 0,
                }),
                Item::Raw(_) => {}
            }
            self.check(limit)?;
        }
        self.layers = self.layers.checked_add(1).ok_or_else(|| io::Error::other("more than 65535 old layers"))?;
        Ok(())
    }

    /// Fails when the table needs more than `limit` bytes.
    fn check(&self, limit: u64) -> io::Result<()> {
        if self.bytes() <= limit { Ok(()) } else { Err(too_much(limit)) }
    }

    /// Bytes of memory that the table needs, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.text.len() as u64 + self.rows.len() as u64 * ROW + self.forms.bytes
    }

    /// How many members there are.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.rows.len()).unwrap_or(u32::MAX)
    }

    /// The member with this number.
    pub(crate) fn get(&self, number: OldRef) -> Option<Old<'_>> {
        let row = self.rows.get(number as usize)?;
        let (path, rest) = self.text[row.text..].split_at(row.path as usize);
        let (link, rest) = rest.split_at(row.link as usize);
        Some(Old {
            path,
            link,
            extras: &rest[..row.extras as usize],
            form: (row.form != NONE).then_some(row.form),
            layer: row.layer,
            file: (row.file != NONE).then_some(row.file),
            size: row.size,
            mtime: row.mtime,
        })
    }

    /// All members with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (OldRef, Old<'_>)> {
        (0..self.len()).filter_map(|number| self.get(number).map(|old| (number, old)))
    }
}

fn length(text: &[u8]) -> io::Result<u32> {
    u32::try_from(text.len()).map_err(io::Error::other)
}
