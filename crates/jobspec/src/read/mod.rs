//! Blocks and fields of the text into the parts of a [`Job`](skerry_wire::job::Job), with the place of each.
//!
//! Shapes and types are judged here; everything that also matters for a job that was never text is judged by [`crate::rules`].

mod driver;
mod job;
mod policy;
mod service;
mod task;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};

use hcl::Value;
use hcl_edit::expr::{Expression, ObjectKey};
use hcl_edit::structure::{Attribute, Block, Body, Structure};
use skerry_wire::Millis;

use crate::diagnostic::{Fault, Sink};
use crate::duration;
use crate::eval::{Evaluator, kind, scalar_text, span_of};
use crate::names::did_you_mean;
use crate::schema::{Schema, Verdict};

pub(crate) use job::read_job;

/// Where each field of the job stands in the text, by path (`groups.0.tasks.1.config.image`).
#[derive(Debug, Default)]
pub(crate) struct Spans(BTreeMap<String, Range<usize>>);

impl Spans {
    pub(crate) fn set(&mut self, path: impl Into<String>, span: Range<usize>) {
        self.0.insert(path.into(), span);
    }

    /// The place of a field, or of the nearest thing around it that was written.
    pub(crate) fn find(&self, path: &str) -> Range<usize> {
        let mut path = path;
        loop {
            if let Some(span) = self.0.get(path).or_else(|| self.0.get(for_all_groups(path)?)) {
                return span.clone();
            }
            match path.rsplit_once('.') {
                Some((outer, _)) => path = outer,
                None => return self.0.get("").cloned().unwrap_or(0..0),
            }
        }
    }
}

/// The path of the same field where the job says it for all its groups.
fn for_all_groups(path: &str) -> Option<&str> {
    let field = path.strip_prefix("groups.")?.split_once('.')?.1;
    (field.starts_with("update.") || field.starts_with("reschedule.")).then_some(field)
}

/// Reads one text.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) eval: Evaluator<'a>,
    pub(crate) sink: Sink<'a>,
    pub(crate) spans: Spans,
}

/// The contents of a block, sorted by name.
#[derive(Debug, Default)]
pub(crate) struct Entries<'b> {
    attributes: BTreeMap<&'b str, &'b Attribute>,
    blocks: BTreeMap<&'b str, Vec<&'b Block>>,
}

impl<'b> Entries<'b> {
    pub(crate) fn blocks(&self, name: &str) -> &[&'b Block] {
        self.blocks.get(name).map_or(&[], Vec::as_slice)
    }

    /// Where a field or its first block is written, if it is.
    pub(crate) fn place(&self, name: &str) -> Option<Range<usize>> {
        let block = || self.blocks(name).first().map(|b| head(b));
        self.attributes.get(name).map(|a| span_of(&a.key)).or_else(block)
    }
}

/// The bytes of a block's head: its name and labels.
pub(crate) fn head(block: &Block) -> Range<usize> {
    let start = span_of(&block.ident);
    let end = block.labels.last().map_or(start.end, |l| span_of(l).end);
    start.start..end.max(start.end)
}

