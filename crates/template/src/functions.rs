//! The functions, in the order of `docs/templates.md`.

use std::cmp::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use crate::error::TemplateError;
use crate::printf::{printf, quote};
use crate::render::Run;
use crate::value::Value;

/// Name, least and most arguments.
const ALL: &[(&str, usize, usize)] = &[
    ("add", 2, 2),
    ("and", 1, usize::MAX),
    ("base64Decode", 1, 1),
    ("base64Encode", 1, 1),
    ("base64URLDecode", 1, 1),
    ("base64URLEncode", 1, 1),
    ("contains", 2, 2),
    ("default", 2, 2),
    ("divide", 2, 2),
    ("env", 1, 1),
    ("envOrDefault", 2, 2),
    ("eq", 2, usize::MAX),
    ("ge", 2, 2),
    ("gt", 2, 2),
    ("indent", 2, 2),
    ("index", 1, usize::MAX),
    ("join", 2, 2),
    ("key", 1, 1),
    ("keyExists", 1, 1),
    ("keyOrDefault", 2, 2),
    ("le", 2, 2),
    ("len", 1, 1),
    ("loop", 1, 2),
    ("lt", 2, 2),
    ("meta", 1, 1),
    ("modulo", 2, 2),
    ("multiply", 2, 2),
    ("mustEnv", 1, 1),
    ("ne", 2, 2),
    ("nomadVar", 1, 1),
    ("nomadVarExists", 1, 1),
    ("not", 1, 1),
    ("or", 1, usize::MAX),
    ("parseBool", 1, 1),
    ("parseFloat", 1, 1),
    ("parseInt", 1, 1),
    ("parseJSON", 1, 1),
    ("print", 0, usize::MAX),
    ("printf", 1, usize::MAX),
    ("println", 0, usize::MAX),
    ("quote", 1, 1),
    ("replaceAll", 3, 3),
    ("split", 2, 2),
    ("subtract", 2, 2),
    ("toJSON", 1, 1),
    ("toJSONPretty", 1, 1),
    ("toLower", 1, 1),
    ("toTitle", 1, 1),
    ("toUpper", 1, 1),
    ("trim", 1, 2),
    ("trimPrefix", 2, 2),
    ("trimSpace", 1, 1),
    ("trimSuffix", 2, 2),
];

pub(crate) fn is_function(name: &str) -> bool {
    ALL.iter().any(|(n, ..)| *n == name)
}

/// Least and most arguments of a function.
pub(crate) fn arity(name: &str) -> (usize, usize) {
    ALL.iter().find(|(n, ..)| *n == name).map_or((0, 0), |(_, least, most)| (*least, *most))
}

/// The text of an argument; numbers and truth count as their text.
fn text<'v>(line: u32, name: &str, value: &'v Value) -> Result<std::borrow::Cow<'v, str>, TemplateError> {
    match value {
        Value::Text(t) => Ok((&**t).into()),
        Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::None => Ok(value.print().into()),
        other => Err(TemplateError::new(line, format!("`{name}` takes a text, not {}", other.kind()))),
    }
}

fn int(line: u32, name: &str, value: &Value) -> Result<i64, TemplateError> {
    match value {
        Value::Int(n) => Ok(*n),
        other => Err(TemplateError::new(line, format!("`{name}` takes a whole number, not {}", other.kind()))),
    }
}

/// Functions that take their arguments as they are, and read nothing of them.
const AT_ONCE: &[&str] = &["and", "default", "index", "len", "loop", "not", "or"];

/// Bytes that are read at the price of one that is made.
const READ: u64 = 8;

