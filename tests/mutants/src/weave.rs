//! Weaving: the text of a file with all of its mutants in it, of which a running program has one, or none.
//!
//! In: a file's text and its mutants, numbered. Out: the text with each of them behind a question, `crate::mutant(N)`, and those that
//! could not be put there. Only one is ever active, so a change is written beside the text as it was, without the others in it.
//! Each is between `/*[N*/` and `/*N]*/`: what the compiler does not like is found again by that. Between `/*(N,M*/` and `/*N,M)*/` is what
//! may become wrong by them without being in them: the rest of a body that got another type, a match that lost an arm.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

use anyhow::{Context, Result};
use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, Expr};

use crate::list::{Genre, Mutant};

/// A place in the file where mutants go.
#[derive(Debug)]
struct Site {
    /// What is written anew.
    range: Range<usize>,
    /// Each mutant with its text in the place of the range; of a body and an arm the text is put into it instead.
    variants: Vec<(usize, String)>,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// `(if mutant(N) { variant } else { as it was })`
    Expression,
    /// `if mutant(N) { return variant; } as it was`
    Body,
    /// `as it was if !mutant(N)`, of a pattern
    Pattern,
    /// A match whose arms have mutants
    Match,
}

/// Sites that can take a mutant, by where the mutant begins.
#[derive(Default)]
struct Sites<'a> {
    text: &'a str,
    /// The outermost expression of operators that the one being looked at is part of, without parentheses between: another operator may
    /// bind otherwise, and take other operands.
    chain: Option<Range<usize>>,
    binary: BTreeMap<usize, (Range<usize>, Range<usize>)>,
    unary: BTreeMap<usize, (Range<usize>, Range<usize>)>,
    /// Of an arm: its pattern, and the match.
    patterns: BTreeMap<usize, (Range<usize>, Range<usize>)>,
    guards: BTreeMap<usize, Range<usize>>,
    fields: BTreeMap<usize, Range<usize>>,
    bodies: BTreeMap<usize, Range<usize>>,
}

/// Is there a `let` in the condition? It can be in no parentheses.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(b) => has_let(&b.left) || has_let(&b.right),
        _ => false,
    }
}

fn range(span: Span) -> Range<usize> {
    span.byte_range()
}

impl Sites<'_> {
    fn body(&mut self, block: &Block) {
        if let (Some(first), Some(last)) = (block.stmts.first(), block.stmts.last()) {
            let (first, last) = (range(first.span()), range(last.span()));
            self.bodies.insert(first.start, first.start..last.end);
        }
    }
}

impl<'ast> Visit<'ast> for Sites<'_> {
    fn visit_expr_binary(&mut self, node: &'ast syn::ExprBinary) {
        let bare = !has_let(&node.left) && !has_let(&node.right);
        let chain = self.chain.take().or_else(|| bare.then(|| range(node.span())));
        if let Some(chain) = &chain {
            let op = range(node.op.span());
            self.binary.insert(op.start, (chain.clone(), op));
        }
        for side in [&node.left, &node.right] {
            self.chain = chain.clone().filter(|_| matches!(**side, Expr::Binary(_)));
            self.visit_expr(side);
        }
        self.chain = None;
    }

    fn visit_expr_unary(&mut self, node: &'ast syn::ExprUnary) {
        let op = range(node.op.span());
        self.unary.insert(op.start, (range(node.span()), op));
        visit::visit_expr_unary(self, node);
    }

    fn visit_expr_match(&mut self, node: &'ast syn::ExprMatch) {
        for arm in &node.arms {
            self.patterns.insert(range(arm.span()).start, (range(arm.pat.span()), range(node.span())));
        }
        visit::visit_expr_match(self, node);
    }

    fn visit_arm(&mut self, node: &'ast syn::Arm) {
        if let Some((_, guard)) = &node.guard
            && !has_let(guard)
        {
            self.guards.insert(range(guard.span()).start, range(guard.span()));
        }
        visit::visit_arm(self, node);
    }

    fn visit_expr_struct(&mut self, node: &'ast syn::ExprStruct) {
        for field in &node.fields {
            self.fields.insert(range(field.span()).start, range(node.span()));
        }
        visit::visit_expr_struct(self, node);
    }

    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.body(&node.block);
        visit::visit_item_fn(self, node);
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.body(&node.block);
        visit::visit_impl_item_fn(self, node);
    }

    fn visit_trait_item_fn(&mut self, node: &'ast syn::TraitItemFn) {
        if let Some(block) = &node.default {
            self.body(block);
        }
        visit::visit_trait_item_fn(self, node);
    }
}

