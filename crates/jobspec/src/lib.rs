//! The text of a job (HCL) into a [`Job`], with diagnostics; the rules for jobs; the difference of two jobs.
//!
//! In: the source, and the values of its variables ([`Variables`]). Out: [`Parsed`], a job or the reasons why there is none, each
//! with file position and what to do ([`Diagnostic`], drawn by [`render`]). [`validate`] judges a job that came from elsewhere by the
//! same rules. [`diff`] says what changed between two versions.
//!
//! The dialect is Nomad's. What of it Skerry does not have is never passed over in silence: it is an error where ignoring it would
//! change what runs, and a warning where it would not. `docs/jobspec.md` is the reference.
//!
//! What it promises: pure (no files, no clock, no environment), bounded in time and memory whatever the text says, and no panic.
#![forbid(unsafe_code)]

mod clock;
mod diagnostic;
mod diff;
mod driver_rules;
mod duration;
mod eval;
mod functions;
mod names;
mod policy_rules;
mod read;
mod rules;
mod schema;
mod service_rules;
mod task_rules;
mod template;
mod template_rules;
mod variables;

use hcl_edit::structure::Body;
use skerry_wire::job::Job;
use skerry_wire::limits;

pub use diagnostic::{Diagnostic, Severity, render};
pub use diff::{Change, FieldDiff, JobDiff, PartDiff, diff, diff_new};
pub use driver_rules::bad_image;
pub use policy_rules::{FILE_SIZE, FILES};
pub use rules::{ATTEMPTS, COUNT, DISK, Images, LONGEST_ID, LONGEST_NAME, MOST_ITEMS, PORT, PRIORITY, Problem, validate};
pub use service_rules::THRESHOLD;
pub use task_rules::{CPU, MEMORY};
pub use variables::Variables;

use diagnostic::{Fault, Sink};
use eval::Evaluator;
use read::{Reader, Spans};

/// What a text came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The job, with defaults filled in and images as written; none when there is an error.
    pub job: Option<Job>,
    /// Errors and warnings in the order of the text; at most a hundred and a note of how many more.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// Is there an error?
    pub const fn failed(&self) -> bool {
        self.job.is_none()
    }
}

/// Reads the text of a job.
///
/// Without an error in the diagnostics there is a job, and it meets [`validate`] with [`Images::AsWritten`].
pub fn parse(source: &str, variables: &Variables) -> Parsed {
    let mut sink = Sink::new(source);
    let Some(body) = parse_source(source, &mut sink) else {
        return Parsed { job: None, diagnostics: sink.finish() };
    };
    let mut eval = Evaluator::new(source);
    variables::declare(&body, variables, &mut eval, &mut sink);
    variables::declare_locals(&body, &mut eval, &mut sink);
    let mut reader = Reader { eval, sink, spans: Spans::default() };
    let job = read::read_job(&mut reader, &body);
    let Reader { mut sink, spans, .. } = reader;
    if let Some(job) = &job {
        for Problem { severity, message, help, path, .. } in validate(job, Images::AsWritten) {
            sink.push(severity, Fault { span: spans.find(&path), message, help });
        }
    }
    let job = job.filter(|_| !sink.has_errors());
    Parsed { job, diagnostics: sink.finish() }
}

/// The syntax of a text, bounded in size; the parser bounds nesting itself.
fn parse_source(source: &str, sink: &mut Sink<'_>) -> Option<Body> {
    if source.len() > limits::JOBSPEC {
        sink.whole(
            format!("the text has {} bytes, more than {}", source.len(), limits::JOBSPEC),
            "put large content into files of the image",
        );
        return None;
    }
    match hcl_edit::parser::parse_body(source) {
        Ok(body) => Some(body),
        Err(e) => {
            let start = e.location().offset();
            let end = source.get(start..).and_then(|rest| rest.chars().next()).map_or(start, |c| start + c.len_utf8());
            sink.error(Fault::new(start..end, format!("syntax: {}", e.message())));
            None
        }
    }
}
