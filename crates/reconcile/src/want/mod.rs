//! The gate: may the newer version of a job switch on this node? Only when every image that it needs here is there.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use skerry_wire::job::{Group, Job};
use skerry_wire::manifest::{Manifest, ManifestAlloc};
use skerry_wire::{Digest, ImageId};

use crate::decision::NeededImage;
use crate::facts::{Desired, Observed, Slot};
use crate::make::Making;
use crate::memory::{Memory, SlotMemory, Version};

mod rebuild;
mod refuse;

pub(crate) use rebuild::rebuild;
use refuse::{beyond_the_node, ports_taken};

/// May an allocation of the manifest be switched to?
#[derive(Debug, Clone)]
pub(crate) enum Gate<'a> {
    /// All is there.
    Open(&'a Job, &'a Group),
    /// Something is still on its way.
    Waiting(String),
    /// The node will not run it.
    Refused(String),
}

/// What the manifest wants in one place.
#[derive(Debug, Clone)]
pub(crate) struct Want<'a> {
    pub(crate) alloc: &'a ManifestAlloc,
    pub(crate) gate: Gate<'a>,
}

/// What the manifest wants, place by place, and the images that it waits for.
pub(crate) fn wants<'a>(
    desired: &Desired<'a>,
    observed: &Observed<'_>,
    memory: &Memory,
) -> (BTreeMap<Slot, Want<'a>>, BTreeMap<ImageId, NeededImage>, BTreeSet<ImageId>) {
    let (mut needed, mut wanted_images) = (BTreeMap::new(), BTreeSet::new());
    let Some(manifest) = desired.manifest else { return (BTreeMap::new(), needed, wanted_images) };
    let buried: BTreeSet<_> = manifest.tombstones.iter().map(|t| t.id).collect();
    let live = || manifest.allocs.iter().filter(|a| !buried.contains(&a.id));
    let mut resolved: Vec<_> = live().map(|a| (a, resolve(a, desired, observed, memory))).collect();
    ports_taken(&mut resolved, desired, memory);

    // One reason per job version, the worst of its groups on this node: a version switches as a whole or not at all.
    let mut held: BTreeMap<(&str, u64), Gate<'a>> = BTreeMap::new();
    for (alloc, gate) in &resolved {
        if is_settled(alloc, memory) {
            continue;
        }
        let key = (alloc.job.as_str(), alloc.version);
        match (gate, held.get(&key)) {
            (Gate::Open(..), _) | (Gate::Waiting(_), Some(_)) | (Gate::Refused(_), Some(Gate::Refused(_))) => {}
            _ => {
                held.insert(key, gate.clone());
            }
        }
    }
    let mut wants = BTreeMap::new();
    for (alloc, gate) in resolved {
        let hold = held.get(&(alloc.job.as_str(), alloc.version));
        if !memory.is_over(alloc) && !matches!(hold, Some(Gate::Refused(_))) && !matches!(gate, Gate::Refused(_)) {
            collect_images(alloc, desired, observed, &mut needed, &mut wanted_images);
        }
        let gate = match (gate, hold) {
            (Gate::Open(..), Some(hold)) => hold.clone(),
            (gate, _) => gate,
        };
        wants.insert(Slot::from(alloc), Want { alloc, gate });
    }
    (wants, needed, wanted_images)
}

/// Was it switched to, or did it run to its end before? Then nothing waits for it any more.
fn is_settled(alloc: &ManifestAlloc, memory: &Memory) -> bool {
    let current = memory.slots.get(&Slot::from(alloc)).and_then(|m| m.current.as_ref());
    current.is_some_and(|c| c.alloc == alloc.id) || memory.is_over(alloc)
}

/// The specification that the allocation was made from, when the manifest now names it with another one. That would need its
/// containers to be made anew under the same name, and no report could tell the two apart.
pub(crate) fn made_from_another(alloc: &ManifestAlloc, observed: &Observed<'_>, memory: Option<&SlotMemory>) -> Option<Digest> {
    let other = |digest: &Digest| *digest != alloc.specification;
    let current = memory.and_then(|m| m.current.as_ref()).filter(|c| c.alloc == alloc.id).map(|c| c.specification);
    if current.is_some() {
        return current.filter(other);
    }
    observed.instances.iter().filter(|c| c.labels.alloc == alloc.id).map(|c| c.labels.specification).find(other)
}