/// The file with the mutants in it, and the numbers of those that are not.
pub fn weave(text: &str, mutants: &[(usize, &Mutant)]) -> Result<(String, Vec<usize>)> {
    let file = syn::parse_file(text).context("it cannot be parsed")?;
    let mut sites = Sites { text, ..Sites::default() };
    sites.visit_file(&file);
    let mut woven: BTreeMap<(usize, usize, u8), Site> = BTreeMap::new();
    let mut put = |range: Range<usize>, kind: Kind, number: usize, variant: String| {
        // Of two sites that begin together the longer one is outside; of those of one length, the body, then the match.
        let rank = match kind {
            Kind::Body => 0,
            Kind::Match => 1,
            Kind::Expression | Kind::Pattern => 2,
        };
        let key = (range.start, usize::MAX - range.end, rank);
        woven.entry(key).or_insert_with(|| Site { range, variants: vec![], kind }).variants.push((number, variant));
    };
    let mut apart = vec![];
    for (number, mutant) in mutants {
        let found = crate::list::offset(text, mutant.start).zip(crate::list::offset(text, mutant.end));
        let Some((range, variant, kind)) = found.and_then(|(start, end)| sites.place(mutant, start, end)) else {
            apart.push(*number);
            continue;
        };
        if let Some((_, whole)) = sites.patterns.get(&range.start).filter(|_| kind == Kind::Pattern) {
            put(whole.clone(), Kind::Match, *number, String::new());
        }
        put(range, kind, *number, variant);
    }
    let sites: Vec<Site> = woven.into_values().collect();
    Ok((render(text, 0..text.len(), &sites)?, apart))
}

impl Sites<'_> {
    /// Where the mutant goes, and what is written there.
    fn place(&self, mutant: &Mutant, start: usize, end: usize) -> Option<(Range<usize>, String, Kind)> {
        let instead = |whole: &Range<usize>, cut: &Range<usize>| {
            format!("{}{}{}", &self.text[whole.start..cut.start], mutant.replacement, &self.text[cut.end..whole.end])
        };
        match mutant.genre {
            Genre::Binary => self.binary.get(&start).map(|(whole, op)| (whole.clone(), instead(whole, op), Kind::Expression)),
            Genre::Unary => self.unary.get(&start).map(|(whole, op)| (whole.clone(), instead(whole, op), Kind::Expression)),
            Genre::Guard => self.guards.get(&start).map(|whole| (whole.clone(), mutant.replacement.clone(), Kind::Expression)),
            Genre::Field => self.fields.get(&start).map(|whole| (whole.clone(), instead(whole, &(start..end)), Kind::Expression)),
            Genre::Body => self.bodies.get(&start).map(|whole| (whole.clone(), mutant.replacement.clone(), Kind::Body)),
            Genre::Arm => self.patterns.get(&start).map(|(pattern, _)| (pattern.clone(), String::new(), Kind::Pattern)),
        }
    }
}

/// The text of a range with what is woven into it. `sites` are those within, outer ones before inner ones.
fn render(text: &str, range: Range<usize>, sites: &[Site]) -> Result<String> {
    let (mut out, mut at, mut rest) = (String::new(), range.start, sites);
    while let Some((site, after)) = rest.split_first() {
        let inside = after.iter().take_while(|s| s.range.start < site.range.end).count();
        anyhow::ensure!(after[..inside].iter().all(|s| s.range.end <= site.range.end), "sites overlap at byte {}", site.range.start);
        let inner = render(text, site.range.clone(), &after[..inside])?;
        out.push_str(&text[at..site.range.start]);
        let all = site.variants.iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>().join(",");
        match site.kind {
            Kind::Match => write!(out, "/*({all}*/{inner}/*{all})*/")?,
            Kind::Body => {
                for (n, variant) in &site.variants {
                    write!(out, "/*[{n}*/ if crate::mutant({n}) {{ return {variant}; }} /*{n}]*/ ")?;
                }
                write!(out, "/*({all}*/{inner}/*{all})*/")?;
            }
            Kind::Pattern => {
                out.push_str(&inner);
                for (n, _) in &site.variants {
                    write!(out, " /*[{n}*/ if !crate::mutant({n}) /*{n}]*/")?;
                }
            }
            Kind::Expression => {
                out.push('(');
                for (n, variant) in &site.variants {
                    write!(out, "/*[{n}*/ if crate::mutant({n}) {{ {variant} }} else /*{n}]*/ ")?;
                }
                write!(out, "{{ {inner} }})")?;
            }
        }
        (at, rest) = (site.range.end, &after[inside..]);
    }
    out.push_str(&text[at..range.end]);
    Ok(out)
}

