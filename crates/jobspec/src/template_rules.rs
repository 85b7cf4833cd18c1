//! The rules for templates: where they go, and whether their text can be one at all.

use std::collections::BTreeSet;

use skerry_wire::job::{ChangeMode, Group, Task, Template};

use crate::rules::{At, MOST_ITEMS, Rules};
use crate::service_rules::short;

/// The longest text, bytes.
const LONGEST_DATA: usize = 256 * 1024;
/// The longest destination.
const LONGEST_PATH: usize = 1024;
/// The longest delimiter.
const LONGEST_DELIMITER: usize = 16;
/// The folders of a task that a template can go to.
const FOLDERS: [&str; 3] = ["local/", "secrets/", "alloc/"];
const NO_VAULT: &str = "nodes reach no Vault; use a variable, for example with nomadVar \"nomad/jobs/shop\"";
/// Functions of Nomad's templates that ask something a cut-off node cannot reach, or would run or read what was not signed.
const FOREIGN: [(&str, &str); 22] = [
    ("secret", NO_VAULT),
    ("secrets", NO_VAULT),
    ("pkiCert", NO_VAULT),
    ("service", "there is no Consul; write the address out, or use NOMAD_ADDR_label"),
    ("services", "there is no Consul; write the address out, or use NOMAD_ADDR_label"),
    ("connect", "there is no Consul"),
    ("node", "there is no Consul; put ${node.unique.name} in env, and use env here"),
    ("nodes", "there is no Consul"),
    ("datacenters", "there is no Consul"),
    ("caRoots", "there is no Consul"),
    ("caLeaf", "there is no Consul"),
    ("ls", "there is no Consul; name each variable"),
    ("safeLs", "there is no Consul; name each variable"),
    ("tree", "there is no Consul; name each variable"),
    ("safeTree", "there is no Consul; name each variable"),
    ("nomadService", "services are not registered; write the address out, or use NOMAD_ADDR_label"),
    ("nomadServices", "services are not registered; write the address out, or use NOMAD_ADDR_label"),
    ("file", "what is signed must hold the text; write it in data"),
    ("plugin", "a template runs no programs"),
    ("writeToFile", "a template writes its destination only"),
    ("sockaddr", "use {{ env \"NOMAD_IP_label\" }}"),
    ("executeTemplate", "write the text out"),
];

impl Rules {
    /// The templates of all tasks of a group: one file has one template.
    pub(crate) fn templates(&mut self, at: &At, group: &Group) {
        let mut files = BTreeSet::new();
        for (i, task) in group.tasks.iter().enumerate() {
            let at = at.item("tasks", i, "task", &task.name);
            self.at_most(&at.field("templates"), task.templates.len(), MOST_ITEMS, "templates");
            for (t, template) in task.templates.iter().enumerate().take(MOST_ITEMS) {
                let at = at.item("templates", t, "template", &template.destination);
                // `alloc` is one folder for all tasks.
                let owner = if template.destination.starts_with("alloc/") { "" } else { &task.name };
                if !files.insert((owner, &*template.destination)) {
                    let message = format!("two templates make {:?}", short(&template.destination));
                    self.error(&at.field("destination"), message, "give each a file of its own");
                }
                self.template(&at, template, task);
            }
        }
    }

