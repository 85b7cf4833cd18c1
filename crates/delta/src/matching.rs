//! Which old member each new member comes from: by content at any path, by path, by path without versions, by name.

use std::collections::HashMap;

use crate::hashed::{Hash, Hashed};
use crate::old::OldRef;

/// What a new member comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Choice {
    /// The old member whose header is most like it.
    pub base: Option<OldRef>,
    /// Its content.
    pub content: Content,
}

/// What a new content comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// There is none.
    None,
    /// It is that of an old member.
    Same(OldRef),
    /// That of an old member is probably like it.
    Like(OldRef),
    /// Nothing old is known to be like it.
    New,
}

/// Old members by what they are found by.
struct Finder<'a> {
    old: &'a Hashed,
    contents: HashMap<Hash, Vec<OldRef>>,
    paths: HashMap<&'a [u8], Vec<OldRef>>,
    unversioned: HashMap<Vec<u8>, Vec<OldRef>>,
    names: HashMap<Vec<u8>, Vec<OldRef>>,
}

/// A choice for each member of `new`, in order.
pub(crate) fn choose(new: &Hashed, old: &Hashed) -> Vec<Choice> {
    let finder = Finder::new(old);
    let mut next = 0;
    let mut choices = Vec::with_capacity(new.hashes.len());
    for ((_, member), hash) in new.members.iter().zip(&new.hashes) {
        let content = match hash {
            None => Content::None,
            Some(hash) => finder.content(hash, member.path, member.size, next),
        };
        let base = member.form.and_then(|_| finder.header(member.path, content, next));
        if let Some(base) = base {
            next = base.saturating_add(1);
        }
        choices.push(Choice { base, content });
    }
    choices
}

impl<'a> Finder<'a> {
    fn new(old: &'a Hashed) -> Self {
        let mut finder = Self { old, contents: HashMap::new(), paths: HashMap::new(), unversioned: HashMap::new(), names: HashMap::new() };
        for (number, member) in old.members.iter() {
            if member.form.is_some() {
                finder.paths.entry(member.path).or_default().push(number);
            }
            if let Some(hash) = old.hashes[number as usize] {
                finder.contents.entry(hash).or_default().push(number);
                if !member.path.is_empty() {
                    finder.unversioned.entry(unversioned(member.path)).or_default().push(number);
                    finder.names.entry(unversioned(name(member.path))).or_default().push(number);
                }
            }
        }
        finder
    }

    fn content(&self, hash: &Hash, path: &[u8], size: u64, next: OldRef) -> Content {
        if let Some(same) = self.contents.get(hash) {
            let with_path = same.iter().rev().copied().find(|&number| self.path(number) == path);
            let number = if same.binary_search(&next).is_ok() { Some(next) } else { with_path.or_else(|| nearest(same, next)) };
            if let Some(number) = number {
                return Content::Same(number);
            }
        }
        if path.is_empty() {
            return Content::New;
        }
        let by_path = self.paths.get(path).into_iter().flatten().rev().copied().find(|&number| self.old.hashes[number as usize].is_some());
        let like = by_path
            .or_else(|| self.closest(self.unversioned.get(&unversioned(path))?, path, size))
            .or_else(|| self.closest(self.names.get(&unversioned(name(path)))?, path, size).filter(|&n| self.comparable(n, size)));
        like.map_or(Content::New, Content::Like)
    }

    fn header(&self, path: &[u8], content: Content, next: OldRef) -> Option<OldRef> {
        if let Some(numbers) = self.paths.get(path) {
            return if numbers.binary_search(&next).is_ok() { Some(next) } else { numbers.last().copied() };
        }
        match content {
            Content::Same(number) | Content::Like(number) => self.old.members.get(number)?.form.map(|_| number),
            _ => None,
        }
    }

    fn path(&self, number: OldRef) -> &'a [u8] {
        self.old.members.get(number).map_or(&[], |member| member.path)
    }

    /// Of several, the one whose path has most in common with `path`, then the one nearest in size.
    fn closest(&self, numbers: &[OldRef], path: &[u8], size: u64) -> Option<OldRef> {
        numbers.iter().copied().max_by_key(|&number| {
            let member = self.old.members.get(number);
            let (old_path, old_size) = member.map_or((&[][..], 0), |member| (member.path, member.size));
            let start = old_path.iter().zip(path).take_while(|(a, b)| a == b).count();
            let end = old_path.iter().rev().zip(path.iter().rev()).take_while(|(a, b)| a == b).count();
            (start + end, std::cmp::Reverse(old_size.abs_diff(size)), number)
        })
    }

    /// A mere name says little: sizes must not be too far apart.
    fn comparable(&self, number: OldRef, size: u64) -> bool {
        self.old.members.get(number).is_some_and(|member| member.size / 4 <= size && size / 4 <= member.size)
    }
}

fn nearest(numbers: &[OldRef], next: OldRef) -> Option<OldRef> {
    numbers.iter().copied().min_by_key(|number| number.abs_diff(next))
}

pub(crate) fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or(path)
}

/// A path whose versions and digests are all alike: every run of digits becomes `0`, every longer run of hex digits with a digit
/// among them too.
pub(crate) fn unversioned(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        let rest = &path[at..];
        let hex = rest.iter().take_while(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)).count();
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if hex >= 6 && rest[..hex].iter().any(u8::is_ascii_digit) {
            out.push(b'0');
            at += hex;
        } else if digits > 0 {
            out.push(b'0');
            at += digits;
        } else {
            out.push(path[at]);
            at += 1;
        }
        // 1.26.2 and 1.26 are both a version.
        while out.ends_with(b"0.0") {
            out.truncate(out.len() - 2);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_do_not_count() {
        for (a, b) in [
            ("usr/lib/libfoo.so.1.2.3", "usr/lib/libfoo.so.1.2.4"),
            ("lib/libfoo.so.1.2", "lib/libfoo.so.1.2.10"),
            ("x/numpy-1.26.2.dist-info/RECORD", "x/numpy-1.26.3.dist-info/RECORD"),
            ("libs/libopenblas-r0-0cf96a72.3.23.so", "libs/libopenblas-r0-fe1234ab.3.24.so"),
        ] {
            assert_eq!(unversioned(a.as_bytes()), unversioned(b.as_bytes()), "{a} {b}");
        }
        assert_ne!(unversioned(b"decade/facade"), unversioned(b"facade/decade"));
    }
}
