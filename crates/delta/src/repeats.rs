//! What new contents come from that have nothing old by path or name: an old content anywhere, or an earlier new one, farther back
//! than the window of a coder reaches. And those that have something old, but are more like an earlier new one.
//!
//! In: what matching chose for the new members. Out: for some of them another choice; whoever applies
//! [keeps](crate::kept) those that are new. A twin is found by its hash, a content that is merely similar by pieces that both have.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::codec::elf;
use crate::hashed::{Hash, Hashed, cancelled};
use crate::kept;
use crate::matching::{Choice, Content};
use crate::old::OldRef;
use crate::source::LayerSource;

/// A twin of fewer bytes is not worth keeping.
const TWIN: u64 = 4 << 10;
/// Contents of fewer bytes are not compared by pieces.
const SIMILAR: u64 = 128 << 10;
/// What is no farther back than this is in the window of a coder.
const FAR: u64 = 4 << 20;
/// Pieces remembered of all contents together, about.
const PIECES: u64 = 1 << 20;
/// A piece stands for at least this many bytes, as a power of two.
const PIECE_LOG: u32 = 10;

/// What new contents come from, among new ones.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    /// The new members that are kept, rising.
    kept: Vec<u32>,
    bytes: u64,
}

impl Repeats {
    /// Finds them, and puts them into `choices` as sources from number `first` on. `rivals` are those of [`rivals`].
    pub(crate) fn find(
        new: &Hashed,
        pieces: &Pieces,
        rivals: &BTreeMap<u32, u32>,
        choices: &mut [Choice],
        first: OldRef,
    ) -> io::Result<Self> {
        let mut found: Vec<(u32, u32, bool)> = Vec::new();
        let mut starts = vec![0u64; choices.len()];
        let mut at = 0;
        for ((number, member), start) in new.members.iter().zip(&mut starts) {
            *start = at;
            at += member.size * u64::from(new.hashes[number as usize].is_some());
        }
        let mut twins: HashMap<Hash, u32> = HashMap::new();
        let mut places: HashMap<u64, u32> = HashMap::new();
        let mut dependent: BTreeSet<u32> = BTreeSet::new();
        for (number, member) in new.members.iter() {
            let index = number as usize;
            let (Some(hash), Content::New | Content::Like(_)) = (new.hashes[index], choices[index].content) else { continue };
            if member.size < TWIN {
                continue;
            }
            let twin = *twins.entry(hash).or_insert(number);
            let fresh = choices[index].content == Content::New;
            // What is made from a kept content is not kept itself.
            if let Some(&rival) = rivals.get(&number).filter(|rival| !dependent.contains(rival)) {
                found.push((number, rival, twin == rival));
                dependent.insert(number);
                if twin == number {
                    twins.remove(&hash);
                }
                continue;
            }
            if fresh && twin != number {
                found.push((number, twin, true));
                dependent.insert(number);
                continue;
            }
            let Some(of) = pieces.of.get(&number) else { continue };
            let like = if fresh { most_like(of, &places) } else { None };
            match like.filter(|&like| starts[index] - starts[like as usize] > FAR) {
                Some(like) => {
                    found.push((number, like, false));
                    dependent.insert(number);
                    twins.remove(&hash);
                }
                None => of.iter().for_each(|&piece| {
                    places.entry(piece).or_insert(number);
                }),
            }
        }
        let mut numbers: BTreeMap<u32, u32> = BTreeMap::new();
        for &(_, source, _) in &found {
            if numbers.len() < kept::MOST {
                numbers.insert(source, 0);
            }
        }
        let mut repeats = Self::default();
        for (source, number) in &mut numbers {
            *number = u32::try_from(repeats.kept.len()).map_err(io::Error::other)?;
            repeats.kept.push(*source);
            repeats.bytes += new.members.get(*source).map_or(0, |member| member.size);
        }
        for (number, source, same) in found {
            let Some(source) = numbers.get(&source).and_then(|kept| first.checked_add(*kept)) else { continue };
            choices[number as usize].content = if same { Content::Same(source) } else { Content::Like(source) };
        }
        Ok(repeats)
    }

