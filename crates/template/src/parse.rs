//! Pieces to a tree.

use std::slice::Iter;

use crate::MAX_DEPTH;
use crate::error::TemplateError;
use crate::functions::{arity, is_function};
use crate::lex::{Kind, Piece, Token, pieces};
use crate::value::Value;

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Text(String),
    /// What a pipeline gives is printed, unless it sets a variable.
    Emit(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range(Pipeline, Vec<Node>, Vec<Node>),
    Break,
    Continue,
}

/// Commands, each given what the one before gives.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pipeline {
    pub(crate) line: u32,
    /// Variables that are set: one, or two in a range.
    pub(crate) names: Vec<String>,
    /// Are they new?
    pub(crate) declares: bool,
    pub(crate) commands: Vec<Expr>,
}

/// What has a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Dot,
    Variable(u32, String),
    Field(u32, Box<Expr>, String),
    Literal(Value),
    Call(u32, String, Vec<Expr>),
    Nested(Box<Pipeline>),
}

/// The tree of a template.
pub(crate) fn parse(text: &str, left: &str, right: &str) -> Result<Vec<Node>, TemplateError> {
    if text.len() > crate::MAX_TEXT {
        return Err(TemplateError::new(1, format!("the template is longer than {} KiB", crate::MAX_TEXT / 1024)));
    }
    let (left, right) = (if left.is_empty() { "{{" } else { left }, if right.is_empty() { "}}" } else { right });
    let pieces = pieces(text, left, right)?;
    let mut parser = Parser { pieces: pieces.iter(), depth: 0, loops: 0 };
    let (nodes, end) = parser.block(None)?;
    debug_assert!(end.is_none(), "only a block that was opened is closed");
    Ok(nodes)
}

/// How a block ended.
enum End<'a> {
    End,
    /// `else`, with what follows it.
    Else(u32, &'a [Token]),
}

struct Parser<'a> {
    pieces: Iter<'a, Piece>,
    depth: usize,
    loops: usize,
}

impl<'a> Parser<'a> {
    /// Nodes up to the `end` or `else` of the block `opened`, or to the end of the text.
    fn block(&mut self, opened: Option<(&str, u32)>) -> Result<(Vec<Node>, Option<End<'a>>), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (line, tokens) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.clone()));
                    continue;
                }
                Piece::Action { line, tokens } => (*line, &tokens[..]),
            };
            let word = match &tokens[0].kind {
                Kind::Name(name) => name.as_str(),
                _ => "",
            };
            let rest = &tokens[1..];
            match word {
                "if" | "with" | "range" => nodes.push(self.control(word, line, rest)?),
                "end" | "else" if opened.is_none() => {
                    return Err(TemplateError::new(
                        line,
                        format!("`{word}` closes nothing: there is no `if`, `with` or `range` before it"),
                    ));
                }
                "end" if rest.is_empty() => return Ok((nodes, Some(End::End))),
                "end" => return Err(TemplateError::new(line, "nothing may follow `end`")),
                "else" => return Ok((nodes, Some(End::Else(line, rest)))),
                "break" | "continue" if rest.is_empty() => {
                    if self.loops == 0 {
                        return Err(TemplateError::new(line, format!("`{word}` stands outside of a `range`")));
                    }
                    nodes.push(if word == "break" { Node::Break } else { Node::Continue });
                }
                "define" | "template" | "block" => {
                    return Err(TemplateError::new(line, format!("`{word}` is not supported: templates within templates")));
                }
                _ => nodes.push(Node::Emit(pipeline(tokens, line, false)?)),
            }
        }
        match opened {
            Some((word, line)) => Err(TemplateError::new(line, format!("`{word}` is not closed with `end`"))),
            None => Ok((nodes, None)),
        }
    }

    /// `if`, `with` or `range`, up to its `end`.
    fn control(&mut self, word: &str, line: u32, head: &[Token]) -> Result<Node, TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TemplateError::new(line, format!("more than {MAX_DEPTH} blocks in one another")));
        }
        let pipe = pipeline(head, line, word == "range")?;
        self.loops += usize::from(word == "range");
        let (body, end) = self.block(Some((word, line)))?;
        self.loops -= usize::from(word == "range");
        let otherwise = match end {
            Some(End::Else(at, [first, rest @ ..])) => match &first.kind {
                Kind::Name(next) if (next == "if" || next == "with") && word != "range" => vec![self.control(next, at, rest)?],
                _ => return Err(TemplateError::new(at, format!("`{}` cannot follow `else`", first.kind.quote()))),
            },
            Some(End::Else(at, [])) => match self.block(Some((word, line)))? {
                (nodes, Some(End::End)) => nodes,
                _ => return Err(TemplateError::new(at, format!("`{word}` has a second `else`"))),
            },
            _ => Vec::new(),
        };
        self.depth -= 1;
        Ok(match word {
            "if" => Node::If(pipe, body, otherwise),
            "with" => Node::With(pipe, body, otherwise),
            _ => Node::Range(pipe, body, otherwise),
        })
    }
}

