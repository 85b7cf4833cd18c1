//! The functions of the language: pure, bounded, no files, no clock, no randomness.

use std::collections::BTreeSet;
use std::ops::Range;

use hcl::{Map, Value};

use crate::diagnostic::Fault;
use crate::eval::{kind, scalar_text};
use crate::names::did_you_mean;

/// The longest text that a function makes, in bytes.
const LONGEST: usize = skerry_wire::limits::JOBSPEC;

type Body = fn(&[Value]) -> Result<Value, String>;

/// One function.
#[derive(Debug)]
pub(crate) struct Function {
    name: &'static str,
    /// How it is written, for messages and the reference.
    pub(crate) usage: &'static str,
    least: usize,
    most: usize,
    /// Does it look at its arguments, so that text which only the node knows would give a wrong result?
    pub(crate) looks: bool,
    body: Body,
}

const fn f(name: &'static str, usage: &'static str, least: usize, most: usize, looks: bool, body: Body) -> Function {
    Function { name, usage, least, most, looks, body }
}

const ANY: usize = usize::MAX;

/// Every function, by name.
const ALL: [Function; 44] = [
    f("abs", "abs(number)", 1, 1, true, |a| made(num(a, 0)?.abs())),
    f("base64decode", "base64decode(string)", 1, 1, true, |a| base64::decode(&text(a, 0)?)),
    f("base64encode", "base64encode(string)", 1, 1, true, |a| fits(base64::encode(text(a, 0)?.as_bytes()))),
    f("ceil", "ceil(number)", 1, 1, true, |a| made(num(a, 0)?.ceil())),
    f("chomp", "chomp(string)", 1, 1, true, |a| fits(text(a, 0)?.trim_end_matches(['\n', '\r']))),
    f("coalesce", "coalesce(value, ...)", 1, ANY, false, |a| {
        let found = a.iter().find(|v| !v.is_null() && v.as_str() != Some(""));
        found.cloned().ok_or_else(|| "every argument is null or empty".to_owned())
    }),
    f("compact", "compact(list)", 1, 1, false, |a| {
        Ok(Value::Array(list(a, 0)?.iter().filter(|v| !v.is_null() && v.as_str() != Some("")).cloned().collect()))
    }),
    f("concat", "concat(list, ...)", 1, ANY, false, |a| {
        let lists = (0..a.len()).map(|i| list(a, i)).collect::<Result<Vec<_>, _>>()?;
        Ok(Value::Array(lists.concat()))
    }),
    f("contains", "contains(list, value)", 2, 2, true, |a| Ok(Value::Bool(list(a, 0)?.contains(&a[1])))),
    f("distinct", "distinct(list)", 1, 1, true, |a| {
        let mut seen = BTreeSet::new();
        Ok(Value::Array(list(a, 0)?.iter().filter(|v| seen.insert(to_json(v).to_string())).cloned().collect()))
    }),
    f("element", "element(list, index)", 2, 2, false, |a| {
        let (items, index) = (list(a, 0)?, whole(a, 1)?);
        items.get(index.checked_rem(items.len()).ok_or("the list is empty")?).cloned().ok_or_else(|| "the list is empty".to_owned())
    }),
    f("endswith", "endswith(string, suffix)", 2, 2, true, |a| Ok(Value::Bool(text(a, 0)?.ends_with(&text(a, 1)?)))),
    f("flatten", "flatten(list)", 1, 1, false, |a| {
        let mut out = Vec::new();
        flatten(list(a, 0)?, &mut out);
        Ok(Value::Array(out))
    }),
    f("floor", "floor(number)", 1, 1, true, |a| made(num(a, 0)?.floor())),
    f("format", "format(\"text %s %d %v %q %05d %.2f %%\", value, ...)", 1, ANY, false, format),
    f("indent", "indent(spaces, string)", 2, 2, false, |a| {
        let (spaces, text) = (whole(a, 0)?.min(64), text(a, 1)?);
        room(text.len().saturating_add(text.matches('\n').count().saturating_mul(spaces)))?;
        fits(text.replace('\n', &format!("\n{}", " ".repeat(spaces))))
    }),
    f("join", "join(separator, list)", 2, 2, false, |a| {
        let (separator, items) = (text(a, 0)?, list(a, 1)?);
        let texts = items.iter().map(|v| scalar_text(v).ok_or_else(|| format!("the list holds {}", kind(v))));
        let texts = texts.collect::<Result<Vec<_>, _>>()?;
        let total = texts.iter().map(String::len).fold(separator.len().saturating_mul(texts.len()), usize::saturating_add);
        room(total)?;
        fits(texts.join(&separator))
    }),
    f("jsondecode", "jsondecode(string)", 1, 1, true, |a| {
        let json: serde_json::Value = serde_json::from_str(&text(a, 0)?).map_err(|e| format!("not JSON: {e}"))?;
        Ok(from_json(json))
    }),
    f("jsonencode", "jsonencode(value)", 1, 1, false, |a| fits(to_json(&a[0]).to_string())),
    f("keys", "keys(object)", 1, 1, false, |a| {
        let mut keys: Vec<&String> = object(a, 0)?.keys().collect();
        keys.sort();
        Ok(Value::Array(keys.into_iter().map(|k| Value::from(k.as_str())).collect()))
    }),
    f("length", "length(list, object or string)", 1, 1, true, |a| match &a[0] {
        Value::Array(items) => Ok(Value::from(items.len())),
        Value::Object(map) => Ok(Value::from(map.len())),
        Value::String(s) => Ok(Value::from(s.chars().count())),
        other => Err(format!("{} has no length", kind(other))),
    }),
    f("lookup", "lookup(object, key, default)", 2, 3, false, |a| {
        let key = text(a, 1)?;
        let found = object(a, 0)?.get(&key).or(a.get(2));
        found.cloned().ok_or_else(|| format!("there is no `{key}` in the object and no default"))
    }),
    f("lower", "lower(string)", 1, 1, true, |a| fits(text(a, 0)?.to_lowercase())),
    f("max", "max(number, ...)", 1, ANY, true, |a| numbers(a)?.into_iter().reduce(f64::max).map_or(Err("no number".to_owned()), made)),
    f("merge", "merge(object, ...)", 1, ANY, false, |a| {
        let mut out = Map::new();
        for i in 0..a.len() {
            out.extend(object(a, i)?.clone());
        }
        Ok(Value::Object(out))
    }),
    f("min", "min(number, ...)", 1, ANY, true, |a| numbers(a)?.into_iter().reduce(f64::min).map_or(Err("no number".to_owned()), made)),
    f("range", "range(end) or range(start, end)", 1, 2, true, |a| {
        let (start, end) = if a.len() == 1 { (0, whole(a, 0)?) } else { (whole(a, 0)?, whole(a, 1)?) };
        if end.saturating_sub(start) > 1024 {
            return Err("a range has at most 1024 numbers".to_owned());
        }
        Ok(Value::Array((start..end).map(Value::from).collect()))
    }),
    f("replace", "replace(string, old, new)", 3, 3, true, |a| {
        let (text, old, new) = (text(a, 0)?, text(a, 1)?, text(a, 2)?);
        if old.is_empty() {
            return Err("the text to replace is empty".to_owned());
        }
        room(text.matches(&old).count().saturating_mul(new.len()).saturating_add(text.len()))?;
        fits(text.replace(&old, &new))
    }),
    f("reverse", "reverse(list)", 1, 1, false, |a| Ok(Value::Array(list(a, 0)?.iter().rev().cloned().collect()))),
    f("round", "round(number)", 1, 1, true, |a| made(num(a, 0)?.round())),
    f("sort", "sort(list of strings)", 1, 1, true, |a| {
        let mut texts = (list(a, 0)?.iter().map(scalar_text)).collect::<Option<Vec<_>>>().ok_or("only strings can be sorted")?;
        texts.sort();
        Ok(Value::Array(texts.into_iter().map(Value::from).collect()))
    }),
    f("split", "split(separator, string)", 2, 2, true, |a| {
        let (separator, text) = (text(a, 0)?, text(a, 1)?);
        if separator.is_empty() {
            return Err("the separator is empty".to_owned());
        }
        Ok(Value::Array(text.split(&separator).map(Value::from).collect()))
    }),
    f("startswith", "startswith(string, prefix)", 2, 2, true, |a| Ok(Value::Bool(text(a, 0)?.starts_with(&text(a, 1)?)))),
    f("substr", "substr(string, offset, length)", 3, 3, true, |a| {
        fits(text(a, 0)?.chars().skip(whole(a, 1)?).take(whole(a, 2)?).collect::<String>())
    }),
    f("tobool", "tobool(value)", 1, 1, true, |a| match (&a[0], a[0].as_str()) {
        (Value::Bool(b), _) => Ok(Value::Bool(*b)),
        (_, Some("true")) => Ok(Value::Bool(true)),
        (_, Some("false")) => Ok(Value::Bool(false)),
        (other, _) => Err(format!("{} is not true or false", kind(other))),
    }),
    f("tolist", "tolist(list)", 1, 1, false, |a| Ok(Value::Array(list(a, 0)?.to_vec()))),
    f("tonumber", "tonumber(value)", 1, 1, true, |a| made(num(a, 0)?)),
    f("tostring", "tostring(value)", 1, 1, false, |a| fits(text(a, 0)?)),
    f("trim", "trim(string, characters)", 2, 2, true, |a| {
        let set = text(a, 1)?;
        fits(text(a, 0)?.trim_matches(|c| set.contains(c)))
    }),
    f("trimprefix", "trimprefix(string, prefix)", 2, 2, true, |a| {
        let (text, fix) = (text(a, 0)?, text(a, 1)?);
        fits(text.strip_prefix(&fix).unwrap_or(&text))
    }),
    f("trimspace", "trimspace(string)", 1, 1, true, |a| fits(text(a, 0)?.trim())),
    f("trimsuffix", "trimsuffix(string, suffix)", 2, 2, true, |a| {
        let (text, fix) = (text(a, 0)?, text(a, 1)?);
        fits(text.strip_suffix(&fix).unwrap_or(&text))
    }),
    f("upper", "upper(string)", 1, 1, true, |a| fits(text(a, 0)?.to_uppercase())),
    f("values", "values(object)", 1, 1, false, |a| {
        let mut items: Vec<(&String, &Value)> = object(a, 0)?.iter().collect();
        items.sort_by_key(|(k, _)| *k);
        Ok(Value::Array(items.into_iter().map(|(_, v)| v.clone()).collect()))
    }),
];

