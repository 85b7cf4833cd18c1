//! The language: what expressions come to, what stays for the node, and that no text is too much for the parser.

use std::collections::BTreeMap;

use proptest::prelude::*;
use skerry_jobspec::{Images, Severity, Variables, diff, parse, render, validate};
use skerry_wire::job::{Driver, Job, JobType, Operator, RestartPolicy};

/// The job with these lines as meta values.
fn meta(lines: &str) -> BTreeMap<String, String> {
    let source = format!(
        "variable \"v\" {{\n  default = {{ a = [1, 2], b = \"x\" }}\n}}\nlocals {{\n  later = local.first\n  first = \"one\"\n  \
         list = [{{ n = \"p\" }}, {{ n = \"q\" }}]\n}}\njob \"t\" {{\n  meta {{\n{lines}\n  }}\n  task \"t\" {{\n    driver = \"docker\"\n    \
         config {{\n      image = \"t:1\"\n    }}\n  }}\n}}\n"
    );
    let parsed = parse(&source, &Variables::new());
    let text: String = parsed.diagnostics.iter().map(|d| render(d, &source, "t.hcl")).collect();
    parsed.job.unwrap_or_else(|| panic!("{text}")).meta
}

#[test]
fn expressions() {
    for (written, value) in [
        ("1 + 2 * 3", "7"),
        ("7 % 4", "3"),
        ("1 / 4", "0.25"),
        ("-3", "-3"),
        ("2 > 1 && !false ? \"yes\" : \"no\"", "yes"),
        ("false && 1 / 0 > 1", "false"),
        ("local.later", "one"),
        ("var.v.a[1]", "2"),
        ("var.v[\"b\"]", "x"),
        ("join(\",\", local.list[*].n)", "p,q"),
        ("join(\",\", local.list.*.n)", "p,q"),
        ("join(\",\", [for i, x in local.list : \"${i}${x.n}\" if x.n != \"p\"])", "1q"),
        ("jsonencode({for x in local.list : x.n => upper(x.n)})", r#"{"p":"P","q":"Q"}"#),
        ("jsonencode({for x in [\"a\", \"b\"] : \"k\" => x...})", r#"{"k":["a","b"]}"#),
        ("\"a-${local.first}-${1 + 1}\"", "a-one-2"),
        ("\"%{ for x in local.list }${x.n};%{ endfor }\"", "p;q;"),
        ("\"%{ if true }a%{ else }b%{ endif }\"", "a"),
        ("\"x ${~ local.first ~} y\"", "xoney"),
        // What the node knows stays as it is, with and without quotes.
        ("attr.kernel.name", "${attr.kernel.name}"),
        ("\"${attr.kernel.name}/${NOMAD_PORT_http}\"", "${attr.kernel.name}/${NOMAD_PORT_http}"),
        ("\"${meta.a}-${local.first}\"", "${meta.a}-one"),
        ("env[\"HOME\"]", "${env[\"HOME\"]}"),
        ("NOMAD_ALLOC_ID", "${NOMAD_ALLOC_ID}"),
        ("\"$${HOME} %%{x}\"", "${HOME} %{x}"),
        ("true ? node.unique.name : \"x\"", "${node.unique.name}"),
        // Functions.
        ("upper(\"a\")", "A"),
        ("format(\"%s-%03d-%.1f-%q-%v-%%\", \"a\", 7, 1.25, \"q\", [1])", "a-007-1.2-\"q\"-[1]-%"),
        ("format(\"%5s|%-5s|\", \"a\", \"b\")", "    a|b    |"),
        ("join(\",\", concat([1], [2, 3]))", "1,2,3"),
        ("join(\",\", split(\" \", \"a b\"))", "a,b"),
        ("jsonencode(merge({ a = 1 }, { a = 2, b = null }))", r#"{"a":2,"b":null}"#),
        ("length(\"\u{e4}\u{f6}\") + length([1]) + length({ a = 1 })", "4"),
        ("replace(\"a.b.c\", \".\", \"-\")", "a-b-c"),
        ("trimspace(\"  a \")", "a"),
        ("trimprefix(trimsuffix(\"v1.x\", \".x\"), \"v\")", "1"),
        ("trim(\"--a-\", \"-\")", "a"),
        ("jsondecode(\"{\\\"a\\\": [1.5]}\").a[0]", "1.5"),
        ("base64encode(\"a\")", "YQ=="),
        ("base64encode(\"abc\")", "YWJj"),
        ("base64decode(base64encode(\"gr\u{fc}n\"))", "gr\u{fc}n"),
        ("min(3, 1, 2) + max(3, 1) + abs(-1) + ceil(0.1) + floor(0.9) + round(1.5)", "8"),
        ("coalesce(null, \"\", \"x\")", "x"),
        ("lookup({ a = 1 }, \"b\", 2)", "2"),
        ("join(\",\", keys({ b = 1, a = 2 }))", "a,b"),
        ("join(\",\", values({ b = 1, a = 2 }))", "2,1"),
        ("contains([1, 2], 2)", "true"),
        ("tostring(1) == \"1\" && tonumber(\"2\") == 2 && tobool(\"true\")", "true"),
        ("join(\",\", sort(distinct([\"b\", \"a\", \"b\"])))", "a,b"),
        ("join(\",\", reverse(range(1, 4)))", "3,2,1"),
        ("element([1, 2], 3)", "2"),
        ("join(\",\", compact(flatten([[\"a\", \"\"], [\"b\"]])))", "a,b"),
        ("substr(\"hello\", 1, 3)", "ell"),
        ("startswith(\"ab\", \"a\") && endswith(\"ab\", \"b\")", "true"),
        ("max([1, 5, 2]...)", "5"),
        ("chomp(\"a\\n\")", "a"),
        ("indent(2, \"a\\nb\")", "a\n  b"),
    ] {
        assert_eq!(meta(&format!("    x = {written}")).get("x").map(String::as_str), Some(value), "{written}");
    }
    assert_eq!(meta("    x = <<-EOT\n      a ${local.first}\n        b\n    EOT\n")["x"], "a one\n  b\n");
    assert_eq!(meta("    x = null\n").get("x"), None);
}

fn job(source: &str) -> Job {
    let parsed = parse(source, &Variables::new());
    assert_eq!(parsed.diagnostics, []);
    parsed.job.expect("a job without a finding")
}

#[test]
fn defaults() {
    let job = job("job \"t\" {\n  task \"a\" {\n    driver = \"docker\"\n    config {\n      image = \"t\"\n    }\n  }\n}\n");
    assert_eq!((job.id.as_str(), job.name.as_str(), job.kind, job.priority), ("t", "t", JobType::Service, 50));
    assert_eq!((job.node_pool.as_str(), job.datacenters.as_slice()), ("default", ["*".to_owned()].as_slice()));
    let group = &job.groups[0];
    assert_eq!((group.name.as_str(), group.count, group.restart), ("a", 1, RestartPolicy::EDGE));
    let task = &group.tasks[0];
    assert_eq!((task.resources.cpu, task.resources.memory, task.resources.memory_max, task.kill_timeout.0), (100, 300, None, 5000));
    let Driver::Docker(config) = &task.driver else { panic!("{:?}", task.driver) };
    assert_eq!((config.image.as_str(), config.image_id), ("t", None));
}

#[test]
fn every_way_to_write_a_constraint() {
    for (written, operator, value) in [
        ("value = \"x\"", Operator::Equal, "x"),
        ("operator = \"=\"\n    value = \"x\"", Operator::Equal, "x"),
        ("operator = \"is\"\n    value = 3", Operator::Equal, "3"),
        ("operator = \"not\"\n    value = \"x\"", Operator::NotEqual, "x"),
        ("operator = \">=\"\n    value = \"3\"", Operator::GreaterOrEqual, "3"),
        ("regexp = \"^a\"", Operator::Regexp, "^a"),
        ("operator = \"version\"\n    value = \">= 1.2, < 2\"", Operator::Version, ">= 1.2, < 2"),
        ("set_contains = \"a,b\"", Operator::SetContainsAll, "a,b"),
        ("set_contains_any = \"a,b\"", Operator::SetContainsAny, "a,b"),
        ("operator = \"is_set\"", Operator::IsSet, ""),
        ("is_not_set = true", Operator::IsNotSet, ""),
    ] {
        let source = format!(
            "job \"t\" {{\n  constraint {{\n    attribute = attr.cpu.arch\n    {written}\n  }}\n  task \"a\" {{\n    driver = \"docker\"\n    \
             config {{\n      image = \"t\"\n    }}\n  }}\n}}\n"
        );
        let job = job(&source);
        let c = &job.constraints[0];
        assert_eq!((c.attribute.as_str(), c.operator, c.value.as_str()), ("${attr.cpu.arch}", operator, value), "{written}");
    }
}

/// Pieces that make texts which get further than random letters do.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("job \"a\" {\n".to_owned()),
        Just("group \"g\" {\n".to_owned()),
        Just("task \"t\" {\ndriver = \"docker\"\nconfig {\nimage = \"a\"\n}\n}\n".to_owned()),
        Just("}\n".to_owned()),
        Just("locals {\n".to_owned()),
        Just("x = local.x\n".to_owned()),
        Just("a = \"${".to_owned()),
        Just("}\"\n".to_owned()),
        Just("count = -1e400\n".to_owned()),
        Just("port \"p\" { static = 99999999999999999999 }\n".to_owned()),
        Just("x = [for a in range(9) : a...]\n".to_owned()),
        Just("x = format(\"%9999999999s\", 1)\n".to_owned()),
        Just("x = substr(\"\u{e4}\", 1e300, -1)\n".to_owned()),
        Just("x = -18446744073709551615 % 0\n".to_owned()),
        Just("periodic {\ncrons = [\"*/7 3-99/0 ? jan-DEC 7\", \"0 0 31 2 *\"]\ntime_zone = \"x\"\n}\n".to_owned()),
        Just("type = \"sysbatch\"\n".to_owned()),
        Just("template {\ndata = \"{{ if \\\"}} {{- end\"\ndestination = \"local/..\"\n}\n".to_owned()),
        Just("template {\ndata = \"\"\ndestination = \"local/x\"\nleft_delimiter = \"\u{e4}\"\n}\n".to_owned()),
        Just("service {\ncheck {\ntype = \"http\"\ninterval = \"1s\"\ntimeout = \"1s\"\nheader {\n".to_owned()),
        Just("check {\ntype = \"script\"\ntask = \"t\"\n}\n".to_owned()),
        Just("update {\nhealthy_deadline = \"0s\"\n}\nreschedule {\nattempts = 3\n}\n".to_owned()),
        Just("disconnect {\nlost_after = 18446744073709551615\nreplace = true\n}\n".to_owned()),
        Just("ephemeral_disk {\nsize = 4294967296\n}\n".to_owned()),
        Just("driver = \"raw_exec\"\nlifecycle {\nhook = \"poststop\"\n}\nleader = true\n".to_owned()),
        Just("devices = [{ host_path = \"/\" }, {}]\ncap_add = [\"CAP_\", \"\u{130}\"]\n".to_owned()),
        "[a-z_]{1,8} = [0-9.]{1,8}\n",
        "\\PC{0,12}",
    ]
}

fn examples() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../jobspecs");
    let full = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/full.hcl").into();
    let files = std::fs::read_dir(folder).expect("the examples").map(|e| e.expect("an entry").path()).chain([full]);
    files.filter(|p| p.extension().is_some_and(|e| e == "hcl")).map(|p| std::fs::read_to_string(p).expect("an example")).collect()
}

