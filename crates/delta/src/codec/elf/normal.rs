//! A program without what moves: each address is replaced by a mark of what is there, so that runs are found across moved code.

#![expect(clippy::cast_possible_truncation, reason = "fields hold the low bits of what they stand for")]

use std::io::{self, Cursor};

use super::debug::Debug;
use super::fields::{Field, Finder, Form};
use super::program::{FILE, HEAD, Holds, Part, Program};
use super::targets::Use;

/// So many bytes tell what is at an address.
const SAMPLE: usize = 24;

/// The content with its addresses replaced; `None` when it is no program.
pub(super) fn normal(content: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let Some(program) = Program::parse(&content[..content.len().min(HEAD)]) else { return Ok(None) };
    let (parts, places) = program.parts(&mut Cursor::new(content), content.len() as u64)?;
    let debug = Debug::read(&mut Cursor::new(content), places)?;
    let mut normal = content.to_vec();
    let fields = |each: &mut dyn FnMut(&Part, usize, &Field)| {
        for part in &parts {
            let (address, _) = program.stretch(part.start);
            let (Ok(start), Ok(end)) = (usize::try_from(part.start), usize::try_from(part.end)) else { continue };
            let mut finder = Finder::new(&program, &debug);
            let mut at = start;
            let end = end.min(content.len());
            while at < end {
                let done = (at - start) as u64;
                let skip = finder.skip(part, &content[at..end], address + done, done);
                finder.pass(&content[at..at + skip]);
                at += skip;
                if at == end {
                    break;
                }
                let done = (at - start) as u64;
                let found = finder.find(part, &content[at..end], address + done, done);
                found.fields().for_each(|field| each(part, at + field.at, field));
                let len = found.len().max(1);
                finder.pass(&content[at..(at + len).min(end)]);
                at += len;
            }
        }
    };
    fields(&mut |_, at, field| put(&mut normal, at, field.form, 0));
    let blank = normal.clone();
    let offset = |address: u64| {
        if address >= FILE {
            return usize::try_from(address - FILE).ok();
        }
        let segment = program.segments.iter().find(|s| address.wrapping_sub(s.address) < s.file_size)?;
        usize::try_from(address - segment.address + segment.offset).ok()
    };
    let mut last = 0;
    fields(&mut |part, at, field| {
        let mark = if part.holds == Holds::Relocations && field.kind == Use::Place {
            let by = field.target.wrapping_sub(last) as u32;
            last = field.target;
            by
        } else if matches!(field.form, Form::Back { .. })
            || matches!(field.kind, Use::DebugEntry | Use::Locations | Use::Ranges | Use::Line)
        {
            0
        } else {
            // What is named begins with a number that looks random.
            let named = if field.kind == Use::Offset { 4 } else { 0 };
            let sample = offset(field.target.wrapping_add(named)).and_then(|at| blank.get(at..(at + SAMPLE).min(blank.len())));
            sample.map_or(1, |sample| sample.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)))
        };
        put(&mut normal, at, field.form, mark);
    });
    Ok(Some(normal))
}

fn put(normal: &mut [u8], at: usize, form: Form, mark: u32) {
    let mask = match form {
        Form::Branch { low, len } => ((1 << len) - 1) << low,
        Form::Page { .. } => 0x60ff_ffe0,
        Form::Rest { .. } => 0xfff << 10,
        _ => u32::MAX,
    };
    if form == Form::Line {
        normal[at..at + 2].fill(0);
        return;
    }
    let bytes = &mut normal[at..at + 4];
    let old = u32::from_le_bytes((&*bytes).try_into().expect("four bytes"));
    bytes.copy_from_slice(&(old & !mask | mark & mask).to_le_bytes());
    if form == Form::Whole {
        normal[at + 4..at + 8].fill(0);
    }
}
