//! The ways in which tar writers put a number into a twelve-byte field.

/// How a number is written in its field.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum NumberForm {
    /// Eleven octal digits and a NUL.
    OctalNul,
    /// Eleven octal digits and a space.
    OctalSpace,
    /// Twelve octal digits.
    OctalFull,
    /// 0x80, then the number in eleven bytes, highest first (GNU).
    Binary,
    /// Twelve NULs, for zero.
    Empty,
    /// Octal digits padded by spaces to eleven, and a space (seventh edition).
    Padded,
}

impl NumberForm {
    const ALL: [Self; 6] = [Self::OctalNul, Self::OctalSpace, Self::OctalFull, Self::Binary, Self::Empty, Self::Padded];

    /// The form with this number in a patch.
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// The number in a field and the form that renders it again.
pub(super) fn parse(field: &[u8]) -> Option<(u64, NumberForm)> {
    let value = lenient(field)?;
    NumberForm::ALL.into_iter().find(|form| render(value, *form).is_some_and(|bytes| bytes == field)).map(|form| (value, form))
}

/// The field of a number; `None` when it does not fit.
pub(super) fn render(value: u64, form: NumberForm) -> Option<[u8; 12]> {
    let mut field = [0; 12];
    let text = match form {
        NumberForm::OctalNul => format!("{value:011o}\0"),
        NumberForm::OctalSpace => format!("{value:011o} "),
        NumberForm::OctalFull => format!("{value:012o}"),
        NumberForm::Padded => format!("{value:11o} "),
        NumberForm::Empty => return (value == 0).then_some(field),
        NumberForm::Binary => {
            field[0] = 0x80;
            field[4..].copy_from_slice(&value.to_be_bytes());
            return Some(field);
        }
    };
    (text.len() == 12).then(|| field.copy_from_slice(text.as_bytes()))?;
    Some(field)
}

/// The number in a field, as forgiving as readers of tar are; `None` when there is none or it is beyond 64 bits.
pub(super) fn lenient(field: &[u8]) -> Option<u64> {
    if field[0] == 0x80 {
        let (high, low) = field.split_at(field.len() - 8);
        if high[1..].iter().any(|&b| b != 0) {
            return None;
        }
        return low.try_into().ok().map(u64::from_be_bytes);
    }
    lenient_octal(field)
}

/// Octal digits between spaces and NULs; nothing at all is zero.
pub(super) fn lenient_octal(field: &[u8]) -> Option<u64> {
    let trimmed = field.trim_ascii_start();
    let end = trimmed.iter().position(|&b| b == 0 || b == b' ').unwrap_or(trimmed.len());
    let mut value = 0u64;
    for &digit in &trimmed[..end] {
        if !(b'0'..=b'7').contains(&digit) || value >> 61 != 0 {
            return None;
        }
        value = value << 3 | u64::from(digit - b'0');
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_comes_back() {
        for form in NumberForm::ALL {
            for value in [0, 7, 0o7777, 0o777_7777_7777] {
                let Some(field) = render(value, form) else { continue };
                let (parsed, found) = parse(&field).unwrap();
                assert_eq!(parsed, value);
                assert_eq!(render(parsed, found).unwrap(), field, "{form:?} {value}");
            }
        }
        assert!(render(1 << 40, NumberForm::OctalNul).is_none());
        assert_eq!(parse(&render(1 << 40, NumberForm::Binary).unwrap()).unwrap(), (1 << 40, NumberForm::Binary));
    }

    #[test]
    fn foreign_fields_are_refused() {
        assert_eq!(parse(b"0000000009 \0"), None);
        assert_eq!(parse(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
        assert_eq!(parse(b"777 \0     x"), None);
    }
}
