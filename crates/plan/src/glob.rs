//! Globs of sites: `*` stands for any run of characters, `?` for one; everything else for itself.

/// Does `text` match `pattern` as a whole? Takes time in proportion to the product of the lengths at most.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on when a later character does not match: after the last star, one character further in the text.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn table() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "berlin", true),
            ("berlin", "berlin", true),
            ("berlin", "berlin-2", false),
            ("berlin*", "berlin-2", true),
            ("*-2", "berlin-2", true),
            ("b*n-?", "berlin-2", true),
            ("b*n-?", "berlin-", false),
            ("a*a*a", "aaaa", true),
            ("", "x", false),
            ("ü?", "üö", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
