//! `KEY=value` lines of a template with `env = true`.

use std::collections::BTreeMap;

/// Reads lines of `KEY=value`; empty ones and comments (`#`) are passed over. Values may stand in quotes: between `"` with escapes `\n`,
/// `\t`, `\"`, `\\`, between `'` as they are.
pub(crate) fn read_env(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut env = BTreeMap::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (key, value) = line.split_once('=').ok_or_else(|| format!("line {} of what came out is no `KEY=value`", n + 1))?;
        let key = key.trim();
        let good = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        if !good {
            return Err(format!("line {} of what came out: `{key}` cannot be the name of a variable", n + 1));
        }
        let value = value_of(value.trim()).ok_or_else(|| format!("line {} of what came out: a quote is not closed", n + 1))?;
        if value.contains('\0') {
            return Err(format!("line {} of what came out: a value cannot contain a zero byte", n + 1));
        }
        env.insert(key.to_owned(), value);
    }
    Ok(env)
}

fn value_of(text: &str) -> Option<String> {
    if let Some(body) = text.strip_prefix('\'') {
        return body.split_once('\'').map(|(v, _)| v.to_owned());
    }
    let Some(body) = text.strip_prefix('"') else {
        let end = text.find(" #").unwrap_or(text.len());
        return Some(text[..end].trim_end().to_owned());
    };
    let (mut out, mut chars) = (String::new(), body.chars());
    loop {
        match chars.next()? {
            '"' => return Some(out),
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                c @ ('"' | '\\' | '$') => out.push(c),
                c => out.extend(['\\', c]),
            },
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_kinds() {
        let text = "A=1\n\n# note\nexport B = two words # note\nC=\"x\\n\\\"y\\\" \\d\" ignored\nD='as $it \\n is'\nE=\nF=a#b\nA=2";
        let env = read_env(text).unwrap();
        let expected = [("A", "2"), ("B", "two words"), ("C", "x\n\"y\" \\d"), ("D", "as $it \\n is"), ("E", ""), ("F", "a#b")];
        assert_eq!(env, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        for (text, expected) in [
            ("A=1\nnonsense", "line 2"),
            ("1A=1", "`1A`"),
            ("A=\"x", "not closed"),
            ("A='x", "not closed"),
            ("A=\0", "zero byte"),
            ("=1", "``"),
        ] {
            let error = read_env(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
