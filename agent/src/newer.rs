//! What a newer server says that this agent does not know.
//!
//! In: a signed message as it came. Out: the places of it that are lost when this agent reads it. A field that is there but says nothing
//! (false, zero, empty) is no loss. Pure.

use std::collections::BTreeMap;

use ciborium::Value;
use serde::Serialize;
use skerry_trust::envelope;
use skerry_wire::AllocId;
use skerry_wire::manifest::Manifest;
use skerry_wire::release::Specification;

/// Names shown at most.
const SHOWN: usize = 5;

/// Why a specification cannot be followed; none when all of it is known.
pub(crate) fn in_specification(bytes: &[u8], read: &Specification) -> Option<String> {
    let found = lost(bytes, read);
    (!found.is_empty()).then(|| reason("specification", &found))
}

/// Allocations of a manifest that say more than this agent knows, and what else of the manifest it does not know.
pub(crate) fn in_manifest(bytes: &[u8], read: &Manifest) -> (BTreeMap<AllocId, String>, Vec<String>) {
    let mut allocs: BTreeMap<AllocId, Vec<String>> = BTreeMap::new();
    let mut others = Vec::new();
    for path in lost(bytes, read) {
        let inside = path.strip_prefix("allocs[").and_then(|p| p.split_once("]."));
        match inside.and_then(|(n, field)| Some((read.allocs.get(n.parse::<usize>().ok()?)?.id, field))) {
            Some((id, field)) => allocs.entry(id).or_default().push(field.to_owned()),
            None => others.push(path),
        }
    }
    (allocs.into_iter().map(|(id, found)| (id, reason("manifest", &found))).collect(), others)
}

fn reason(what: &str, found: &[String]) -> String {
    let more = if found.len() > SHOWN { ", ..." } else { "" };
    let shown = found.iter().take(SHOWN).map(|f| format!("`{f}`")).collect::<Vec<_>>().join(", ");
    format!("its {what} says {shown}{more}, which this agent does not know: update the agent of this node")
}

/// Places of the message that reading and writing it again loses.
fn lost<T: Serialize>(bytes: &[u8], read: &T) -> Vec<String> {
    // What was read whole once is no longer than its envelope.
    let Ok((given, _)) = envelope::peek::<Value>(bytes, bytes.len()) else { return vec![] };
    let Ok(known) = Value::serialized(read) else { return vec![] };
    let mut found = Vec::new();
    compare(&given, &known, "", &mut found);
    found
}

fn compare(given: &Value, known: &Value, path: &str, found: &mut Vec<String>) {
    match (given, known) {
        (Value::Map(given), Value::Map(known)) => {
            for (key, value) in given {
                let name = key.as_text().map_or_else(|| "?".to_owned(), str::to_owned);
                let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                match known.iter().find(|(k, _)| k == key) {
                    Some((_, known)) => compare(value, known, &path, found),
                    None if says_nothing(value) => {}
                    None => found.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (n, (given, known)) in given.iter().zip(known).enumerate() {
                compare(given, known, &format!("{path}[{n}]"), found);
            }
        }
        _ => {}
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Integer(n) => i128::from(*n) == 0,
        Value::Text(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::samples::{self, Keys};

    /// The message with one more field in the map at `path`.
    fn with(value: &mut Value, path: &[&str], key: &str, new: Value) {
        match (value, path) {
            (Value::Map(map), []) => map.push((Value::Text(key.into()), new)),
            (Value::Map(map), [first, rest @ ..]) => {
                let at = map.iter_mut().find(|(k, _)| k.as_text() == Some(first)).unwrap();
                with(&mut at.1, rest, key, new);
            }
            (Value::Array(list), [first, rest @ ..]) => with(&mut list[first.parse::<usize>().unwrap()], rest, key, new),
            _ => panic!("no such place"),
        }
    }

    #[test]
    fn fields_of_a_newer_server_are_found_wherever_they_are() {
        let keys = Keys::new();
        let (_, bytes, read) = keys.specification("till", None);
        assert_eq!(in_specification(&bytes, &read), None);
        let plain: Value = envelope::peek(&bytes, bytes.len()).unwrap().0;
        for (path, key, new, expected) in [
            (&["job"][..], "gravity", Value::Bool(true), Some("`job.gravity`")),
            (&["job", "groups", "0", "tasks", "0", "resources"], "gpus", Value::from(2), Some("`job.groups[0].tasks[0].resources.gpus`")),
            (&["job", "groups", "0", "restart"], "mood", Value::Text("x".into()), Some("restart.mood")),
            (&["job", "groups", "0"], "later", Value::Bool(false), None),
            (&[], "later", Value::Array(vec![]), None),
        ] {
            let mut value = plain.clone();
            with(&mut value, path, key, new);
            let sealed = envelope::seal(&keys.release, Specification::PURPOSE, &value);
            let read: Specification = envelope::peek(&sealed, sealed.len()).unwrap().0;
            let found = in_specification(&sealed, &read);
            match expected {
                None => assert_eq!(found, None, "{key}"),
                Some(part) => assert!(found.as_ref().is_some_and(|f| f.contains(part) && f.contains("update the agent")), "{found:?}"),
            }
        }
    }

    #[test]
    fn an_allocation_of_a_manifest_is_refused_alone() {
        let keys = Keys::new();
        let (digest, ..) = keys.specification("till", None);
        let manifest = samples::manifest(5, &[("till", digest), ("tide", digest)]);
        let mut value = Value::serialized(&manifest).unwrap();
        with(&mut value, &["allocs", "1"], "shadow", Value::Bool(true));
        with(&mut value, &[], "mood", Value::from(1));
        let sealed = envelope::seal(&keys.director, Manifest::PURPOSE, &value);
        let (allocs, others) = in_manifest(&sealed, &manifest);
        assert_eq!(others, ["mood"]);
        assert_eq!(allocs.len(), 1);
        assert!(allocs[&manifest.allocs[1].id].contains("`shadow`"));
    }
}
