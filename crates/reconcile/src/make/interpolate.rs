//! `${...}` in a specification's texts, filled in on the node.

/// Replaces every `${name}` that `lookup` knows. `${env["X"]}` and `${env.X}` are the same as `${X}`. What `lookup` does not know stays as
/// it is written, as does what is not closed.
pub fn interpolate(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let body = &rest[start + 2..];
        let Some(end) = body.find('}') else {
            out.push_str(&rest[start..]);
            return out;
        };
        match lookup(name_of(&body[..end])) {
            Some(value) => out.push_str(&value),
            None => out.push_str(&rest[start..start + 2 + end + 1]),
        }
        rest = &body[end + 1..];
    }
    out.push_str(rest);
    out
}

/// The name that is looked up for what stands between the braces.
fn name_of(body: &str) -> &str {
    let body = body.trim();
    let quoted = body.strip_prefix("env[\"").and_then(|b| b.strip_suffix("\"]"));
    quoted.or_else(|| body.strip_prefix("env.")).unwrap_or(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_unknown_and_broken() {
        let lookup = |name: &str| match name {
            "NOMAD_PORT_http" => Some("20080".to_owned()),
            "meta.site" => Some("${meta.site}".to_owned()),
            "" => Some("empty".to_owned()),
            _ => None,
        };
        for (text, expected) in [
            ("plain", "plain"),
            ("--port=${NOMAD_PORT_http}", "--port=20080"),
            ("${env[\"NOMAD_PORT_http\"]}/${env.NOMAD_PORT_http}/${ NOMAD_PORT_http }", "20080/20080/20080"),
            ("${meta.other}", "${meta.other}"),
            ("${meta.site}", "${meta.site}"),
            ("a${", "a${"),
            ("a${NOMAD_PORT_http", "a${NOMAD_PORT_http"),
            ("$${NOMAD_PORT_http}$", "$20080$"),
            ("é${}ß", "éemptyß"),
        ] {
            assert_eq!(interpolate(text, &lookup), expected, "{text}");
        }
    }
}
