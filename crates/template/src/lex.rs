//! Text to pieces: plain text and expressions, and an expression to tokens.

use crate::error::TemplateError;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Piece {
    /// As it is.
    Text(String),
    /// What stands between delimiters.
    Action { line: u32, tokens: Vec<Token> },
}

/// A token, and whether it follows the one before without a space.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) line: u32,
    pub(crate) glued: bool,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Name(String),
    /// `.name`
    Field(String),
    Dot,
    /// `$name`, or `$`
    Variable(String),
    Text(String),
    Int(i64),
    Float(f64),
    Open,
    Close,
    Pipe,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

impl Kind {
    /// As it is quoted in an error.
    pub(crate) fn quote(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Field(name) => format!(".{name}"),
            Self::Dot => ".".to_owned(),
            Self::Variable(name) => format!("${name}"),
            Self::Text(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
            Self::Int(n) => n.to_string(),
            Self::Float(n) => n.to_string(),
            Self::Open => "(".to_owned(),
            Self::Close => ")".to_owned(),
            Self::Pipe => "|".to_owned(),
            Self::Comma => ",".to_owned(),
            Self::Declare => ":=".to_owned(),
            Self::Assign => "=".to_owned(),
        }
    }
}

fn lines(text: &str) -> u32 {
    u32::try_from(text.bytes().filter(|b| *b == b'\n').count()).unwrap_or(u32::MAX)
}

/// Cuts a template into its pieces.
pub(crate) fn pieces(text: &str, left: &str, right: &str) -> Result<Vec<Piece>, TemplateError> {
    let (mut out, mut rest, mut line, mut trim) = (Vec::new(), text, 1_u32, false);
    while let Some(start) = rest.find(left) {
        let (plain, after) = rest.split_at(start);
        line = line.saturating_add(lines(plain));
        let mut body = &after[left.len()..];
        let trims_before = body.strip_prefix('-').is_some_and(|b| b.starts_with(|c: char| c.is_ascii_whitespace()) || b.starts_with("/*"));
        if trims_before {
            body = &body[1..];
        }
        push_text(&mut out, plain, trim, trims_before);
        let opened = line;
        let comment = body.trim_start_matches(|c: char| c.is_ascii_whitespace()).strip_prefix("/*");
        let (used, trims_after) = if let Some(comment) = comment {
            let end = comment.find("*/").ok_or_else(|| TemplateError::new(opened, "a comment `/*` is not closed with `*/`"))?;
            let tail = comment[end + 2..].trim_start_matches(|c: char| c.is_ascii_whitespace());
            let (tail, trims) = tail.strip_prefix('-').map_or((tail, false), |t| (t, true));
            let tail = tail
                .strip_prefix(right)
                .ok_or_else(|| TemplateError::new(opened, format!("a comment must be alone between `{left}` and `{right}`")))?;
            (body.len() - tail.len(), trims)
        } else {
            let (tokens, used, trims) = tokens(body, right, opened)?;
            if tokens.is_empty() {
                return Err(TemplateError::new(opened, format!("nothing stands between `{left}` and `{right}`")));
            }
            out.push(Piece::Action { line: opened, tokens });
            (used, trims)
        };
        line = line.saturating_add(lines(&body[..used]));
        rest = &body[used..];
        trim = trims_after;
    }
    push_text(&mut out, rest, trim, false);
    Ok(out)
}

fn push_text(out: &mut Vec<Piece>, text: &str, trim_start: bool, trim_end: bool) {
    let space = |c: char| c.is_ascii_whitespace();
    let text = if trim_start { text.trim_start_matches(space) } else { text };
    let text = if trim_end { text.trim_end_matches(space) } else { text };
    if !text.is_empty() {
        out.push(Piece::Text(text.to_owned()));
    }
}