    fn template(&mut self, at: &At, template: &Template, task: &Task) {
        let Template { data, destination, env, change_mode, perms, left_delimiter, right_delimiter, error_on_missing_key: _ } = template;
        let place = at.field("destination");
        if let Some((message, help)) = bad_destination(destination) {
            self.error(&place, message, &help);
        }
        if let ChangeMode::Signal(signal) = change_mode {
            self.signal(&at.field("change_signal"), signal);
            if *env {
                let help = "the environment of a running task stays as it is; use change_mode = \"restart\"";
                self.warning(&at.field("env"), format!("{signal} gives task {:?} no new environment", task.name), help);
            }
        }
        if *perms > 0o777 {
            self.error(&at.field("perms"), format!("perms {perms:o} are more than 777"), "write for example \"0644\"");
        }
        let odd = |d: &str| d.is_empty() || d.len() > LONGEST_DELIMITER || d.chars().any(|c| c.is_control() || c.is_whitespace());
        for (name, delimiter) in [("left_delimiter", left_delimiter), ("right_delimiter", right_delimiter)] {
            if odd(delimiter) {
                self.error(&at.field(name), format!("{:?} cannot be a delimiter", short(delimiter)), "1 to 16 bytes, no spaces");
                return;
            }
        }
        if left_delimiter == right_delimiter {
            self.error(&at.field("right_delimiter"), "both delimiters are the same", "\"{{\" and \"}}\" are the defaults");
            return;
        }
        if data.len() > LONGEST_DATA {
            let message = format!("a template of {} bytes is longer than {LONGEST_DATA}", data.len());
            self.error(&at.field("data"), message, "put long texts into files of the image");
        } else if let Some((message, help)) = bad_text(data, left_delimiter, right_delimiter) {
            self.error(&at.field("data"), message, &help);
        }
    }
}

type Finding = Option<(String, String)>;

/// What is wrong with the place of a template.
fn bad_destination(path: &str) -> Finding {
    let form = || "write a file below local/, secrets/ or alloc/, for example \"local/app.conf\"".to_owned();
    if path.is_empty() || path.len() > LONGEST_PATH || path.chars().any(char::is_control) {
        return Some(("a destination must have 1 to 1024 bytes and no control characters".to_owned(), form()));
    }
    if path.contains("${") {
        return Some(("a destination is not filled in by the node".to_owned(), form()));
    }
    if path.starts_with('/') {
        let below = path.trim_start_matches('/');
        let known = FOLDERS.iter().any(|f| below.starts_with(f));
        let help = if known { format!("write {below:?}") } else { form() };
        return Some((format!("destination {path:?} starts at the root"), help));
    }
    if path.split('/').any(|part| part == "..") {
        return Some((format!("destination {path:?} has `..` in it"), form()));
    }
    if path.split('/').any(|part| part.is_empty() || part == ".") || !FOLDERS.iter().any(|f| path.starts_with(f)) {
        return Some((format!("destination {path:?} is not a file of the task"), form()));
    }
    None
}

/// What cannot be right about the text of a template, whatever the values are.
fn bad_text(data: &str, left: &str, right: &str) -> Finding {
    let (mut rest, mut line, mut counted) = (data, 1, 0);
    let mut open: Vec<(&str, usize)> = Vec::new();
    while let Some(at) = rest.find(left) {
        let place = data.len() - rest.len() + at;
        line += data[counted..place].matches('\n').count();
        counted = place;
        let inside = &rest[at + left.len()..];
        let comment = inside.trim_start_matches('-').trim_start().starts_with("/*");
        let end = if comment { inside.find(right) } else { closed(inside, right) };
        let Some(end) = end else {
            return Some((format!("line {line} of the template: `{left}` is not closed"), format!("write {right} after the expression")));
        };
        let action = inside[..end].trim_matches('-').trim();
        rest = &inside[end + right.len()..];
        if comment {
            continue;
        }
        let found = words(action);
        for word in &found {
            if let Some((name, help)) = FOREIGN.iter().find(|(name, _)| name == word) {
                return Some((format!("line {line} of the template: there is no `{name}`"), (*help).to_owned()));
            }
        }
        match found.first().copied().filter(|word| action.starts_with(word)) {
            Some(word @ ("if" | "with" | "range" | "define" | "block")) => open.push((word, line)),
            Some("end") if open.pop().is_none() => {
                return Some((format!("line {line} of the template: `end` without a beginning"), "remove it".to_owned()));
            }
            Some("else") if open.is_empty() => {
                return Some((format!("line {line} of the template: `else` outside of if, with and range"), "remove it".to_owned()));
            }
            _ => {}
        }
    }
    if let Some((word, line)) = open.pop() {
        return Some((format!("line {line} of the template: `{word}` has no end"), format!("write {left} end {right}")));
    }
    // The last word is the node's own.
    let error = skerry_template::check(data, left, right).err()?;
    Some((format!("the template: {error}"), "docs/templates.md lists what there is".to_owned()))
}