/// Calls a function. The parser saw to it that as many arguments are there as it takes.
pub(crate) fn call(run: &mut Run<'_>, line: u32, name: &str, args: &[Value]) -> Result<Value, TemplateError> {
    let fail = |message: String| Err(TemplateError::new(line, message));
    let given = |i: usize| args.get(i).unwrap_or(&Value::None);
    let at = |i: usize| text(line, name, given(i));
    let last = args.last().unwrap_or(&Value::None);
    let encoded = |engine: &base64::engine::GeneralPurpose, text: &str| match engine.decode(text).map(String::from_utf8) {
        Ok(Ok(plain)) => Ok(Value::text(plain)),
        Ok(Err(_)) => fail(format!("`{name}` gives bytes that are no text")),
        Err(_) => fail(format!("`{name}` was given what is no base64")),
    };
    if !AT_ONCE.contains(&name) {
        run.pay(line, args.iter().map(Value::size).sum::<u64>() / READ)?;
    }
    Ok(match name {
        "env" | "mustEnv" | "envOrDefault" => match (run.source.env(&at(0)?), name) {
            (Some(value), _) => Value::text(value),
            (None, "envOrDefault") => given(1).clone(),
            (None, "mustEnv") => return fail(format!("the environment has no `{}`", at(0)?)),
            (None, _) => Value::text(""),
        },
        "meta" => Value::text(run.source.meta(&at(0)?).unwrap_or_default()),
        "key" | "keyExists" | "keyOrDefault" => {
            let path = at(0)?;
            let (folder, item) = path.trim_matches('/').rsplit_once('/').unwrap_or(("", &path));
            let found = run.source.variables(folder).and_then(|v| v.get(item));
            match (found, name) {
                (_, "keyExists") => Value::Bool(found.is_some()),
                (Some(value), _) => Value::text(value.as_str()),
                (None, "keyOrDefault") => given(1).clone(),
                (None, _) => return fail(format!("this node was given no variable `{item}` under `{folder}`")),
            }
        }
        "nomadVar" => match run.source.variables(&at(0)?) {
            Some(found) => {
                run.pay(line, found.values().map(|v| v.len() as u64).sum())?;
                Value::map(found)
            }
            None => return fail(format!("this node was given no variables under `{}`", at(0)?)),
        },
        "nomadVarExists" => Value::Bool(run.source.variables(&at(0)?).is_some()),
        "printf" => Value::text(printf(line, &at(0)?, &args[1..])?),
        "print" | "println" => {
            let mut out: String = args.iter().map(Value::print).collect::<Vec<_>>().join(" ");
            out.push_str(if name == "println" { "\n" } else { "" });
            Value::text(out)
        }
        "quote" => Value::text(quote(&at(0)?)),
        "index" => return index(line, args),
        "len" => Value::Int(match last {
            Value::Text(t) => t.len(),
            Value::List(l) => l.len(),
            Value::Map(m) => m.len(),
            other => return fail(format!("`len` cannot count {}", other.kind())),
        } as i64),
        "loop" => {
            let (from, to) =
                if args.len() == 2 { (int(line, name, given(0))?, int(line, name, given(1))?) } else { (0, int(line, name, last)?) };
            let count = to.saturating_sub(from).max(0);
            run.pay(line, count.unsigned_abs().saturating_mul(32))?;
            Value::list((from..to.max(from)).map(Value::Int).collect())
        }
        "contains" => Value::Bool(match given(1) {
            Value::Text(t) => t.contains(&*at(0)?),
            Value::List(l) => l.contains(given(0)),
            other => return fail(format!("`contains` cannot look into {}", other.kind())),
        }),
        "default" => (if given(1).truth() { given(1) } else { given(0) }).clone(),
        "and" | "or" => last.clone(),
        "not" => Value::Bool(!last.truth()),
        "eq" => Value::Bool(args[1..].iter().any(|v| compare(given(0), v) == Some(Ordering::Equal))),
        "ne" => Value::Bool(compare(given(0), given(1)) != Some(Ordering::Equal)),
        "lt" | "le" | "gt" | "ge" => {
            let (a, b) = (given(0), given(1));
            let order = compare(a, b).filter(|_| !matches!(a, Value::Bool(_) | Value::None | Value::List(_) | Value::Map(_)));
            let Some(order) = order else { return fail(format!("`{name}` cannot order {} and {}", a.kind(), b.kind())) };
            Value::Bool(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            })
        }
        "toLower" => Value::text(at(0)?.to_lowercase()),
        "toUpper" => Value::text(at(0)?.to_uppercase()),
        "toTitle" => {
            let mut begins = true;
            let title = at(0)?
                .chars()
                .map(|c| {
                    let c = if begins { c.to_ascii_uppercase() } else { c };
                    begins = c.is_whitespace();
                    c
                })
                .collect::<String>();
            Value::text(title)
        }
        "trimSpace" => Value::text(at(0)?.trim()),
        "trim" if args.len() == 1 => Value::text(at(0)?.trim()),
        "trim" => {
            let set = at(0)?;
            run.pay(line, (set.len() as u64).saturating_mul(at(1)?.len() as u64) / READ)?;
            Value::text(at(1)?.trim_matches(|c| set.contains(c)))
        }
        "trimPrefix" => Value::text(at(1)?.strip_prefix(&*at(0)?).unwrap_or(&at(1)?)),
        "trimSuffix" => Value::text(at(1)?.strip_suffix(&*at(0)?).unwrap_or(&at(1)?)),
        "replaceAll" => {
            let (from, to, of) = (at(0)?, at(1)?, at(2)?);
            let times = if from.is_empty() { of.chars().count() + 1 } else { of.matches(&*from).count() };
            run.pay(line, (times as u64).saturating_mul(to.len() as u64 + 1))?;
            Value::text(of.replace(&*from, &to))
        }
        "split" => {
            let (by, of) = (at(0)?, at(1)?);
            run.pay(line, of.len() as u64 * 32)?;
            if of.is_empty() { Value::list(Vec::new()) } else { Value::list(of.split(&*by).map(Value::text).collect()) }
        }
        "join" => match given(1) {
            Value::List(list) => {
                let by = at(0)?;
                let parts: Vec<String> = list.iter().map(Value::print).collect();
                run.pay(line, parts.iter().map(|p| (p.len() + by.len()) as u64).sum())?;
                Value::text(parts.join(&by))
            }
            other => return fail(format!("`join` takes a list, not {}", other.kind())),
        },
        "indent" => {
            let (n, of) = (int(line, name, given(0))?, at(1)?);
            let pad = " ".repeat(usize::try_from(n).unwrap_or(0).min(1000));
            run.pay(line, (of.lines().count() as u64).saturating_mul(pad.len() as u64))?;
            Value::text(of.split_inclusive('\n').map(|l| format!("{pad}{l}")).collect::<String>())
        }
        "base64Encode" => Value::text(STANDARD.encode(at(0)?.as_bytes())),
        "base64URLEncode" => Value::text(URL_SAFE.encode(at(0)?.as_bytes())),
        "base64Decode" => return encoded(&STANDARD, &at(0)?),
        "base64URLDecode" => return encoded(&URL_SAFE, &at(0)?),
        "toJSON" | "toJSONPretty" => {
            let json = last.json();
            let made = if name == "toJSON" { serde_json::to_string(&json) } else { serde_json::to_string_pretty(&json) };
            match made {
                Ok(text) => Value::text(text),
                Err(error) => return fail(format!("`{name}`: {error}")),
            }
        }
        "parseJSON" => {
            run.pay(line, at(0)?.len() as u64 * 32)?;
            match serde_json::from_str(&at(0)?) {
                Ok(json) => Value::from_json(&json),
                Err(error) => return fail(format!("`parseJSON` was given what is no JSON: {error}")),
            }
        }
        "parseInt" => match at(0)?.parse() {
            Ok(n) => Value::Int(n),
            Err(_) => return fail(format!("`{}` is no whole number", at(0)?)),
        },
        "parseFloat" => match at(0)?.parse::<f64>() {
            Ok(n) if n.is_finite() => Value::Float(n),
            _ => return fail(format!("`{}` is no number", at(0)?)),
        },
        "parseBool" => match &*at(0)? {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Value::Bool(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Value::Bool(false),
            other => return fail(format!("`{other}` is neither true nor false")),
        },
        "add" | "subtract" | "multiply" | "divide" | "modulo" => return arithmetic(line, name, given(1), given(0)),
        _ => return fail(format!("there is no function `{name}`")),
    })
}

