//! Signals by their names.

use rustix::process::Signal;

/// `SIGTERM`, `TERM` or a number from 1 to 31.
pub(crate) fn parse(text: &str) -> Option<Signal> {
    const NAMES: [(&str, Signal); 17] = [
        ("HUP", Signal::HUP),
        ("INT", Signal::INT),
        ("QUIT", Signal::QUIT),
        ("ABRT", Signal::ABORT),
        ("KILL", Signal::KILL),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("PIPE", Signal::PIPE),
        ("ALRM", Signal::ALARM),
        ("TERM", Signal::TERM),
        ("CONT", Signal::CONT),
        ("STOP", Signal::STOP),
        ("TSTP", Signal::TSTP),
        ("TTIN", Signal::TTIN),
        ("TTOU", Signal::TTOU),
        ("WINCH", Signal::WINCH),
        ("URG", Signal::URG),
    ];
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let by_name = NAMES.iter().find(|(n, _)| *n == name).map(|(_, s)| *s);
    by_name.or_else(|| Signal::from_named_raw(name.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, signal) in [
            ("SIGTERM", Some(Signal::TERM)),
            ("hup", Some(Signal::HUP)),
            ("15", Some(Signal::TERM)),
            ("SIGNOT", None),
            ("0", None),
            ("", None),
        ] {
            assert_eq!(parse(text), signal, "{text}");
        }
    }
}
