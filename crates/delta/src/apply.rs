//! Applying a patch: old layers and streams to new layers, as bytes in order.

use std::io::{self, Read};

use skerry_wire::limits;

use crate::archive::spill::Room;
use crate::archive::{self, Scratch};
use crate::codec::bidiff::{Buffers, steps};
use crate::codec::{Codec, Kind, bidiff, bytecode, dictionary, elf};
use crate::config;
use crate::kept::Kept;
use crate::old::{OldMembers, OldRef};
use crate::predict::{Predictor, base, codec, flag};
use crate::source::{LayerSource, ReadSeek};
use crate::stream::{Stream, StreamsReader};
use crate::tar::{BLOCK, Form, MAX_EXTENDED, Member, padding};
use crate::varint::unzigzag;

/// Bytes are read and handed on in steps of this many.
const STEP: usize = 64 * 1024;

/// Bytes of memory that applying needs beside streams and tables: its buffers, and what one content needs, such as an old one used
/// as a dictionary.
pub const FIXED_MEMORY: u64 = 4 * STEP as u64 + if elf::MEMORY > dictionary::MEMORY { elf::MEMORY } else { dictionary::MEMORY };

// As docs/formats/bundle.md has it: whoever applies counts what whoever made the patch counted.
const _: () = assert!(FIXED_MEMORY == 4640 << 10, "another need of every patch is another version of the format");

/// A part of a layer that was made, and what of the patch went into it.
#[derive(Debug)]
pub struct Item<'i> {
    /// Its path; empty for bytes between members.
    pub path: &'i [u8],
    /// How its content is carried; none for one without content, and for bytes between members.
    pub codec: Option<Codec>,
    /// Bytes of its content.
    pub size: u64,
    /// Bytes that were read for it of each stream, by the stream's number.
    pub read: &'i [u64],
}

/// Is told of each item.
pub type Tally<'t> = dyn Fn(&Item<'_>) + 't;

/// Takes the bytes of a layer, in order.
pub type Sink<'s> = dyn FnMut(&[u8]) -> io::Result<()> + 's;

/// A patch that is being applied. What it makes is right only if the digests say so: check them.
pub struct Applier<'a> {
    streams: StreamsReader<'a>,
    layers: &'a [Box<dyn LayerSource + 'a>],
    table: OldMembers,
    /// Bytes of memory for the table, archives and what is kept.
    limit: u64,
    state: Predictor,
    buffers: Buffers,
    archives: archive::apply::State<'a>,
    /// Taken away while one more is written.
    kept: Option<Kept<'a>>,
    /// Bytes of memory that what is kept needs.
    keeping: u64,
    tally: Option<&'a Tally<'a>>,
    /// Bytes of each stream that were left at the last item; the codec and the bytes of the content of this one.
    left: Vec<u64>,
    made: (Option<Codec>, u64),
}