/// A pipeline of all the tokens.
fn pipeline(tokens: &[Token], line: u32, range: bool) -> Result<Pipeline, TemplateError> {
    let mut reader = Reader { tokens, at: 0, line, depth: 0 };
    let pipe = reader.pipeline(range)?;
    match reader.peek() {
        None => Ok(pipe),
        Some(token) => Err(TemplateError::new(token.line, format!("`{}` is not expected here", token.kind.quote()))),
    }
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    line: u32,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn kind(&self, ahead: usize) -> Option<&'a Kind> {
        self.tokens.get(self.at + ahead).map(|t| &t.kind)
    }

    fn pipeline(&mut self, range: bool) -> Result<Pipeline, TemplateError> {
        let (mut names, mut declares) = (Vec::new(), false);
        if let (Some(Kind::Variable(first)), Some(Kind::Declare | Kind::Assign)) = (self.kind(0), self.kind(1)) {
            names.push(first.clone());
            declares = self.kind(1) == Some(&Kind::Declare);
            self.at += 2;
        } else if let (
            true,
            Some(Kind::Variable(first)),
            Some(Kind::Comma),
            Some(Kind::Variable(second)),
            Some(Kind::Declare | Kind::Assign),
        ) = (range, self.kind(0), self.kind(1), self.kind(2), self.kind(3))
        {
            names.extend([first.clone(), second.clone()]);
            declares = self.kind(3) == Some(&Kind::Declare);
            self.at += 4;
        }
        if names.iter().any(String::is_empty) {
            return Err(TemplateError::new(self.line, "`$` is what the template began with and cannot be set"));
        }
        let mut commands = vec![self.command(false)?];
        while self.kind(0) == Some(&Kind::Pipe) {
            self.at += 1;
            commands.push(self.command(true)?);
        }
        Ok(Pipeline { line: self.line, names, declares, commands })
    }

    /// A command: a value, or a function with its arguments. `piped`: it is given one more argument.
    fn command(&mut self, piped: bool) -> Result<Expr, TemplateError> {
        let first = self.peek().ok_or_else(|| TemplateError::new(self.line, "a value is missing"))?;
        let call = match &first.kind {
            Kind::Name(name) if is_function(name) => name.clone(),
            _ => {
                let value = self.operand()?;
                let next = self.peek().filter(|t| !matches!(t.kind, Kind::Pipe | Kind::Close));
                if piped || next.is_some() {
                    let what = first.kind.quote();
                    return Err(TemplateError::new(first.line, format!("`{what}` is no function and takes no argument")));
                }
                return Ok(value);
            }
        };
        self.at += 1;
        let mut args = Vec::new();
        while self.peek().is_some_and(|t| !matches!(t.kind, Kind::Pipe | Kind::Close)) {
            args.push(self.operand()?);
        }
        let given = args.len() + usize::from(piped);
        let (least, most) = arity(&call);
        if given < least || given > most {
            let expected = if least == most {
                least.to_string()
            } else if most == usize::MAX {
                format!("{least} or more")
            } else {
                format!("{least} to {most}")
            };
            return Err(TemplateError::new(first.line, format!("`{call}` takes {expected} arguments, not {given}")));
        }
        Ok(Expr::Call(first.line, call, args))
    }

    /// A value with the fields that are written behind it.
    fn operand(&mut self) -> Result<Expr, TemplateError> {
        let token = self.peek().ok_or_else(|| TemplateError::new(self.line, "a value is missing"))?;
        self.at += 1;
        let line = token.line;
        let mut value = match &token.kind {
            Kind::Dot => Expr::Dot,
            Kind::Field(name) => Expr::Field(line, Box::new(Expr::Dot), name.clone()),
            Kind::Variable(name) => Expr::Variable(line, name.clone()),
            Kind::Text(text) => Expr::Literal(Value::text(text.as_str())),
            Kind::Int(n) => Expr::Literal(Value::Int(*n)),
            Kind::Float(n) => Expr::Literal(Value::Float(*n)),
            Kind::Open => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(TemplateError::new(line, format!("more than {MAX_DEPTH} parentheses in one another")));
                }
                let inner = self.pipeline(false)?;
                self.depth -= 1;
                if self.kind(0) != Some(&Kind::Close) {
                    return Err(TemplateError::new(line, "`(` is not closed"));
                }
                self.at += 1;
                Expr::Nested(Box::new(inner))
            }
            Kind::Name(name) => match name.as_str() {
                "true" => Expr::Literal(Value::Bool(true)),
                "false" => Expr::Literal(Value::Bool(false)),
                "nil" => Expr::Literal(Value::None),
                _ if is_function(name) => Expr::Call(line, bare(name, line)?, Vec::new()),
                _ => return Err(TemplateError::new(line, format!("there is no function `{name}`; docs/templates.md lists all"))),
            },
            other => return Err(TemplateError::new(line, format!("`{}` is not expected here", other.quote()))),
        };
        let mut fields = 0;
        while let Some(Token { kind: Kind::Field(name), line, glued: true }) = self.peek() {
            fields += 1;
            if fields > MAX_DEPTH {
                return Err(TemplateError::new(*line, format!("more than {MAX_DEPTH} fields in a row")));
            }
            value = Expr::Field(*line, Box::new(value), name.clone());
            self.at += 1;
        }
        Ok(value)
    }
}

/// A function as an argument of another: only one that takes none.
fn bare(name: &str, line: u32) -> Result<String, TemplateError> {
    if arity(name).0 == 0 {
        return Ok(name.to_owned());
    }
    Err(TemplateError::new(line, format!("write `({name} ...)`: a function with arguments needs parentheses here")))
}
