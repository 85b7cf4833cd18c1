//! May this manifest come into force? Signatures, node, mark, and every specification that it names.
//!
//! In: the bytes as they came and what the node holds. Out: a manifest to be kept, the specifications to be asked for first, or a
//! refusal that goes to the server. Pure.

use std::collections::{BTreeMap, BTreeSet};

use skerry_trust::TrustedRoot;
use skerry_wire::manifest::{Manifest, Mark};
use skerry_wire::release::Specification;
use skerry_wire::{Blob, Digest, NodeId, limits};

use crate::ledger::{Accepted, Desired, sha256};

/// Specifications that came and were checked, by digest: envelope and content.
pub(crate) type Received = BTreeMap<Digest, (Vec<u8>, Specification)>;

/// What is to be done with a manifest.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Keep it.
    Accept(Box<Accepted>),
    /// Its mark is not above the node's.
    Known,
    /// These specifications must be had first.
    Lacks(BTreeSet<Digest>),
    /// It must not come into force.
    Refuse {
        /// Its mark; the lowest when nothing in it can be believed.
        mark: Mark,
        /// Why.
        reason: String,
    },
}

/// Checks specifications as they came; a bad one is left out with its reason.
pub(crate) fn receive(root: &TrustedRoot, blobs: &[Blob], into: &mut Received) -> Vec<String> {
    let mut refused = Vec::new();
    for blob in blobs {
        let digest = sha256(&blob.0);
        match root.open_release::<Specification>(&blob.0, Specification::PURPOSE, limits::SPECIFICATION) {
            Ok((content, _)) => drop(into.insert(digest, (blob.0.clone(), content))),
            Err(error) => refused.push(format!("specification {}: {error}", digest.short())),
        }
    }
    refused
}

/// Judges a manifest by what is held and what came.
pub(crate) fn judge(root: &TrustedRoot, node: NodeId, desired: &Desired, received: &Received, bytes: &[u8]) -> Verdict {
    let manifest: Manifest = match root.open_director(bytes, Manifest::PURPOSE, limits::MANIFEST) {
        Ok((manifest, _)) => manifest,
        Err(error) => return Verdict::Refuse { mark: Mark::default(), reason: format!("manifest: {error}") },
    };
    let mark = manifest.mark;
    if mark <= desired.mark {
        return Verdict::Known;
    }
    let lacking: BTreeSet<Digest> = manifest
        .allocs
        .iter()
        .map(|a| a.specification)
        .filter(|d| !desired.specifications.contains_key(d) && !received.contains_key(d))
        .collect();
    let content = |digest: &Digest| received.get(digest).map(|(_, s)| s).or_else(|| desired.specifications.get(digest));
    if let Err(reason) = check(root, node, &manifest, content) {
        return Verdict::Refuse { mark, reason };
    }
    if !lacking.is_empty() {
        return Verdict::Lacks(lacking);
    }
    let named: BTreeSet<Digest> = manifest.allocs.iter().map(|a| a.specification).collect();
    let specifications = received
        .iter()
        .filter(|(digest, _)| named.contains(*digest) && !desired.specifications.contains_key(*digest))
        .map(|(digest, (bytes, content))| (*digest, bytes.clone(), content.clone()))
        .collect();
    Verdict::Accept(Box::new(Accepted { manifest, bytes: bytes.to_vec(), specifications }))
}

