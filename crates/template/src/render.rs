//! The tree to text.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::error::TemplateError;
use crate::functions::call;
use crate::parse::{Expr, Node, Pipeline};
use crate::value::Value;
use crate::{MAX_OUTPUT, MAX_WORK, Options, Source};

/// Renders a whole template.
pub(crate) fn render(nodes: &[Node], options: &Options<'_>, source: &dyn Source) -> Result<String, TemplateError> {
    let root = Value::Map(Rc::new(BTreeMap::new()));
    let Options { error_on_missing, one_line, .. } = *options;
    let mut run =
        Run { source, error_on_missing, one_line, out: String::new(), variables: vec![(String::new(), root.clone())], work: MAX_WORK };
    run.nodes(nodes, &root)?;
    Ok(run.out)
}

/// One rendering.
pub(crate) struct Run<'a> {
    pub(crate) source: &'a dyn Source,
    error_on_missing: bool,
    one_line: bool,
    out: String,
    variables: Vec<(String, Value)>,
    work: u64,
}

/// What follows a list of nodes.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl Run<'_> {
    /// Counts what was done.
    pub(crate) fn pay(&mut self, line: u32, cost: u64) -> Result<(), TemplateError> {
        let left = self.work.checked_sub(cost);
        self.work = left.ok_or_else(|| TemplateError::new(line, "the template takes more work than a node may spend on it"))?;
        Ok(())
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        let scope = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot)?;
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, TemplateError> {
        match node {
            Node::Text(text) => self.print(0, text)?,
            Node::Emit(pipe) => {
                let value = self.pipeline(pipe, dot)?;
                if pipe.names.is_empty() {
                    let text = value.print();
                    if self.one_line && text.contains('\n') {
                        let why = "a value brings lines of its own into the environment; print it with `quote`";
                        return Err(TemplateError::new(pipe.line, why));
                    }
                    self.print(pipe.line, &text)?;
                } else {
                    self.set(pipe, &pipe.names[0], value)?;
                }
            }
            Node::If(pipe, body, otherwise) | Node::With(pipe, body, otherwise) => {
                let scope = self.variables.len();
                let value = self.pipeline(pipe, dot)?;
                if let Some(name) = pipe.names.first() {
                    self.set(pipe, name, value.clone())?;
                }
                let inner = if matches!(node, Node::With(..)) { &value } else { dot };
                let flow = if value.truth() { self.nodes(body, inner) } else { self.nodes(otherwise, dot) }?;
                self.variables.truncate(scope);
                return Ok(flow);
            }
            Node::Range(pipe, body, otherwise) => return self.range(pipe, body, otherwise, dot),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn range(&mut self, pipe: &Pipeline, body: &[Node], otherwise: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        let over = self.pipeline(pipe, dot)?;
        let items: Vec<(Value, Value)> = match &over {
            Value::None => Vec::new(),
            Value::List(list) => (0_i64..).zip(list.iter()).map(|(i, v)| (Value::Int(i), v.clone())).collect(),
            Value::Map(map) => map.iter().map(|(k, v)| (Value::text(k.as_str()), v.clone())).collect(),
            other => return Err(TemplateError::new(pipe.line, format!("`range` cannot go over {}", other.kind()))),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        // All of them were listed, even when the body breaks off at the first.
        self.pay(pipe.line, items.len() as u64 * 16)?;
        let scope = self.variables.len();
        for (key, value) in items {
            match &pipe.names[..] {
                [one] => self.set(pipe, one, value.clone())?,
                [first, second] => {
                    self.set(pipe, first, key)?;
                    self.set(pipe, second, value.clone())?;
                }
                _ => {}
            }
            let flow = self.nodes(body, &value)?;
            self.variables.truncate(scope);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn set(&mut self, pipe: &Pipeline, name: &str, value: Value) -> Result<(), TemplateError> {
        if pipe.declares {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        let away = self.variables.iter().rev().position(|(n, _)| n == name).ok_or_else(|| unknown(pipe.line, name))?;
        self.pay(pipe.line, away as u64 + 1)?;
        let place = self.variables.len() - 1 - away;
        self.variables[place].1 = value;
        Ok(())
    }

    fn print(&mut self, line: u32, text: &str) -> Result<(), TemplateError> {
        self.pay(line, text.len() as u64 + 1)?;
        if self.out.len() + text.len() > MAX_OUTPUT {
            return Err(TemplateError::new(line, format!("more than {} KiB come out of the template", MAX_OUTPUT / 1024)));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn pipeline(&mut self, pipe: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        self.pay(pipe.line, 1)?;
        let mut piped = None;
        for command in &pipe.commands {
            piped = Some(self.eval(command, dot, piped)?);
        }
        Ok(piped.unwrap_or(Value::None))
    }

    pub(crate) fn eval(&mut self, expr: &Expr, dot: &Value, piped: Option<Value>) -> Result<Value, TemplateError> {
        match expr {
            Expr::Dot => Ok(dot.clone()),
            Expr::Literal(value) => Ok(value.clone()),
            Expr::Variable(line, name) => {
                let away = self.variables.iter().rev().position(|(n, _)| n == name).ok_or_else(|| unknown(*line, name))?;
                // Those that were set since are looked at first.
                self.pay(*line, away as u64 + 1)?;
                Ok(self.variables[self.variables.len() - 1 - away].1.clone())
            }
            Expr::Nested(pipe) => self.pipeline(pipe, dot),
            Expr::Field(line, of, name) => {
                let value = self.eval(of, dot, None)?;
                self.field(*line, &value, name)
            }
            Expr::Call(line, name, args) => {
                self.pay(*line, 8)?;
                let (and, or) = (name == "and", name == "or");
                let mut values = Vec::with_capacity(args.len() + 1);
                for arg in args {
                    let value = self.eval(arg, dot, None)?;
                    // As in Go, the rest is not looked at.
                    if (and && !value.truth()) || (or && value.truth()) {
                        return Ok(value);
                    }
                    values.push(value);
                }
                values.extend(piped);
                let value = call(self, *line, name, &values)?;
                self.pay(*line, value.weight())?;
                Ok(value)
            }
        }
    }

    fn field(&mut self, line: u32, of: &Value, name: &str) -> Result<Value, TemplateError> {
        let found = match of {
            Value::Map(map) => match map.get(name) {
                Some(value) => Some(value.clone()),
                None => {
                    self.pay(line, map.len() as u64 * 32)?;
                    whole(map, name)
                }
            },
            Value::None => None,
            other => return Err(TemplateError::new(line, format!("{} has no field `.{name}`", other.kind()))),
        };
        match found {
            Some(value) => Ok(value),
            None if self.error_on_missing => Err(TemplateError::new(line, format!("there is no `.{name}` here"))),
            None => Ok(Value::None),
        }
    }
}

/// All of a map's keys or values, or both: `.Keys`, `.Values`, `.Tuples` with `.K` and `.V`.
fn whole(map: &BTreeMap<String, Value>, name: &str) -> Option<Value> {
    let key = |k: &String| Value::text(k.as_str());
    Some(Value::list(match name {
        "Keys" => map.keys().map(key).collect(),
        "Values" => map.values().cloned().collect(),
        "Tuples" => {
            let pair = |(k, v): (&String, &Value)| BTreeMap::from([("K".to_owned(), key(k)), ("V".to_owned(), v.clone())]);
            map.iter().map(|kv| Value::Map(Rc::new(pair(kv)))).collect()
        }
        _ => return None,
    }))
}

fn unknown(line: u32, name: &str) -> TemplateError {
    TemplateError::new(line, format!("there is no variable `${name}` here"))
}
