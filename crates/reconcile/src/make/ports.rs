//! The node's ports of an allocation.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use skerry_wire::job::Group;

use crate::facts::Slot;
use crate::hash::stable;

/// Ports that the node may choose from.
pub const DYNAMIC_PORTS: RangeInclusive<u16> = 20_000..=32_000;

/// Every dynamic port is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no port from 20000 to 32000 is free for `{label}`")]
pub struct NoPortFree {
    /// The port's label.
    pub label: String,
}

/// The node's port for each label of the group: the fixed one, else the one that the place had before, else a free one. The first one
/// tried depends on place and label only, so that a node that lost its memory chooses the same again.
pub fn assign_ports(
    group: &Group,
    slot: &Slot,
    before: &BTreeMap<String, u16>,
    taken: &BTreeSet<u16>,
) -> Result<BTreeMap<String, u16>, NoPortFree> {
    let mut ports: BTreeMap<String, u16> = group.network.ports.iter().filter_map(|p| p.fixed.map(|port| (p.label.clone(), port))).collect();
    for port in group.network.ports.iter().filter(|p| p.fixed.is_none()) {
        let free = |n: &u16| !taken.contains(n) && !ports.values().any(|p| p == n);
        let kept = before.get(&port.label).copied().filter(|n| DYNAMIC_PORTS.contains(n) && free(n));
        let chosen = kept.or_else(|| candidates(slot, &port.label).find(free));
        let chosen = chosen.ok_or_else(|| NoPortFree { label: port.label.clone() })?;
        ports.insert(port.label.clone(), chosen);
    }
    Ok(ports)
}

/// Every dynamic port once, from one that depends on place and label.
fn candidates(slot: &Slot, label: &str) -> impl Iterator<Item = u16> {
    let (first, last) = (*DYNAMIC_PORTS.start(), *DYNAMIC_PORTS.end());
    let span = u64::from(last - first) + 1;
    let hash = stable(&[slot.job.as_bytes(), slot.group.as_bytes(), &slot.index.to_le_bytes(), label.as_bytes()]);
    let offset = u16::try_from(hash % span).expect("smaller than the span of ports");
    (first + offset..=last).chain(first..first + offset)
}

#[cfg(test)]
mod tests {
    use skerry_wire::job::{Network, Port};

    use super::*;

    fn group(ports: &[(&str, Option<u16>)]) -> Group {
        let ports = ports.iter().map(|(label, fixed)| Port { label: (*label).to_owned(), fixed: *fixed, to: None }).collect();
        Group { network: Network { ports, ..Network::default() }, ..Group::new("web", vec![]) }
    }

    fn slot() -> Slot {
        Slot { job: "shop".into(), group: "web".into(), index: 0 }
    }

    #[test]
    fn fixed_kept_and_chosen() {
        let group = group(&[("http", Some(8080)), ("a", None), ("b", None)]);
        let before = BTreeMap::from([("a".to_owned(), 20_005), ("b".to_owned(), 80)]);
        let ports = assign_ports(&group, &slot(), &before, &BTreeSet::new()).unwrap();
        assert_eq!((ports["http"], ports["a"]), (8080, 20_005));
        assert!(DYNAMIC_PORTS.contains(&ports["b"]) && ports["b"] != 20_005);
        assert_eq!(assign_ports(&group, &slot(), &before, &BTreeSet::new()).unwrap(), ports, "the same again");
    }

    #[test]
    fn taken_ones_are_left_out_until_none_is_free() {
        let group = group(&[("a", None), ("b", None)]);
        let all: BTreeSet<u16> = DYNAMIC_PORTS.collect();
        let but_two: BTreeSet<u16> = DYNAMIC_PORTS.filter(|p| *p != 20_000 && *p != 32_000).collect();
        let ports = assign_ports(&group, &slot(), &BTreeMap::new(), &but_two).unwrap();
        assert_eq!(ports.values().copied().collect::<BTreeSet<_>>(), BTreeSet::from([20_000, 32_000]));
        assert_eq!(assign_ports(&group, &slot(), &BTreeMap::new(), &all), Err(NoPortFree { label: "a".into() }));
    }
}
