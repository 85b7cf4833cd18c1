//! Variables and locals: what the caller gives, what the text declares, and their types.

use std::collections::BTreeMap;

use hcl::{Map, Value};
use hcl_edit::expr::{Expression, ObjectKey};
use hcl_edit::structure::{Attribute, Block, Body, Structure};

use crate::diagnostic::{Diagnostic, Fault, Sink};
use crate::eval::{Evaluator, kind, scalar_text, span_of};
use crate::names::did_you_mean;

/// Values for the `variable` blocks of a jobspec, from outside of it.
///
/// The caller gives them in the order of their weight: environment, then files, then single values; a later value wins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Variables {
    given: BTreeMap<String, Given>,
}

#[derive(Debug, Clone, PartialEq)]
struct Given {
    value: GivenValue,
    /// Where it came from, for messages.
    origin: String,
    /// Is it a fault when the text does not declare it?
    strict: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum GivenValue {
    /// As typed: its type is that of the declaration.
    Text(String),
    /// From an HCL file.
    Value(Value),
}

impl Variables {
    /// No values.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value from the environment. It is not a fault when the jobspec does not declare it: other programs have variables too.
    pub fn set_environment(&mut self, name: &str, text: &str) {
        self.set(name, GivenValue::Text(text.to_owned()), "the environment".to_owned(), false);
    }

    /// A single value, as of `-var name=text`.
    pub fn set_flag(&mut self, name: &str, text: &str) {
        self.set(name, GivenValue::Text(text.to_owned()), "-var".to_owned(), true);
    }

    /// The values of a variables file: attributes only, no references. Findings are about `source`; values of a file with an error
    /// are not taken.
    pub fn add_file(&mut self, source: &str, file_name: &str) -> Vec<Diagnostic> {
        let mut sink = Sink::new(source);
        let Some(body) = crate::parse_source(source, &mut sink) else { return sink.finish() };
        let mut eval = Evaluator::new(source);
        let mut found = Vec::new();
        for structure in body.iter() {
            match structure {
                Structure::Attribute(a) => match eval.eval(&a.value) {
                    Ok(value) => found.push((a.key.value().to_string(), value)),
                    Err(fault) => sink.error(fault),
                },
                Structure::Block(b) => {
                    let name = b.ident.value().as_str();
                    sink.error(
                        Fault::new(span_of(&b.ident), format!("a block `{name}` in a variables file"))
                            .help("a variables file has lines of the form: name = value"),
                    );
                }
            }
        }
        if !sink.has_errors() {
            for (name, value) in found {
                self.set(&name, GivenValue::Value(value), file_name.to_owned(), true);
            }
        }
        sink.finish()
    }

    fn set(&mut self, name: &str, value: GivenValue, origin: String, strict: bool) {
        self.given.insert(name.to_owned(), Given { value, origin, strict });
    }
}

/// The type of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Type {
    Any,
    String,
    Number,
    Bool,
    List(Box<Type>),
    Set(Box<Type>),
    Map(Box<Type>),
    Object(Vec<(String, Type)>),
    Tuple(Vec<Type>),
}

impl Type {
    fn read(expr: &Expression) -> Result<Self, Fault> {
        let span = span_of(expr);
        let word = match expr {
            Expression::Variable(name) => name.value().as_str(),
            // Old jobspecs write the type in quotes.
            Expression::String(name) => name.value().as_str(),
            Expression::FuncCall(call) => return Self::read_call(call.name.name.value().as_str(), call.args.iter().collect(), span),
            _ => "",
        };
        match word {
            "any" => Ok(Self::Any),
            "string" => Ok(Self::String),
            "number" => Ok(Self::Number),
            "bool" => Ok(Self::Bool),
            "list" => Ok(Self::List(Box::new(Self::Any))),
            "map" => Ok(Self::Map(Box::new(Self::Any))),
            "set" => Ok(Self::Set(Box::new(Self::Any))),
            _ => Err(Self::unknown(span)),
        }
    }

    fn unknown(span: std::ops::Range<usize>) -> Fault {
        Fault::new(span, "unknown type")
            .help("types are string, number, bool, any, list(type), set(type), map(type), object({name = type}), tuple([type])")
    }

