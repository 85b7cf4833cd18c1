//! The members of some layers together with the hashes of their contents: what matching works on.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use ring::digest;

use crate::old::OldMembers;
use crate::progress::Progress;
use crate::source::LayerSource;

/// The first half of the SHA-256 of a content, or its first quarter followed by zeros.
pub(crate) type Hash = [u8; 16];

/// The first quarter of a SHA-256.
const SHORT: usize = 8;

/// Members and hashes.
#[derive(Debug, Default)]
pub(crate) struct Hashed {
    /// The members of all layers.
    pub members: OldMembers,
    /// For each member the hash of its content, if it has any.
    pub hashes: Vec<Option<Hash>>,
    /// For each layer the number of its first member, and at the end the number of all.
    pub starts: Vec<u32>,
}

impl Hashed {
    /// Reads all layers once, in parallel, but for the contents of those whose hashes are `known`. When any is, all hashes of both sides
    /// must be `short`.
    pub(crate) fn read(
        layers: &[&dyn LayerSource],
        known: &[Option<Vec<u64>>],
        short: bool,
        progress: &dyn Progress,
        cancel: &AtomicBool,
    ) -> io::Result<Self> {
        let mut all = Self::default();
        for layer in layers {
            all.starts.push(all.members.len());
            all.members.load(*layer, u64::MAX)?;
        }
        all.starts.push(all.members.len());
        all.hashes = vec![None; all.members.len() as usize];
        // A layer's files lie one after the other: in runs, so that all cores have work and each reads forward.
        let mut runs = Vec::new();
        let mut rest = &mut all.hashes[..];
        let mut first = 0;
        while !rest.is_empty() {
            let (run, later) = rest.split_at_mut(rest.len().min(RUN));
            let len = run.len();
            runs.push((first, run));
            first += len;
            rest = later;
        }
        let members = &all.members;
        runs.into_par_iter().try_for_each(|(first, run)| -> io::Result<()> {
            for (number, slot) in (first..).zip(run) {
                let Some(old) = u32::try_from(number).ok().and_then(|number| members.get(number)) else { continue };
                let Some(file) = old.file else { continue };
                if cancel.load(Ordering::Relaxed) {
                    return Err(cancelled());
                }
                let layer = usize::from(old.layer);
                let known = known.get(layer).and_then(|hashes| hashes.as_ref()?.get(usize::try_from(file).ok()?));
                let mut hash = match known {
                    Some(known) => known_hash(*known),
                    None => hash(layers[layer], file, old.size)?,
                };
                if short {
                    hash[SHORT..].fill(0);
                }
                *slot = Some(hash);
                progress.advance(old.size);
            }
            Ok(())
        })?;
        Ok(all)
    }
}

/// Members hashed by one task.
const RUN: usize = 256;

/// The error of work that was told to stop.
pub(crate) fn cancelled() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "cancelled")
}

fn known_hash(known: u64) -> Hash {
    let mut hash = [0; 16];
    hash[..SHORT].copy_from_slice(&known.to_be_bytes());
    hash
}

fn hash(layer: &dyn LayerSource, file: u32, size: u64) -> io::Result<Hash> {
    let mut content = layer.open(file)?.take(size);
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(64 * 1024)];
    loop {
        let read = content.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        context.update(&buffer[..read]);
    }
    Ok(context.finish().as_ref()[..16].try_into().expect("a SHA-256 has 32 bytes"))
}
