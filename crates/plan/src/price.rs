//! What a job costs: the bytes that each node has to fetch for it, and the room that it takes there meanwhile.

use std::collections::BTreeMap;

use skerry_wire::ImageId;
use skerry_wire::api::PriceRow;

use crate::base::{self, Built, Choice, Estimator};
use crate::model::{Fleet, Node};
use crate::set;

/// A row per (node, image) that the job's current version lacks there, sorted by the node's name, node and image. `built` are the
/// bundles that are ready, by target.
pub fn price(fleet: &Fleet, job: &str, built: &BTreeMap<ImageId, Vec<Built>>, estimator: &dyn Estimator) -> Vec<PriceRow> {
    let mut lacking: BTreeMap<ImageId, Vec<&Node>> = BTreeMap::new();
    for ((id, image), row) in set::rows(fleet, job, fleet.allocs.values()) {
        if let Some(node) = fleet.nodes.get(&id).filter(|_| !row.finished()) {
            lacking.entry(image).or_default().push(node);
        }
    }
    let mut rows = Vec::new();
    for (image, nodes) in lacking {
        let ready = built.get(&image).map_or(&[][..], Vec::as_slice);
        let mut choices = base::share(&image, &nodes, &fleet.images, ready, estimator);
        for node in nodes {
            let unknown = Choice { bases: Vec::new(), bytes: 0, built: false, disk_peak: 0 };
            let choice = choices.remove(&node.id).unwrap_or(unknown);
            rows.push(PriceRow {
                node: node.id,
                node_name: node.fingerprint.name.clone(),
                image,
                reference: fleet.images.get(&image).map(|i| i.reference.clone()).unwrap_or_default(),
                base: choice.bases.first().copied(),
                bytes: choice.bytes,
                built: choice.built,
                disk_peak: choice.disk_peak,
            });
        }
    }
    rows.sort_by(|a, b| (&a.node_name, a.node, a.image).cmp(&(&b.node_name, b.node, b.image)));
    rows
}
