//! Templates of tasks: text with `{{ ... }}` in it, and values, to text.
//!
//! The language is a part of Go's `text/template` with the functions that Nomad adds to it; `docs/templates.md` lists all of it. In: the
//! text, its delimiters, a [`Source`] of values. Out: the text with everything filled in, or a [`TemplateError`] that names the line.
//!
//! What it promises: pure and deterministic; whatever the text is, it neither panics nor runs for long: what one rendering costs is
//! bounded by [`MAX_WORK`], what comes out by [`MAX_OUTPUT`].
#![forbid(unsafe_code)]

mod error;
mod functions;
mod lex;
mod parse;
mod printf;
mod render;
mod value;

use std::collections::BTreeMap;

pub use error::TemplateError;

/// The longest text of a template, in bytes.
pub const MAX_TEXT: usize = 256 * 1024;
/// The longest text that comes out, in bytes.
pub const MAX_OUTPUT: usize = 1024 * 1024;
/// Steps and bytes that one rendering may cost.
pub const MAX_WORK: u64 = 8 * 1024 * 1024;
/// How deep blocks and parentheses may be in one another.
pub const MAX_DEPTH: usize = 64;

/// Where values come from.
pub trait Source {
    /// A variable of the task's environment.
    fn env(&self, name: &str) -> Option<String>;
    /// Meta of the node.
    fn meta(&self, name: &str) -> Option<String>;
    /// The variables under a path.
    fn variables(&self, path: &str) -> Option<&BTreeMap<String, String>>;
}

/// How a template is read and what is an error in it.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// What opens an expression; `{{` when empty.
    pub left: &'a str,
    /// What closes it; `}}` when empty.
    pub right: &'a str,
    /// Is a field that is not there an error, rather than empty?
    pub error_on_missing: bool,
    /// Is it an error when what an expression prints has a line end in it? Where each line says something of its own, a value must not
    /// bring lines.
    pub one_line: bool,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { left: "{{", right: "}}", error_on_missing: false, one_line: false }
    }
}

/// Is the text a template? Looks at its form, at the names of functions and at how many arguments they take, not at values.
pub fn check(text: &str, left: &str, right: &str) -> Result<(), TemplateError> {
    parse::parse(text, left, right).map(|_| ())
}

/// Fills in the text.
pub fn render(text: &str, options: &Options<'_>, source: &dyn Source) -> Result<String, TemplateError> {
    let nodes = parse::parse(text, options.left, options.right)?;
    render::render(&nodes, options, source)
}