impl<'a> Applier<'a> {
    /// Opens a patch against these old layers, in the order of its table of contents. The members of the layers and the forms of new
    /// ones, archives, and contents that are kept may need `limit` bytes of memory together. What is kept without scratch files comes
    /// besides, at most as much again.
    pub fn new(streams: StreamsReader<'a>, layers: &'a [Box<dyn LayerSource + 'a>], limit: u64) -> io::Result<Self> {
        let mut table = OldMembers::default();
        for layer in layers {
            table.load(&**layer, limit)?;
        }
        let archives = archive::apply::State::new(layers.iter().map(|layer| &**layer as &dyn LayerSource).collect(), Room::Little);
        Ok(Self {
            streams,
            layers,
            table,
            limit,
            state: Predictor::default(),
            buffers: Buffers::new(STEP),
            archives,
            kept: Some(Kept::new(None, limit)),
            keeping: 0,
            tally: None,
            left: Vec::new(),
            made: (None, 0),
        })
    }

    /// Gives it scratch files: what of archives is too long for memory and new contents that are kept go there. Without them the former
    /// is an error, and the latter stay in memory.
    #[must_use]
    pub fn with_scratch(mut self, scratch: &'a dyn Scratch) -> Self {
        let layers = self.layers.iter().map(|layer| &**layer as &dyn LayerSource).collect();
        self.archives = archive::apply::State::new(layers, Room::Scratch(scratch));
        self.kept = Some(Kept::new(Some(scratch), 0));
        self
    }

    /// Has it tell of each item what of the patch went into it.
    #[must_use]
    pub fn with_tally(mut self, tally: &'a Tally<'a>) -> Self {
        self.tally = Some(tally);
        self
    }

    /// Tells of the item that was made.
    fn tell(&mut self, is_member: bool) {
        let Some(tally) = self.tally else { return };
        let left: Vec<_> = Stream::ALL.into_iter().map(|stream| self.streams.get(stream).left()).collect();
        let read: Vec<_> = self.left.iter().zip(&left).map(|(before, now)| before.saturating_sub(*now)).collect();
        let (codec, size) = std::mem::take(&mut self.made);
        tally(&Item { path: if is_member { &self.state.path } else { &[] }, codec, size, read: &read });
        self.left = left;
    }

    /// The target's configuration; comes first. `known` are the digests known to both sides.
    pub fn config(&mut self, base: Option<&[u8]>, known: &[[u8; 32]]) -> io::Result<Vec<u8>> {
        let (old, table) = config::base(base.unwrap_or_default(), known);
        let marked = self.streams.byte(Stream::Codec)?;
        let size = self.streams.number(Stream::Size)?;
        if size > limits::IMAGE_CONFIG as u64 {
            return Err(invalid("a configuration that is too long"));
        }
        let mut text = Vec::new();
        let mut out = |bytes: &[u8]| {
            text.extend_from_slice(bytes);
            Ok(())
        };
        bidiff::apply(&mut self.streams, Kind::Text, &mut io::Cursor::new(old), size, &mut self.buffers, &mut out)?;
        if marked == 0 {
            return Ok(text);
        }
        let new = self.streams.get(Stream::Digests).left();
        let new = self.streams.bytes(Stream::Digests, new, 256 * 32)?;
        let new: Vec<[u8; 32]> = new.chunks_exact(32).filter_map(|digest| digest.try_into().ok()).collect();
        config::unmark(&text, &table, &new, limits::IMAGE_CONFIG).ok_or_else(|| invalid("a configuration with an unknown digest"))
    }

    /// The next layer, of `size` bytes.
    pub fn layer(&mut self, size: u64, out: &mut Sink<'_>) -> io::Result<()> {
        let left = std::cell::Cell::new(size);
        let mut out = |bytes: &[u8]| {
            left.set(left.get().checked_sub(bytes.len() as u64).ok_or_else(|| invalid("more bytes than its layer"))?);
            out(bytes)
        };
        if self.tally.is_some() && self.left.is_empty() {
            self.left = Stream::ALL.into_iter().map(|stream| self.streams.get(stream).left()).collect();
        }
        loop {
            let flags = self.streams.byte(Stream::Flags)?;
            let base = if flags & flag::NEXT != 0 {
                self.state.next_base
            } else {
                match self.streams.number(Stream::Base)? {
                    base::NONE => {
                        self.member(flags, None, &mut out)?;
                        self.tell(true);
                        continue;
                    }
                    base::RAW => {
                        let len = self.size()?;
                        self.pass(Stream::Raw, len, &mut out)?;
                        self.tell(false);
                        continue;
                    }
                    base::BARE => {
                        let size = self.size()?;
                        self.content(None, size, &mut out)?;
                        self.tell(false);
                        continue;
                    }
                    base::END => break,
                    folded => i64::from(self.state.next_base)
                        .checked_add(unzigzag(folded - base::FIRST))
                        .and_then(|number| OldRef::try_from(number).ok())
                        .ok_or_else(|| invalid("an impossible base"))?,
                }
            };
            self.member(flags, Some(base), &mut out)?;
            self.tell(true);
        }
        self.buffers.new.fill(0);
        steps(left.get(), STEP, |len| out(&self.buffers.new[..len]))
    }

    /// Bytes of an item between members. There are some: a short section can hold items of none without end.
    fn size(&mut self) -> io::Result<u64> {
        match self.streams.number(Stream::Size)? {
            0 => Err(invalid("an item of no bytes")),
            size => Ok(size),
        }
    }

    /// Ends; an error when the patch has more than what was asked of it.
    pub fn finish(self) -> io::Result<()> {
        match self.streams.unread() {
            None => Ok(()),
            Some(stream) => Err(invalid(&format!("bytes of stream {stream:?} after its end"))),
        }
    }

    /// Bytes of memory that are left for archives; an error when they, the table and what is kept need more than they may.
    fn spare(&self) -> io::Result<u64> {
        let spare = self.limit.checked_sub(self.table.bytes()).and_then(|left| left.checked_sub(self.keeping));
        spare.filter(|spare| self.archives.memory() <= *spare).ok_or_else(|| too_much(self.limit))
    }

    fn member(&mut self, flags: u8, number: Option<OldRef>, out: &mut Sink<'_>) -> io::Result<()> {
        let old = match number {
            None => None,
            Some(number) => Some(self.table.get(number).ok_or_else(|| invalid("a base that is not in its layers"))?),
        };
        let has = |bit: u8| flags & bit != 0;
        let streams = &mut self.streams;
        let path = match (has(flag::PATH), old) {
            (true, Some(old)) => old.path.to_vec(),
            (true, None) => return Err(invalid("a path of no base")),
            (false, _) => {
                let shared = streams.number(Stream::PathShared)?;
                let rest = streams.number(Stream::PathShared)?;
                let shared = usize::try_from(shared).ok().and_then(|len| self.state.path.get(..len));
                let mut path = shared.ok_or_else(|| invalid("a path longer than the last one"))?.to_vec();
                // All of it: otherwise it could grow with each member.
                path.extend(streams.bytes(Stream::PathText, rest, MAX_EXTENDED.saturating_sub(path.len() as u64))?);
                path
            }
        };
        let base_mtime = old.map(|old| old.mtime);
        let mut mtime = self.state.mtime(base_mtime);
        if !has(flag::MTIME) {
            mtime = mtime.wrapping_add_signed(streams.signed(Stream::Mtime)?);
        }
        let size = if has(flag::SIZE) { old.map_or(0, |old| old.size) } else { streams.number(Stream::Size)? };
        let link = if has(flag::LINK) { old.map_or(&[][..], |old| old.link).to_vec() } else { text(streams, Stream::Link)? };
        let extras = if has(flag::EXTRAS) { old.map_or(&[][..], |old| old.extras).to_vec() } else { text(streams, Stream::Extras)? };
        let form = if has(flag::FORM) {
            match old {
                None => self.state.form,
                Some(old) => old.form.ok_or_else(|| invalid("a base without a form"))?,
            }
        } else {
            let number = u32::try_from(streams.number(Stream::Form)?).map_err(|_| invalid("an unknown form"))?;
            if number as usize == self.table.forms.len() {
                let form = Form::read(streams.get(Stream::NewForm))?;
                self.table.forms.add(form);
                self.spare()?;
            }
            number
        };
        let form_values = self.table.forms.get(form).ok_or_else(|| invalid("an unknown form"))?.clone();
        let member = Member { path, link, size, mtime, form: form_values, extras };
        out(&member.render().ok_or_else(|| invalid("a header that cannot be written"))?)?;

        let content = member.content();
        let padded = member.form.padded;
        self.state.form = form;
        self.state.saw_mtime(base_mtime, mtime);
        self.state.path = member.path;
        if let Some(number) = number {
            self.state.next_base = number.saturating_add(1);
        }
        if content > 0 {
            match (has(flag::CONTENT), number) {
                (true, Some(number)) => {
                    self.made = (Some(Codec::Copy), content);
                    self.copy(number, content, out)?;
                }
                (true, None) => return Err(invalid("a content of no base")),
                (false, _) => self.content(number, content, out)?,
            }
        }
        if padded { out(&[0; BLOCK][..padding(content)]) } else { Ok(()) }
    }

    fn content(&mut self, base: Option<OldRef>, size: u64, out: &mut Sink<'_>) -> io::Result<()> {
        let byte = self.streams.byte(Stream::Codec)?;
        if byte & codec::NONE != 0 {
            return Err(invalid("an unknown codec"));
        }
        if byte & codec::KEPT == 0 {
            return self.coded(byte, base, size, out);
        }
        let mut kept = self.kept.take().ok_or_else(|| invalid("a content to keep within another"))?;
        kept.begin(size)?;
        self.keeping = kept.memory();
        self.spare()?;
        let done = self.coded(byte, base, size, &mut |bytes| {
            kept.write(bytes)?;
            out(bytes)
        });
        self.kept = Some(kept);
        done
    }

    /// Makes a content with this codec byte.
    fn coded(&mut self, byte: u8, base: Option<OldRef>, size: u64, out: &mut Sink<'_>) -> io::Result<()> {
        let codec = Codec::from_number(byte & codec::MASK).ok_or_else(|| invalid("an unknown codec"))?;
        let kind = Kind::from_number(byte >> codec::KIND & codec::KIND_MASK).ok_or_else(|| invalid("an unknown kind of content"))?;
        self.made = (Some(codec), size);
        if codec == Codec::New {
            return self.pass(kind.stream(), size, out);
        }
        let source = if byte & codec::NAMED != 0 {
            let by = self.streams.signed(Stream::Source)?;
            let number = i64::from(self.state.next_source).checked_add(by).and_then(|number| OldRef::try_from(number).ok());
            number.ok_or_else(|| invalid("an impossible source"))?
        } else {
            base.ok_or_else(|| invalid("a source of no base"))?
        };
        self.state.next_source = source.saturating_add(1);
        if codec == Codec::Copy {
            return self.copy(source, size, out);
        }
        if codec == Codec::Archive {
            return self.archive(source, size, out);
        }
        let (old_size, mut old) = open(&self.table, self.layers, &mut self.kept, source)?;
        match codec {
            Codec::Bidiff => bidiff::apply(&mut self.streams, kind, &mut *old, size, &mut self.buffers, out),
            Codec::Elf => elf::apply(&mut self.streams, kind, &mut *old, [old_size, size], &mut self.buffers, out),
            Codec::Bytecode => bytecode::apply(&mut self.streams, &mut self.state, kind, &mut *old, old_size, size, &mut self.buffers, out),
            _ => dictionary::apply(&mut self.streams, &mut old.take(old_size), size, out),
        }
    }

    /// Makes an archive of `size` bytes.
    fn archive(&mut self, source: OldRef, size: u64, out: &mut Sink<'_>) -> io::Result<()> {
        let mut left = size;
        let mut out = |bytes: &[u8]| {
            left = left.checked_sub(bytes.len() as u64).ok_or_else(|| invalid("an archive with more bytes than its member"))?;
            out(bytes)
        };
        let spare = self.spare()?;
        let table = &self.table;
        let file = |number: OldRef| find(table, number).map(|(layer, file, _)| (layer, file));
        let (streams, buffers, state) = (&mut self.streams, &mut self.buffers, &mut self.archives);
        archive::apply::Maker { streams, buffers, state, file: &file, limit: size, spare }.member(source, &mut out)?;
        if left > 0 { Err(invalid("an archive with fewer bytes than its member")) } else { Ok(()) }
    }

    fn copy(&mut self, number: OldRef, size: u64, out: &mut Sink<'_>) -> io::Result<()> {
        let (old_size, mut old) = open(&self.table, self.layers, &mut self.kept, number)?;
        if old_size != size {
            return Err(invalid("a copy of another size"));
        }
        steps(size, STEP, |len| {
            old.read_exact(&mut self.buffers.old[..len])?;
            out(&self.buffers.old[..len])
        })
    }

    /// Hands on bytes of a stream.
    fn pass(&mut self, stream: Stream, len: u64, out: &mut Sink<'_>) -> io::Result<()> {
        steps(len, STEP, |len| {
            self.streams.get(stream).read_exact(&mut self.buffers.new[..len]).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => invalid(&format!("too few bytes in stream {stream:?}")),
                _ => error,
            })?;
            out(&self.buffers.new[..len])
        })
    }
}

