//! Texts with `${...}` and `%{...}` in them.

use hcl::Value;
use hcl_edit::template::{Directive, Element, ForTemplateExpr, Strip};

use crate::diagnostic::Fault;
use crate::eval::{Eval, Evaluator, kind, scalar_text, span_of};

/// Does `~` stand at the left or the right end of a marker?
fn strips(strip: Strip) -> (bool, bool) {
    (strip.strip_start(), strip.strip_end())
}

/// The `~` at the outer ends of an element.
fn outer(element: &Element) -> (bool, bool) {
    match element {
        Element::Literal(_) => (false, false),
        Element::Interpolation(i) => strips(i.strip),
        Element::Directive(d) => match &**d {
            Directive::If(d) => (d.if_expr.strip.strip_start(), d.endif_expr.strip.strip_end()),
            Directive::For(d) => (d.for_expr.strip.strip_start(), d.endfor_expr.strip.strip_end()),
        },
    }
}

/// Space up to and with one line break is taken away beside a `~`.
fn trim(text: &str, left: bool, right: bool) -> &str {
    let space = |c: char| c.is_whitespace() && c != '\n' && c != '\r';
    let mut text = text;
    if left {
        text = text.trim_start_matches(space);
        text = text.strip_prefix("\r\n").or_else(|| text.strip_prefix('\n')).unwrap_or(text);
    }
    if right {
        text = text.trim_end_matches(space);
        text = text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(text);
    }
    text
}

impl Evaluator<'_> {
    /// The text of a template. `left` and `right`: is space taken away at its ends? `whole`: a quoted template that is one
    /// interpolation and nothing else has the value of the interpolation, not its text.
    pub(crate) fn elements(&mut self, list: &[&Element], left: bool, right: bool, whole: bool) -> Eval {
        if let ([Element::Interpolation(only)], true) = (list, whole) {
            return self.eval(&only.expr);
        }
        let mut out = String::new();
        for (i, element) in list.iter().enumerate() {
            match element {
                Element::Literal(text) => {
                    let left = i.checked_sub(1).and_then(|p| list.get(p)).map_or(left, |e| outer(e).1);
                    let right = list.get(i + 1).map_or(right, |e| outer(e).0);
                    out.push_str(trim(text.value(), left, right));
                }
                Element::Interpolation(i) => {
                    let value = self.eval(&i.expr)?;
                    let text = scalar_text(&value);
                    out.push_str(&text.ok_or_else(|| {
                        Fault::new(span_of(&i.expr), format!("{} cannot stand in text", kind(&value)))
                            .help("use join(), jsonencode(), or one item of it")
                    })?);
                }
                Element::Directive(d) => out.push_str(&self.directive(d)?),
            }
        }
        Ok(Value::String(out))
    }

    fn directive(&mut self, directive: &Directive) -> Eval<String> {
        let value = match directive {
            Directive::If(d) => {
                let (then, end) = (&d.if_expr, d.endif_expr.strip);
                if self.condition(&then.cond_expr)? {
                    let right = d.else_expr.as_ref().map_or(end, |e| e.strip).strip_start();
                    self.elements(&then.template.iter().collect::<Vec<_>>(), then.strip.strip_end(), right, false)?
                } else if let Some(other) = &d.else_expr {
                    self.elements(&other.template.iter().collect::<Vec<_>>(), other.strip.strip_end(), end.strip_start(), false)?
                } else {
                    return Ok(String::new());
                }
            }
            Directive::For(d) => return self.for_directive(&d.for_expr, d.endfor_expr.strip.strip_start()),
        };
        Ok(scalar_text(&value).unwrap_or_default())
    }

    fn for_directive(&mut self, f: &ForTemplateExpr, right: bool) -> Eval<String> {
        let list: Vec<&Element> = f.template.iter().collect();
        let mark = self.loops.len();
        let mut out = String::new();
        for (key, value) in self.collection(&f.collection_expr)? {
            if let Some(name) = &f.key_var {
                self.loops.push((name.value().to_string(), key));
            }
            self.loops.push((f.value_var.value().to_string(), value));
            let text = self.elements(&list, f.strip.strip_end(), right, false);
            self.loops.truncate(mark);
            let text = scalar_text(&text?).unwrap_or_default();
            self.charge(text.len(), span_of(&f.collection_expr))?;
            out.push_str(&text);
        }
        Ok(out)
    }
}