    /// Whether this new member is kept.
    pub(crate) fn keeps(&self, number: u32) -> bool {
        self.kept.binary_search(&number).is_ok()
    }

    /// The new member that has this number among those that are kept.
    pub(crate) fn member(&self, kept: u32) -> Option<u32> {
        self.kept.get(kept as usize).copied()
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Puts old contents that have pieces of new ones into `choices` where there is nothing old yet.
pub(crate) fn find_old(
    old: &Hashed,
    layers: &[&dyn LayerSource],
    pieces: &Pieces,
    choices: &mut [Choice],
    cancel: &AtomicBool,
) -> io::Result<()> {
    let fresh = |choices: &[Choice], number: u32| choices[number as usize].content == Content::New;
    if !pieces.of.keys().any(|&number| fresh(choices, number)) {
        return Ok(());
    }
    let of = Pieces::read(old, layers, &|_| true, None, cancel)?.of;
    let mut places: HashMap<u64, u32> = HashMap::new();
    for (number, pieces) in of {
        for piece in pieces {
            // Of several the last, which is in the upper layer.
            let place = places.entry(piece).or_insert(number);
            *place = number.max(*place);
        }
    }
    for (&number, pieces) in &pieces.of {
        let like = if fresh(choices, number) { most_like(pieces, &places) } else { None };
        if let Some(like) = like {
            choices[number as usize].content = Content::Like(like);
        }
    }
    Ok(())
}

/// Earlier new contents that new ones are more like than what matching chose for them: they lack less than half of the pieces. None of
/// the earlier ones has a rival itself.
pub(crate) fn rivals(
    new: &Hashed,
    pieces: &Pieces,
    sources: &[&dyn LayerSource],
    (old, layers): (&Hashed, &[&dyn LayerSource]),
    choices: &[Choice],
    cancel: &AtomicBool,
) -> io::Result<BTreeMap<u32, u32>> {
    let mut places: HashMap<u64, u32> = HashMap::new();
    let mut found: Vec<(u32, u32, OldRef)> = Vec::new();
    for (number, _) in new.members.iter() {
        let (Some(of), content) = (pieces.of.get(&number), choices[number as usize].content) else { continue };
        if let (Content::Like(source), Some(like)) = (content, most_like(of, &places)) {
            found.push((number, like, source));
        }
        of.iter().for_each(|&piece| {
            places.entry(piece).or_insert(number);
        });
    }
    drop(places);
    let wanted: BTreeSet<_> = found.iter().map(|(_, _, source)| *source).collect();
    let olds = Pieces::read(old, layers, &|number| wanted.contains(&number), Some(pieces.log), cancel)?.of;
    let mut rivals = BTreeMap::new();
    for (number, like, source) in found {
        let (Some(of), Some(earlier)) = (pieces.of.get(&number), pieces.of.get(&like)) else { continue };
        // Pieces are in order. Those that are not in common are what it costs.
        let missing = |with: &[u64]| of.iter().filter(|piece| with.binary_search(piece).is_err()).count();
        let of_old = olds.get(&source).map_or(of.len(), |old| missing(old));
        let of_new = missing(earlier);
        let far = of_new * 2 < of_old && of_new * 2 <= of.len();
        // Class data of one program is in the same order, whatever the pieces say.
        let kin = of_new <= of_old + of_old / 4 && is_class_data(new, sources, number)? && is_class_data(new, sources, like)?;
        if (far || kin) && !rivals.contains_key(&like) {
            rivals.insert(number, like);
        }
    }
    Ok(rivals)
}

fn is_class_data(new: &Hashed, layers: &[&dyn LayerSource], number: u32) -> io::Result<bool> {
    let Some((layer, file)) = new.members.get(number).and_then(|member| Some((usize::from(member.layer), member.file?))) else {
        return Ok(false);
    };
    let mut start = Vec::new();
    layers[layer].open(file)?.take(4096).read_to_end(&mut start)?;
    Ok(elf::is_class_data(&start))
}

/// The content that has most of these pieces, when that is enough to compare the two.
fn most_like(pieces: &[u64], places: &HashMap<u64, u32>) -> Option<u32> {
    let mut votes: BTreeMap<u32, usize> = BTreeMap::new();
    for place in pieces.iter().filter_map(|piece| places.get(piece)) {
        *votes.entry(*place).or_default() += 1;
    }
    let (place, most) = votes.into_iter().max_by_key(|&(place, votes)| (votes, std::cmp::Reverse(place)))?;
    (most * 32 >= pieces.len() && most >= 48).then_some(place)
}

/// Pieces of contents: the hashes of the bytes before places that the bytes themselves choose.
pub(crate) struct Pieces {
    of: HashMap<u32, Vec<u64>>,
    /// A piece stands for so many bytes, as a power of two.
    log: u32,
}

impl Pieces {
    /// Of the new contents that are not old ones.
    pub(crate) fn of_new(new: &Hashed, layers: &[&dyn LayerSource], choices: &[Choice], cancel: &AtomicBool) -> io::Result<Self> {
        Self::read(new, layers, &|number| matches!(choices[number as usize].content, Content::New | Content::Like(_)), None, cancel)
    }

    fn read(
        all: &Hashed,
        layers: &[&dyn LayerSource],
        wanted: &dyn Fn(u32) -> bool,
        log: Option<u32>,
        cancel: &AtomicBool,
    ) -> io::Result<Self> {
        let long: Vec<_> = all
            .members
            .iter()
            .filter(|(number, member)| member.size >= SIMILAR && wanted(*number))
            .filter_map(|(number, member)| member.file.map(|file| (number, usize::from(member.layer), file, member.size)))
            .collect();
        let total: u64 = long.iter().map(|(_, _, _, size)| size).sum();
        let log = log.unwrap_or_else(|| (total / PIECES).max(1 << PIECE_LOG).next_power_of_two().ilog2());
        let read = |(number, layer, file, size): (u32, usize, u32, u64)| -> io::Result<(u32, Vec<u64>)> {
            if cancel.load(Ordering::Relaxed) {
                return Err(cancelled());
            }
            Ok((number, pieces(layers[layer].open(file)?.take(size), log)?))
        };
        Ok(Self { of: long.into_par_iter().with_max_len(1).map(read).collect::<io::Result<_>>()?, log })
    }
}

fn pieces(mut content: impl Read, log: u32) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let mut roll = 0u64;
    loop {
        let read = content.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        for &byte in &buffer[..read] {
            // What a byte adds is shifted out after 64 more: the sum is of the last 64.
            roll = (roll << 1).wrapping_add(scatter(byte));
            if roll >> (64 - log) == 0 {
                found.push(roll);
            }
        }
    }
    // One run of equal bytes is not many pieces.
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// A number that looks random for each byte.
fn scatter(byte: u8) -> u64 {
    const TABLE: [u64; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        let mut state = 0u64;
        while i < 256 {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            table[i] = z ^ (z >> 31);
            i += 1;
        }
        table
    };
    TABLE[usize::from(byte)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_moved_bytes_are_the_same() {
        let bytes: Vec<u8> = (0..400_000u64).map(|i| i.wrapping_mul(i).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[2]).collect();
        let moved = [&bytes[100_000..], b"something between", &bytes[..100_000]].concat();
        let (a, b) = (pieces(&bytes[..], 10).unwrap(), pieces(&moved[..], 10).unwrap());
        assert!(a.len() > 200, "{}", a.len());
        let places: HashMap<u64, u32> = a.iter().map(|piece| (*piece, 7)).collect();
        assert_eq!(most_like(&b, &places), Some(7));
        let other: Vec<u8> = bytes.iter().map(|byte| byte.wrapping_mul(3)).collect();
        assert_eq!(most_like(&pieces(&other[..], 10).unwrap(), &places), None);
    }
}
