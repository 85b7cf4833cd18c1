//! The value of an expression: a pure tree walk with exact spans, a budget, and values that only the node knows.
//!
//! In: an expression with its spans, the variables and the locals. Out: a [`Value`], or a fault at the smallest expression that is
//! wrong. `var.` and `local.` and the variables of `for` are known here. What only the node knows (`attr`, `node`, `meta`, `env`,
//! `NOMAD_*`) stays text: `${attr.kernel.name}`, also when it is written without quotes. Every other root is a fault.
//!
//! Promises: no panic, no more than [`STEPS`] steps, [`BYTES`] of values and [`DEPTH`] levels, whatever the text says; the
//! evaluation that hcl-rs brings has no such budget, no spans, and its arithmetic overflows.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

use hcl::{Map, Value};
use hcl_edit::Span;
use hcl_edit::expr::{BinaryOp, Conditional, Expression, ForExpr, FuncCall, ObjectKey, Traversal, TraversalOperator, UnaryOp};
use hcl_edit::expr::{BinaryOperator, UnaryOperator};

use crate::diagnostic::Fault;
use crate::functions;
use crate::names::did_you_mean;

/// Expressions that one parse may evaluate.
pub(crate) const STEPS: usize = 200_000;
/// Bytes of values that one parse may make.
pub(crate) const BYTES: usize = 16 * skerry_wire::limits::JOBSPEC;
/// Levels of expressions, locals included.
pub(crate) const DEPTH: usize = 200;

/// Roots whose values only the node knows.
const NODE_ROOTS: [&str; 4] = ["attr", "node", "meta", "env"];

pub(crate) type Eval<T = Value> = Result<T, Fault>;

/// Everything that expressions can refer to, and what they have used up.
#[derive(Debug)]
pub(crate) struct Evaluator<'a> {
    pub(crate) source: &'a str,
    vars: BTreeMap<String, Value>,
    locals: BTreeMap<String, &'a Expression>,
    known: BTreeMap<String, Value>,
    open: Vec<String>,
    pub(crate) loops: Vec<(String, Value)>,
    steps: usize,
    bytes: usize,
    depth: usize,
    /// Hints that may still be looked for: each is a comparison with every known name.
    hints: Cell<usize>,
}

/// The bytes of an expression; the whole text for one that was not parsed from it.
pub(crate) fn span_of(expr: &impl Span) -> Range<usize> {
    expr.span().unwrap_or(0..0)
}

/// What a value is, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Text of a string, number or bool.
pub(crate) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

/// The bytes of a value, or nothing when it has more levels: what walks a value may recurse.
fn weight(value: &Value, levels: usize) -> Option<usize> {
    let below = levels.checked_sub(1)?;
    let inner = match value {
        Value::String(s) => s.len(),
        Value::Array(items) => items.iter().try_fold(0usize, |sum, v| Some(sum.saturating_add(weight(v, below)?)))?,
        Value::Object(map) => map.iter().try_fold(0usize, |sum, (k, v)| Some(sum.saturating_add(k.len() + weight(v, below)?)))?,
        _ => 0,
    };
    Some(inner.saturating_add(16))
}

impl<'a> Evaluator<'a> {
    pub(crate) fn new(source: &'a str) -> Self {
        Self {
            source,
            vars: BTreeMap::new(),
            locals: BTreeMap::new(),
            known: BTreeMap::new(),
            open: Vec::new(),
            loops: Vec::new(),
            steps: 0,
            bytes: 0,
            depth: 0,
            hints: Cell::new(100),
        }
    }

    pub(crate) fn set_var(&mut self, name: &str, value: Value) {
        self.vars.insert(name.to_owned(), value);
    }

    /// Declares a local; false when there is one of this name.
    pub(crate) fn set_local(&mut self, name: &str, expr: &'a Expression) -> bool {
        self.locals.insert(name.to_owned(), expr).is_none()
    }

