//! What both sides of a patch expect of the next member's header. It is never sent: it follows from what came before.

use std::collections::BTreeMap;

use crate::old::OldRef;

/// Bits of an item's flags: what is as expected. An item with none of [`NEXT`] names its base, or what else it is, in the base stream.
pub(crate) mod flag {
    /// The base is the old member after the last base.
    pub(crate) const NEXT: u8 = 1;
    /// The path is the base's.
    pub(crate) const PATH: u8 = 1 << 1;
    /// The form is the base's, or without a base the last one.
    pub(crate) const FORM: u8 = 1 << 2;
    /// The time is the expected one.
    pub(crate) const MTIME: u8 = 1 << 3;
    /// The size is the base's, or without a base zero.
    pub(crate) const SIZE: u8 = 1 << 4;
    /// The content is the base's, or there is none.
    pub(crate) const CONTENT: u8 = 1 << 5;
    /// The link is the base's, or without a base empty.
    pub(crate) const LINK: u8 = 1 << 6;
    /// The extras are the base's, or without a base empty.
    pub(crate) const EXTRAS: u8 = 1 << 7;
}

/// Numbers in the base stream.
pub(crate) mod base {
    /// A member without a base.
    pub(crate) const NONE: u64 = 0;
    /// Raw bytes.
    pub(crate) const RAW: u64 = 1;
    /// A content without a header.
    pub(crate) const BARE: u64 = 2;
    /// The end of the layer.
    pub(crate) const END: u64 = 3;
    /// From here on: how far the base is from the expected one, folded to be positive.
    pub(crate) const FIRST: u64 = 4;
}

/// Bits of a content's codec byte: three of codec, one for a source that is named, two of kind, one for a content to keep.
pub(crate) mod codec {
    /// The bits of the codec.
    pub(crate) const MASK: u8 = 7;
    /// The source is named; otherwise it is the base.
    pub(crate) const NAMED: u8 = 8;
    /// Where the bits of the kind begin.
    pub(crate) const KIND: u8 = 4;
    /// The bits of the kind, there.
    pub(crate) const KIND_MASK: u8 = 3;
    /// Later contents are made from this one.
    pub(crate) const KEPT: u8 = 1 << 6;
    /// What is always 0.
    pub(crate) const NONE: u8 = 1 << 7;
}

/// What came before.
#[derive(Debug, Default)]
pub(crate) struct Predictor {
    /// The old member after the last base.
    pub next_base: OldRef,
    /// The old member after the last source of a content.
    pub next_source: OldRef,
    /// The path of the last member.
    pub path: Vec<u8>,
    /// The form of the last member.
    pub form: u32,
    mtime: u64,
    /// What old times became.
    times: BTreeMap<u64, u64>,
    shift: u64,
    /// By how much the last time in bytecode moved.
    code_shift: u64,
}

impl Predictor {
    /// The time expected of a member with this base's time.
    pub(crate) fn mtime(&self, base: Option<u64>) -> u64 {
        match base {
            None => self.mtime,
            Some(old) => self.times.get(&old).copied().unwrap_or_else(|| old.wrapping_add(self.shift)),
        }
    }

    /// Takes note of a member's time.
    pub(crate) fn saw_mtime(&mut self, base: Option<u64>, mtime: u64) {
        if let Some(old) = base {
            self.times.insert(old, mtime);
            self.shift = mtime.wrapping_sub(old);
        }
        self.mtime = mtime;
    }

    /// The time expected in bytecode whose old time is this. Bytecode has the time of its source, which is another member.
    pub(crate) fn code_time(&self, old: u32) -> u32 {
        let old = u64::from(old);
        let expected = self.times.get(&old).copied().unwrap_or_else(|| old.wrapping_add(self.code_shift));
        u32::try_from(expected & u64::from(u32::MAX)).expect("masked to 32 bits")
    }

    /// Takes note of a time in bytecode.
    pub(crate) fn saw_code_time(&mut self, old: u32, time: u32) {
        self.times.insert(u64::from(old), u64::from(time));
        self.code_shift = u64::from(time).wrapping_sub(u64::from(old));
    }
}
