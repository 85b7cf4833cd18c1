//! What is wrong with a text, where, and what to do about it: plain data and a plain rendering.

use std::fmt::Write as _;
use std::ops::Range;

/// How bad a [`Diagnostic`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The job cannot be used as written.
    Error,
    /// The job can be used, but something in it has no effect or is likely not meant.
    Warning,
}

impl Severity {
    /// The word for it in text for people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One finding in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The bytes of the source that it is about, in whole characters.
    pub span: Range<usize>,
    /// Line of the start of the span, from 1; 0 when the finding is about the input as a whole.
    pub line: usize,
    /// Column of the start of the span in characters, from 1.
    pub column: usize,
}

/// A finding that does not know its line yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Fault {
    pub(crate) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None }
    }

    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// More findings than this are counted, not kept: a hostile text must not buy memory with errors.
const MOST: usize = 100;

/// Collects findings about one text.
#[derive(Debug)]
pub(crate) struct Sink<'a> {
    source: &'a str,
    list: Vec<Diagnostic>,
    errors: usize,
    dropped: usize,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(source: &'a str) -> Self {
        Self { source, list: Vec::new(), errors: 0, dropped: 0 }
    }

    pub(crate) fn error(&mut self, fault: Fault) {
        self.push(Severity::Error, fault);
    }

    pub(crate) fn warning(&mut self, fault: Fault) {
        self.push(Severity::Warning, fault);
    }

    pub(crate) fn push(&mut self, severity: Severity, fault: Fault) {
        if severity == Severity::Error {
            self.errors += 1;
        }
        // The same fault of one local or variable would come back at every use.
        if self.list.iter().any(|d| d.span == fault.span && d.message == fault.message) {
            return;
        }
        if self.list.len() >= MOST {
            self.dropped += 1;
            return;
        }
        let (span, line, column) = locate(self.source, fault.span);
        self.list.push(Diagnostic { severity, message: fault.message, help: fault.help, span, line, column });
    }

    /// A finding about the input as a whole.
    pub(crate) fn whole(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.errors += 1;
        self.list.push(Diagnostic {
            severity: Severity::Error,
            message: message.into(),
            help: Some(help.into()),
            span: 0..0,
            line: 0,
            column: 0,
        });
    }

    /// Are further findings only counted? Then no work need be spent on them.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= MOST
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// The findings in the order of the text.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|d| (d.span.start, d.severity));
        if self.dropped > 0 {
            let n = self.dropped;
            self.whole(format!("{n} more findings are not shown"), "correct those above first");
        }
        self.list
    }
}

/// The span cut to whole characters of the source, with line and column of its start.
fn locate(source: &str, span: Range<usize>) -> (Range<usize>, usize, usize) {
    let mut start = span.start.min(source.len());
    while !source.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = span.end.clamp(start, source.len());
    while !source.is_char_boundary(end) {
        end += 1;
    }
    let before = &source[..start];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    (start..end, line, column)
}

/// The most characters of a source line that are shown.
const SHOWN: usize = 120;

/// Draws a finding for people: `file:line:column`, the line of the source, a run of carets and the help. Plain text, no colour,
/// ends with a newline. `source` must be the text that the finding is about; control characters in it are not passed on.
pub fn render(diagnostic: &Diagnostic, source: &str, file: &str) -> String {
    let word = diagnostic.severity.word();
    let message = &diagnostic.message;
    let mut out = String::new();
    if diagnostic.line == 0 {
        _ = writeln!(out, "{file}: {word}: {message}");
    } else {
        let (line, column) = (diagnostic.line, diagnostic.column);
        _ = writeln!(out, "{file}:{line}:{column}: {word}: {message}");
        let gutter = " ".repeat(line.to_string().len());
        let (text, skip, carets) = excerpt(diagnostic, source);
        _ = writeln!(out, "{gutter} |\n{line} | {text}\n{gutter} | {}{}", " ".repeat(skip), "^".repeat(carets));
    }
    if let Some(help) = &diagnostic.help {
        _ = writeln!(out, "  help: {help}");
    }
    out
}

/// The part of the line that is shown, how far to go before the first caret, and how many carets.
fn excerpt(diagnostic: &Diagnostic, source: &str) -> (String, usize, usize) {
    let line = source.lines().nth(diagnostic.line - 1).unwrap_or("");
    let at = diagnostic.column.saturating_sub(1);
    let span = source.get(diagnostic.span.clone()).unwrap_or("");
    let width = span.lines().next().map_or(0, |first| first.chars().count());
    let from = if at > SHOWN / 2 && line.chars().count() > SHOWN { at - SHOWN / 4 } else { 0 };
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut text: String = line.chars().skip(from).take(SHOWN).map(clean).collect();
    text.truncate(text.trim_end().len());
    let skip = at - from;
    (text, skip, width.clamp(1, SHOWN.saturating_sub(skip).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_lines_and_characters() {
        let source = "a = 1\n\u{e4}\u{f6} = \"x\"\n";
        for (span, line, column) in [(0..1, 1, 1), (6..7, 2, 1), (8..10, 2, 2), (9..9, 2, 2), (99..120, 3, 1)] {
            let (cut, l, c) = locate(source, span.clone());
            assert_eq!((l, c), (line, column), "{span:?}");
            assert!(source.get(cut).is_some());
        }
    }

    #[test]
    fn long_lines_are_cut_around_the_carets() {
        let source = format!("x = \"{}\" # \u{1b}[31m", "y".repeat(1000));
        let mut sink = Sink::new(&source);
        sink.error(Fault::new(900..905, "here").help("do this"));
        let text = render(&sink.finish()[0], &source, "a.hcl");
        assert!(text.lines().all(|l| l.chars().count() <= SHOWN + 10), "{text}");
        assert!(text.contains("a.hcl:1:901: error: here") && text.contains("^^^^^") && text.contains("help: do this"));
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn findings_are_bounded() {
        let source = "x".repeat(1000);
        let mut sink = Sink::new(&source);
        for i in 0..500 {
            sink.error(Fault::new(i..i + 1, "bad"));
        }
        let list = sink.finish();
        assert_eq!(list.len(), MOST + 1);
        assert_eq!(list[MOST].message, "400 more findings are not shown");
    }
}