    /// The value of an expression.
    pub(crate) fn eval(&mut self, expr: &Expression) -> Eval {
        self.steps += 1;
        let span = span_of(expr);
        if self.steps > STEPS || self.bytes > BYTES {
            return Err(too_much(span));
        }
        if self.depth >= DEPTH {
            return Err(Fault::new(span, format!("more than {DEPTH} levels of expressions")).help("write it in fewer levels"));
        }
        self.depth += 1;
        let value = self.eval_inner(expr, span);
        self.depth -= 1;
        let value = value?;
        let bytes = weight(&value, DEPTH).ok_or_else(|| too_much(span_of(expr)))?;
        self.charge(bytes, span_of(expr))?;
        Ok(value)
    }

    fn eval_inner(&mut self, expr: &Expression, span: Range<usize>) -> Eval {
        match expr {
            Expression::Null(_) => Ok(Value::Null),
            Expression::Bool(b) => Ok(Value::Bool(*b.value())),
            Expression::Number(n) => Ok(Value::Number(*n.value())),
            Expression::String(s) => Ok(Value::String(s.value().clone())),
            Expression::Array(items) => items.iter().map(|e| self.eval(e)).collect::<Eval<Vec<_>>>().map(Value::Array),
            Expression::Object(object) => {
                let mut map = Map::new();
                for (key, value) in object.iter() {
                    let (name, at) = self.object_key(key)?;
                    let value = self.eval(value.expr())?;
                    if map.insert(name.clone(), value).is_some() {
                        return Err(Fault::new(at, format!("key `{name}` is given twice")).help("remove one of them"));
                    }
                }
                Ok(Value::Object(map))
            }
            Expression::StringTemplate(t) => self.elements(&t.iter().collect::<Vec<_>>(), false, false, true),
            Expression::HeredocTemplate(t) => self.elements(&t.template.iter().collect::<Vec<_>>(), false, false, false),
            Expression::Parenthesis(inner) => self.eval(inner.inner()),
            Expression::Variable(name) => self.root(name.value().as_str(), span),
            Expression::Conditional(c) => self.conditional(c),
            Expression::FuncCall(call) => self.call(call, span),
            Expression::Traversal(t) => self.traversal(t, span),
            Expression::UnaryOp(op) => self.unary(op),
            Expression::BinaryOp(op) => self.binary(op, span),
            Expression::ForExpr(f) => self.for_expr(f, span),
        }
    }

    fn object_key(&mut self, key: &ObjectKey) -> Eval<(String, Range<usize>)> {
        match key {
            ObjectKey::Ident(name) => Ok((name.value().to_string(), name.span().unwrap_or(0..0))),
            ObjectKey::Expression(expr) => {
                // `{ name = 1 }`: a bare word is the key itself.
                if let Expression::Variable(name) = expr {
                    return Ok((name.value().to_string(), span_of(expr)));
                }
                let value = self.eval(expr)?;
                let text = scalar_text(&value);
                text.map(|t| (t, span_of(expr))).ok_or_else(|| Fault::new(span_of(expr), format!("a key cannot be {}", kind(&value))))
            }
        }
    }

    /// A name on its own: a variable of `for`, something that the node knows, or a fault.
    fn root(&mut self, name: &str, span: Range<usize>) -> Eval {
        if let Some((_, value)) = self.loops.iter().rev().find(|(n, _)| n == name) {
            return Ok(value.clone());
        }
        if is_node_root(name) {
            return Ok(Value::String(format!("${{{name}}}")));
        }
        if name == "var" || name == "local" {
            return Err(Fault::new(span, format!("`{name}` needs a name")).help(format!("write `{name}.name`")));
        }
        Err(self.unknown_root(name, span))
    }

    fn unknown_root(&self, name: &str, span: Range<usize>) -> Fault {
        let roots = NODE_ROOTS.iter().copied().chain(["var", "local"]).chain(self.loops.iter().map(|(n, _)| n.as_str()));
        let literal = format!("for a plain string write it in quotes, for `${{{name}}}` itself write `$${{{name}}}`");
        let help = self.hint(name, roots).map_or(literal.clone(), |hint| format!("{hint} Else: {literal}"));
        Fault::new(span, format!("unknown name `{name}`")).help(help)
    }

