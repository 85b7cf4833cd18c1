//! What changed between two versions of a job, field by field, for people.

use std::collections::BTreeMap;
use std::fmt;

use skerry_wire::job::Job;

mod parts;
mod policy;

use parts::of_job;

/// What happened to one field or one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is different.
    Edited,
}

impl Change {
    /// `+`, `-` or `~`.
    pub const fn sign(self) -> char {
        match self {
            Self::Added => '+',
            Self::Removed => '-',
            Self::Edited => '~',
        }
    }
}

/// One field that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDiff {
    /// Its name inside its part: `config.image`.
    pub name: String,
    /// What it was, if it was there.
    pub old: Option<String>,
    /// What it is, if it is there.
    pub new: Option<String>,
}

impl FieldDiff {
    /// What happened to it.
    pub const fn change(&self) -> Change {
        match (&self.old, &self.new) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Edited,
        }
    }
}

/// A job, group or task that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartDiff {
    /// What happened to it as a whole.
    pub change: Change,
    /// `job "web"`, `group "app"`, `task "server"`.
    pub name: String,
    /// Its own fields that changed, by name.
    pub fields: Vec<FieldDiff>,
    /// The parts inside that changed: those of the new job in its order, then those that are gone.
    pub parts: Vec<PartDiff>,
}

/// The difference of two jobs; nothing when they are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDiff(pub Option<PartDiff>);

impl JobDiff {
    /// Is there no difference?
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// What changed from `old` to `new`; the same for the same jobs. Groups and tasks are matched by name, lists by position.
pub fn diff(old: &Job, new: &Job) -> JobDiff {
    let mut part = compare(Some(&of_job(old)), Some(&of_job(new)));
    if let Some(part) = &mut part {
        part.name = format!("job {:?}", new.id);
    }
    JobDiff(part)
}

/// A new job, as a difference to nothing.
pub fn diff_new(new: &Job) -> JobDiff {
    JobDiff(compare(None, Some(&of_job(new))))
}

impl fmt::Display for JobDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("no changes\n"),
            Some(part) => write_part(f, part, 0),
        }
    }
}

fn write_part(f: &mut fmt::Formatter<'_>, part: &PartDiff, indent: usize) -> fmt::Result {
    let pad = "    ".repeat(indent);
    writeln!(f, "{pad}{} {}", part.change.sign(), part.name)?;
    let width = part.fields.iter().map(|x| x.name.len()).max().unwrap_or(0).min(40);
    for field in &part.fields {
        let (sign, name) = (field.change().sign(), &field.name);
        match (&field.old, &field.new) {
            (Some(old), Some(new)) => writeln!(f, "{pad}    {sign} {name:<width$} = {old} -> {new}")?,
            (old, new) => {
                let value = new.as_ref().or(old.as_ref()).map_or("", String::as_str);
                writeln!(f, "{pad}    {sign} {name:<width$} = {value}")?;
            }
        }
    }
    part.parts.iter().try_for_each(|inner| write_part(f, inner, indent + 1))
}

/// One part of a job as names and texts.
#[derive(Debug, Default)]
struct Part {
    name: String,
    fields: BTreeMap<String, String>,
    parts: Vec<Part>,
}

impl Part {
    fn text(&mut self, name: impl Into<String>, value: &str) {
        self.fields.insert(name.into(), format!("{value:?}"));
    }

    fn plain(&mut self, name: &str, value: impl fmt::Display) {
        self.fields.insert(name.to_owned(), value.to_string());
    }

    fn map(&mut self, name: &str, map: &BTreeMap<String, String>) {
        for (key, value) in map {
            self.text(format!("{name}.{key}"), value);
        }
    }

    fn list(&mut self, name: &str, list: &[String]) {
        for (i, value) in list.iter().enumerate() {
            self.text(format!("{name}[{i:0>3}]"), value);
        }
    }

    /// A field that is there or not.
    fn maybe(&mut self, name: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.plain(name, value);
        }
    }

    /// A switch that is shown when it is on.
    fn on(&mut self, name: &str, value: bool) {
        if value {
            self.plain(name, value);
        }
    }
}

fn compare(old: Option<&Part>, new: Option<&Part>) -> Option<PartDiff> {
    let empty = Part::default();
    let (before, after) = (old.unwrap_or(&empty), new.unwrap_or(&empty));
    let names: std::collections::BTreeSet<&String> = before.fields.keys().chain(after.fields.keys()).collect();
    let field =
        |name: &&String| FieldDiff { name: shown(name), old: before.fields.get(*name).cloned(), new: after.fields.get(*name).cloned() };
    let fields: Vec<FieldDiff> = names.iter().map(field).filter(|x| x.old != x.new).collect();
    let find = |list: &[Part], name: &str| list.iter().position(|p| p.name == name);
    let mut parts = Vec::new();
    for part in &after.parts {
        parts.extend(compare(find(&before.parts, &part.name).and_then(|i| before.parts.get(i)), Some(part)));
    }
    for part in &before.parts {
        if find(&after.parts, &part.name).is_none() {
            parts.extend(compare(Some(part), None));
        }
    }
    let change = match (old, new) {
        (None, _) => Change::Added,
        (_, None) => Change::Removed,
        _ if fields.is_empty() && parts.is_empty() => return None,
        _ => Change::Edited,
    };
    let name = if new.is_some() { &after.name } else { &before.name };
    Some(PartDiff { change, name: name.clone(), fields, parts })
}

/// List positions are sorted as `[007]` and shown as `[7]`.
fn shown(name: &str) -> String {
    let Some((head, number)) = name.strip_suffix(']').and_then(|n| n.rsplit_once('[')) else { return name.to_owned() };
    number.parse::<usize>().map_or_else(|_| name.to_owned(), |n| format!("{head}[{n}]"))
}
