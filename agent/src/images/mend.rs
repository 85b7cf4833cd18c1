//! An image that the engine lists and cannot use goes, so that it comes again: from its kept bundle, or from the server.
//!
//! Looked at are images of which an instance could not be made, each at most once an hour: reading one back takes long on a slow card.

use std::collections::BTreeMap;
use std::time::Duration;

use skerry_engine::{Engine, EngineError};
use skerry_wire::ImageId;
use skerry_wire::node::Inventory;
use tokio::time::Instant;

use super::Images;
use crate::ledger::{LedgerError, Removed};
use crate::needed::Needed;

/// Between two looks at one image.
const AGAIN: Duration = Duration::from_secs(3600);

/// When each suspect was looked at.
pub(super) type Looked = BTreeMap<ImageId, Instant>;

impl<E: Engine> Images<E> {
    /// Reads suspects back and removes what is damaged.
    pub(super) async fn mend(&self, needed: &Needed, looked: &mut Looked) -> Result<(), LedgerError> {
        looked.retain(|_, at| at.elapsed() < AGAIN);
        let lacking = |image: &ImageId| needed.images.iter().any(|n| n.image == *image);
        for image in needed.suspects.iter().filter(|i| !lacking(i)) {
            if looked.contains_key(image) {
                continue;
            }
            looked.insert(*image, Instant::now());
            if !matches!(self.engine.is_whole(image).await, Ok(false)) {
                continue;
            }
            tracing::error!("image {}: the engine's copy is damaged: it is removed and made again", image.digest().short());
            let removed = Removed { image: *image, why: "damaged in the engine: it is made again".to_owned(), at: self.ledger.time().at() };
            self.ledger.change_keep(move |keep| keep.removed.push(removed)).await?;
            match self.remove(image).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::error!("image {}: it cannot be removed: {error}", image.digest().short());
                    let image = *image;
                    self.ledger.change_keep(move |keep| drop(keep.removed.pop_if(|r| r.image == image))).await?;
                }
            }
        }
        Ok(())
    }

    async fn remove(&self, image: &ImageId) -> Result<(), EngineError> {
        for pinned in self.engine.pinned().await?.into_iter().filter(|p| p.id == *image) {
            for name in pinned.names {
                self.engine.unpin(&name).await?;
            }
        }
        self.engine.remove_image(image).await?;
        let images = self.engine.images().await?;
        self.inventory.send_replace(Some(Inventory { images, ..Inventory::default() }));
        Ok(())
    }
}
