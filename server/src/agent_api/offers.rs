//! What a node that lacks an image is offered: the bundle chosen for it, built when somebody first asks.

use std::sync::Arc;

use skerry_plan::base::{self, Built, Estimator};
use skerry_wire::api::BuildState;
use skerry_wire::poll::OfferState;
use skerry_wire::{Blob, ImageId, NodeId, Timestamp};

use crate::app::App;
use crate::builds::FEATURE;
use crate::http::Failure;
use crate::store::{BundleId, ImageRef, Offered, ToChoose};

/// The state of the bundle of an image for a node. What was offered before stays, while the node holds its bases still: what it has
/// fetched of it is not fetched again. A bundle without bases is offered when no patch led to the image there (`full`).
pub(super) async fn state(app: &Arc<App>, node: NodeId, image: ImageId, full: bool, now: Timestamp) -> Result<OfferState, Failure> {
    let Some(stored) = app.store.image(ImageRef::Id(image)).await? else {
        return Ok(OfferState::Failed { reason: format!("image {image} is not known to the server: publish it again") });
    };
    if !app.store.needs_image(node, image).await? {
        return Ok(OfferState::Failed { reason: format!("no allocation of this node needs image {image}") });
    }
    let offered = match app.store.offered(node, image).await? {
        Some(offered) if offered.state != BuildState::Failed && (!full || offered.bundle.bases.is_empty()) => Some(offered),
        _ => choose(app, node, image, full, now).await?,
    };
    let Some(offered) = offered else {
        return Ok(OfferState::Failed {
            reason: format!("this agent cannot apply bundles of the form {FEATURE}: install one of the server's version"),
        });
    };
    Ok(match (offered.state, offered.object) {
        (BuildState::Ready, Some((digest, size))) => {
            let capability = app.agents.capabilities.give(&node, &digest);
            OfferState::Ready { digest, size, capability, release: Blob(stored.release) }
        }
        (BuildState::Failed, _) => OfferState::Failed { reason: offered.reason.unwrap_or_default() },
        _ => OfferState::Building,
    })
}

async fn choose(app: &Arc<App>, node: NodeId, image: ImageId, full: bool, now: Timestamp) -> Result<Option<Offered>, Failure> {
    let to_choose = app.store.to_choose(node, image, now).await?.ok_or_else(|| Failure::internal(format!("node {node} is gone")))?;
    // Facts without features are an old agent's, or not known yet: what it cannot read it refuses by itself.
    let features = &to_choose.node.fingerprint.features;
    if !features.is_empty() && !features.iter().any(|feature| feature == FEATURE) {
        return Ok(None);
    }
    let estimator = app.builds.estimator();
    if full {
        let offered = app.store.offer(node, BundleId { target: image, bases: vec![] }, now).await?;
        app.builds.wake();
        return Ok(Some(offered));
    }
    // Reads indexes from the disk.
    let bases = tokio::task::spawn_blocking(move || bases(&image, &to_choose, estimator.as_ref())).await.map_err(Failure::internal)?;
    let offered = app.store.offer(node, BundleId { target: image, bases }, now).await?;
    app.builds.wake();
    Ok(Some(offered))
}

/// Single bases from which a build failed and that a node passes over for others. An image that cannot be made from anything costs each
/// inventory two builds more than this: from its best set, and from one base more.
const PASSED_OVER: usize = 3;

/// Bytes that no bundle has, and that many nodes' sums can hold.
const USELESS: u64 = 1 << 50;

/// The bases of the bundle for a node. Where it could not be built from the best ones a while ago, from what is built or on its way for
/// others, or from the best single base of which that is not known: which of several is to blame is not known. What takes their place
/// never is the full bundle, nor one that is near it: that does not take the place of a patch unasked.
fn bases(image: &ImageId, to_choose: &ToChoose, estimator: &dyn Estimator) -> Vec<ImageId> {
    let best = shared(image, to_choose, estimator);
    if !to_choose.failed.contains(&best) {
        return best;
    }
    let patches = ToChoose {
        built: to_choose.built.iter().filter(|built| !built.bases.is_empty()).cloned().collect(),
        building: to_choose.building.iter().filter(|bases| !bases.is_empty()).cloned().collect(),
        ..to_choose.clone()
    };
    let next = shared(image, &patches, &PassingOver { failed: &to_choose.failed, going: &patches.building, estimator });
    let bytes = |bases: &[ImageId]| estimator.estimate(image, bases);
    let full = next.is_empty() || bytes(&next).zip(bytes(&[])).is_some_and(|(next, full)| next > full / 4 * 3);
    let held = &to_choose.node.inventory;
    let tried = to_choose.failed.iter().filter(|bases| matches!(&bases[..], [base] if held.contains(base))).count();
    // What others have built or are building costs nothing.
    let there = patches.building.contains(&next) || patches.built.iter().any(|built| built.bases == next);
    if full || tried > PASSED_OVER && !there { best } else { next }
}

/// Predicts as another does, and that what failed is of no use, nor are several bases that nobody builds, nor the full bundle.
struct PassingOver<'a> {
    failed: &'a [Vec<ImageId>],
    going: &'a [Vec<ImageId>],
    estimator: &'a dyn Estimator,
}

