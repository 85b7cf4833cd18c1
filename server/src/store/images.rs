//! Layers, images, releases.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row};
use skerry_trust::KeyId;
use skerry_wire::api::{ImageSummary, LayerDetail};
use skerry_wire::release::Release;
use skerry_wire::{DiffId, Digest, ImageId, Timestamp};

use super::audit::{self, By};
use super::{SqliteStore, StoreError, builds, objects};

/// A layer that the server keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLayer {
    /// The layer.
    pub diff_id: DiffId,
    /// Bytes uncompressed.
    pub size: u64,
    /// Bytes as kept.
    pub stored: u64,
    /// The object that holds it, in the layer format.
    pub object: Digest,
}

/// A release that was checked: its signature holds, and it agrees with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewImage {
    /// The release.
    pub release: Release,
    /// As it was signed.
    pub envelope: Vec<u8>,
    /// SHA-256 of the envelope.
    pub digest: Digest,
    /// Who signed it.
    pub key_id: KeyId,
    /// The image configuration.
    pub config: Vec<u8>,
}

/// What names an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageRef {
    /// The newest release of a name and tag.
    Named {
        /// Name without tag.
        name: String,
        /// Tag.
        tag: String,
    },
    /// The image itself; its newest release is shown.
    Id(ImageId),
}

/// An image with everything that is kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// Summary.
    pub summary: ImageSummary,
    /// The layers, lowest first.
    pub layers: Vec<StoredLayer>,
    /// Who signed its release.
    pub key_id: KeyId,
    /// The signed release.
    pub release: Vec<u8>,
    /// The image configuration.
    pub config: Vec<u8>,
}

/// Why a release was not added.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AddImageError {
    /// Layers that were not uploaded.
    #[error("{} of the image's layers are not here", .0.len())]
    MissingLayers(Vec<DiffId>),
    /// The layers are of another size together than the release says.
    #[error("the release says {said} bytes of layers, they have {found}")]
    Size {
        /// Bytes as released.
        said: u64,
        /// Bytes as kept.
        found: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for AddImageError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Layers, images, releases.
#[async_trait]
pub trait ImageStore {
    /// Those of the layers that are not here, in the order given, each once.
    async fn missing_layers(&self, diff_ids: Vec<DiffId>) -> Result<Vec<DiffId>, StoreError>;

    /// Keeps a layer whose object is in place. `false` when it was there already; then the first one's object stays in use.
    async fn add_layer(&self, layer: StoredLayer, by: By) -> Result<bool, StoreError>;

    /// Puts a new object, in place, for a layer whose file was damaged. What could not be built for it is tried again.
    async fn mend_layer(&self, layer: StoredLayer, by: By) -> Result<(), StoreError>;

    /// Those of the layers that belong to an image which a bundle could not be made from or to: their files may be damaged.
    async fn doubted_layers(&self, diff_ids: Vec<DiffId>) -> Result<Vec<StoredLayer>, StoreError>;

    /// A layer.
    async fn layer(&self, diff_id: DiffId) -> Result<Option<StoredLayer>, StoreError>;

    /// Layers that have no file index yet, at most `limit`.
    async fn layers_without_index(&self, limit: u32) -> Result<Vec<StoredLayer>, StoreError>;

    /// Keeps the outcome of indexing a layer: the index's object (in place) and its bytes, or why there is none.
    async fn put_layer_index(&self, diff_id: DiffId, index: Result<(Digest, u64), String>, at: Timestamp) -> Result<(), StoreError>;

    /// The object of a layer's file index.
    async fn layer_index(&self, diff_id: DiffId) -> Result<Option<Digest>, StoreError>;

    /// Adds a release and its image. The same release again changes nothing, but that failed builds of the image are tried again.
    async fn add_image(&self, image: NewImage, by: By) -> Result<ImageSummary, AddImageError>;

    /// The releases in force, sorted by name and tag.
    async fn images(&self) -> Result<Vec<ImageSummary>, StoreError>;

    /// One image.
    async fn image(&self, reference: ImageRef) -> Result<Option<StoredImage>, StoreError>;
}

/// The columns of [`summary`], to be completed with a `WHERE`. `r` is the release, `i` the image.
const SUMMARY: &str = "SELECT r.name, r.tag, r.image_id, i.architecture, i.size,
        (SELECT coalesce(sum(l.stored), 0) FROM image_layers il JOIN layers l USING (diff_id) WHERE il.image_id = r.image_id),
        (SELECT count(*) FROM image_layers il WHERE il.image_id = r.image_id),
        r.published_at, r.key_id, r.envelope, i.config
    FROM releases r JOIN images i USING (image_id)";

fn summary(row: &Row<'_>) -> rusqlite::Result<ImageSummary> {
    Ok(ImageSummary {
        name: row.get(0)?,
        tag: row.get(1)?,
        image_id: ImageId(Digest::new(row.get(2)?)),
        architecture: row.get(3)?,
        size: row.get(4)?,
        stored: row.get(5)?,
        layers: row.get(6)?,
        published_at: Timestamp(row.get(7)?),
    })
}

const LAYER: &str = "SELECT l.diff_id, l.size, l.stored, l.object FROM layers l";

fn layer(row: &Row<'_>) -> rusqlite::Result<StoredLayer> {
    Ok(StoredLayer { diff_id: DiffId(Digest::new(row.get(0)?)), size: row.get(1)?, stored: row.get(2)?, object: Digest::new(row.get(3)?) })
}

fn find_layer(c: &Connection, diff_id: &DiffId) -> rusqlite::Result<Option<StoredLayer>> {
    c.prepare_cached(&format!("{LAYER} WHERE l.diff_id = ?1"))?.query_row([diff_id.0.as_bytes()], layer).optional()
}

/// An image as a part of another read of the store.
pub(super) fn find_image(c: &Connection, reference: &ImageRef) -> Result<Option<StoredImage>, StoreError> {
    let read = |row: &Row<'_>| {
        Ok(StoredImage {
            summary: summary(row)?,
            layers: Vec::new(),
            key_id: KeyId(row.get(8)?),
            release: row.get(9)?,
            config: row.get(10)?,
        })
    };
    let found = match reference {
        ImageRef::Named { name, tag } => c
            .prepare_cached(&format!("{SUMMARY} WHERE r.name = ?1 AND r.tag = ?2 ORDER BY r.id DESC LIMIT 1"))?
            .query_row((name, tag), read)
            .optional()?,
        ImageRef::Id(id) => c
            .prepare_cached(&format!("{SUMMARY} WHERE r.image_id = ?1 ORDER BY r.id DESC LIMIT 1"))?
            .query_row([id.0.as_bytes()], read)
            .optional()?,
    };
    let Some(mut image) = found else { return Ok(None) };
    image.layers = c
        .prepare_cached(&format!("{LAYER} JOIN image_layers il USING (diff_id) WHERE il.image_id = ?1 ORDER BY il.position"))?
        .query_map([image.summary.image_id.0.as_bytes()], layer)?
        .collect::<Result<_, _>>()?;
    Ok(Some(image))
}

