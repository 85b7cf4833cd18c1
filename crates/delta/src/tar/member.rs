//! One member's header, extended headers included, as values and a form; and back to the very bytes.

use super::block::{BLOCK, Head};
use super::form::{ExtData, ExtForm, ExtName, ExtTime, Form, LinkRule, NameRule, RecordValue, get_text, put_text};
use super::{MAX_EXTENDED, padding};
use crate::varint;

/// A member without its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// The whole path, wherever the header keeps it.
    pub path: Vec<u8>,
    /// The whole target of a link.
    pub link: Vec<u8>,
    /// The size field.
    pub size: u64,
    /// The time field, in seconds.
    pub mtime: u64,
    /// How these are laid out.
    pub form: Form,
    /// What the form says is carried, in order, each with its length.
    pub extras: Vec<u8>,
}

/// An extended header as read: its block and its data without padding.
pub(super) type Extended = ([u8; BLOCK], Vec<u8>);

impl Member {
    /// Bytes of content that follow the header.
    pub fn content(&self) -> u64 {
        if self.form.shape.is_file() { self.size } else { 0 }
    }

    /// The member in these blocks; `None` when rendering it would not give them again.
    pub(super) fn parse(exts: &[Extended], block: &[u8; BLOCK], padded: bool) -> Option<Self> {
        if exts.len() > Form::MAX_EXTS {
            return None;
        }
        let head = Head::parse(block)?;
        let mut path = None;
        let mut link = None;
        let mut heads = Vec::new();
        for (ext, data) in exts {
            let ext = Head::parse(ext)?;
            match ext.shape.typeflag() {
                b'x' => {
                    for (key, value) in records(data)? {
                        match key {
                            b"path" => path = Some(value.to_vec()),
                            b"linkpath" => link = Some(value.to_vec()),
                            // The size field then says nothing of the content.
                            b"size" => return None,
                            _ => {}
                        }
                    }
                }
                b'L' => path = Some(data.strip_suffix(b"\0")?.to_vec()),
                b'K' => link = Some(data.strip_suffix(b"\0")?.to_vec()),
                _ => {}
            }
            heads.push((ext, data));
        }
        let path = path.unwrap_or_else(|| match head.prefix.is_empty() {
            true => head.name.clone(),
            false => [&head.prefix[..], b"/", &head.name].concat(),
        });
        let link = link.unwrap_or_else(|| head.link.clone());
        let mut extras = Vec::new();
        let exts = heads.iter().map(|(ext, data)| ext_form(ext, data, &path, &link, head.mtime, &mut extras)).collect();
        let name = [NameRule::Plain, NameRule::Split, NameRule::Cut]
            .into_iter()
            .find(|rule| name_fields(*rule, &path).is_some_and(|(prefix, name)| prefix == head.prefix && name == head.name));
        if name.is_none() {
            put_text(&mut extras, &head.prefix);
            put_text(&mut extras, &head.name);
        }
        let link_rule =
            [LinkRule::Plain, LinkRule::Cut].into_iter().find(|rule| link_field(*rule, &link).is_some_and(|field| field == head.link));
        if link_rule.is_none() {
            put_text(&mut extras, &head.link);
        }
        let form =
            Form { shape: head.shape, name: name.unwrap_or(NameRule::Carried), link: link_rule.unwrap_or(LinkRule::Carried), padded, exts };
        if !form.is_modest() {
            return None;
        }
        let member = Self { path, link, size: head.size, mtime: head.mtime, form, extras };
        let mut original = Vec::new();
        for (ext, data) in &heads {
            original.extend_from_slice(&ext.render()?);
            original.extend_from_slice(data);
            original.resize(original.len() + padding(data.len() as u64), 0);
        }
        original.extend_from_slice(block);
        (member.render()? == original).then_some(member)
    }

    /// The header's bytes, extended headers first; `None` when a value does not fit its place.
    pub fn render(&self) -> Option<Vec<u8>> {
        let mut extras = &self.extras[..];
        let mut out = Vec::with_capacity(BLOCK);
        for form in &self.form.exts {
            self.render_ext(form, &mut extras, &mut out)?;
        }
        let (prefix, name) = match self.form.name {
            NameRule::Carried => (extra(&mut extras)?, extra(&mut extras)?),
            rule => name_fields(rule, &self.path)?,
        };
        let link = match self.form.link {
            LinkRule::Carried => extra(&mut extras)?,
            rule => link_field(rule, &self.link)?,
        };
        let head = Head { name, prefix, link, size: self.size, mtime: self.mtime, shape: self.form.shape.clone() };
        out.extend_from_slice(&head.render()?);
        extras.is_empty().then_some(out)
    }