/// Everything but the specifications that are not here yet.
fn check<'a>(
    root: &TrustedRoot,
    node: NodeId,
    manifest: &Manifest,
    content: impl Fn(&Digest) -> Option<&'a Specification>,
) -> Result<(), String> {
    if manifest.node != node {
        return Err(format!("it is for node {}, this is {node}", manifest.node));
    }
    if manifest.mark.root > root.root().version {
        return Err(format!("it was signed under root {}, this node knows {} only", manifest.mark.root, root.root().version));
    }
    if manifest.mark.epoch >= limits::COUNTER || manifest.mark.counter >= limits::COUNTER {
        return Err(format!("no number of a mark is {} or more", limits::COUNTER));
    }
    if manifest.allocs.len() > limits::ALLOCS_PER_NODE {
        return Err(format!("it has {} allocations, a node takes {}", manifest.allocs.len(), limits::ALLOCS_PER_NODE));
    }
    let mut ids = BTreeSet::new();
    let mut places = BTreeSet::new();
    for alloc in &manifest.allocs {
        let name = format!("{}/{}[{}]", alloc.job, alloc.group, alloc.index);
        if !ids.insert(alloc.id) || !places.insert((&alloc.job, &alloc.group, alloc.index)) {
            return Err(format!("allocation {name} is in it twice"));
        }
        let Some(specification) = content(&alloc.specification) else { continue };
        if specification.job.id != alloc.job {
            return Err(format!(
                "specification {} is of job `{}`, not of `{}`",
                alloc.specification.short(),
                specification.job.id,
                alloc.job
            ));
        }
        let Some(group) = specification.job.group(&alloc.group) else {
            return Err(format!("specification {} has no group `{}`", alloc.specification.short(), alloc.group));
        };
        if let Some(config) = group.images().find(|c| c.image_id.is_none()) {
            return Err(format!("{name}: image `{}` is not resolved to an id", config.image));
        }
    }
    if let Some(tombstone) = manifest.tombstones.iter().find(|t| ids.contains(&t.id)) {
        return Err(format!("allocation {} is both to run and to stop", tombstone.id.short()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::samples::{self, Keys};
    use skerry_trust::envelope;
    use skerry_wire::manifest::Tombstone;
    use skerry_wire::{AllocId, ImageId};

    fn desired(counter: u64) -> Desired {
        Desired { mark: samples::mark(counter), ..Desired::default() }
    }

    fn refusal(verdict: Verdict) -> String {
        match verdict {
            Verdict::Refuse { reason, .. } => reason,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_good_manifest_waits_for_its_specifications_and_comes_into_force() {
        let keys = Keys::new();
        let (digest, bytes, _) = keys.specification("till", Some(ImageId(Digest::new([8; 32]))));
        let manifest = samples::manifest(5, &[("till", digest)]);
        let sealed = envelope::seal(&keys.director, Manifest::PURPOSE, &manifest);
        let root = keys.root();
        let mut received = Received::new();
        match judge(&root, manifest.node, &desired(4), &received, &sealed) {
            Verdict::Lacks(lacking) => assert_eq!(lacking, BTreeSet::from([digest])),
            other => panic!("{other:?}"),
        }
        assert_eq!(receive(&root, &[Blob(bytes)], &mut received), Vec::<String>::new());
        let accepted = match judge(&root, manifest.node, &desired(4), &received, &sealed) {
            Verdict::Accept(accepted) => accepted,
            other => panic!("{other:?}"),
        };
        assert_eq!((&accepted.manifest, accepted.specifications.len()), (&manifest, 1));
        for counter in [5, 6] {
            assert!(matches!(judge(&root, manifest.node, &desired(counter), &received, &sealed), Verdict::Known));
        }
    }

    #[test]
    fn where_every_mark_was_lost_only_a_newer_root_counts() {
        let keys = Keys::new();
        let root = keys.root();
        let lost = Desired { mark: Mark::lost(1), ..Desired::default() };
        for counter in [1, limits::COUNTER - 1] {
            let sealed = envelope::seal(&keys.director, Manifest::PURPOSE, &samples::manifest(counter, &[]));
            let verdict = judge(&root, samples::node(), &lost, &Received::new(), &sealed);
            assert!(matches!(verdict, Verdict::Known), "{counter}: {verdict:?}");
        }
    }

    #[test]
    fn specifications_of_strangers_are_left_out() {
        let (keys, strangers) = (Keys::new(), Keys::new());
        let mut received = Received::new();
        let (_, bytes, _) = strangers.specification("till", None);
        let refused = receive(&keys.root(), &[Blob(bytes), Blob(vec![1, 2, 3])], &mut received);
        assert!(received.is_empty());
        assert!(refused[0].contains("not trusted") && refused[1].contains("not a signed envelope"), "{refused:?}");
        // The director, who signs manifests, may not sign specifications.
        let (_, _, content) = keys.specification("till", None);
        let forged = envelope::seal(&keys.director, Specification::PURPOSE, &content);
        assert_eq!(receive(&keys.root(), &[Blob(forged)], &mut received).len(), 1);
    }

    #[test]
    fn every_defect_is_refused_with_its_reason() {
        let keys = Keys::new();
        let root = keys.root();
        let mut received = Received::new();
        let image = Some(ImageId(Digest::new([8; 32])));
        let (good, bytes, _) = keys.specification("till", image);
        let (unresolved, other, _) = keys.specification("loose", None);
        assert!(receive(&root, &[Blob(bytes), Blob(other)], &mut received).is_empty());
        let base = samples::manifest(5, &[("till", good)]);
        type Change = fn(&mut Manifest, Digest);
        let cases: [(&str, Change); 10] = [
            ("no number of a mark", |m, _| m.mark.counter = limits::COUNTER),
            ("no number of a mark", |m, _| m.mark.epoch = limits::COUNTER),
            ("is for node", |m, _| m.node = NodeId::new([9; 16])),
            ("signed under root 9", |m, _| m.mark.root = 9),
            ("twice", |m, _| m.allocs.push(m.allocs[0].clone())),
            ("twice", |m, _| {
                let mut second = m.allocs[0].clone();
                second.id = AllocId::new([77; 16]);
                m.allocs.push(second);
            }),
            ("is of job `till`", |m, _| m.allocs[0].job = "other".to_owned()),
            ("has no group `x`", |m, _| m.allocs[0].group = "x".to_owned()),
            ("not resolved", |m, unresolved| {
                m.allocs[0].job = "loose".to_owned();
                m.allocs[0].specification = unresolved;
            }),
            ("both to run and to stop", |m, _| {
                let a = m.allocs[0].clone();
                m.tombstones.push(Tombstone::of(&a, "stop"));
            }),
        ];
        for (expected, change) in cases {
            let mut manifest = base.clone();
            change(&mut manifest, unresolved);
            let sealed = envelope::seal(&keys.director, Manifest::PURPOSE, &manifest);
            let reason = refusal(judge(&root, base.node, &desired(4), &received, &sealed));
            assert!(reason.contains(expected), "{expected}: {reason}");
        }
        let by_release_key = envelope::seal(&keys.release, Manifest::PURPOSE, &base);
        assert!(refusal(judge(&root, base.node, &desired(4), &received, &by_release_key)).contains("not trusted"));
    }
}