fn mend_layer(c: &Connection, layer: &StoredLayer, by: &By) -> Result<(), StoreError> {
    objects::add(c, &layer.object, layer.stored, by.at)?;
    c.prepare_cached("UPDATE layers SET stored = ?2, object = ?3 WHERE diff_id = ?1")?.execute((
        layer.diff_id.0.as_bytes(),
        layer.stored,
        layer.object.as_bytes(),
    ))?;
    builds::forgive(c, None, by.at)?;
    audit::append(c, by, &format!("uploaded layer {} again: its file was damaged", layer.diff_id))?;
    Ok(())
}

fn doubted_layers(c: &Connection, diff_ids: &[DiffId]) -> Result<Vec<StoredLayer>, StoreError> {
    // The bases are ids one after the other; what is found across two of them costs a look at a file.
    let sql = format!(
        "{LAYER} WHERE l.diff_id = ?1 AND EXISTS (SELECT 1 FROM image_layers il, builds b
         WHERE il.diff_id = l.diff_id AND (b.state = 'failed' OR b.state = 'queued' AND b.attempts > 0) AND (b.target = il.image_id OR instr(b.bases, il.image_id) > 0))"
    );
    let mut query = c.prepare_cached(&sql)?;
    let mut doubted = Vec::new();
    for diff_id in diff_ids {
        doubted.extend(query.query_row([diff_id.0.as_bytes()], layer).optional()?);
    }
    Ok(doubted)
}

fn add_image(c: &Connection, image: &NewImage, by: &By) -> Result<ImageSummary, AddImageError> {
    let release = &image.release;
    let id = release.image_id.0.as_bytes();
    let (mut missing, mut found) = (Vec::new(), 0u64);
    for diff_id in &release.diff_ids {
        match find_layer(c, diff_id)? {
            Some(layer) => found = found.saturating_add(layer.size),
            None => missing.push(*diff_id),
        }
    }
    if !missing.is_empty() {
        return Err(AddImageError::MissingLayers(missing));
    }
    if found != release.size {
        return Err(AddImageError::Size { said: release.size, found });
    }
    let new = c
        .prepare_cached(
            "INSERT INTO images (image_id, config, architecture, os, size, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (image_id) DO NOTHING",
        )?
        .execute((id, &image.config, &release.architecture, &release.os, release.size, by.at.0))?;
    if new > 0 {
        let mut insert = c.prepare_cached("INSERT INTO image_layers (image_id, position, diff_id) VALUES (?1, ?2, ?3)")?;
        for (position, diff_id) in release.diff_ids.iter().enumerate() {
            insert.execute((id, position, diff_id.0.as_bytes()))?;
        }
    }
    let added = c
        .prepare_cached(
            "INSERT INTO releases (name, tag, image_id, envelope, digest, key_id, published_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (digest) DO NOTHING",
        )?
        .execute((&release.name, &release.tag, id, &image.envelope, image.digest.as_bytes(), image.key_id.0, by.at.0))?;
    builds::forgive(c, Some(release.image_id), by.at)?;
    if added > 0 {
        audit::append(c, by, &format!("published {} as {}", release.reference(), release.image_id))?;
    }
    Ok(c.prepare_cached(&format!("{SUMMARY} WHERE r.digest = ?1"))?.query_row([image.digest.as_bytes()], summary)?)
}

