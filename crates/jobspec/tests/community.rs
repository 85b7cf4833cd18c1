//! Jobs as people write them for Nomad: each is taken, or told exactly what stands in the way.

use std::path::{Path, PathBuf};

use skerry_jobspec::{Images, Variables, diff, parse, render, validate};

#[test]
fn jobs_of_other_fleets_are_taken_or_told_why_not() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/community");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 20, "{} files", files.len());
    let mut taken = Vec::new();
    for path in &files {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let source = std::fs::read_to_string(path).unwrap();
        let parsed = parse(&source, &Variables::new());
        let verdict = if parsed.failed() { "refused" } else { "taken" };
        let findings: Vec<String> = parsed.diagnostics.iter().map(|d| render(d, &source, "job.hcl")).collect();
        insta::assert_snapshot!(format!("community_{name}"), format!("{verdict}\n\n{}", findings.join("\n")));
        if let Some(job) = parsed.job {
            assert!(diff(&job, &job).is_empty());
            // As it goes over the API: the same rules find the same.
            let again: skerry_wire::job::Job = serde_json::from_str(&serde_json::to_string(&job).unwrap()).unwrap();
            assert_eq!(again, job, "{name}");
            assert_eq!(validate(&again, Images::AsWritten), validate(&job, Images::AsWritten));
            taken.push(name);
        }
    }
    assert_eq!(taken, ["broker", "cache", "home", "media", "prune", "restic", "watchdog"]);
}