/// Size and content of a source: an old member, or a content that is kept.
fn open<'s>(
    table: &OldMembers,
    layers: &'s [Box<dyn LayerSource + '_>],
    kept: &'s mut Option<Kept<'_>>,
    number: OldRef,
) -> io::Result<(u64, Box<dyn ReadSeek + 's>)> {
    if let Some(number) = number.checked_sub(table.len()) {
        let kept = kept.as_mut().ok_or_else(|| invalid("a content to keep that is made from one that is kept"))?;
        let size = kept.size(number).ok_or_else(|| invalid("a source that is neither in its layers nor kept"))?;
        return Ok((size, Box::new(kept.open(number)?)));
    }
    let (layer, file, size) = find(table, number)?;
    Ok((size, layers[layer].open(file)?))
}

fn find(table: &OldMembers, number: OldRef) -> io::Result<(usize, u32, u64)> {
    let old = table.get(number).ok_or_else(|| invalid("a source that is not in its layers"))?;
    let file = old.file.ok_or_else(|| invalid("a source without content"))?;
    Ok((usize::from(old.layer), file, old.size))
}

fn text(streams: &mut StreamsReader<'_>, stream: Stream) -> io::Result<Vec<u8>> {
    let len = streams.number(stream)?;
    streams.bytes(stream, len, MAX_EXTENDED * 2)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the patch has {what}"))
}

/// Members, archives and what is kept need more memory than this. A patch says before what it needs.
pub(crate) fn too_much(limit: u64) -> io::Error {
    invalid(&format!(
        "more old members, archives and contents to keep than go into the {limit} bytes that its table of contents leaves for them"
    ))
}

impl std::fmt::Debug for Applier<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applier").field("layers", &self.layers.len()).field("members", &self.table.len()).finish_non_exhaustive()
    }
}