    fn read_call(word: &str, args: Vec<&Expression>, span: std::ops::Range<usize>) -> Result<Self, Fault> {
        let [arg] = args.as_slice() else { return Err(Self::unknown(span)) };
        match (word, arg) {
            ("list", arg) => Ok(Self::List(Box::new(Self::read(arg)?))),
            ("set", arg) => Ok(Self::Set(Box::new(Self::read(arg)?))),
            ("map", arg) => Ok(Self::Map(Box::new(Self::read(arg)?))),
            ("tuple", Expression::Array(items)) => Ok(Self::Tuple(items.iter().map(Self::read).collect::<Result<_, _>>()?)),
            ("object", Expression::Object(object)) => {
                let field = |(key, value): (&ObjectKey, &hcl_edit::expr::ObjectValue)| {
                    let name = match key {
                        ObjectKey::Ident(name) => name.value().to_string(),
                        ObjectKey::Expression(Expression::Variable(name)) => name.value().to_string(),
                        ObjectKey::Expression(Expression::String(name)) => name.value().clone(),
                        ObjectKey::Expression(other) => return Err(Self::unknown(span_of(other))),
                    };
                    Ok((name, Self::read(value.expr())?))
                };
                Ok(Self::Object(object.iter().map(field).collect::<Result<_, _>>()?))
            }
            _ => Err(Self::unknown(span)),
        }
    }

    /// The value as one of this type, or what is wrong with it.
    fn convert(&self, value: Value) -> Result<Value, String> {
        match (self, value) {
            (Self::Any, value) => Ok(value),
            (_, Value::Null) => Ok(Value::Null),
            (Self::String, value) => {
                scalar_text(&value).map(Value::String).ok_or_else(|| format!("needs a string, this is {}", kind(&value)))
            }
            (Self::Number, Value::Number(n)) => Ok(Value::Number(n)),
            (Self::Number, Value::String(s)) => {
                let number = s.trim().parse::<i64>().map(Value::from).ok();
                let number = number.or_else(|| s.trim().parse::<f64>().ok().and_then(crate::functions::number));
                number.ok_or_else(|| format!("needs a number, this is {s:?}"))
            }
            (Self::Bool, Value::Bool(b)) => Ok(Value::Bool(b)),
            (Self::Bool, Value::String(s)) if s == "true" || s == "false" => Ok(Value::Bool(s == "true")),
            (Self::List(inner) | Self::Set(inner), Value::Array(items)) => {
                let mut out = items.into_iter().map(|v| inner.convert(v)).collect::<Result<Vec<_>, _>>()?;
                if matches!(self, Self::Set(_)) {
                    out.sort_by_key(ToString::to_string);
                    out.dedup();
                }
                Ok(Value::Array(out))
            }
            (Self::Map(inner), Value::Object(map)) => {
                let pairs = map.into_iter().map(|(k, v)| inner.convert(v).map(|v| (k, v)));
                Ok(Value::Object(pairs.collect::<Result<Map<_, _>, _>>()?))
            }
            (Self::Object(fields), Value::Object(mut map)) => {
                let mut out = Map::new();
                for (name, inner) in fields {
                    let value = map.swap_remove(name).ok_or_else(|| format!("needs an object with `{name}`"))?;
                    out.insert(name.clone(), inner.convert(value).map_err(|e| format!("`{name}` {e}"))?);
                }
                Ok(Value::Object(out))
            }
            (Self::Tuple(types), Value::Array(items)) if types.len() == items.len() => {
                Ok(Value::Array(types.iter().zip(items).map(|(t, v)| t.convert(v)).collect::<Result<_, _>>()?))
            }
            (_, value) => Err(format!("needs {}, this is {}", self.word(), kind(&value))),
        }
    }

    fn word(&self) -> String {
        match self {
            Self::Any => "any value".to_owned(),
            Self::String => "a string".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Set(_) => "a set".to_owned(),
            Self::Map(_) | Self::Object(_) => "an object".to_owned(),
            Self::Tuple(types) => format!("a list of {}", types.len()),
        }
    }
}

/// Reads all `variable` blocks and sets their values.
pub(crate) fn declare(body: &Body, given: &Variables, eval: &mut Evaluator<'_>, sink: &mut Sink<'_>) {
    let mut names: Vec<String> = Vec::new();
    let mut checks: Vec<&Block> = Vec::new();
    for block in body.get_blocks("variable") {
        let [label] = block.labels.as_slice() else {
            sink.error(Fault::new(span_of(&block.ident), "a variable needs one name").help("write: variable \"name\" { ... }"));
            continue;
        };
        let name = label.as_str().to_owned();
        if names.contains(&name) {
            sink.error(Fault::new(span_of(label), format!("variable `{name}` is declared twice")).help("remove one of them"));
            continue;
        }
        match value_of(block, &name, given, eval, sink) {
            Ok(value) => eval.set_var(&name, value),
            Err(fault) => {
                sink.error(fault);
                // So that its uses do not fault again.
                eval.set_var(&name, Value::Null);
            }
        }
        names.push(name);
        checks.extend(block.body.get_blocks("validation"));
    }
    for (name, value) in &given.given {
        if value.strict && !names.contains(name) {
            let help = did_you_mean(name, names.iter().map(String::as_str))
                .unwrap_or_else(|| format!("remove it, or declare it: variable \"{name}\" {{ type = string }}"));
            sink.whole(format!("variable `{name}` is given by {} but not declared", value.origin), help);
        }
    }
    for block in checks {
        if let Err(fault) = check(block, eval) {
            sink.error(fault);
        }
    }
}