impl<'a> Reader<'a> {
    /// Sorts the contents of a block by what its schema says.
    pub(crate) fn sort<'b>(&mut self, body: &'b Body, schema: &Schema) -> Entries<'b> {
        let mut entries = Entries::default();
        for structure in body.iter() {
            let (name, at) = match structure {
                Structure::Attribute(a) => (a.key.value().as_str(), span_of(&a.key)),
                Structure::Block(b) => (b.ident.value().as_str(), span_of(&b.ident)),
            };
            let Some((_, verdict)) = schema.names.iter().find(|(n, _)| *n == name) else {
                if self.sink.is_full() {
                    self.sink.error(Fault::new(at, "unknown name"));
                    continue;
                }
                let names = schema.names.iter().filter(|(_, v)| matches!(v, Verdict::Field | Verdict::Block | Verdict::Map));
                let names: Vec<&str> = names.map(|(n, _)| *n).collect();
                let help = did_you_mean(name, names.iter().copied()).unwrap_or_else(|| format!("there are: {}", names.join(", ")));
                self.sink.error(Fault::new(at, format!("unknown name `{name}` in {}", schema.what)).help(help));
                continue;
            };
            match (verdict, structure) {
                (Verdict::Field | Verdict::Map, Structure::Attribute(a)) => _ = entries.attributes.insert(name, a),
                (Verdict::Block | Verdict::Map, Structure::Block(b)) => entries.blocks.entry(name).or_default().push(b),
                (Verdict::Field, _) => {
                    self.sink.error(Fault::new(at, format!("`{name}` is not a block")).help(format!("write: {name} = ...")));
                }
                (Verdict::Block, _) => {
                    self.sink.error(Fault::new(at, format!("`{name}` is a block")).help(format!("write: {name} {{ ... }}, without =")));
                }
                (Verdict::Refused(help), _) => {
                    self.sink.error(Fault::new(at, format!("`{name}` is not there in {}", schema.what)).help(*help));
                }
                (Verdict::Ignored(help), _) => self.ignored(name, at, help),
            }
        }
        entries
    }

    fn ignored(&mut self, name: &str, at: Range<usize>, help: &str) {
        self.sink.warning(Fault::new(at, format!("`{name}` has no effect")).help(help));
    }

    /// The one block of this name; more than one is an error.
    pub(crate) fn one<'b>(&mut self, entries: &Entries<'b>, name: &str) -> Option<&'b Block> {
        let blocks = entries.blocks(name);
        for extra in blocks.iter().skip(1) {
            self.sink.error(Fault::new(head(extra), format!("a second `{name}` block")).help("write one with all the fields"));
        }
        let first = blocks.first().copied()?;
        self.no_label(first);
        Some(first)
    }

    /// A block that has no name of its own.
    pub(crate) fn no_label(&mut self, block: &Block) {
        if !block.labels.is_empty() {
            let name = block.ident.value().as_str();
            self.sink.error(Fault::new(head(block), format!("`{name}` has no label")).help(format!("write: {name} {{ ... }}")));
        }
    }

    /// The one label of a block.
    pub(crate) fn label(&mut self, block: &Block) -> Option<String> {
        if let [label] = block.labels.as_slice() {
            return Some(label.as_str().to_owned());
        }
        let name = block.ident.value().as_str();
        let fault = Fault::new(head(block), format!("`{name}` needs one label, its name"));
        self.sink.error(fault.help(format!("write: {name} \"name\" {{ ... }}")));
        None
    }

    /// The value of a field, with its place noted under `path`.
    pub(crate) fn value(&mut self, entries: &Entries<'_>, name: &str, path: &str) -> Option<(Value, Range<usize>)> {
        let attribute = *entries.attributes.get(name)?;
        let span = span_of(&attribute.value);
        self.spans.set(path, span.clone());
        if let Expression::Array(items) = &attribute.value {
            for (i, item) in items.iter().enumerate() {
                self.spans.set(format!("{path}.{i}"), span_of(item));
            }
        }
        if let Expression::Object(items) = &attribute.value {
            for (key, value) in items.iter() {
                let name = match key {
                    ObjectKey::Ident(name) | ObjectKey::Expression(Expression::Variable(name)) => name.value().as_str(),
                    ObjectKey::Expression(Expression::String(name)) => name.value().as_str(),
                    ObjectKey::Expression(_) => continue,
                };
                self.spans.set(format!("{path}.{name}"), span_of(value.expr()));
            }
        }
        match self.eval.eval(&attribute.value) {
            Ok(Value::Null) => None,
            Ok(value) => Some((value, span)),
            Err(fault) => {
                self.sink.error(fault);
                None
            }
        }
    }

    pub(crate) fn text(&mut self, entries: &Entries<'_>, name: &str, path: &str) -> Option<String> {
        let (value, span) = self.value(entries, name, path)?;
        let text = scalar_text(&value);
        if text.is_none() {
            self.sink.error(Fault::new(span, format!("`{name}` must be a string, this is {}", kind(&value))));
        }
        text
    }

    /// A whole number. Only what does not fit the type is judged here; the rules judge the rest of `range`.
    pub(crate) fn number<T: TryFrom<u64> + Display>(
        &mut self,
        entries: &Entries<'_>,
        name: &str,
        path: &str,
        range: &RangeInclusive<T>,
    ) -> Option<T> {
        let (value, span) = self.value(entries, name, path)?;
        let whole = match &value {
            Value::Number(n) => n.as_u64().or_else(|| n.as_f64().and_then(crate::functions::number).and_then(|v| v.as_u64())),
            Value::String(s) => s.parse().ok(),
            _ => None,
        };
        let number = whole.and_then(|n| T::try_from(n).ok());
        if number.is_none() {
            let shown =
                scalar_text(&value).map_or_else(|| kind(&value).to_owned(), |t| format!("`{}`", t.chars().take(40).collect::<String>()));
            let message = format!("`{name}` must be a whole number from {} to {}, this is {shown}", range.start(), range.end());
            self.sink.error(Fault::new(span, message));
        }
        number
    }

    pub(crate) fn flag(&mut self, entries: &Entries<'_>, name: &str, path: &str) -> Option<bool> {
        let (value, span) = self.value(entries, name, path)?;
        let flag = value.as_bool().or_else(|| value.as_str().and_then(|s| s.parse().ok()));
        if flag.is_none() {
            self.sink.error(Fault::new(span, format!("`{name}` must be true or false, this is {}", kind(&value))));
        }
        flag
    }

    /// A span: text as in Go (`1m30s`), or a number of nanoseconds.
    pub(crate) fn span(&mut self, entries: &Entries<'_>, name: &str, path: &str) -> Option<Millis> {
        let (value, span) = self.value(entries, name, path)?;
        let read = match &value {
            Value::String(s) => duration::parse(s),
            Value::Number(n) => duration::from_nanos(n.as_u64()),
            other => Err((format!("must be a duration, this is {}", kind(other)), "write for example \"30s\" or \"1m30s\"".to_owned())),
        };
        read.map_err(|(message, help)| self.sink.error(Fault::new(span, format!("`{name}` {message}")).help(help))).ok()
    }

    pub(crate) fn texts(&mut self, entries: &Entries<'_>, name: &str, path: &str) -> Vec<String> {
        let Some((value, span)) = self.value(entries, name, path) else { return Vec::new() };
        let Value::Array(items) = value else {
            let fault = Fault::new(span, format!("`{name}` must be a list of strings, this is {}", kind(&value)));
            self.sink.error(fault.help(format!("write: {name} = [\"...\"]")));
            return Vec::new();
        };
        let mut out = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            match scalar_text(item) {
                Some(text) => out.push(text),
                None => {
                    let at = self.spans.find(&format!("{path}.{i}"));
                    self.sink.error(Fault::new(at, format!("an item of `{name}` must be a string, this is {}", kind(item))));
                }
            }
        }
        out
    }

    /// Names with texts, written as a block or as a field.
    pub(crate) fn map(&mut self, entries: &Entries<'_>, name: &str, path: &str) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        if let Some((value, span)) = self.value(entries, name, path) {
            if let Value::Object(map) = value {
                for (key, value) in map {
                    let at = self.spans.find(&format!("{path}.{key}"));
                    self.entry(&mut out, name, key, &value, at);
                }
            } else {
                self.sink.error(Fault::new(span, format!("`{name}` must be an object, this is {}", kind(&value))));
            }
        }
        let both = !out.is_empty();
        let Some(block) = self.one(entries, name) else { return out };
        self.spans.set(path, head(block));
        if both {
            self.sink.error(Fault::new(head(block), format!("`{name}` is given as a field and as a block")).help("write it once"));
        }
        for structure in block.body.iter() {
            match structure {
                Structure::Attribute(a) => {
                    self.spans.set(format!("{path}.{}", a.key.value().as_str()), span_of(&a.value));
                    match self.eval.eval(&a.value) {
                        Ok(value) => self.entry(&mut out, name, a.key.value().to_string(), &value, span_of(&a.value)),
                        Err(fault) => self.sink.error(fault),
                    }
                }
                Structure::Block(b) => {
                    let fault = Fault::new(head(b), format!("a block inside `{name}`"));
                    self.sink.error(fault.help("write lines of the form: NAME = \"value\""));
                }
            }
        }
        out
    }

    fn entry(&mut self, out: &mut BTreeMap<String, String>, name: &str, key: String, value: &Value, span: Range<usize>) {
        match scalar_text(value) {
            Some(text) => _ = out.insert(key, text),
            // As in Nomad: null is not there.
            None if value.is_null() => {}
            None => {
                let fault = Fault::new(span, format!("`{key}` in `{name}` must be a string, this is {}", kind(value)));
                self.sink.error(fault.help("use jsonencode() or join() to make text of it"));
            }
        }
    }
}
