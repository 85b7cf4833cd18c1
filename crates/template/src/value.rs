//! Values of a rendering.

use std::collections::BTreeMap;
use std::rc::Rc;

/// A value. Copies are cheap.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Not there.
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    List(Rc<Vec<Value>>),
    Map(Rc<BTreeMap<String, Value>>),
}

impl Value {
    pub(crate) fn text(text: impl Into<Rc<str>>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn list(values: Vec<Self>) -> Self {
        Self::List(Rc::new(values))
    }

    pub(crate) fn map(values: &BTreeMap<String, String>) -> Self {
        Self::Map(Rc::new(values.iter().map(|(k, v)| (k.clone(), Self::text(v.as_str()))).collect()))
    }

    /// Does it count as true? As in Go: neither zero nor empty.
    pub(crate) fn truth(&self) -> bool {
        match self {
            Self::None => false,
            Self::Bool(b) => *b,
            Self::Int(n) => *n != 0,
            Self::Float(n) => *n != 0.0,
            Self::Text(t) => !t.is_empty(),
            Self::List(l) => !l.is_empty(),
            Self::Map(m) => !m.is_empty(),
        }
    }

    /// What it is, for errors.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::None => "a value that is not there",
            Self::Bool(_) => "true or false",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    /// As it is printed. What is not there is nothing.
    pub(crate) fn print(&self) -> String {
        let mut out = String::new();
        self.print_into(&mut out, 0);
        out
    }

    fn print_into(&self, out: &mut String, depth: usize) {
        match self {
            Self::None => {}
            Self::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Self::Int(n) => out.push_str(&n.to_string()),
            Self::Float(n) => out.push_str(&n.to_string()),
            Self::Text(t) => out.push_str(t),
            Self::List(_) | Self::Map(_) if depth > crate::MAX_DEPTH || out.len() > crate::MAX_OUTPUT => out.push_str("..."),
            Self::List(list) => {
                out.push('[');
                for (i, value) in list.iter().enumerate() {
                    out.push_str(if i > 0 { " " } else { "" });
                    value.print_into(out, depth + 1);
                }
                out.push(']');
            }
            Self::Map(map) => {
                out.push_str("map[");
                for (i, (key, value)) in map.iter().enumerate() {
                    out.push_str(if i > 0 { " " } else { "" });
                    out.push_str(key);
                    out.push(':');
                    value.print_into(out, depth + 1);
                }
                out.push(']');
            }
        }
    }

    /// As JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Self::None => serde_json::Value::Null,
            Self::Bool(b) => (*b).into(),
            Self::Int(n) => (*n).into(),
            Self::Float(n) => (*n).into(),
            Self::Text(t) => (&**t).into(),
            Self::List(l) => l.iter().map(Self::json).collect(),
            Self::Map(m) => serde_json::Value::Object(m.iter().map(|(k, v)| (k.clone(), v.json())).collect()),
        }
    }

    /// From JSON.
    pub(crate) fn from_json(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Self::None,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => n.as_i64().map_or_else(|| Self::Float(n.as_f64().unwrap_or(0.0)), Self::Int),
            Json::String(t) => Self::text(t.as_str()),
            Json::Array(l) => Self::list(l.iter().map(Self::from_json).collect()),
            Json::Object(m) => Self::Map(Rc::new(m.iter().map(|(k, v)| (k.clone(), Self::from_json(v))).collect())),
        }
    }

    /// What it costs to read all of it, roughly in bytes.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::None | Self::Bool(_) | Self::Int(_) | Self::Float(_) => 1,
            Self::Text(t) => t.len() as u64 + 1,
            Self::List(l) => l.iter().map(Self::size).sum::<u64>() + 1,
            Self::Map(m) => m.iter().map(|(k, v)| k.len() as u64 + v.size()).sum::<u64>() + 1,
        }
    }

    /// What it costs to hold it, roughly in bytes.
    pub(crate) fn weight(&self) -> u64 {
        match self {
            Self::None | Self::Bool(_) | Self::Int(_) | Self::Float(_) => 1,
            Self::Text(t) => t.len() as u64 + 1,
            Self::List(l) => l.len() as u64 + 1,
            Self::Map(m) => m.len() as u64 + 1,
        }
    }
}
