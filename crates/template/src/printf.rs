//! `printf`, as far as templates use it: `%s %v %d %t %f %q %x %%`, with `-`, `0`, width and precision.

use crate::error::TemplateError;
use crate::value::Value;

/// Fills in a format.
pub(crate) fn printf(line: u32, format: &str, args: &[Value]) -> Result<String, TemplateError> {
    let fail = |message: String| Err(TemplateError::new(line, format!("`printf`: {message}")));
    let (mut out, mut args) = (String::new(), args.iter());
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (mut left, mut zero, mut width, mut precision) = (false, false, 0_usize, None);
        while let Some(flag) = chars.next_if(|c| "-0+ #".contains(*c)) {
            left |= flag == '-';
            zero |= flag == '0';
        }
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            width = width.saturating_mul(10).saturating_add(digit.to_digit(10).unwrap_or(0) as usize);
        }
        if chars.next_if_eq(&'.').is_some() {
            let mut n = 0_usize;
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                n = n.saturating_mul(10).saturating_add(digit.to_digit(10).unwrap_or(0) as usize);
            }
            precision = Some(n);
        }
        if width > 1000 || precision.is_some_and(|p| p > 1000) {
            return fail("no field is wider than 1000".to_owned());
        }
        let Some(verb) = chars.next() else { return fail("`%` at the end".to_owned()) };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = args.next() else { return fail(format!("no value is left for `%{verb}`")) };
        let text = match (verb, value) {
            ('v' | 's', value) => match precision {
                Some(p) => value.print().chars().take(p).collect(),
                None => value.print(),
            },
            ('d', Value::Int(n)) => n.to_string(),
            ('x', Value::Int(n)) => format!("{n:x}"),
            ('t', Value::Bool(b)) => b.to_string(),
            ('f', Value::Float(n)) => format!("{n:.*}", precision.unwrap_or(6)),
            ('q', Value::Text(t)) => quote(t),
            (verb, value) => return fail(format!("`%{verb}` does not take {}", value.kind())),
        };
        let pad = width.saturating_sub(text.chars().count());
        let number = matches!(verb, 'd' | 'x' | 'f');
        match (left, zero && number, text.strip_prefix('-')) {
            (true, ..) => out.extend([text.as_str(), &" ".repeat(pad)]),
            (false, true, Some(digits)) => out.extend(["-", &"0".repeat(pad), digits]),
            (false, true, None) => out.extend([&"0".repeat(pad), text.as_str()]),
            (false, false, _) => out.extend([&" ".repeat(pad), text.as_str()]),
        }
        if out.len() > crate::MAX_OUTPUT {
            return fail("the text becomes too long".to_owned());
        }
    }
    if args.next().is_some() {
        return fail("more values than `%`".to_owned());
    }
    Ok(out)
}

/// A text between quotes, as JSON writes it.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