/// Tokens up to `right`, the bytes that they take with it, and whether it says `-`.
fn tokens(body: &str, right: &str, first: u32) -> Result<(Vec<Token>, usize, bool), TemplateError> {
    let (mut out, mut at, mut line, mut glued) = (Vec::new(), 0, first, false);
    loop {
        let rest = &body[at..];
        if rest.starts_with(right) {
            return Ok((out, at + right.len(), false));
        }
        if !glued && rest.strip_prefix('-').is_some_and(|r| r.starts_with(right)) {
            return Ok((out, at + 1 + right.len(), true));
        }
        let Some(c) = rest.chars().next() else {
            return Err(TemplateError::new(first, format!("an expression is not closed with `{right}`")));
        };
        if c.is_ascii_whitespace() {
            line = line.saturating_add(u32::from(c == '\n'));
            (at, glued) = (at + 1, false);
            continue;
        }
        let (kind, used) = token(rest, c, line)?;
        out.push(Token { kind, line, glued });
        line = line.saturating_add(lines(&rest[..used]));
        (at, glued) = (at + used, true);
    }
}

fn word(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len())
}

/// One token at the start of `rest`, and its bytes.
fn token(rest: &str, c: char, line: u32) -> Result<(Kind, usize), TemplateError> {
    let digit = |c: char| c.is_ascii_digit();
    Ok(match c {
        '(' => (Kind::Open, 1),
        ')' => (Kind::Close, 1),
        '|' => (Kind::Pipe, 1),
        ',' => (Kind::Comma, 1),
        '=' => (Kind::Assign, 1),
        ':' if rest.starts_with(":=") => (Kind::Declare, 2),
        '"' => quoted(rest, line)?,
        '`' => {
            let end = rest[1..].find('`').ok_or_else(|| TemplateError::new(line, "a text that begins with ` is not closed"))?;
            (Kind::Text(rest[1..=end].to_owned()), end + 2)
        }
        '$' => {
            let end = 1 + word(&rest[1..]);
            (Kind::Variable(rest[1..end].to_owned()), end)
        }
        '.' if !rest[1..].starts_with(digit) => {
            let end = 1 + word(&rest[1..]);
            if end == 1 { (Kind::Dot, 1) } else { (Kind::Field(rest[1..end].to_owned()), end) }
        }
        _ if digit(c) || ((c == '-' || c == '+' || c == '.') && rest[1..].starts_with(|c: char| c.is_ascii_digit() || c == '.')) => {
            number(rest, line)?
        }
        _ if c.is_alphabetic() || c == '_' => {
            let end = word(rest);
            (Kind::Name(rest[..end].to_owned()), end)
        }
        _ => return Err(TemplateError::new(line, format!("`{c}` cannot stand in an expression"))),
    })
}

fn number(rest: &str, line: u32) -> Result<(Kind, usize), TemplateError> {
    let body = &rest[1..];
    let end = 1 + body.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_')).unwrap_or(body.len());
    let text = rest[..end].replace('_', "");
    let hex = text.strip_prefix("0x").and_then(|h| i64::from_str_radix(h, 16).ok());
    let kind = hex.or_else(|| text.parse().ok()).map(Kind::Int);
    let kind = kind.or_else(|| text.parse::<f64>().ok().filter(|f| f.is_finite()).map(Kind::Float));
    kind.map(|k| (k, end)).ok_or_else(|| TemplateError::new(line, format!("`{text}` is not a number")))
}

fn quoted(rest: &str, line: u32) -> Result<(Kind, usize), TemplateError> {
    let mut out = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Kind::Text(out), at + 1)),
            '\n' => break,
            '\\' => {
                let escape = chars.next().map(|(_, c)| c);
                out.push(match escape {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('r') => '\r',
                    Some(c @ ('"' | '\\' | '\'')) => c,
                    Some('u') => {
                        let code: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                        let found = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                        found.ok_or_else(|| TemplateError::new(line, format!("`\\u{code}` is not a character")))?
                    }
                    other => {
                        let text = other.map_or_else(String::new, String::from);
                        return Err(TemplateError::new(line, format!("`\\{text}` is not known in a text; write it between ` instead")));
                    }
                });
            }
            c => out.push(c),
        }
    }
    Err(TemplateError::new(line, "a text that begins with \" is not closed on its line"))
}
