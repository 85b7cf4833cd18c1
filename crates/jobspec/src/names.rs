//! Names: what they may be made of, and what was probably meant.

/// Why a name cannot be used, or nothing when it can: letters, digits, `-`, `_` and `.`, the first a letter or digit.
pub(crate) fn bad_name(name: &str, longest: usize) -> Option<String> {
    if name.is_empty() {
        return Some("a name cannot be empty".to_owned());
    }
    if name.len() > longest {
        return Some(format!("a name of {} characters is too long: at most {longest}", name.len()));
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Some(format!("name {name:?} must start with a letter or digit"));
    }
    let odd = name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
    odd.map(|c| format!("name {name:?} cannot have {c:?}: letters, digits, `-`, `_` and `.` only"))
}

/// The most characters of a word that is compared with others.
const LONGEST: usize = 48;

/// A hint with the known word that is nearest, if one is near.
pub(crate) fn did_you_mean<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    let length = word.chars().count();
    // Two letters are near everything.
    if !(3..=LONGEST).contains(&length) {
        return None;
    }
    let allowed = (length / 3).clamp(1, 3);
    let near = known.take(256).filter(|k| k.chars().count() <= LONGEST);
    let best = near.map(|k| (distance(&word.to_lowercase(), &k.to_lowercase()), k)).filter(|(d, _)| *d <= allowed).min();
    best.map(|(_, k)| format!("did you mean `{k}`?"))
}

/// Edits between two short words; two letters the wrong way round are one edit.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j - 1] + cost).min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["image", "args", "command", "volumes"];
        for (word, hint) in [
            ("imagee", Some("image")),
            ("arg", Some("args")),
            ("Comand", Some("command")),
            ("iamge", Some("image")),
            ("xyz", None),
            ("ar", None),
            ("", None),
        ] {
            assert_eq!(did_you_mean(word, known.iter().copied()), hint.map(|h| format!("did you mean `{h}`?")), "{word}");
        }
    }

    #[test]
    fn names() {
        for good in ["web", "web-1", "a.b_c", "0"] {
            assert_eq!(bad_name(good, 8), None);
        }
        for bad in ["", "-a", ".", "a b", "a/b", "\u{e4}", "123456789"] {
            assert!(bad_name(bad, 8).is_some(), "{bad:?}");
        }
    }
}
