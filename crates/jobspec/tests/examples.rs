//! The example jobs are good, and come to what they say.

use std::path::PathBuf;

use skerry_jobspec::{Images, Variables, diff, diff_new, parse, render, validate};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../jobspecs")
}

fn example(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).expect("an example")
}

#[test]
fn examples_parse_without_a_finding() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "hcl"));
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    let readme = example("README.md");
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(readme.contains(name), "{name} is not in jobspecs/README.md");
        let source = example(name);
        let parsed = parse(&source, &Variables::new());
        let text: String = parsed.diagnostics.iter().map(|d| render(d, &source, name)).collect();
        assert_eq!(text, "", "{name}");
        let job = parsed.job.unwrap();
        assert_eq!(validate(&job, Images::AsWritten), []);
        insta::assert_snapshot!(format!("example_{}", name.split('.').next().unwrap()), diff_new(&job).to_string());
    }
}

#[test]
fn the_job_to_begin_with_is_good_also_with_all_that_is_commented_out() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/src/example.hcl");
    let source = std::fs::read_to_string(path).unwrap();
    // A line of a job behind `# `; prose has no ` = ` and no brace at its end.
    let uncommented = |line: &str| {
        let code = line.trim_start().strip_prefix("# ").filter(|c| c.contains(" = ") || c.ends_with(['{', '}']));
        code.map_or_else(|| line.to_owned(), str::to_owned)
    };
    let whole: String = source.lines().map(|l| uncommented(l) + "\n").collect();
    assert!(whole.lines().filter(|l| l.trim_start().starts_with('#')).count() < 16 && whole.contains("\nperiodic {"), "{whole}");
    // Only what ends can run by the clock.
    for text in [source, whole.replace("type = \"system\"", "type = \"sysbatch\"")] {
        let parsed = parse(&text, &Variables::new());
        let found: String = parsed.diagnostics.iter().map(|d| render(d, &text, "example.hcl")).collect();
        assert_eq!(found, "");
        assert!(parsed.job.is_some());
    }
}

#[test]
fn variables_from_outside_change_the_job() {
    let source = example("sensor.nomad.hcl");
    let test = parse(&source, &Variables::new()).job.unwrap();
    let mut variables = Variables::new();
    variables.set_environment("version", "9");
    variables.set_environment("unrelated", "not a fault");
    assert_eq!(variables.add_file("stage = \"production\"\nversion = \"1.9.0\"\n", "production.hcl"), []);
    variables.set_flag("channels", "[{ name = \"noise\", hz = \"800\" }]");
    let production = parse(&source, &variables).job.unwrap();
    insta::assert_snapshot!("sensor_diff", diff(&test, &production).to_string());
    assert!(diff(&test, &test).is_empty());
    assert_eq!(diff(&test, &test).to_string(), "no changes\n");
}

#[test]
fn a_diff_tells_parts_that_come_and_go() {
    let old = parse(&example("gateway.nomad.hcl"), &Variables::new()).job.unwrap();
    let mut new = old.clone();
    let mut group = new.groups.remove(0);
    group.name = "broker2".to_owned();
    group.network.ports[0].to = Some(1884);
    new.groups.push(group);
    new.groups[0].tasks.remove(1);
    new.groups[0].tasks[0].env.insert("A".to_owned(), "1".to_owned());
    new.priority = 51;
    insta::assert_snapshot!("gateway_diff", diff(&old, &new).to_string());
}

#[test]
fn a_signed_job_must_have_its_images_resolved() {
    let job = parse(&example("hello.nomad.hcl"), &Variables::new()).job.unwrap();
    let problems = validate(&job, Images::Resolved);
    assert_eq!(
        problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "group \"hello\", task \"hello\", config, image: image \"hello:1\" is not resolved to an image id (publish it: skerry image publish FILE)"
        ]
    );
}