/// Is this one allocation ready, seen by itself?
fn resolve<'a>(alloc: &ManifestAlloc, desired: &Desired<'a>, observed: &Observed<'_>, memory: &Memory) -> Gate<'a> {
    if let Some(old) = made_from_another(alloc, observed, memory.slots.get(&Slot::from(alloc))) {
        return Gate::Refused(format!(
            "the manifest names this allocation with specification {}, but it was made from {}: submit the job again, as a new version",
            alloc.specification.short(),
            old.short()
        ));
    }
    let Some(specification) = desired.specifications.get(&alloc.specification) else {
        return Gate::Waiting(format!("waits for its specification {}", alloc.specification.short()));
    };
    let job = &specification.job;
    if job.id != alloc.job {
        return Gate::Refused(format!("the manifest names job `{}` but the signed specification is of job `{}`", alloc.job, job.id));
    }
    let Some(group) = job.group(&alloc.group) else {
        return Gate::Refused(format!("the signed specification has no group `{}`", alloc.group));
    };
    if let Some(config) = group.images().find(|c| c.image_id.is_none()) {
        return Gate::Refused(format!("the signed specification does not say which image `{}` is", config.image));
    }
    let slot = Slot::from(alloc);
    let ports = memory.slots.get(&slot).and_then(|m| m.versions().last()).map(|v| v.ports.clone()).unwrap_or_default();
    let version = version_of(alloc, group, ports);
    if is_settled(alloc, memory) {
        return Gate::Open(job, group);
    }
    let values = desired.manifest.map(|m| &m.values);
    let making = Making { node: observed.node, policy: observed.policy, values, job, group, slot: &slot, version: &version };
    if let Err(refusal) = making.check() {
        return Gate::Refused(refusal.to_string());
    }
    if let Some(why) = beyond_the_node(group, observed) {
        return Gate::Refused(why);
    }
    let lacking: BTreeSet<&str> =
        group.images().filter(|c| c.image_id.is_some_and(|i| !observed.images.contains(&i))).map(|c| c.image.as_str()).collect();
    if lacking.is_empty() {
        return Gate::Open(job, group);
    }
    Gate::Waiting(format!("waits for {}", lacking.into_iter().collect::<Vec<_>>().join(", ")))
}

/// The version that an allocation of the manifest would become.
pub(crate) fn version_of(alloc: &ManifestAlloc, group: &Group, ports: BTreeMap<String, u16>) -> Version {
    Version {
        alloc: alloc.id,
        born: alloc.id,
        version: alloc.version,
        specification: alloc.specification,
        ports,
        images: group.images().filter_map(|c| c.image_id).collect(),
    }
}

/// Notes the images of one allocation.
fn collect_images(
    alloc: &ManifestAlloc,
    desired: &Desired<'_>,
    observed: &Observed<'_>,
    needed: &mut BTreeMap<ImageId, NeededImage>,
    wanted: &mut BTreeSet<ImageId>,
) {
    let Some(specification) = desired.specifications.get(&alloc.specification) else { return };
    let job = &specification.job;
    let Some(group) = job.group(&alloc.group).filter(|_| job.id == alloc.job) else { return };
    for config in group.images() {
        let Some(image) = config.image_id else { continue };
        wanted.insert(image);
        if !observed.images.contains(&image) {
            need(needed, NeededImage::of(image, &config.image, job, group));
        }
    }
}

/// Notes one image, with the highest priority that it is needed with, and the most careful way after a failed patch.
pub(crate) fn need(needed: &mut BTreeMap<ImageId, NeededImage>, mut new: NeededImage) {
    if let Some(known) = needed.get_mut(&new.image) {
        let ways = [known.on_delta_failure, new.on_delta_failure];
        known.on_delta_failure = ways.into_iter().flatten().min();
        new.on_delta_failure = known.on_delta_failure;
    }
    match needed.entry(new.image) {
        Entry::Vacant(entry) => {
            entry.insert(new);
        }
        Entry::Occupied(mut entry) if new.priority > entry.get().priority => {
            entry.insert(new);
        }
        Entry::Occupied(_) => {}
    }
}

/// Static ports of every allocation in the manifest: no dynamic port may take one of them.
pub(crate) fn fixed_ports(manifest: Option<&Manifest>, desired: &Desired<'_>) -> BTreeSet<u16> {
    let allocs = manifest.into_iter().flat_map(|m| &m.allocs);
    let groups = allocs.filter_map(|a| desired.specifications.get(&a.specification)?.job.group(&a.group));
    groups.flat_map(|g| g.network.ports.iter().filter_map(|p| p.fixed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_wire::job::OnDeltaFailure::{self, Full, Hold};

    #[test]
    fn an_image_of_several_jobs_is_as_urgent_as_the_most_urgent_and_as_careful_as_the_most_careful() {
        let image = ImageId(Digest::new([1; 32]));
        let new = |priority, way: Option<OnDeltaFailure>| NeededImage {
            image,
            reference: "till:1".to_owned(),
            priority,
            job: format!("job{priority}"),
            on_delta_failure: way,
        };
        for (all, priority, way) in [
            (vec![new(50, None)], 50, None),
            (vec![new(50, None), new(60, Some(Full))], 60, Some(Full)),
            (vec![new(50, Some(Hold)), new(60, Some(Full))], 60, Some(Hold)),
            (vec![new(60, Some(Full)), new(50, Some(Hold))], 60, Some(Hold)),
            (vec![new(60, Some(Full)), new(50, None)], 60, Some(Full)),
        ] {
            let mut needed = BTreeMap::new();
            all.into_iter().for_each(|n| need(&mut needed, n));
            let found = &needed[&image];
            assert_eq!((found.priority, found.on_delta_failure, found.job.as_str()), (priority, way, format!("job{priority}").as_str()));
        }
    }
}