impl Estimator for PassingOver<'_> {
    fn estimate(&self, target: &ImageId, bases: &[ImageId]) -> Option<u64> {
        let going = self.going.iter().any(|going| going == bases);
        let useless = bases.len() != 1 || self.failed.iter().any(|failed| failed == bases);
        if useless && !going { Some(USELESS) } else { self.estimator.estimate(target, bases) }
    }
}

/// The bases of the bundle for a node, chosen together with the other nodes that wait for the image. A bundle that is on its way through
/// the builder costs no more than one that is ready: nodes that ask one after the other meet on it.
fn shared(image: &ImageId, to_choose: &ToChoose, estimator: &dyn Estimator) -> Vec<ImageId> {
    let mut built = to_choose.built.clone();
    for bases in &to_choose.building {
        built.extend(estimator.estimate(image, bases).map(|bytes| Built { bases: bases.clone(), bytes }));
    }
    let nodes: Vec<_> = std::iter::once(&to_choose.node).chain(&to_choose.waiting).collect();
    let mut choices = base::share(image, &nodes, &to_choose.fleet.images, &built, estimator);
    choices.remove(&to_choose.node.id).map_or_else(Vec::new, |choice| choice.bases)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use skerry_plan::{Fleet, Image, Node};
    use skerry_wire::node::Fingerprint;
    use skerry_wire::{DiffId, Digest};

    use super::*;

    fn id(n: u8) -> ImageId {
        ImageId(Digest::new([n; 32]))
    }

    type Sets = &'static [&'static [u8]];
    /// What is held, failed, on its way and built; and what is chosen.
    type Case = (&'static [u8], Sets, Sets, Sets, &'static [u8]);

    fn sets(sets: &[&[u8]]) -> Vec<Vec<ImageId>> {
        sets.iter().map(|set| set.iter().map(|&n| id(n)).collect()).collect()
    }

    /// The lower its number, the more a base saves, a second one a tenth; from 9 on none saves much.
    struct ByNumber;

    impl Estimator for ByNumber {
        fn estimate(&self, _: &ImageId, bases: &[ImageId]) -> Option<u64> {
            let best = bases.iter().map(|base| u64::from(base.digest().as_bytes()[0])).min();
            Some(match best {
                None => 100_000_000,
                Some(9..) => 90_000_000,
                Some(number) => number * if bases.len() > 1 { 900_000 } else { 1_000_000 },
            })
        }
    }

    #[test]
    fn bases_that_failed_are_passed_over() {
        let image = |n: u8| Image {
            reference: format!("i{n}:1"),
            architecture: "amd64".to_owned(),
            layers: vec![(DiffId(Digest::new([n; 32])), 1 << 20)],
        };
        let fleet = Fleet { images: (1..=9).map(|n| (id(n), image(n))).collect::<BTreeMap<_, _>>(), ..Fleet::default() };
        let cases: [Case; 14] = [
            (&[2, 3, 4, 5, 6], &[], &[], &[], &[2, 3]),
            // Which of two is to blame is found out one by one.
            (&[2, 3, 4, 5, 6], &[&[2, 3]], &[], &[], &[2]),
            (&[2, 3, 4, 5, 6], &[&[2, 3], &[2]], &[], &[], &[3]),
            (&[2, 3, 4, 5, 6], &[&[2, 3], &[2], &[3], &[4]], &[], &[], &[5]),
            // Enough was tried; what is on its way, or built, may be taken all the same.
            (&[2, 3, 4, 5, 6], &[&[2, 3], &[2], &[3], &[4], &[5]], &[], &[], &[2, 3]),
            (&[2, 3, 4, 5, 6], &[&[2, 3], &[2], &[3], &[4], &[5]], &[&[6]], &[], &[6]),
            (&[2, 3, 4, 5, 6], &[&[2, 3], &[2], &[3], &[4], &[5]], &[], &[&[4, 6]], &[4, 6]),
            // What failed for others does not count.
            (&[2, 3], &[&[2, 3], &[2], &[4], &[5], &[6], &[7]], &[], &[], &[3]),
            // The full bundle is no way out, ready or not, nor a base that saves next to nothing.
            (&[2], &[&[2]], &[], &[], &[2]),
            (&[2], &[&[2]], &[&[]], &[&[]], &[2]),
            (&[2, 9], &[&[2], &[2, 9]], &[], &[], &[2, 9]),
            (&[3, 4], &[&[3, 4]], &[], &[&[]], &[3]),
            // A full bundle that failed stands for none.
            (&[2], &[&[]], &[], &[], &[2]),
            (&[], &[&[]], &[], &[], &[]),
        ];
        for (held, failed, building, built, chosen) in cases {
            let node = Node {
                id: NodeId::new([1; 16]),
                pool: "default".to_owned(),
                fingerprint: Fingerprint::default(),
                inventory: held.iter().map(|&n| id(n)).collect::<BTreeSet<_>>(),
                eligible: true,
                drain: None,
            };
            let (building, failed) = (sets(building), sets(failed));
            let built = sets(built)
                .into_iter()
                .map(|bases| Built { bytes: if bases.is_empty() { 100_000_000 } else { 4_000_000 }, bases })
                .collect();
            let to_choose = ToChoose { node, fleet: fleet.clone(), built, building, failed, waiting: Vec::new() };
            let bases = bases(&id(1), &to_choose, &ByNumber);
            assert_eq!(bases, sets(&[chosen])[0], "{held:?} failed {:?}", to_choose.failed);
        }
    }
}
