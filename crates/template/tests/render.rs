//! What templates give, as a golden file, and that no text at all makes the engine panic or run on.

use std::collections::BTreeMap;

use proptest::prelude::*;
use skerry_template::{MAX_OUTPUT, Options, Source, check, render};

struct Values {
    variables: BTreeMap<String, BTreeMap<String, String>>,
}

impl Source for Values {
    fn env(&self, name: &str) -> Option<String> {
        match name {
            "NOMAD_PORT_http" => Some("20080".to_owned()),
            "LIST" => Some("a,b,c".to_owned()),
            _ => None,
        }
    }
    fn meta(&self, name: &str) -> Option<String> {
        (name == "site").then(|| "Harbour".to_owned())
    }
    fn variables(&self, path: &str) -> Option<&BTreeMap<String, String>> {
        self.variables.get(path)
    }
}

fn values() -> Values {
    let items = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let variables = [
        ("nomad/jobs/till".to_owned(), items(&[("rate", "3"), ("token", "s3cret"), ("empty", "")])),
        ("json".to_owned(), items(&[("doc", r#"{"hosts":["a","b"],"n":7,"deep":{"x":1.5}}"#)])),
    ];
    Values { variables: variables.into() }
}

/// Every template of the file, each after a line `# ...`, with what comes out.
#[test]
fn golden() {
    let input = include_str!("golden/cases.txt");
    let mut out = String::new();
    for case in input.split("\n=====\n") {
        let (title, text) = case.split_once('\n').expect("a case has a title");
        let (left, right) = if title.contains("[[") { ("[[", "]]") } else { ("", "") };
        let options = Options { left, right, error_on_missing: title.contains("(strict)"), one_line: false };
        let got = render(text, &options, &values()).unwrap_or_else(|e| format!("ERROR {e}"));
        out.push_str(&format!("{title}\n{got}\n=====\n"));
    }
    let expected = include_str!("golden/cases.out");
    if out != expected {
        let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/cases.out");
        std::fs::write(path, &out).unwrap();
        for (got, want) in out.split("=====\n").zip(expected.split("=====\n")) {
            assert_eq!(got, want, "all that came out is in {path}");
        }
        panic!("the number of cases differs; all that came out is in {path}");
    }
}

#[test]
fn work_and_output_are_bounded() {
    let rows = [
        ("{{ range loop 1000000000 }}x{{ end }}", "more work"),
        ("{{ range loop 3000 }}{{ range loop 3000 }}x{{ end }}{{ end }}", ""),
        ("{{ $x := \"aaaaaaaaaaaaaaaa\" }}{{ range loop 60 }}{{ $x = print $x $x }}{{ end }}{{ $x }}", "more work"),
        ("{{ $x := \"aaaaaaaaaaaaaaaa\" }}{{ range loop 60 }}{{ $x = printf \"%s%s\" $x $x }}{{ end }}{{ $x }}", ""),
        ("{{ $x := \"aaaaaaaaaaaaaaaa\" }}{{ range loop 60 }}{{ $x = replaceAll \"a\" $x $x }}{{ end }}{{ $x }}", "more work"),
        ("{{ $x := split \"\" \"aaaaaaaaaaaa\" }}{{ range loop 60 }}{{ $x = split \"\" (join \"aa\" $x) }}{{ end }}", "more work"),
        ("{{ printf \"%100000d\" 1 }}", "wider"),
    ];
    // What is long is paid for where it is read, not only where it is made.
    let long = "{{ $x := \"aaaaaaaaaaaaaaaa\" }}{{ range loop 14 }}{{ $x = print $x $x }}{{ end }}";
    let loops = "{{ range loop 100000 }}";
    let reads = [
        format!("{long}{{{{ trim $x $x }}}}"),
        format!("{long}{loops}{{{{ if contains \"b\" $x }}}}{{{{ end }}}}{{{{ end }}}}"),
        format!("{long}{loops}{{{{ if eq $x $x }}}}{{{{ end }}}}{{{{ end }}}}"),
        format!("{long}{loops}{{{{ $y := printf \"%.1s\" $x }}}}{{{{ end }}}}"),
        format!("{long}{{{{ $l := split \"a\" (print $x) }}}}{loops}{{{{ range $l }}}}{{{{ break }}}}{{{{ end }}}}{{{{ end }}}}"),
        format!("{}{loops}{{{{ $first = 1 }}}}{{{{ end }}}}", "{{ $first := 1 }}".to_owned() + &"{{ $v := 1 }}".repeat(10_000)),
        format!("{{{{ $first := 1 }}}}{}{loops}{{{{ if $first }}}}{{{{ end }}}}{{{{ end }}}}", "{{ $v := 1 }}".repeat(10_000)),
        format!("{{{{ range loop 400000 }}}}{}{{{{ end }}}}", "{{ if false }}{{ end }}".repeat(5_000)),
    ];
    for (text, expected) in rows.into_iter().chain(reads.iter().map(|text| (text.as_str(), "more work"))) {
        let error = render(text, &Options::default(), &values()).expect_err(text);
        assert!(error.message.contains(expected), "{text}: {error}");
    }
    assert!(check(&"x".repeat(300 * 1024), "", "").is_err());
    let error = check(&format!("{}1{}", "{{ if true }}".repeat(100), "{{ end }}".repeat(100)), "", "").unwrap_err();
    assert!(error.message.contains("blocks"), "{error}");
    let error = check(&format!("{{{{ {}1{} }}}}", "(".repeat(100), ")".repeat(100)), "", "").unwrap_err();
    assert!(error.message.contains("parentheses"), "{error}");
}

/// Bytes that look like templates.
fn scraps() -> impl Strategy<Value = String> {
    let words = vec![
        "{{",
        "}}",
        "{{-",
        " -}}",
        "{{ ",
        " }}",
        "if ",
        "with ",
        "range ",
        "else",
        "end",
        "$x",
        "$",
        ":=",
        "=",
        ",",
        "|",
        "(",
        ")",
        ".",
        ".a",
        "\"",
        "`",
        "\\",
        "\n",
        " ",
        "/*",
        "*/",
        "env",
        "key",
        "nomadVar",
        "printf",
        "index",
        "loop",
        "toJSON",
        "parseJSON",
        "split",
        "join",
        "1",
        "-",
        "0x",
        "9999999999999999999",
        "%d",
        "%",
        "é",
        "\u{0}",
        "break",
        "continue",
        "and",
        "not",
        "eq",
        "\"nomad/jobs/till\"",
        "true",
        "nil",
    ];
    let word = prop_oneof![9 => proptest::sample::select(words).prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)];
    proptest::collection::vec(word, 0..60).prop_map(|w| w.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_is_too_much(text in scraps()) {
        let checked = check(&text, "{{", "}}");
        match render(&text, &Options::default(), &values()) {
            Ok(out) => {
                prop_assert!(checked.is_ok() && out.len() <= MAX_OUTPUT);
                let again = render(&text, &Options::default(), &values());
                prop_assert_eq!(again.as_ref(), Ok(&out));
            }
            Err(error) => prop_assert!(error.line >= 1 || !error.message.is_empty()),
        }
    }

    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400), left in "[{<\\[%]{0,2}", right in "[}>\\]%]{0,2}") {
        let text = String::from_utf8_lossy(&bytes);
        let _ = check(&text, &left, &right);
    }

    /// Text without delimiters comes out as it is.
    #[test]
    fn plain_text(text in "[^{]{0,200}") {
        let out = render(&text, &Options::default(), &values());
        prop_assert_eq!(out.as_deref(), Ok(text.as_str()));
    }
}
