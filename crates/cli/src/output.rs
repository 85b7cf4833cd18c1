//! What people and programs read: tables, JSON, sizes and times.
//!
//! Names and reasons come from nodes, archives and the server: control characters in them are shown, never sent to the terminal.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use anyhow::{Result, bail};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use jiff::tz::TimeZone;
use serde::Serialize;
use skerry_wire::Timestamp;

/// Writes text for people to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    write(&shown(text, &['\n', '\t']))
}

/// Writes text for programs to standard output, as it is.
pub(crate) fn raw(text: &str) -> Result<()> {
    write(text)
}

/// Text with every control character, but for the `plain` ones, in its escaped form: none of it can move the cursor, rewrite what
/// stands there already or forge a line.
pub(crate) fn shown<'a>(text: &'a str, plain: &[char]) -> Cow<'a, str> {
    // Characters that turn the direction of text make a name look like another one.
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let bad = |c: char| (c.is_control() && !plain.contains(&c)) || turns(c);
    if !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if bad(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Writes to standard output; a closed pipe ends the program quietly, as with any filter.
fn write(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}

/// Writes a line to standard error, for people.
pub(crate) fn note(text: &str) {
    // Nothing useful can be done about a standard error that is gone.
    let _ = writeln!(io::stderr(), "{}", shown(text, &['\n', '\t']));
}

/// Writes a value as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<()> {
    write(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// A table without rules; columns named in `right` are aligned right.
pub(crate) fn table(header: &[&str], right: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| shown(cell, &[])));
    }
    for (i, name) in header.iter().enumerate() {
        if let Some(column) = table.column_mut(i) {
            column.set_padding((0, 2));
            if right.contains(name) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Bytes as people read them: `512 B`, `9.5 KB`, `41.2 MB` (powers of ten).
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KB", "MB", "GB", "TB"];
    if n < 1000 {
        return format!("{n} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A time in UTC to the second.
pub(crate) fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map_or_else(|_| format!("{} ms", at.0), |t| t.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// The present, for signatures that people read.
pub(crate) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

/// Is somebody watching?
pub(crate) fn interactive() -> bool {
    io::stderr().is_terminal()
}

/// The one item whose key starts with `start`.
pub(crate) fn pick<'a, T>(items: &'a [T], start: &str, what: &str, keys: impl Fn(&T) -> Vec<String>) -> Result<&'a T> {
    if let Some(exact) = items.iter().find(|i| keys(i).iter().any(|k| k == start)) {
        return Ok(exact);
    }
    let found: Vec<&T> = items.iter().filter(|i| !start.is_empty() && keys(i).iter().any(|k| k.starts_with(start))).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => bail!("no {what} `{start}`"),
        many => bail!("`{start}` is the start of {} {what}s; give more of it", many.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (n, text) in [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (9_549, "9.5 KB"), (999_960, "1.0 MB"), (41_234_567, "41.2 MB")] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn times_for_people() {
        assert_eq!(time(Timestamp(1_795_200_000_000)), "2026-11-20 18:40:00Z");
        assert_eq!(time(Timestamp(i64::MAX)), format!("{} ms", i64::MAX));
    }

    #[test]
    fn an_item_by_the_start_of_its_id() {
        let items = ["abc".to_owned(), "abd".to_owned(), "x".to_owned(), "xy".to_owned()];
        let key = |s: &String| vec![s.clone()];
        assert_eq!(pick(&items, "abc", "node", key).unwrap(), "abc");
        assert_eq!(pick(&items, "x", "node", key).unwrap(), "x");
        assert!(pick(&items, "ab", "node", key).unwrap_err().to_string().contains("2 nodes"));
        assert!(pick(&items, "q", "node", key).is_err());
        assert!(pick(&items, "", "node", key).is_err());
    }

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        let evil = "ok\u{1b}[2K\rall fine\nForged  line\u{7f}\u{9b}2J\u{202e}";
        let cell = "ok\\u{1b}[2K\\rall fine\\nForged  line\\u{7f}\\u{9b}2J\\u{202e}";
        assert_eq!(table(&["A"], &[], [vec![evil.to_owned()]]), format!("A\n{cell}\n"));
        assert_eq!(shown("a\tb\n\u{1b}c", &['\n', '\t']), "a\tb\n\\u{1b}c");
        assert_eq!(shown("caf\u{e9} \u{4e2d}", &[]), "caf\u{e9} \u{4e2d}");
    }

    #[test]
    fn a_table() {
        let text =
            table(&["NAME", "SIZE"], &["SIZE"], [vec!["a".to_owned(), "1 B".to_owned()], vec!["long".to_owned(), "100 B".to_owned()]]);
        assert_eq!(text, "NAME   SIZE\na       1 B\nlong  100 B\n");
    }
}
