//! The 512-byte header block: where its fields are, and which bytes are a function of which values.

use super::number::{self, NumberForm};

/// Bytes of a header block.
pub const BLOCK: usize = 512;

const NAME: std::ops::Range<usize> = 0..100;
const MODE_UID_GID: std::ops::Range<usize> = 100..124;
const SIZE: std::ops::Range<usize> = 124..136;
const MTIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPEFLAG: usize = 156;
const LINK: std::ops::Range<usize> = 157..257;
const MAGIC_TO_DEVICE: std::ops::Range<usize> = 257..345;
const PREFIX: std::ops::Range<usize> = 345..500;
const TAIL: std::ops::Range<usize> = 500..512;
const ATTRIBUTES: usize = 24 + 1 + 88 + 12;

/// What members written by one tool for one owner have in common: every byte of the header that is not a name, a size, a time or
/// the checksum, and how the numbers are written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Shape {
    /// Mode, owner, type, magic, owner's names, device and tail, as they stand in the block.
    attributes: [u8; ATTRIBUTES],
    size_form: NumberForm,
    mtime_form: NumberForm,
    checksum_form: ChecksumForm,
}

/// How the checksum is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum ChecksumForm {
    /// Six octal digits, NUL, space.
    SixNulSpace,
    /// Seven octal digits, NUL.
    SevenNul,
    /// Octal digits padded by spaces to six, NUL, space.
    PaddedNulSpace,
}

impl ChecksumForm {
    const ALL: [Self; 3] = [Self::SixNulSpace, Self::SevenNul, Self::PaddedNulSpace];

    fn write(self, sum: u32) -> [u8; 8] {
        let text = match self {
            Self::SixNulSpace => format!("{sum:06o}\0 "),
            Self::SevenNul => format!("{sum:07o}\0"),
            Self::PaddedNulSpace => format!("{sum:6o}\0 "),
        };
        let mut field = [0; 8];
        // The sum of 512 bytes has at most six octal digits.
        field.copy_from_slice(&text.as_bytes()[..8]);
        field
    }
}

/// A header block as values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The name field, without its NULs.
    pub name: Vec<u8>,
    /// The prefix field, without its NULs.
    pub prefix: Vec<u8>,
    /// The link name field, without its NULs.
    pub link: Vec<u8>,
    /// The size field.
    pub size: u64,
    /// The time field, in seconds.
    pub mtime: u64,
    /// The rest.
    pub shape: Shape,
}

impl Shape {
    /// Bytes of a shape when it is carried.
    pub const LEN: usize = ATTRIBUTES + 3;

    /// The shape in bytes.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..ATTRIBUTES].copy_from_slice(&self.attributes);
        bytes[ATTRIBUTES] = self.size_form as u8;
        bytes[ATTRIBUTES + 1] = self.mtime_form as u8;
        bytes[ATTRIBUTES + 2] = self.checksum_form as u8;
        bytes
    }

    /// The shape in these bytes, if they are one.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let mut attributes = [0; ATTRIBUTES];
        attributes.copy_from_slice(&bytes[..ATTRIBUTES]);
        Some(Self {
            attributes,
            size_form: NumberForm::from_byte(bytes[ATTRIBUTES])?,
            mtime_form: NumberForm::from_byte(bytes[ATTRIBUTES + 1])?,
            checksum_form: *ChecksumForm::ALL.get(usize::from(bytes[ATTRIBUTES + 2]))?,
        })
    }

    /// The type of the member: `0` a regular file, `5` a folder, ...
    pub fn typeflag(&self) -> u8 {
        self.attributes[24]
    }

    /// True when the member's content follows its header.
    pub fn is_file(&self) -> bool {
        is_file(self.typeflag())
    }
}

/// True for the types of member that are regular files.
pub fn is_file(typeflag: u8) -> bool {
    matches!(typeflag, b'0' | 0 | b'7')
}

impl Head {
    /// The values in a block, if rendering them gives the block again.
    pub fn parse(block: &[u8; BLOCK]) -> Option<Self> {
        let (size, size_form) = number::parse(&block[SIZE])?;
        let (mtime, mtime_form) = number::parse(&block[MTIME])?;
        let sum = checksum(block);
        let checksum_form = ChecksumForm::ALL.into_iter().find(|form| form.write(sum) == block[CHECKSUM])?;
        let mut attributes = [0; ATTRIBUTES];
        attributes[..24].copy_from_slice(&block[MODE_UID_GID]);
        attributes[24] = block[TYPEFLAG];
        attributes[25..113].copy_from_slice(&block[MAGIC_TO_DEVICE]);
        attributes[113..].copy_from_slice(&block[TAIL]);
        Some(Self {
            name: text(&block[NAME])?,
            prefix: text(&block[PREFIX])?,
            link: text(&block[LINK])?,
            size,
            mtime,
            shape: Shape { attributes, size_form, mtime_form, checksum_form },
        })
    }

    /// The block of these values; `None` when one does not fit its field.
    pub fn render(&self) -> Option<[u8; BLOCK]> {
        let shape = &self.shape;
        let mut block = [0; BLOCK];
        block[NAME].get_mut(..self.name.len())?.copy_from_slice(&self.name);
        block[PREFIX].get_mut(..self.prefix.len())?.copy_from_slice(&self.prefix);
        block[LINK].get_mut(..self.link.len())?.copy_from_slice(&self.link);
        block[SIZE].copy_from_slice(&number::render(self.size, shape.size_form)?);
        block[MTIME].copy_from_slice(&number::render(self.mtime, shape.mtime_form)?);
        block[MODE_UID_GID].copy_from_slice(&shape.attributes[..24]);
        block[TYPEFLAG] = shape.attributes[24];
        block[MAGIC_TO_DEVICE].copy_from_slice(&shape.attributes[25..113]);
        block[TAIL].copy_from_slice(&shape.attributes[113..]);
        let sum = checksum(&block);
        block[CHECKSUM].copy_from_slice(&shape.checksum_form.write(sum));
        Some(block)
    }
}

/// The unsigned sum of a block's bytes, its checksum field taken as spaces.
pub(super) fn checksum(block: &[u8; BLOCK]) -> u32 {
    let all: u32 = block.iter().map(|&b| u32::from(b)).sum();
    let field: u32 = block[CHECKSUM].iter().map(|&b| u32::from(b)).sum();
    all - field + 8 * u32::from(b' ')
}

/// What a reader must know of a block to find the next one: the type, the size, and whether the checksum holds.
pub fn glance(block: &[u8; BLOCK]) -> Option<(u8, u64)> {
    let stored = number::lenient_octal(&block[CHECKSUM])?;
    if stored != u64::from(checksum(block)) {
        return None;
    }
    Some((block[TYPEFLAG], number::lenient(&block[SIZE])?))
}

/// A field's text up to its NULs; `None` when anything follows them.
fn text(field: &[u8]) -> Option<Vec<u8>> {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    field[end..].iter().all(|&b| b == 0).then(|| field[..end].to_vec())
}
