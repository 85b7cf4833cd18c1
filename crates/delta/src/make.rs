//! Making a patch: new layers against old ones.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::apply::FIXED_MEMORY;
use crate::archive;
use crate::archive::Scratch;
use crate::archive::form::Form;
use crate::archive::make::{Bounds, Planner};
use crate::archive::old::{Archives, Origin};
use crate::archive::spill::Room;
use crate::archive::write::ArchiveWriter;
use crate::codec::{Codec, Kind};
use crate::config;
use crate::content::{self, Contents, Outcome};
use crate::hashed::{Hashed, cancelled};
use crate::kept;
use crate::leave_out::{Use, leave_out};
use crate::matching::{Choice, Content, choose};
use crate::old::{OldMembers, OldRef};
use crate::predict::{Predictor, base, codec, flag};
use crate::progress::{Progress, Watch};
use crate::repeats::{self, Pieces, Repeats};
use crate::source::LayerSource;
use crate::stream::{Stream, StreamsReader, StreamsWriter, Written};
use crate::tar::{Item, Items, Member};
use crate::varint::zigzag;

/// Memory that streams may always take, in bytes.
const STREAMS: u64 = 1 << 20;

/// What a patch is made from.
pub struct Input<'a> {
    /// The target's configuration.
    pub config: &'a [u8],
    /// The base's configuration, if there is a base.
    pub base_config: Option<&'a [u8]>,
    /// Digests that whoever applies knows before the patch: those of the layers.
    pub known: &'a [[u8; 32]],
    /// The layers to make, in order.
    pub new: &'a [&'a dyn LayerSource],
    /// The layers at hand.
    pub old: &'a [&'a dyn LayerSource],
}

/// What making may use.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Bytes of memory for making, about.
    pub make: u64,
    /// Bytes of memory for whoever applies: windows, buffers and the table of old members. The table and what every patch needs come
    /// first; a mebibyte is always left for streams.
    pub apply: u64,
    /// Bytes of memory that whoever applies admits at all. When a patch needs more, old layers are left out, as long as that helps.
    pub admitted: u64,
}

/// A patch.
#[derive(Debug)]
pub struct Patch {
    /// Its streams.
    pub written: Written,
    /// The old layers that it refers to, by their place in the input.
    pub used: Vec<usize>,
    /// For each new layer what became of its contents.
    pub layers: Vec<LayerStats>,
    /// Bytes that the old members need in memory, and what archives need when there are any.
    pub table: u64,
    /// Bytes of scratch files that applying needs at most.
    pub scratch: u64,
    /// What whoever applies must know beside the first feature and those of coders.
    pub features: Vec<u16>,
}

/// The feature of contents that are [kept](crate::kept) for later ones.
pub const KEPT: u16 = 8;

/// The feature of contents that are deflated as GNU gzip does it.
pub const GNU: u16 = 9;

/// The feature of class data by the codec of programs.
pub const CLASS_DATA: u16 = 10;

/// What became of the contents of a layer.
#[derive(Debug, Default, Clone)]
pub struct LayerStats {
    /// Bytes of the layer's tar.
    pub size: u64,
    /// By codec: how many contents, and their bytes. Unchanged contents are under [`Codec::Copy`].
    pub codecs: BTreeMap<Codec, (u64, u64)>,
    /// Bytes of the tar that are not modelled.
    pub raw: u64,
}

/// Makes the patch.
pub fn make(input: &Input<'_>, budget: Budget, progress: &dyn Progress, cancel: &AtomicBool) -> io::Result<Patch> {
    make_spilling(input, budget, None, progress, cancel)
}