/// Where an expression is closed; delimiters in its texts do not count.
fn closed(inside: &str, right: &str) -> Option<usize> {
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for (i, c) in inside.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if inside[i..].starts_with(right) => return Some(i),
            None if c == '"' || c == '`' => quote = Some(c),
            None => {}
        }
    }
    None
}

/// The names in an expression: not its texts, fields or variables.
fn words(action: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = action;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let length = if c == '"' || c == '`' {
            1 + text_end(&rest[1..], c)
        } else if c.is_ascii_alphabetic() || c == '_' {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            if before != '.' && before != '$' && !before.is_ascii_digit() {
                out.push(&rest[..end]);
            }
            end
        } else {
            c.len_utf8()
        };
        before = rest[..length].chars().next_back().unwrap_or(' ');
        rest = &rest[length..];
    }
    out
}

/// The bytes up to and with the quote that ends a text.
fn text_end(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' && quote == '"' {
            escaped = true;
        } else if c == quote {
            return i + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        for good in ["local/a", "secrets/app/env", "alloc/a..b", "local/.hidden"] {
            assert_eq!(bad_destination(good), None, "{good}");
        }
        for bad in
            ["", "local", "local/", "a", "/local/a", "local/../a", "local//a", "local/./a", "etc/a", "${x}/a", "local/a\n", "../local/a"]
        {
            assert!(bad_destination(bad).is_some(), "{bad}");
        }
        assert_eq!(bad_destination("/secrets/x").unwrap().1, "write \"secrets/x\"");
    }

    #[test]
    fn texts_that_can_be_templates() {
        for good in [
            "",
            "plain { } }}",
            "{{ env \"X\" }}",
            "{{- if eq (key \"a\") \"}}\" -}} x {{- else if .x }} y {{ else }} z {{ end -}}",
            "{{ range $i, $e := .list }}{{ $e.service }}{{ end }}",
            "{{ with nomadVar \"a/b\" }}{{ .secret }}{{ end }}",
            "{{/* secret end }} here {{ /* file */ }}",
            "{{ \"say \\\"secret\\\"\" }}",
            "{{ `a\\` }}",
            "\u{e4}{{ \"\u{20ac}\" | toUpper }}\u{e4}",
        ] {
            assert_eq!(bad_text(good, "{{", "}}"), None, "{good}");
        }
        // A long one is read once, not once for every expression.
        assert_eq!(bad_text(&"{{ . }}\n".repeat(20_000), "{{", "}}"), None);
        assert_eq!(bad_text("[[ env \"X\" ]] {{", "[[", "]]"), None);
    }

    #[test]
    fn texts_that_cannot() {
        for (bad, says) in [
            ("a\n{{ env \"X\" ", "line 2 of the template: `{{` is not closed"),
            ("{{ env \"X }}", "not closed"),
            ("{{ if true }}x", "line 1 of the template: `if` has no end"),
            ("{{ range . }}{{ with x }}{{ end }}", "`range` has no end"),
            ("{{ end }}", "`end` without a beginning"),
            ("{{ else }}", "`else` outside"),
            ("{{ with secret \"kv/a\" }}{{ end }}", "there is no `secret`"),
            ("{{- range nomadService \"a\" }}{{ end }}", "there is no `nomadService`"),
            ("{{ key (file \"x\") | toUpper }}", "there is no `file`"),
        ] {
            let (message, help) = bad_text(bad, "{{", "}}").unwrap_or_else(|| panic!("{bad} is taken"));
            assert!(message.contains(says) && !help.is_empty(), "{bad}: {message}");
        }
    }
}