#[async_trait]
impl ImageStore for SqliteStore {
    async fn missing_layers(&self, diff_ids: Vec<DiffId>) -> Result<Vec<DiffId>, StoreError> {
        self.read(move |c| {
            let mut missing = Vec::new();
            for diff_id in diff_ids {
                if !missing.contains(&diff_id) && find_layer(c, &diff_id)?.is_none() {
                    missing.push(diff_id);
                }
            }
            Ok(missing)
        })
        .await
    }

    async fn add_layer(&self, layer: StoredLayer, by: By) -> Result<bool, StoreError> {
        self.write(move |c| {
            if find_layer(c, &layer.diff_id)?.is_some() {
                return Ok(false);
            }
            objects::add(c, &layer.object, layer.stored, by.at)?;
            c.prepare_cached("INSERT INTO layers (diff_id, size, stored, object, created_at) VALUES (?1, ?2, ?3, ?4, ?5)")?.execute((
                layer.diff_id.0.as_bytes(),
                layer.size,
                layer.stored,
                layer.object.as_bytes(),
                by.at.0,
            ))?;
            audit::append(c, &by, &format!("uploaded layer {}", layer.diff_id))?;
            Ok(true)
        })
        .await
    }

    async fn mend_layer(&self, layer: StoredLayer, by: By) -> Result<(), StoreError> {
        self.write(move |c| mend_layer(c, &layer, &by)).await
    }

    async fn doubted_layers(&self, diff_ids: Vec<DiffId>) -> Result<Vec<StoredLayer>, StoreError> {
        self.read(move |c| doubted_layers(c, &diff_ids)).await
    }

    async fn layer(&self, diff_id: DiffId) -> Result<Option<StoredLayer>, StoreError> {
        self.read(move |c| Ok(find_layer(c, &diff_id)?)).await
    }

    async fn layers_without_index(&self, limit: u32) -> Result<Vec<StoredLayer>, StoreError> {
        self.read(move |c| {
            let sql = format!(
                "{LAYER} WHERE NOT EXISTS (SELECT 1 FROM layer_indexes x WHERE x.diff_id = l.diff_id) ORDER BY l.created_at LIMIT ?1"
            );
            Ok(c.prepare_cached(&sql)?.query_map([limit], layer)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn put_layer_index(&self, diff_id: DiffId, index: Result<(Digest, u64), String>, at: Timestamp) -> Result<(), StoreError> {
        self.write(move |c| {
            let (object, error) = match index {
                Ok((digest, size)) => {
                    objects::add(c, &digest, size, at)?;
                    (Some(*digest.as_bytes()), None)
                }
                Err(why) => (None, Some(why)),
            };
            c.prepare_cached(
                "INSERT INTO layer_indexes (diff_id, object, error, made_at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (diff_id) DO UPDATE SET object = ?2, error = ?3, made_at = ?4",
            )?
            .execute((diff_id.0.as_bytes(), object, error, at.0))?;
            Ok(())
        })
        .await
    }

    async fn layer_index(&self, diff_id: DiffId) -> Result<Option<Digest>, StoreError> {
        self.read(move |c| {
            let mut query = c.prepare_cached("SELECT object FROM layer_indexes WHERE diff_id = ?1")?;
            let found = query.query_row([diff_id.0.as_bytes()], |row| row.get::<_, Option<[u8; 32]>>(0)).optional()?;
            Ok(found.flatten().map(Digest::new))
        })
        .await
    }

    async fn add_image(&self, image: NewImage, by: By) -> Result<ImageSummary, AddImageError> {
        self.write(move |c| add_image(c, &image, &by)).await
    }

    async fn images(&self) -> Result<Vec<ImageSummary>, StoreError> {
        self.read(|c| {
            let sql = format!("{SUMMARY} WHERE r.id IN (SELECT max(id) FROM releases GROUP BY name, tag) ORDER BY r.name, r.tag");
            Ok(c.prepare_cached(&sql)?.query_map([], summary)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn image(&self, reference: ImageRef) -> Result<Option<StoredImage>, StoreError> {
        self.read(move |c| find_image(c, &reference)).await
    }
}

impl From<&StoredLayer> for LayerDetail {
    fn from(layer: &StoredLayer) -> Self {
        Self { diff_id: layer.diff_id, size: layer.size, stored: layer.stored }
    }
}