/// What holds for every text: no panic, places inside of it, and a job exactly when there is no error.
fn holds(source: &str) {
    let parsed = parse(source, &Variables::new());
    assert_eq!(parsed.failed(), parsed.diagnostics.iter().any(|d| d.severity == Severity::Error));
    for d in &parsed.diagnostics {
        assert!(source.get(d.span.clone()).is_some());
        assert!(!render(d, source, "x").is_empty());
    }
    if let Some(job) = parsed.job {
        assert!(validate(&job, Images::AsWritten).iter().all(|p| p.severity == Severity::Warning));
        assert!(diff(&job, &job).is_empty());
        let again: Job = serde_json::from_str(&serde_json::to_string(&job).expect("text")).expect("the same job");
        assert_eq!(again, job);
    }
}

proptest! {
    #[test]
    fn any_text_is_answered(source in "\\PC{0,200}") {
        holds(&source);
    }

    #[test]
    fn any_pieces_are_answered(pieces in prop::collection::vec(piece(), 0..24)) {
        holds(&pieces.concat());
    }

    #[test]
    fn any_change_of_an_example_is_answered(which in any::<prop::sample::Index>(), edits in prop::collection::vec((any::<prop::sample::Index>(), 0..6usize, "\\PC{0,4}"), 1..4)) {
        let examples = examples();
        let mut text: Vec<char> = which.get(&examples).chars().collect();
        for (at, cut, new) in edits {
            let at = at.index(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, new.chars());
        }
        holds(&text.into_iter().collect::<String>());
    }
}