/// `a` and `b` in the order of a sentence: Nomad writes `5 | subtract 2`.
fn arithmetic(line: u32, name: &str, a: &Value, b: &Value) -> Result<Value, TemplateError> {
    let fail = |message: &str| TemplateError::new(line, format!("`{name}`: {message}"));
    if let (Value::Int(a), Value::Int(b)) = (a, b) {
        let (a, b) = (*a, *b);
        let done = match name {
            "add" => a.checked_add(b),
            "subtract" => a.checked_sub(b),
            "multiply" => a.checked_mul(b),
            "divide" => a.checked_div(b),
            _ => a.checked_rem(b),
        };
        return done.map(Value::Int).ok_or_else(|| fail("division by zero, or a number that is too large"));
    }
    let float = |v: &Value| match v {
        Value::Int(n) => Some(*n as f64),
        Value::Float(n) => Some(*n),
        _ => None,
    };
    let (Some(a), Some(b)) = (float(a), float(b)) else { return Err(fail("takes numbers; `parseInt` makes one of a text")) };
    let done = match name {
        "add" => a + b,
        "subtract" => a - b,
        "multiply" => a * b,
        "divide" => a / b,
        _ => a % b,
    };
    if done.is_finite() { Ok(Value::Float(done)) } else { Err(fail("division by zero, or a number that is too large")) }
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Float(b)) => (*a as f64).partial_cmp(b),
        (Value::Float(a), Value::Int(b)) => a.partial_cmp(&(*b as f64)),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(Ordering::Equal),
    }
}

/// What stands in a list or a map, at one place after the other.
fn index(line: u32, args: &[Value]) -> Result<Value, TemplateError> {
    let mut value = args.first().cloned().unwrap_or(Value::None);
    for key in args.get(1..).unwrap_or(&[]) {
        value = match (&value, key) {
            (Value::List(list), Value::Int(n)) => match usize::try_from(*n).ok().and_then(|n| list.get(n)) {
                Some(found) => found.clone(),
                None => return Err(TemplateError::new(line, format!("a list of {} has no place {n}", list.len()))),
            },
            (Value::Map(map), Value::Text(name)) => map.get(&**name).cloned().unwrap_or(Value::None),
            (of, key) => return Err(TemplateError::new(line, format!("`index` cannot look up {} in {}", key.kind(), of.kind()))),
        };
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_list_is_sorted_and_every_name_is_known_to_call() {
        assert!(ALL.is_sorted());
        struct Nothing;
        impl crate::Source for Nothing {
            fn env(&self, _: &str) -> Option<String> {
                None
            }
            fn meta(&self, _: &str) -> Option<String> {
                None
            }
            fn variables(&self, _: &str) -> Option<&BTreeMap<String, String>> {
                None
            }
        }
        for (name, least, _) in ALL {
            let args = " \"1\"".repeat(*least);
            let text = format!("{{{{ {name}{args} }}}}");
            if let Err(error) = crate::render(&text, &crate::Options::default(), &Nothing) {
                assert!(!error.message.contains("there is no function"), "{error}");
            }
        }
    }
}
