//! One constraint against one node.

use regex_lite::RegexBuilder;
use skerry_wire::job::{Constraint, Operator};

use crate::model::Node;
use crate::version;

/// Memory that a compiled expression may take, bytes; matching is linear in the text.
const REGEX_SIZE: usize = 64 * 1024;

/// Does the node meet the constraint? The error is a sentence for people about the constraint itself.
pub(crate) fn meets(constraint: &Constraint, node: &Node) -> Result<bool, String> {
    let left = resolve(&constraint.attribute, node);
    let right = resolve(&constraint.value, node);
    match constraint.operator {
        Operator::IsSet => return Ok(left.is_some()),
        Operator::IsNotSet => return Ok(left.is_none()),
        // A node without the attribute is different from every value.
        Operator::NotEqual => return Ok(left != right),
        _ => {}
    }
    let (Some(left), Some(right)) = (left, right) else { return Ok(false) };
    Ok(match constraint.operator {
        Operator::Equal => left == right,
        Operator::Greater => compare(&left, &right).is_gt(),
        Operator::GreaterOrEqual => compare(&left, &right).is_ge(),
        Operator::Less => compare(&left, &right).is_lt(),
        Operator::LessOrEqual => compare(&left, &right).is_le(),
        Operator::Regexp => {
            let regex = RegexBuilder::new(&right).size_limit(REGEX_SIZE).build();
            regex.map_err(|e| format!("`{right}` is not a regular expression: {e}"))?.is_match(&left)
        }
        Operator::Version => version::meets(&left, &right).ok_or_else(|| format!("`{right}` is not a condition on versions"))?,
        Operator::SetContainsAll => items(&right).all(|wanted| items(&left).any(|has| has == wanted)),
        Operator::SetContainsAny => items(&right).any(|wanted| items(&left).any(|has| has == wanted)),
        Operator::NotEqual | Operator::IsSet | Operator::IsNotSet => unreachable!("answered above"),
    })
}

/// The constraint as people write it.
pub(crate) fn describe(constraint: &Constraint) -> String {
    let Constraint { attribute, operator, value } = constraint;
    let operator = match operator {
        Operator::Equal => "=",
        Operator::NotEqual => "!=",
        Operator::Greater => ">",
        Operator::GreaterOrEqual => ">=",
        Operator::Less => "<",
        Operator::LessOrEqual => "<=",
        Operator::Regexp => "regexp",
        Operator::Version => "version",
        Operator::SetContainsAll => "set_contains_all",
        Operator::SetContainsAny => "set_contains_any",
        Operator::IsSet => return format!("{attribute} is_set"),
        Operator::IsNotSet => return format!("{attribute} is_not_set"),
    };
    format!("{attribute} {operator} {value}")
}

/// `${attr.x}`, `${meta.x}`, `${node.x}` as the node has it; any other text stands for itself.
fn resolve(text: &str, node: &Node) -> Option<String> {
    let Some(name) = text.trim().strip_prefix("${").and_then(|t| t.strip_suffix('}')) else { return Some(text.to_owned()) };
    let facts = &node.fingerprint;
    if let Some(key) = name.strip_prefix("attr.") {
        return facts.attributes.get(key).cloned();
    }
    if let Some(key) = name.strip_prefix("meta.") {
        return facts.meta.get(key).cloned();
    }
    match name {
        "node.unique.id" => Some(node.id.to_string()),
        "node.unique.name" => Some(facts.name.clone()),
        "node.datacenter" => Some(facts.datacenter.clone()),
        "node.pool" => Some(node.pool.clone()),
        _ => None,
    }
}

/// As numbers when both are numbers, else as text.
fn compare(left: &str, right: &str) -> std::cmp::Ordering {
    if let (Ok(l), Ok(r)) = (left.parse::<i128>(), right.parse::<i128>()) {
        return l.cmp(&r);
    }
    match (left.parse::<f64>(), right.parse::<f64>()) {
        (Ok(l), Ok(r)) => l.total_cmp(&r),
        _ => left.cmp(right),
    }
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|i| !i.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_wire::NodeId;
    use skerry_wire::node::Fingerprint;

    fn node() -> Node {
        let pair = |(k, v): (&str, &str)| (k.to_owned(), v.to_owned());
        let fingerprint = Fingerprint {
            name: "till-7".to_owned(),
            datacenter: "berlin".to_owned(),
            attributes: [("cpu.arch", "arm64"), ("cpu.cores", "10"), ("kernel.version", "6.1.21-v8+"), ("load", "0.5")].map(pair).into(),
            meta: [("site", "shop-12"), ("buses", "i2c, can")].map(pair).into(),
            ..Fingerprint::default()
        };
        Node {
            id: NodeId::new([1; 16]),
            pool: "default".to_owned(),
            fingerprint,
            inventory: Default::default(),
            eligible: true,
            drain: None,
        }
    }

    #[test]
    fn every_operator() {
        use Operator::*;
        for (attribute, operator, value, expected) in [
            ("${attr.cpu.arch}", Equal, "arm64", true),
            ("${attr.cpu.arch}", Equal, "amd64", false),
            ("${attr.missing}", Equal, "", false),
            ("${attr.cpu.arch}", NotEqual, "amd64", true),
            ("${attr.missing}", NotEqual, "x", true),
            ("${attr.cpu.cores}", Greater, "9", true),
            ("${attr.cpu.cores}", Greater, "9.5", true),
            ("${attr.cpu.cores}", GreaterOrEqual, "10", true),
            ("${attr.cpu.cores}", Less, "9", false),
            ("${attr.load}", LessOrEqual, "0.5", true),
            ("${attr.cpu.arch}", Less, "b", true),
            ("${meta.site}", Regexp, "^shop-[0-9]+$", true),
            ("${meta.site}", Regexp, "till", false),
            ("${attr.kernel.version}", Version, ">= 6.1, < 7", true),
            ("${attr.kernel.version}", Version, "< 6", false),
            ("${meta.buses}", SetContainsAll, "can,i2c", true),
            ("${meta.buses}", SetContainsAll, "can,spi", false),
            ("${meta.buses}", SetContainsAny, "spi, can", true),
            ("${meta.buses}", SetContainsAny, "spi", false),
            ("${meta.site}", IsSet, "", true),
            ("${meta.none}", IsSet, "", false),
            ("${meta.none}", IsNotSet, "", true),
            ("${node.unique.name}", Equal, "till-7", true),
            ("${node.datacenter}", Equal, "berlin", true),
            ("${node.pool}", Equal, "default", true),
            ("${node.unique.id}", Equal, "01010101010101010101010101010101", true),
            ("arm64", Equal, "${attr.cpu.arch}", true),
            ("${nothing.known}", IsSet, "", false),
        ] {
            let constraint = Constraint { attribute: attribute.to_owned(), operator, value: value.to_owned() };
            assert_eq!(meets(&constraint, &node()), Ok(expected), "{}", describe(&constraint));
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let of = |operator, value: &str| Constraint { attribute: "${meta.site}".to_owned(), operator, value: value.to_owned() };
        assert!(meets(&of(Operator::Regexp, "("), &node()).unwrap_err().contains("regular expression"));
        assert!(meets(&of(Operator::Version, ">= x"), &node()).unwrap_err().contains("versions"));
        // An expression that would take much memory is refused, not compiled.
        assert!(meets(&of(Operator::Regexp, "(a{500}){500}"), &node()).is_err());
    }
}