    fn traversal(&mut self, t: &Traversal, span: Range<usize>) -> Eval {
        let mut operators = t.operators.iter();
        let mut value = match &t.expr {
            Expression::Variable(root) => {
                let name = root.value().as_str();
                let looped = self.loops.iter().any(|(n, _)| n == name);
                if !looped && is_node_root(name) {
                    let text = self.source.get(span.clone()).unwrap_or(name);
                    return Ok(Value::String(format!("${{{text}}}")));
                }
                if !looped && (name == "var" || name == "local") {
                    let Some(TraversalOperator::GetAttr(field)) = operators.next().map(|o| o.value()) else {
                        return Err(Fault::new(span, format!("`{name}` needs a name")).help(format!("write `{name}.name`")));
                    };
                    let field = field.value().as_str();
                    if name == "var" { self.var(field, &span)? } else { self.local(field, &span)? }
                } else {
                    self.root(name, span_of(&t.expr))?
                }
            }
            other => self.eval(other)?,
        };
        let rest: Vec<&TraversalOperator> = operators.map(|o| o.value()).collect();
        let mut rest = rest.as_slice();
        while let Some((operator, after)) = rest.split_first() {
            let splat = match operator {
                TraversalOperator::FullSplat(_) => Some(after.len()),
                TraversalOperator::AttrSplat(_) => Some(after.iter().take_while(|o| matches!(o, TraversalOperator::GetAttr(_))).count()),
                _ => None,
            };
            if let Some(n) = splat {
                let items = match value {
                    Value::Array(items) => items,
                    Value::Null => Vec::new(),
                    one => vec![one],
                };
                let (each, after) = after.split_at(n);
                let mut out = Vec::with_capacity(items.len());
                for mut item in items {
                    for operator in each {
                        item = self.step(item, operator, &span)?;
                    }
                    out.push(item);
                }
                value = Value::Array(out);
                rest = after;
            } else {
                value = self.step(value, operator, &span)?;
                rest = after;
            }
        }
        Ok(value)
    }

    fn step(&mut self, value: Value, operator: &TraversalOperator, span: &Range<usize>) -> Eval {
        self.steps += 1;
        let key = match operator {
            TraversalOperator::GetAttr(name) => Value::from(name.value().as_str()),
            TraversalOperator::LegacyIndex(index) => Value::from(*index.value()),
            TraversalOperator::Index(expr) => self.eval(expr)?,
            TraversalOperator::AttrSplat(_) | TraversalOperator::FullSplat(_) => {
                return Err(Fault::new(span.clone(), "a splat inside a splat").help("use a `for` expression"));
            }
        };
        match (value, &key) {
            (Value::Object(mut map), key) => {
                let name = scalar_text(key).unwrap_or_default();
                map.swap_remove(&name).ok_or_else(|| {
                    let fault = Fault::new(span.clone(), format!("there is no `{name}` in this object"));
                    let names: Vec<&str> = map.keys().map(String::as_str).take(16).collect();
                    fault.help(self.hint(&name, names.iter().copied()).unwrap_or_else(|| format!("it has: {}", names.join(", "))))
                })
            }
            (Value::Array(mut items), Value::Number(n)) => {
                let index = n.as_u64().and_then(|i| usize::try_from(i).ok()).filter(|&i| i < items.len());
                let count = items.len();
                index.map(|i| items.swap_remove(i)).ok_or_else(|| {
                    Fault::new(span.clone(), format!("index {n} is outside of a list of {count}")).help("the first item has index 0")
                })
            }
            (value, key) => {
                let (value, key) = (kind(&value), kind(key));
                Err(Fault::new(span.clone(), format!("{value} cannot be indexed with {key}")))
            }
        }
    }

    fn var(&mut self, name: &str, span: &Range<usize>) -> Eval {
        self.vars.get(name).cloned().ok_or_else(|| {
            let hint = self.hint(name, self.vars.keys().map(String::as_str));
            let declare = format!("declare it: variable \"{name}\" {{ type = string }}");
            Fault::new(span.clone(), format!("unknown variable `{name}`")).help(hint.unwrap_or(declare))
        })
    }

