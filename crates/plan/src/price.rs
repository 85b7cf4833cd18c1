//! What a job costs: the bytes that each node has to fetch for it, and the room that it takes there meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use skerry_wire::ImageId;
use skerry_wire::api::PriceRow;

use crate::base::{self, Built, Choice, Estimator};
use crate::model::Fleet;
use crate::set;

/// A row per (node, image) that the job's current version lacks there, sorted by the node's name, node and image. `built` are the
/// bundles that are ready, by target.
pub fn price(fleet: &Fleet, job: &str, built: &BTreeMap<ImageId, Vec<Built>>, estimator: &dyn Estimator) -> Vec<PriceRow> {
    // Nodes that hold the same images are looked at once.
    let mut choices: BTreeMap<(ImageId, bool, &BTreeSet<ImageId>), Choice> = BTreeMap::new();
    let mut rows = Vec::new();
    for ((id, image), row) in set::rows(fleet, job, fleet.allocs.values()) {
        let Some(node) = fleet.nodes.get(&id).filter(|_| !row.finished()) else { continue };
        let partial = node.fingerprint.engine.as_ref().is_some_and(|e| e.accepts_partial_load);
        let choice = choices.entry((image, partial, &node.inventory)).or_insert_with(|| {
            let ready = built.get(&image).map_or(&[][..], Vec::as_slice);
            base::choose(&image, node, &fleet.images, ready, estimator)
        });
        rows.push(PriceRow {
            node: id,
            node_name: node.fingerprint.name.clone(),
            image,
            reference: fleet.images.get(&image).map(|i| i.reference.clone()).unwrap_or_default(),
            base: choice.bases.first().copied(),
            bytes: choice.bytes,
            built: choice.built,
            disk_peak: choice.disk_peak,
        });
    }
    rows.sort_by(|a, b| (&a.node_name, a.node, a.image).cmp(&(&b.node_name, b.node, b.image)));
    rows
}