    fn render_ext(&self, form: &ExtForm, extras: &mut &[u8], out: &mut Vec<u8>) -> Option<()> {
        let name = match &form.name {
            ExtName::Joined(word) => joined(&self.path, word, b""),
            ExtName::Dotted(word) => joined(&self.path, word, b"./"),
            ExtName::Fixed(name) => name.clone(),
            ExtName::Carried => extra(extras)?,
        };
        let mtime = match form.time {
            ExtTime::Zero => 0,
            ExtTime::Same => self.mtime,
            ExtTime::Carried => varint::get(extras).ok()?,
        };
        let data = match &form.data {
            ExtData::Records(records) => {
                let mut data = Vec::new();
                for (key, value) in records {
                    let carried;
                    let value = match value {
                        RecordValue::Path => &self.path,
                        RecordValue::Link => &self.link,
                        RecordValue::Carried => {
                            carried = extra(extras)?;
                            &carried
                        }
                    };
                    put_record(&mut data, key, value);
                    if data.len() as u64 > MAX_EXTENDED {
                        return None;
                    }
                }
                data
            }
            ExtData::Path => [&self.path[..], b"\0"].concat(),
            ExtData::Link => [&self.link[..], b"\0"].concat(),
            ExtData::Carried => extra(extras)?,
        };
        let size = data.len() as u64;
        let head = Head { name, prefix: Vec::new(), link: Vec::new(), size, mtime, shape: form.shape.clone() };
        out.extend_from_slice(&head.render()?);
        out.extend_from_slice(&data);
        out.resize(out.len() + padding(size), 0);
        // What is held for one member has less, so that a form of many headers needs no more memory than one of few.
        (out.len() as u64 <= 2 * MAX_EXTENDED).then_some(())
    }
}

fn ext_form(head: &Head, data: &[u8], path: &[u8], link: &[u8], mtime: u64, extras: &mut Vec<u8>) -> ExtForm {
    let word = match head.shape.typeflag() {
        b'x' | b'g' => head.name.split(|&b| b == b'/').find(|part| part.starts_with(b"PaxHeaders")),
        _ => None,
    };
    let name = match word {
        Some(word) if joined(path, word, b"") == head.name => ExtName::Joined(word.to_vec()),
        Some(word) if joined(path, word, b"./") == head.name => ExtName::Dotted(word.to_vec()),
        _ if head.name.starts_with(b"././@") => ExtName::Fixed(head.name.clone()),
        _ => {
            put_text(extras, &head.name);
            ExtName::Carried
        }
    };
    let time = match head.mtime {
        0 => ExtTime::Zero,
        time if time == mtime => ExtTime::Same,
        time => {
            varint::put(extras, time);
            ExtTime::Carried
        }
    };
    let data = match (head.shape.typeflag(), records(data)) {
        (b'L', _) if data.strip_suffix(b"\0") == Some(path) => ExtData::Path,
        (b'K', _) if data.strip_suffix(b"\0") == Some(link) => ExtData::Link,
        (b'x' | b'g', Some(records)) => {
            let mut keys = Vec::new();
            for (key, value) in records {
                let rule = match key {
                    b"path" if value == path => RecordValue::Path,
                    b"linkpath" if value == link => RecordValue::Link,
                    _ => {
                        put_text(extras, value);
                        RecordValue::Carried
                    }
                };
                keys.push((key.to_vec(), rule));
            }
            ExtData::Records(keys)
        }
        _ => {
            put_text(extras, data);
            ExtData::Carried
        }
    };
    ExtForm { shape: head.shape.clone(), name, time, data }
}

fn extra(extras: &mut &[u8]) -> Option<Vec<u8>> {
    get_text(extras, MAX_EXTENDED).ok()
}

/// Prefix and name of a path.
fn name_fields(rule: NameRule, path: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    match rule {
        NameRule::Plain => (path.len() <= 100).then(|| (Vec::new(), path.to_vec())),
        NameRule::Split => {
            // The slash may not be the last byte: a folder's own slash stays with its name.
            let limit = path.len().saturating_sub(1).min(156);
            let slash = path[..limit].iter().rposition(|&b| b == b'/').filter(|&at| at > 0)?;
            Some((path[..slash].to_vec(), path[slash + 1..].to_vec()))
        }
        NameRule::Cut => Some((Vec::new(), cut(path))),
        NameRule::Carried => None,
    }
}

fn link_field(rule: LinkRule, link: &[u8]) -> Option<Vec<u8>> {
    match rule {
        LinkRule::Plain => (link.len() <= 100).then(|| link.to_vec()),
        LinkRule::Cut => Some(cut(link)),
        LinkRule::Carried => None,
    }
}

fn cut(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(u8::is_ascii).take(100).collect()
}

/// Folder, word, last part; the folder is `none` when there is none. Cut to the field, with no slash at the end.
fn joined(path: &[u8], word: &[u8], none: &[u8]) -> Vec<u8> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let (folder, file) = match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => path.split_at(slash + 1),
        None => (none, path),
    };
    let mut name = [folder, word, b"/", file].concat();
    name.retain(u8::is_ascii);
    name.truncate(100);
    while name.last() == Some(&b'/') {
        name.pop();
    }
    name
}

/// The records of a PAX header, if they are written as they should be.
fn records(mut data: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let space = data.iter().take(20).position(|&b| b == b' ')?;
        let len: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
        let record = data.get(space + 1..len)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&b| b == b'=')?;
        records.push((&record[..equals], &record[equals + 1..]));
        data = &data[len..];
    }
    Some(records)
}

/// `LENGTH KEY=VALUE\n`, the length counting itself.
fn put_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(len.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}
