//! The tar model: a layer's tar as members whose headers are values, and everything else as bytes.
//!
//! In: the [segments](crate::source::Segment) of a layer. Out: [`Item`]s in order, from which the tar can be written again bit for
//! bit. A member is modelled only when rendering its values gives the very bytes that were read, so no dialect can be got wrong: what
//! is not understood is carried as it is.

mod block;
mod form;
mod items;
mod member;
mod number;

pub use block::{BLOCK, Head, Shape, glance, is_file};
pub use form::{ExtData, ExtForm, ExtName, ExtTime, Form, LinkRule, NameRule, RecordValue};
pub use items::{Item, Items};
pub use member::Member;

/// The longest extended header (PAX records, GNU long name) that is modelled, in bytes.
pub const MAX_EXTENDED: u64 = 1 << 20;

/// Bytes of padding after `size` bytes of content.
pub fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).expect("less than a block");
    (BLOCK - over) % BLOCK
}