/// Functions of Nomad that would make the result depend on more than the text.
const IMPURE: [&str; 22] = [
    "abspath",
    "basename",
    "bcrypt",
    "dirname",
    "file",
    "fileexists",
    "fileset",
    "formatdate",
    "pathexpand",
    "timeadd",
    "timestamp",
    "uuidv4",
    "uuidv5",
    "csvdecode",
    "yamldecode",
    "yamlencode",
    "md5",
    "sha1",
    "sha256",
    "sha512",
    "regex",
    "regex_replace",
];

/// The function of this name.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    ALL.iter().find(|f| f.name == name)
}

/// The fault of calling a function that is not there.
pub(crate) fn unknown(name: &str, span: Range<usize>) -> Fault {
    let fault = Fault::new(span, format!("unknown function `{name}`"));
    if ["file", "fileexists", "fileset", "templatefile", "filebase64"].contains(&name) {
        return fault.help("a job is one text: no function reads files; pass the content with -var or put it in a heredoc");
    }
    if IMPURE.contains(&name) {
        return fault.help("this function of Nomad is not there; compute the value outside and pass it with -var");
    }
    let names = ALL.iter().map(|f| f.name).collect::<Vec<_>>();
    fault.help(did_you_mean(name, names.iter().copied()).unwrap_or_else(|| format!("there are: {}", names.join(", "))))
}