fn value_of(block: &Block, name: &str, given: &Variables, eval: &mut Evaluator<'_>, sink: &mut Sink<'_>) -> Result<Value, Fault> {
    let mut kind = Type::Any;
    let mut default: Option<&Attribute> = None;
    for structure in block.body.iter() {
        match structure {
            Structure::Attribute(a) => match a.key.value().as_str() {
                "type" => kind = Type::read(&a.value)?,
                "default" => default = Some(a),
                "description" => _ = eval.eval(&a.value)?,
                other => {
                    let hint = did_you_mean(other, ["type", "default", "description"].into_iter());
                    let fault = Fault::new(span_of(&a.key), format!("unknown field `{other}` in a variable"));
                    sink.error(fault.help(hint.unwrap_or_else(|| "there are: type, default, description, validation".to_owned())));
                }
            },
            Structure::Block(b) if b.ident.value().as_str() == "validation" => {}
            Structure::Block(b) => {
                let fault = Fault::new(span_of(&b.ident), format!("unknown block `{}` in a variable", b.ident.value().as_str()));
                sink.error(fault.help("there are: type, default, description, validation"));
            }
        }
    }
    let label = block.labels.first().map_or(0..0, span_of);
    if let Some(value) = given.given.get(name) {
        let origin = &value.origin;
        let raw = match &value.value {
            GivenValue::Value(value) => value.clone(),
            GivenValue::Text(text) if matches!(kind, Type::String | Type::Number | Type::Bool | Type::Any) => Value::from(text.as_str()),
            GivenValue::Text(text) => typed(text).map_err(|e| {
                Fault::new(label.clone(), format!("the value of `{name}` from {origin} is not HCL: {e}"))
                    .help(format!("the variable needs {}, written as in a jobspec", kind.word()))
            })?,
        };
        return kind
            .convert(raw)
            .map_err(|e| Fault::new(label, format!("variable `{name}` {e}")).help(format!("the value is from {origin}")));
    }
    let Some(default) = default else {
        return Err(Fault::new(label, format!("variable `{name}` has no value"))
            .help(format!("give it a default, or a value with -var {name}=..., a variables file, or SKERRY_VAR_{name}")));
    };
    let value = eval.eval(&default.value)?;
    kind.convert(value).map_err(|e| Fault::new(span_of(&default.value), format!("variable `{name}` {e}")))
}

/// The value of a text that is an expression of its own.
fn typed(text: &str) -> Result<Value, String> {
    if text.len() > skerry_wire::limits::JOBSPEC {
        return Err("it is too long".to_owned());
    }
    let expr = hcl_edit::parser::parse_expr(text).map_err(|e| e.message().to_owned())?;
    Evaluator::new(text).eval(&expr).map_err(|f| f.message)
}

fn check(block: &Block, eval: &mut Evaluator<'_>) -> Result<(), Fault> {
    let Some(condition) = block.body.get_attribute("condition") else {
        return Err(Fault::new(span_of(&block.ident), "a validation without a condition").help("write: condition = ..."));
    };
    if eval.condition(&condition.value)? {
        return Ok(());
    }
    let message = match block.body.get_attribute("error_message") {
        Some(a) => scalar_text(&eval.eval(&a.value)?),
        None => None,
    };
    let span = span_of(&condition.value);
    Err(Fault::new(span, message.unwrap_or_else(|| "the value of the variable is not allowed".to_owned())))
}

/// Declares all locals and looks at each of them, so that a fault in one that nothing uses is told too.
pub(crate) fn declare_locals<'a>(body: &'a Body, eval: &mut Evaluator<'a>, sink: &mut Sink<'_>) {
    let mut all: Vec<&'a Attribute> = Vec::new();
    for block in body.get_blocks("locals") {
        for structure in block.body.iter() {
            match structure {
                Structure::Attribute(a) => {
                    let name = a.key.value().as_str();
                    if !eval.set_local(name, &a.value) {
                        sink.error(Fault::new(span_of(&a.key), format!("local `{name}` is declared twice")).help("remove one of them"));
                    }
                    all.push(a);
                }
                Structure::Block(b) => {
                    let fault = Fault::new(span_of(&b.ident), "a block inside `locals`");
                    sink.error(fault.help("locals are lines of the form: name = value"));
                }
            }
        }
    }
    for a in all {
        if let Err(fault) = eval.local(a.key.value().as_str(), &span_of(&a.key)) {
            sink.error(fault);
        }
    }
}