    pub(crate) fn local(&mut self, name: &str, span: &Range<usize>) -> Eval {
        if let Some(value) = self.known.get(name) {
            return Ok(value.clone());
        }
        let Some(expr) = self.locals.get(name).copied() else {
            let hint = self.hint(name, self.locals.keys().map(String::as_str));
            let declare = format!("declare it: locals {{ {name} = ... }}");
            return Err(Fault::new(span.clone(), format!("unknown local `{name}`")).help(hint.unwrap_or(declare)));
        };
        if self.open.iter().any(|n| n == name) {
            let path = self.open.join(" -> ");
            return Err(Fault::new(span.clone(), format!("local `{name}` refers to itself")).help(format!("break the circle: {path}")));
        }
        self.open.push(name.to_owned());
        // A local sees no loop variables of the place that uses it.
        let loops = std::mem::take(&mut self.loops);
        let value = self.eval(expr);
        self.loops = loops;
        self.open.pop();
        let value = value?;
        self.known.insert(name.to_owned(), value.clone());
        Ok(value)
    }

    fn hint<'k>(&self, word: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
        self.hints.set(self.hints.get().checked_sub(1)?);
        did_you_mean(word, known)
    }

    /// Counts bytes against the budget.
    pub(crate) fn charge(&mut self, bytes: usize, span: Range<usize>) -> Eval<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > BYTES {
            return Err(too_much(span));
        }
        Ok(())
    }

    fn conditional(&mut self, c: &Conditional) -> Eval {
        if self.condition(&c.cond_expr)? { self.eval(&c.true_expr) } else { self.eval(&c.false_expr) }
    }

    /// The value of a condition.
    pub(crate) fn condition(&mut self, expr: &Expression) -> Eval<bool> {
        let value = self.operand(expr)?;
        match &value {
            Value::Bool(b) => Ok(*b),
            other => Err(Fault::new(span_of(expr), format!("a condition must be a bool, this is {}", kind(other)))),
        }
    }

    /// A value that is looked at here, so it must be known here.
    fn operand(&mut self, expr: &Expression) -> Eval {
        let value = self.eval(expr)?;
        if mentions_node(&value) {
            return Err(node_only(span_of(expr)));
        }
        Ok(value)
    }

    fn call(&mut self, call: &FuncCall, span: Range<usize>) -> Eval {
        let at = call.name.name.span().unwrap_or_else(|| span.clone());
        let name = call.name.name.value().as_str();
        let Some(function) = functions::find(name).filter(|_| !call.name.is_namespaced()) else {
            return Err(functions::unknown(name, at));
        };
        let mut args = Vec::with_capacity(call.args.len());
        for (i, arg) in call.args.iter().enumerate() {
            let value = self.eval(arg)?;
            if function.looks && mentions_node(&value) {
                return Err(node_only(span_of(arg)));
            }
            match value {
                Value::Array(items) if call.args.expand_final() && i + 1 == call.args.len() => args.extend(items),
                value => args.push(value),
            }
        }
        function.call(args).map_err(|message| Fault::new(span, message).help(format!("use: {}", function.usage)))
    }

    fn unary(&mut self, op: &UnaryOp) -> Eval {
        let value = self.operand(&op.expr)?;
        match (*op.operator.value(), &value) {
            (UnaryOperator::Not, Value::Bool(b)) => Ok(Value::Bool(!b)),
            (UnaryOperator::Neg, Value::Number(n)) => functions::number(-n.as_f64().unwrap_or(f64::NAN)).ok_or_else(|| overflow(op)),
            (operator, other) => Err(Fault::new(span_of(op), format!("`{}` does not apply to {}", operator.as_str(), kind(other)))),
        }
    }

    fn binary(&mut self, op: &BinaryOp, span: Range<usize>) -> Eval {
        use BinaryOperator as B;
        let operator = *op.operator.value();
        let left = self.operand(&op.lhs_expr)?;
        // As in every language: the right side is not looked at when the left one decides.
        match (operator, &left) {
            (B::And, Value::Bool(false)) => return Ok(Value::Bool(false)),
            (B::Or, Value::Bool(true)) => return Ok(Value::Bool(true)),
            _ => {}
        }
        let right = self.operand(&op.rhs_expr)?;
        let value = match (&left, operator, &right) {
            (_, B::Eq, _) => Some(Value::Bool(left == right)),
            (_, B::NotEq, _) => Some(Value::Bool(left != right)),
            (Value::Bool(_), B::And | B::Or, Value::Bool(r)) => Some(Value::Bool(*r)),
            (Value::Number(l), operator, Value::Number(r)) => {
                let (l, r) = (l.as_f64().unwrap_or(f64::NAN), r.as_f64().unwrap_or(f64::NAN));
                match operator {
                    B::Less => Some(Value::Bool(l < r)),
                    B::LessEq => Some(Value::Bool(l <= r)),
                    B::Greater => Some(Value::Bool(l > r)),
                    B::GreaterEq => Some(Value::Bool(l >= r)),
                    B::Plus => functions::number(l + r),
                    B::Minus => functions::number(l - r),
                    B::Mul => functions::number(l * r),
                    B::Div => functions::number(l / r),
                    B::Mod => functions::number(l % r),
                    _ => None,
                }
            }
            _ => None,
        };
        value.ok_or_else(|| {
            let (left, right) = (kind(&left), kind(&right));
            if left == "a number" && right == left {
                return overflow(op);
            }
            Fault::new(span, format!("`{}` does not apply to {left} and {right}", operator.as_str()))
        })
    }

    /// The items of a collection with their keys.
    pub(crate) fn collection(&mut self, expr: &Expression) -> Eval<Vec<(Value, Value)>> {
        match self.eval(expr)? {
            Value::Array(items) => Ok(items.into_iter().enumerate().map(|(i, v)| (Value::from(i), v)).collect()),
            Value::Object(map) => Ok(map.into_iter().map(|(k, v)| (Value::from(k), v)).collect()),
            other => Err(Fault::new(span_of(expr), format!("`for` needs a list or an object, this is {}", kind(&other)))),
        }
    }

    fn for_expr(&mut self, f: &ForExpr, span: Range<usize>) -> Eval {
        let items = self.collection(&f.intro.collection_expr)?;
        let mark = self.loops.len();
        let mut list = Vec::new();
        let mut map: Map<String, Value> = Map::new();
        for (key, value) in items {
            if let Some(name) = &f.intro.key_var {
                self.loops.push((name.value().to_string(), key));
            }
            self.loops.push((f.intro.value_var.value().to_string(), value));
            let made = self.for_item(f);
            self.loops.truncate(mark);
            match made? {
                None => {}
                Some((None, value)) => list.push(value),
                Some((Some(key), value)) if f.grouping => match map.entry(key).or_insert_with(|| Value::Array(Vec::new())) {
                    Value::Array(group) => group.push(value),
                    _ => return Err(Fault::new(span, "a group is not a list")),
                },
                Some((Some(key), value)) => {
                    let taken = map.insert(key.clone(), value).is_some();
                    if taken {
                        return Err(Fault::new(span, format!("key `{key}` is made twice")).help("group the values with `...`"));
                    }
                }
            }
        }
        Ok(if f.key_expr.is_some() { Value::Object(map) } else { Value::Array(list) })
    }

    fn for_item(&mut self, f: &ForExpr) -> Eval<Option<(Option<String>, Value)>> {
        if let Some(cond) = &f.cond
            && !self.condition(&cond.expr)?
        {
            return Ok(None);
        }
        let key = match &f.key_expr {
            None => None,
            Some(expr) => {
                let value = self.eval(expr)?;
                let text = scalar_text(&value);
                Some(text.ok_or_else(|| Fault::new(span_of(expr), format!("a key cannot be {}", kind(&value))))?)
            }
        };
        Ok(Some((key, self.eval(&f.value_expr)?)))
    }
}

/// Is this root filled in on the node?
pub(crate) fn is_node_root(name: &str) -> bool {
    NODE_ROOTS.contains(&name) || name.starts_with("NOMAD_")
}

/// Does the value hold text that only the node can fill in?
fn mentions_node(value: &Value) -> bool {
    match value {
        Value::String(s) => s.contains("${"),
        Value::Array(items) => items.iter().any(mentions_node),
        Value::Object(map) => map.values().any(mentions_node),
        _ => false,
    }
}

fn node_only(span: Range<usize>) -> Fault {
    Fault::new(span, "this value is known only on the node, so it cannot be computed with here")
        .help("use it as text, or as the attribute of a constraint")
}

fn too_much(span: Range<usize>) -> Fault {
    Fault::new(span, "the expressions of this file are too much work").help("use shorter lists and fewer locals")
}

fn overflow(op: &impl Span) -> Fault {
    Fault::new(span_of(op), "the result is not a number that can be told exactly").help("use smaller numbers and divide by no zero")
}