impl Function {
    /// The result for these arguments.
    pub(crate) fn call(&self, args: Vec<Value>) -> Result<Value, String> {
        if args.len() < self.least || args.len() > self.most {
            return Err(format!("`{}` does not take {} arguments", self.name, args.len()));
        }
        (self.body)(&args).map_err(|e| format!("`{}`: {e}", self.name))
    }
}

/// A number, whole when it is; nothing when it is not exact or not a number.
pub(crate) fn number(value: f64) -> Option<Value> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole and at most 2^53, checked above")]
        return Some(Value::from(value as i64));
    }
    (value.is_finite() && value.abs() <= EXACT).then(|| Value::from(value))
}

fn made(value: f64) -> Result<Value, String> {
    number(value).ok_or_else(|| "the result is not a number that can be told exactly".to_owned())
}

fn room(bytes: usize) -> Result<(), String> {
    if bytes > LONGEST { Err(format!("the result has {bytes} bytes, more than {LONGEST}")) } else { Ok(()) }
}

fn fits(text: impl Into<String>) -> Result<Value, String> {
    let text = text.into();
    room(text.len()).map(|()| Value::String(text))
}

fn text(args: &[Value], i: usize) -> Result<String, String> {
    scalar_text(&args[i]).ok_or_else(|| format!("argument {} must be a string, it is {}", i + 1, kind(&args[i])))
}

fn num(args: &[Value], i: usize) -> Result<f64, String> {
    let found = match &args[i] {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    };
    found.filter(|n: &f64| n.is_finite()).ok_or_else(|| format!("argument {} must be a number", i + 1))
}

fn numbers(args: &[Value]) -> Result<Vec<f64>, String> {
    (0..args.len()).map(|i| num(args, i)).collect()
}

fn whole(args: &[Value], i: usize) -> Result<usize, String> {
    let n = number(num(args, i)?).and_then(|v| v.as_u64()).and_then(|n| usize::try_from(n).ok());
    n.ok_or_else(|| format!("argument {} must be a whole number from 0", i + 1))
}

