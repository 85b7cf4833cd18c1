//! What the reconciler asks of those who fetch images.

use std::collections::BTreeSet;

use skerry_reconcile::NeededImage;
use skerry_wire::ImageId;

/// The images that are lacking and the images that must stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Needed {
    /// Was this decided with the engine's containers and images in view? What is not named before that may be needed all the same.
    pub(crate) known: bool,
    /// How many bundles had ended when the engine was looked at ([`crate::ledger::Ledger::bundles_ended`]): the images of later ones may be
    /// named as lacking although they came.
    pub(crate) ended: u64,
    /// Images that the engine lacks, most urgent first.
    pub(crate) images: Vec<NeededImage>,
    /// Images of which an instance could not be made just now: the engine's copy may be damaged.
    pub(crate) suspects: BTreeSet<ImageId>,
    /// Images that must stay in the engine: current, last good, wanted.
    pub(crate) pins: BTreeSet<ImageId>,
}