/// The mutants that a place of a woven text is in, or where it is in none, those that it may have become wrong by.
pub fn mutants_at(woven: &str, at: usize) -> (Vec<usize>, Vec<usize>) {
    let mut open: [Vec<Vec<usize>>; 2] = [vec![], vec![]];
    for (begin, _) in woven[..at.min(woven.len())].match_indices("/*") {
        let word = woven[begin + 2..].split("*/").next().unwrap_or_default();
        for (list, (first, last)) in open.iter_mut().zip([('[', ']'), ('(', ')')]) {
            let numbers = |text: &str| text.split(',').map(|n| n.parse().ok()).collect::<Option<Vec<usize>>>();
            if let Some(all) = word.strip_prefix(first).and_then(numbers) {
                list.push(all);
            } else if let Some(all) = word.strip_suffix(last).and_then(numbers) {
                list.retain(|o| *o != all);
            }
        }
    }
    let [inside, around] = open.map(|list| list.last().cloned().unwrap_or_default());
    (inside, around)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(genre: Genre, start: (usize, usize), end: (usize, usize), replacement: &str) -> Mutant {
        Mutant { name: String::new(), file: String::new(), genre, start, end, replacement: replacement.into() }
    }

    #[test]
    fn one_change_is_written_beside_what_was() {
        let text = "fn f(a: u8) -> bool {\n    !(a == 1) && a < 9\n}\n";
        let all = [
            mutant(Genre::Body, (2, 5), (2, 23), "true"),
            mutant(Genre::Binary, (2, 15), (2, 17), "||"),
            mutant(Genre::Unary, (2, 5), (2, 6), ""),
            mutant(Genre::Binary, (2, 9), (2, 11), "!="),
        ];
        let numbered: Vec<_> = all.iter().enumerate().collect();
        let (woven, apart) = weave(text, &numbered).unwrap();
        assert_eq!(apart, [0; 0]);
        assert!(woven.contains("if crate::mutant(0) { return true; }"), "{woven}");
        assert!(woven.contains("if crate::mutant(1) { !(a == 1) || a < 9 }"), "{woven}");
        assert!(woven.contains("if crate::mutant(2) { (a == 1) }"), "{woven}");
        assert!(woven.contains("if crate::mutant(3) { a != 1 }"), "{woven}");
        syn::parse_file(&woven).unwrap();
        let at = woven.find("a != 1").unwrap();
        assert_eq!(mutants_at(&woven, at), (vec![3], vec![0]));
        assert_eq!(all[1].alone(text).unwrap(), "fn f(a: u8) -> bool {\n    !(a == 1) || a < 9\n}\n");
    }

    #[test]
    fn arms_guards_and_fields() {
        let text =
            "fn f(a: u8) -> S {\n    match a {\n        1 => g(),\n        n if n > 3 => h(),\n        _ => S { x: 1, ..d() },\n    }\n}\n";
        let all = [
            mutant(Genre::Arm, (3, 9), (3, 18), ""),
            mutant(Genre::Guard, (4, 14), (4, 19), "true"),
            mutant(Genre::Guard, (4, 14), (4, 19), "false"),
            mutant(Genre::Field, (5, 18), (5, 23), ""),
        ];
        let numbered: Vec<_> = all.iter().enumerate().collect();
        let (woven, apart) = weave(text, &numbered).unwrap();
        assert_eq!(apart, [0; 0]);
        assert!(woven.contains("1 /*[0*/ if !crate::mutant(0) /*0]*/ =>"), "{woven}");
        assert!(woven.contains("if crate::mutant(2) { false }"), "{woven}");
        assert!(woven.contains("if crate::mutant(3) { S {  ..d() } }"), "{woven}");
        assert_eq!(mutants_at(&woven, woven.find("match").unwrap()), (vec![], vec![0]));
        syn::parse_file(&woven).unwrap();
    }

    /// As in the text that cargo-mutants changes: what binds less than before takes what stands beside it.
    #[test]
    fn an_operator_takes_the_operands_that_it_would_have_in_the_text() {
        let text = "fn f(a: bool, b: bool, c: bool) -> bool {\n    a && b && (c || a)\n}\n";
        let all = [
            mutant(Genre::Binary, (2, 7), (2, 9), "||"),
            mutant(Genre::Binary, (2, 12), (2, 14), "||"),
            mutant(Genre::Binary, (2, 18), (2, 20), "&&"),
        ];
        let numbered: Vec<_> = all.iter().enumerate().collect();
        let (woven, apart) = weave(text, &numbered).unwrap();
        assert_eq!(apart, [0; 0]);
        for part in ["mutant(0) { a || b && (c || a) }", "mutant(1) { a && b || (c || a) }", "mutant(2) { c && a }"] {
            assert!(woven.contains(part), "{woven}");
        }
        syn::parse_file(&woven).unwrap();
    }

    #[test]
    fn a_condition_with_a_let_takes_none() {
        let text = "fn f(a: Option<u8>) {\n    if let Some(x) = a && x == 1 {}\n}\n";
        let all = [mutant(Genre::Binary, (2, 24), (2, 26), "||"), mutant(Genre::Binary, (2, 29), (2, 31), "!=")];
        let numbered: Vec<_> = all.iter().enumerate().collect();
        let (woven, apart) = weave(text, &numbered).unwrap();
        assert_eq!(apart, [0]);
        assert!(woven.contains("{ x != 1 }"), "{woven}");
    }
}