fn list(args: &[Value], i: usize) -> Result<&[Value], String> {
    args[i].as_array().map(Vec::as_slice).ok_or_else(|| format!("argument {} must be a list, it is {}", i + 1, kind(&args[i])))
}

fn object(args: &[Value], i: usize) -> Result<&Map<String, Value>, String> {
    args[i].as_object().ok_or_else(|| format!("argument {} must be an object, it is {}", i + 1, kind(&args[i])))
}

/// Values are never deeper than expressions and JSON can be, so this does not recurse far.
fn flatten(items: &[Value], out: &mut Vec<Value>) {
    for item in items {
        match item {
            Value::Array(inner) => flatten(inner, out),
            other => out.push(other.clone()),
        }
    }
}

fn format(args: &[Value]) -> Result<Value, String> {
    let pattern = text(args, 0)?;
    let mut values = args[1..].iter();
    let mut out = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        let verb = loop {
            match chars.next() {
                Some(c) if (c.is_ascii_digit() || c == '.' || c == '-') && flags.len() < 8 => flags.push(c),
                Some(c) => break c,
                None => return Err("the text ends in the middle of a %".to_owned()),
            }
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| format!("no value for %{verb}"))?;
        out.push_str(&verb_text(verb, &flags, value)?);
        room(out.len())?;
    }
    if values.next().is_some() {
        return Err("there are more values than % in the text".to_owned());
    }
    fits(out)
}

fn verb_text(verb: char, flags: &str, value: &Value) -> Result<String, String> {
    let one = std::slice::from_ref(value);
    let (width, precision) = flags.split_once('.').unwrap_or((flags, ""));
    let left = width.starts_with('-');
    let zero = width.starts_with('0');
    let width: usize = width.trim_start_matches('-').parse().unwrap_or(0).min(256);
    let body = match verb {
        's' => text(one, 0)?,
        'v' => scalar_text(value).unwrap_or_else(|| to_json(value).to_string()),
        'q' => to_json(&Value::String(text(one, 0)?)).to_string(),
        'd' => text(&[made(num(one, 0)?.trunc())?], 0)?,
        'f' => format!("{:.*}", precision.parse().unwrap_or(6).min(32), num(one, 0)?),
        't' => value.as_bool().ok_or("%t needs a bool")?.to_string(),
        other => return Err(format!("unknown %{other}: there are %s %v %q %d %f %t %%")),
    };
    Ok(match (left, zero) {
        (true, _) => format!("{body:<width$}"),
        (false, true) => format!("{body:0>width$}"),
        (false, false) => format!("{body:>width$}"),
    })
}

fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::Number(n) => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => n.into(),
            (None, Some(n)) => n.into(),
            (None, None) => n.as_f64().into(),
        },
        Value::String(s) => s.as_str().into(),
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), to_json(v))).collect(),
    }
}

fn from_json(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(b),
        serde_json::Value::Number(n) => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => Value::from(n),
            (None, Some(n)) => Value::from(n),
            (None, None) => n.as_f64().and_then(number).unwrap_or(Value::Null),
        },
        serde_json::Value::String(s) => Value::String(s),
        serde_json::Value::Array(items) => Value::Array(items.into_iter().map(from_json).collect()),
        serde_json::Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k, from_json(v))).collect()),
    }
}

/// Base64 with the standard alphabet and padding.
mod base64 {
    use hcl::Value;

    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub(super) fn encode(bytes: &[u8]) -> String {
        let mut out = String::new();
        for three in bytes.chunks(3) {
            let at = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
            let bits = (at(0) << 16) | (at(1) << 8) | at(2);
            for i in 0..4u32 {
                let six = (bits >> (18 - 6 * i)) & 63;
                let past = usize::try_from(i).is_ok_and(|i| i > three.len());
                let letter = usize::try_from(six).ok().and_then(|n| ALPHABET.get(n)).copied().unwrap_or(b'=');
                out.push(if past { '=' } else { char::from(letter) });
            }
        }
        out
    }

    pub(super) fn decode(text: &str) -> Result<Value, String> {
        let body = text.trim_end_matches('=');
        let mut out = Vec::new();
        let (mut bits, mut have) = (0u32, 0u32);
        for byte in body.bytes() {
            let six = ALPHABET.iter().position(|&a| a == byte).and_then(|n| u32::try_from(n).ok()).ok_or("not base64")?;
            bits = ((bits << 6) | six) & 0xff_ffff;
            have += 6;
            if have >= 8 {
                have -= 8;
                out.push(u8::try_from((bits >> have) & 0xff).map_err(|e| e.to_string())?);
            }
        }
        String::from_utf8(out).map(Value::String).map_err(|_| "the bytes are not UTF-8 text".to_owned())
    }
}