/// Makes the patch; with scratch its bytes are not held in memory.
pub fn make_spilling(
    input: &Input<'_>,
    budget: Budget,
    scratch: Option<&dyn Scratch>,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> io::Result<Patch> {
    // The old layers that are looked at, by their place in the input.
    let mut at_hand: Vec<usize> = (0..input.old.len()).collect();
    let mut rounds = ROUNDS;
    loop {
        let old: Vec<_> = at_hand.iter().map(|&place| input.old[place]).collect();
        let (mut patch, uses) = made_of(&Input { old: &old, ..*input }, budget, scratch, progress, cancel)?;
        let table = uses.iter().map(|used| used.table).sum();
        let needs = FIXED_MEMORY + StreamsReader::memory(&patch.written.sections) + patch.table;
        let out = match needs.checked_sub(budget.admitted) {
            Some(more) if rounds > 0 => leave_out(&uses, u64::saturating_sub(table, more)),
            _ => Vec::new(),
        };
        if out.is_empty() {
            patch.used = patch.used.iter().map(|&place| at_hand[place]).collect();
            return Ok(patch);
        }
        // Others may come into use in their place; at last only those that stay are looked at.
        rounds -= 1;
        let goes = |place: usize| match patch.used.iter().position(|&used| used == place) {
            Some(used) => out.contains(&used),
            None => rounds == 0,
        };
        at_hand = (0..).zip(at_hand).filter(|(place, _)| !goes(*place)).map(|(_, layer)| layer).collect();
    }
}

/// Times that layers are left out before the patch is taken as it is.
const ROUNDS: u32 = 4;

/// The patch from all old layers, and what each that it uses is to it.
fn made_of(
    input: &Input<'_>,
    budget: Budget,
    scratch: Option<&dyn Scratch>,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> io::Result<(Patch, Vec<Use>)> {
    progress.stage("reading layers", 0);
    let known: Vec<_> = input.old.iter().map(|layer| layer.hashes()).collect();
    let short = known.iter().any(Option::is_some);
    let new = Hashed::read(input.new, &[], short, progress, cancel)?;
    let old = Hashed::read(input.old, &known, short, progress, cancel)?;
    drop(known);
    let mut choices = choose(&new, &old);
    let pieces = Pieces::of_new(&new, input.new, &choices, cancel)?;
    repeats::find_old(&old, input.old, &pieces, &mut choices, cancel)?;
    let rivals = repeats::rivals(&new, &pieces, input.new, (&old, input.old), &choices, cancel)?;
    let layer_of = |number: OldRef| old.members.get(number).map(|member| usize::from(member.layer));
    let used = used_layers(&choices, layer_of);
    // Numbers as whoever applies counts them: over the layers in use only.
    let mut table = OldMembers::default();
    let mut shifts = vec![0; input.old.len()];
    let mut uses = Vec::new();
    for &layer in &used {
        shifts[layer] = old.starts[layer] - table.len();
        let before = table.bytes();
        table.load(input.old[layer], u64::MAX)?;
        uses.push(Use { saves: 0, table: table.bytes() - before });
    }
    let renumber = |number: OldRef| number - layer_of(number).map_or(0, |layer| shifts[layer]);
    let mut choices: Vec<_> = choices.into_iter().map(|choice| choice.map(renumber)).collect();
    let layers: Vec<_> = used.iter().map(|&layer| input.old[layer]).collect();
    drop(old);
    count_savings(&new, &choices, &table, &mut uses);
    let repeats = Repeats::find(&new, &pieces, &rivals, &mut choices, table.len())?;
    drop(pieces);

    let with_content = new.members.iter().filter(|(_, member)| member.file.is_some());
    let new_bytes = with_content.fold(0u64, |sum, (_, member)| sum.saturating_add(member.size));
    let jobs = content::jobs(&new, input.new, &choices, &table, &repeats, layers.len())?;
    let archived = !jobs.1.is_empty();
    progress.stage("comparing files", jobs.0.iter().chain(jobs.1.values()).map(|job| job.new_size).sum());
    let memory = budget.make / 8 * 5;
    let room = scratch.map_or(Room::Memory, Room::Scratch);
    let bounds = Bounds { memory, watch: Watch { progress, cancel } };
    let archives = ArchiveWriter::new(Planner::new(Archives::new(layers.clone(), room), archives(&table), bounds));
    let sources: Vec<_> = layers.iter().chain(input.new).copied().collect();
    let contents = Contents::new(jobs, input.new, &sources, memory, progress, cancel);
    let kept = kept::memory(repeats.len());
    let room = |table: &OldMembers, archives: u64| budget.apply.saturating_sub(FIXED_MEMORY + kept + archives + table.bytes()).max(STREAMS);
    let parts = room(&table, if archived { archive::memory(0, true) } else { 0 });
    let mut maker = Maker {
        streams: StreamsWriter::within(parts)
            .in_parts(budget.make / 32)
            .coding_within(budget.make / 8 * 3)
            .making(new_bytes)
            .watched(progress, cancel)
            .spilling(scratch.map(Scratch::file).transpose()?),
        table,
        state: Predictor::default(),
        choices: &choices,
        contents,
        archives,
        repeats,
        class_data: false,
        item: 0,
        progress,
        cancel,
    };
    maker.config(input)?;
    let mut stats = Vec::new();
    for layer in input.new {
        stats.push(maker.layer(*layer)?);
    }
    let archives = maker.archives.memory();
    let room = room(&maker.table, archives);
    let table = maker.table.bytes() + archives + kept;
    let scratch = maker.archives.scratch() + maker.repeats.bytes();
    let class_data = maker.class_data || maker.archives.class_data();
    let features = [(maker.repeats.len() > 0, KEPT), (maker.archives.gnu(), GNU), (class_data, CLASS_DATA)];
    let features = features.into_iter().filter_map(|(needed, feature)| needed.then_some(feature)).collect();
    let written = maker.streams.finish_for(room, stats.iter().map(|layer| layer.size).sum())?;
    Ok((Patch { written, used, layers: stats, table, scratch, features }, uses))
}

/// Bytes that a header like an old one saves, about.
const HEADER: u64 = 32;

/// Adds up what comes from each of the layers in use.
fn count_savings(new: &Hashed, choices: &[Choice], table: &OldMembers, uses: &mut [Use]) {
    let layer_of = |number: OldRef| table.get(number).map(|member| usize::from(member.layer));
    for ((_, member), choice) in new.members.iter().zip(choices) {
        if let Content::Same(number) | Content::Like(number) = choice.content
            && let Some(layer) = layer_of(number)
        {
            uses[layer].saves = uses[layer].saves.saturating_add(member.size);
        }
        if let Some(layer) = choice.base.and_then(layer_of) {
            uses[layer].saves = uses[layer].saves.saturating_add(HEADER);
        }
    }
}

fn used_layers(choices: &[Choice], layer_of: impl Fn(OldRef) -> Option<usize>) -> Vec<usize> {
    let mut used = std::collections::BTreeSet::new();
    for choice in choices {
        used.extend(choice.base.and_then(&layer_of));
        if let Content::Same(number) | Content::Like(number) = choice.content {
            used.extend(layer_of(number));
        }
    }
    used.into_iter().collect()
}

/// Old members that may be archives, as long as they are not too many bytes together.
fn archives(table: &OldMembers) -> Vec<Origin> {
    let mut room = archive::make::LIMIT;
    let named = table.iter().filter(|(_, old)| archive::make::is_named(old.path));
    let mut found = Vec::new();
    for (number, old) in named {
        let (Some(file), Some(left)) = (old.file, room.checked_sub(old.size)) else { continue };
        room = left;
        found.push(Origin::Member { number, layer: usize::from(old.layer), file });
    }
    found
}

impl Choice {
    fn map(self, renumber: impl Fn(OldRef) -> OldRef) -> Self {
        let content = match self.content {
            Content::Same(number) => Content::Same(renumber(number)),
            Content::Like(number) => Content::Like(renumber(number)),
            other => other,
        };
        Self { base: self.base.map(renumber), content }
    }
}

struct Maker<'a> {
    streams: StreamsWriter<'a>,
    table: OldMembers,
    state: Predictor,
    choices: &'a [Choice],
    contents: Contents<'a>,
    archives: ArchiveWriter<'a>,
    repeats: Repeats,
    /// Whether a program was none but class data.
    class_data: bool,
    progress: &'a dyn Progress,
    /// The number of the next new member.
    item: u32,
    cancel: &'a AtomicBool,
}

impl Maker<'_> {
    fn config(&mut self, input: &Input<'_>) -> io::Result<()> {
        let (old, table) = config::base(input.base_config.unwrap_or_default(), input.known);
        let (marked, text) = match config::target(input.config, &table) {
            Some(marked) => {
                self.streams.put(Stream::Digests, &marked.new.concat())?;
                (true, marked.text)
            }
            None => (false, input.config.to_vec()),
        };
        self.streams.put(Stream::Codec, &[u8::from(marked)])?;
        self.streams.number(Stream::Size, text.len() as u64)?;
        crate::codec::bidiff::difference(&old, &text).write(&mut self.streams, Kind::Text)
    }

    fn layer(&mut self, layer: &dyn LayerSource) -> io::Result<LayerStats> {
        let mut stats = LayerStats::default();
        // Zeros at the end of a layer follow from its size.
        let mut zeros = 0u64;
        for item in Items::new(layer.segments()?) {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(cancelled());
            }
            match item? {
                Item::Raw(bytes) => {
                    let body = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
                    stats.size += bytes.len() as u64;
                    if body > 0 {
                        self.raw(&mut zeros, &bytes[..body], &mut stats)?;
                    }
                    zeros += (bytes.len() - body) as u64;
                }
                Item::Bare { file, size } => {
                    self.raw(&mut zeros, &[], &mut stats)?;
                    self.streams.put(Stream::Flags, &[0])?;
                    self.streams.number(Stream::Base, base::BARE)?;
                    self.streams.number(Stream::Size, size)?;
                    let choice = self.choices[self.item as usize];
                    self.content(layer, file, size, choice.content, None, &mut stats)?;
                    self.item += 1;
                    stats.size += size;
                }
                Item::Member { member, file } => {
                    self.raw(&mut zeros, &[], &mut stats)?;
                    self.member(layer, &member, file, &mut stats)?;
                    self.item += 1;
                }
            }
        }
        self.streams.put(Stream::Flags, &[0])?;
        self.streams.number(Stream::Base, base::END)?;
        Ok(stats)
    }

    /// Writes raw bytes after the zeros that are waiting.
    fn raw(&mut self, zeros: &mut u64, bytes: &[u8], stats: &mut LayerStats) -> io::Result<()> {
        let len = *zeros + bytes.len() as u64;
        if len == 0 {
            return Ok(());
        }
        self.streams.put(Stream::Flags, &[0])?;
        self.streams.number(Stream::Base, base::RAW)?;
        self.streams.number(Stream::Size, len)?;
        let blank = [0; 4096];
        crate::codec::bidiff::steps(*zeros, blank.len(), |step| self.streams.put(Stream::Raw, &blank[..step]))?;
        self.streams.put(Stream::Raw, bytes)?;
        stats.raw += len;
        *zeros = 0;
        Ok(())
    }

    fn member(&mut self, layer: &dyn LayerSource, member: &Member, file: Option<u32>, stats: &mut LayerStats) -> io::Result<()> {
        let choice = self.choices[self.item as usize];
        let base = choice.base.and_then(|number| self.table.get(number).map(|old| (number, old)));
        let base_form = base.and_then(|(_, old)| old.form);
        let form = self.table.forms.find(&member.form);
        let expected_form = base_form.or((base.is_none() && !self.table.forms.is_empty()).then_some(self.state.form));
        let base_mtime = base.map(|(_, old)| old.mtime);
        let expected_mtime = self.state.mtime(base_mtime);
        let size = member.content();
        let same_content = match choice.content {
            Content::Same(source) => choice.base == Some(source),
            _ => size == 0,
        };
        let (base_path, base_link, base_extras) = base.map_or((&[][..], &[][..], &[][..]), |(_, old)| (old.path, old.link, old.extras));
        let base_size = base.map_or(0, |(_, old)| old.size);

        let mut flags = 0;
        let mut set = |condition: bool, bit: u8| flags |= if condition { bit } else { 0 };
        set(choice.base == Some(self.state.next_base) && base.is_some(), flag::NEXT);
        set(base.is_some() && member.path == base_path, flag::PATH);
        set(form.is_some() && form == expected_form, flag::FORM);
        set(member.mtime == expected_mtime, flag::MTIME);
        set(member.size == base_size, flag::SIZE);
        set(same_content, flag::CONTENT);
        set(member.link == base_link, flag::LINK);
        set(member.extras == base_extras, flag::EXTRAS);

        self.streams.put(Stream::Flags, &[flags])?;
        if flags & flag::NEXT == 0 {
            let value = base
                .map_or(base::NONE, |(number, _)| base::FIRST.saturating_add(zigzag(i64::from(number) - i64::from(self.state.next_base))));
            self.streams.number(Stream::Base, value)?;
        }
        if flags & flag::PATH == 0 {
            let shared = self.state.path.iter().zip(&member.path).take_while(|(a, b)| a == b).count();
            self.streams.number(Stream::PathShared, shared as u64)?;
            self.streams.number(Stream::PathShared, (member.path.len() - shared) as u64)?;
            self.streams.put(Stream::PathText, &member.path[shared..])?;
        }
        if flags & flag::MTIME == 0 {
            self.streams.number(Stream::Mtime, zigzag(member.mtime.wrapping_sub(expected_mtime).cast_signed()))?;
        }
        if flags & flag::SIZE == 0 {
            self.streams.number(Stream::Size, member.size)?;
        }
        if flags & flag::LINK == 0 {
            text(&mut self.streams, Stream::Link, &member.link)?;
        }
        if flags & flag::EXTRAS == 0 {
            text(&mut self.streams, Stream::Extras, &member.extras)?;
        }
        let base_number = base.map(|(number, _)| number);
        if flags & flag::FORM == 0 {
            let number = form.map_or(self.table.forms.len() as u64, u64::from);
            self.streams.number(Stream::Form, number)?;
        }
        let form = match form {
            Some(form) => form,
            None => {
                let mut bytes = Vec::new();
                member.form.write(&mut bytes);
                self.streams.put(Stream::NewForm, &bytes)?;
                self.table.forms.add(member.form.clone())
            }
        };
        self.state.form = form;
        self.state.saw_mtime(base_mtime, member.mtime);
        self.state.path.clone_from(&member.path);
        if let Some(number) = base_number {
            self.state.next_base = number.saturating_add(1);
        }
        stats.size += member.render().map_or(0, |bytes| bytes.len() as u64) + size;
        if member.form.padded {
            stats.size += crate::tar::padding(size) as u64;
        }
        if let (Some(file), false) = (file, same_content) {
            self.content(layer, file, size, choice.content, base_number, stats)?;
        } else if size > 0 {
            count(stats, Codec::Copy, size);
        }
        Ok(())
    }

    fn content(
        &mut self,
        layer: &dyn LayerSource,
        file: u32,
        size: u64,
        content: Content,
        base: Option<OldRef>,
        stats: &mut LayerStats,
    ) -> io::Result<()> {
        let outcome = match content {
            Content::Same(source) => Some((source, None)),
            Content::Like(source) => {
                let mut told = 0;
                if self.archive(layer, file, size, source, base, stats, &mut told)? {
                    return Ok(());
                }
                let outcome = self.contents.take(self.item, told)?;
                (outcome != Outcome::New).then_some((source, Some(outcome)))
            }
            _ => None,
        };
        let Some((source, outcome)) = outcome else {
            return self.new_content(layer, file, size, stats);
        };
        let (number, kind) = match &outcome {
            None | Some(Outcome::New) => (Codec::Copy, Kind::Text),
            Some(Outcome::Bidiff(kind, _) | Outcome::Large(kind, ..)) => (Codec::Bidiff, *kind),
            Some(Outcome::Elf(kind, _)) => (Codec::Elf, *kind),
            Some(Outcome::Dictionary(_)) => (Codec::Dictionary, Kind::Text),
            Some(Outcome::Bytecode(code)) => (Codec::Bytecode, code.kind()),
        };
        count(stats, number, size);
        self.class_data |= number == Codec::Elf && kind != Kind::Program;
        self.codec(number, kind, source, base)?;
        match outcome {
            None | Some(Outcome::New) => Ok(()),
            Some(Outcome::Bidiff(kind, difference) | Outcome::Elf(kind, difference)) => difference.write(&mut self.streams, kind),
            Some(Outcome::Large(kind, runs, job)) => self.contents.write_large(&job, kind, &runs, &mut self.streams),
            Some(Outcome::Dictionary(frame)) => crate::codec::dictionary::write(&mut self.streams, &frame),
            Some(Outcome::Bytecode(code)) => code.write(&mut self.streams, &mut self.state),
        }
    }

    /// Writes a content as an archive; false when it is none. `told` becomes the bytes of whose progress somebody was told.
    #[allow(clippy::too_many_arguments, reason = "a member's values, as in `content`")]
    fn archive(
        &mut self,
        layer: &dyn LayerSource,
        file: u32,
        size: u64,
        source: OldRef,
        base: Option<OldRef>,
        stats: &mut LayerStats,
        told: &mut u64,
    ) -> io::Result<bool> {
        let old = self.table.get(source).and_then(|old| old.file.map(|file| (usize::from(old.layer), file)));
        let Some((old_layer, old_file)) = old.filter(|_| self.contents.is_late(self.item) && size <= self.archives.longest()) else {
            return Ok(false);
        };
        let mut new = Vec::new();
        layer.open(file)?.take(size).read_to_end(&mut new)?;
        if new.len() as u64 != size || Form::of(&new).is_none() {
            return Ok(false);
        }
        let old = Origin::Member { number: source, layer: old_layer, file: old_file };
        let Some(ready) = self.archives.plan(&new, old, told)? else {
            return Ok(false);
        };
        drop(new);
        self.progress.advance(size.saturating_sub(*told));
        count(stats, Codec::Archive, size);
        self.codec(Codec::Archive, Kind::Text, source, base)?;
        self.archives.write(&mut self.streams, ready)?;
        Ok(true)
    }

    /// The bit of a content to keep, or none.
    fn keep(&self) -> u8 {
        if self.repeats.keeps(self.item) { codec::KEPT } else { 0 }
    }

    /// Writes a codec and its source.
    fn codec(&mut self, codec: Codec, kind: Kind, source: OldRef, base: Option<OldRef>) -> io::Result<()> {
        let named = base != Some(source);
        let byte = codec as u8 | if named { codec::NAMED } else { 0 } | (kind as u8) << codec::KIND | self.keep();
        self.streams.put(Stream::Codec, &[byte])?;
        if named {
            self.streams.signed(Stream::Source, i64::from(source) - i64::from(self.state.next_source))?;
        }
        self.state.next_source = source.saturating_add(1);
        Ok(())
    }

    fn new_content(&mut self, layer: &dyn LayerSource, file: u32, size: u64, stats: &mut LayerStats) -> io::Result<()> {
        count(stats, Codec::New, size);
        let mut content = layer.open(file)?;
        let mut buffer = vec![0; 64 * 1024];
        let mut kind = None;
        let keep = self.keep();
        crate::codec::bidiff::steps(size, buffer.len(), |len| {
            content.read_exact(&mut buffer[..len])?;
            let kind = match kind {
                Some(kind) => kind,
                None => {
                    let found = Kind::of(&buffer[..len]);
                    self.streams.put(Stream::Codec, &[Codec::New as u8 | (found as u8) << codec::KIND | keep])?;
                    *kind.insert(found)
                }
            };
            self.streams.put(kind.stream(), &buffer[..len])
        })
    }
}

fn text(streams: &mut StreamsWriter<'_>, stream: Stream, text: &[u8]) -> io::Result<()> {
    streams.number(stream, text.len() as u64)?;
    streams.put(stream, text)
}

fn count(stats: &mut LayerStats, codec: Codec, bytes: u64) {
    let entry = stats.codecs.entry(codec).or_default();
    entry.0 += 1;
    entry.1 += bytes;
}

impl std::fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("new", &self.new.len()).field("old", &self.old.len()).finish_non_exhaustive()
    }
}
