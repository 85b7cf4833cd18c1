//! Any text as a job: a job or diagnostics, all of which can be shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skerry_jobspec::{Variables, parse};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = parse(text, &Variables::default());
    assert!(parsed.job.is_some() || !parsed.diagnostics.is_empty(), "neither a job nor a reason");
    let _ = format!("{:?}", parsed.diagnostics);
});
