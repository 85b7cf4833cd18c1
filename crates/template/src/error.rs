//! Why a template does not render.

/// Why a template is none, or does not render.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct TemplateError {
    /// Line of the template's text, from 1.
    pub line: u32,
    /// What is wrong and what to do, for people.
    pub message: String,
}

impl TemplateError {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}
