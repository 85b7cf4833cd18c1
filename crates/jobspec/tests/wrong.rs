//! Wrong texts and what is said about them: every `tests/wrong/*.hcl` has a snapshot of its findings.

use std::path::{Path, PathBuf};

use skerry_jobspec::{Severity, Variables, parse, render};

fn rendered(source: &str, variables: &Variables) -> (String, bool) {
    let parsed = parse(source, variables);
    let errors = parsed.diagnostics.iter().any(|d| d.severity == Severity::Error);
    assert_eq!(parsed.failed(), errors, "no job exactly when there is an error");
    (parsed.diagnostics.iter().map(|d| render(d, source, "job.hcl")).collect::<Vec<_>>().join("\n"), errors)
}

#[test]
fn every_wrong_text_is_told_where_and_why() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 25, "{} files", files.len());
    for path in files {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let source = std::fs::read_to_string(&path).unwrap();
        let (text, errors) = rendered(&source, &Variables::new());
        assert_eq!(errors, !name.starts_with("warn"), "{name}:\n{text}");
        assert!(!text.is_empty(), "{name}");
        insta::assert_snapshot!(format!("wrong_{name}"), text);
    }
}

#[test]
fn wrong_variables_are_told() {
    let source = "variable \"n\" {\n  type = number\n}\n\nvariable \"l\" {\n  type = list(string)\n}\n";
    let mut variables = Variables::new();
    variables.set_flag("n", "many");
    variables.set_flag("l", "[1,");
    variables.set_flag("m", "x");
    insta::assert_snapshot!("variables_given", rendered(source, &variables).0);
    let file = "a = 1\nb { }\nc = var.a\n";
    let found = Variables::new().add_file(file, "x.hcl");
    insta::assert_snapshot!("variables_file", found.iter().map(|d| render(d, file, "x.hcl")).collect::<Vec<_>>().join("\n"));
}

#[test]
fn too_long_a_text_is_refused_before_it_is_read() {
    let source = "#".repeat(skerry_wire::limits::JOBSPEC + 1);
    insta::assert_snapshot!("too_long", rendered(&source, &Variables::new()).0);
}

#[test]
fn work_and_depth_are_bounded() {
    // Each local is twice the one before.
    let mut doubling = String::from("locals {\n  a0 = \"xxxxxxxxxxxxxxxx\"\n");
    for i in 1..64 {
        doubling += &format!("  a{i} = \"${{local.a{}}}${{local.a{}}}\"\n", i - 1, i - 1);
    }
    doubling += "}\n";
    let nested = "locals {\n  x = range(1000)\n  y = [for a in local.x : [for b in local.x : [for c in local.x : 1]]]\n}\n".to_owned();
    // A long chain of locals, each inside the next.
    let mut chain = String::from("locals {\n  b0 = 1\n");
    for i in (1..5000).rev() {
        chain += &format!("  b{i} = [[[[local.b{}]]]]\n", i - 1);
    }
    chain += "}\n";
    let mut ordered = String::from("locals {\n  b0 = 1\n");
    for i in 1..5000 {
        ordered += &format!("  b{i} = [[[[local.b{}]]]]\n", i - 1);
    }
    ordered += "}\n";
    let deep = format!("x = {}1{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let blocks = "a {\n".repeat(100_000);
    let replace =
        "locals {\n  a = join(\"\", [for i in range(1000) : \"aaaaaaaaaaaaaaaa\"])\n  b = replace(local.a, \"a\", local.a)\n}\n".to_owned();
    // Tens of thousands of unknown names, each of which could be compared with every known one.
    let declared: String = (0..256).map(|i| format!("variable \"averylongnameofavariable{i}\" {{\n  default = 1\n}}\n")).collect();
    let unknown: String = (0..12_000).map(|i| format!("  x{i} = var.averylongnameof{i}\n")).collect();
    let names = format!("{declared}locals {{\n{unknown}}}\n");
    let fields: String = (0..25_000).map(|i| format!("  prioriti{i} = 1\n")).collect();
    let fields = format!("job \"a\" {{\n{fields}}}\n");
    for source in [doubling, nested, chain, ordered, deep, blocks, replace, names, fields] {
        assert!(source.len() <= skerry_wire::limits::JOBSPEC);
        let parsed = parse(&source, &Variables::new());
        assert!(parsed.failed());
        assert!(!parsed.diagnostics.is_empty() && parsed.diagnostics.len() <= 101);
    }
}
