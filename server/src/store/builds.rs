//! Bundles: which were asked for, by whom, and how far their making is.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};
use skerry_plan::base::Built;
use skerry_plan::set::News;
use skerry_plan::{Fleet, Node};
use skerry_wire::api::{BuildState, BundleSummary};
use skerry_wire::{Digest, ImageId, NodeId, Timestamp};

use super::fleet::{self, damaged};
use super::{SqliteStore, StoreError, objects, sets};

/// One distinct bundle.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BundleId {
    /// The image that it makes.
    pub target: ImageId,
    /// What it starts from, sorted; empty for a full bundle.
    pub bases: Vec<ImageId>,
}

/// A build that a worker has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenBuild {
    /// What to make.
    pub bundle: BundleId,
    /// How often it was begun, this time included.
    pub attempts: u32,
}

/// What a node was offered for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// The bundle.
    pub bundle: BundleId,
    /// How far it is.
    pub state: BuildState,
    /// The file and its bytes, once ready.
    pub object: Option<(Digest, u64)>,
    /// Why it failed.
    pub reason: Option<String>,
}

/// What a choice of bases for a node looks at.
#[derive(Debug, Clone)]
pub struct ToChoose {
    /// The node.
    pub node: Node,
    /// The images that the server knows; nothing else of the fleet.
    pub fleet: Fleet,
    /// Bundles of the image that are ready.
    pub built: Vec<Built>,
    /// The bases of those that wait to be built, or are.
    pub building: Vec<Vec<ImageId>>,
    /// The bases of those that were given up and are not tried again yet.
    pub failed: Vec<Vec<ImageId>>,
    /// Other nodes that are to have the image; of many some.
    pub waiting: Vec<Node>,
}

/// Bundles and what nodes were offered.
#[async_trait]
pub trait BuildStore {
    /// What the node was offered for the image, while it holds all bases of that bundle still.
    async fn offered(&self, node: NodeId, image: ImageId) -> Result<Option<Offered>, StoreError>;

    /// Was the image ever to be brought to the node, or does an allocation that runs there name it?
    async fn needs_image(&self, node: NodeId, image: ImageId) -> Result<bool, StoreError>;

    /// What a new choice looks at; none when the node is not known.
    async fn to_choose(&self, node: NodeId, image: ImageId, now: Timestamp) -> Result<Option<ToChoose>, StoreError>;

    /// Offers a bundle to a node, and queues its build when nobody has asked for it yet.
    async fn offer(&self, node: NodeId, bundle: BundleId, now: Timestamp) -> Result<Offered, StoreError>;

    /// The oldest build that waits and is due, which is the worker's from now on.
    async fn take_build(&self, now: Timestamp) -> Result<Option<TakenBuild>, StoreError>;

    /// A build is done: its object is in place.
    async fn build_ready(&self, bundle: BundleId, object: Digest, size: u64, now: Timestamp) -> Result<(), StoreError>;

    /// A build failed; it is tried again at `retry_at`, or not any more.
    async fn build_failed(&self, bundle: BundleId, reason: String, retry_at: Option<Timestamp>, now: Timestamp) -> Result<(), StoreError>;

    /// The file of an object is damaged or gone: the bundles that it is wait to be built again. How many they are.
    async fn build_again(&self, object: Digest, now: Timestamp) -> Result<u64, StoreError>;

    /// The file of an object was damaged too often: the bundles that it is count as failed for this reason, like any that could not be
    /// built. How many they are.
    async fn give_build_up(&self, object: Digest, reason: String, now: Timestamp) -> Result<u64, StoreError>;

    /// Builds that were being made when the server ended wait again; the attempt that was cut off does not count.
    async fn requeue_builds(&self) -> Result<u64, StoreError>;

    /// All bundles.
    async fn bundles(&self) -> Result<Vec<BundleSummary>, StoreError>;

    /// Bundles ready for each image of a list, with their bases.
    async fn built(&self, images: Vec<ImageId>) -> Result<Vec<(ImageId, Vec<Built>)>, StoreError>;

    /// Builds that wait or are being made.
    async fn builds_pending(&self) -> Result<u64, StoreError>;

    /// The key of the capabilities that admit nodes to objects; `new` becomes it when there is none yet.
    async fn object_key(&self, new: [u8; 32]) -> Result<[u8; 32], StoreError>;
}

/// Waiting nodes that a choice looks at: enough to see what most of a fleet holds.
const WAITING: u32 = 32;

/// Time after which a build that failed for good is tried again when a node asks for it.
const FORGIVEN_AFTER_MS: i64 = 60 * 60 * 1000;

/// What was given up before this is tried again.
fn forgiven(now: Timestamp) -> i64 {
    now.0.saturating_sub(FORGIVEN_AFTER_MS)
}

fn join(bases: &[ImageId]) -> Vec<u8> {
    bases.iter().flat_map(|b| *b.digest().as_bytes()).collect()
}

fn split(bases: &[u8]) -> Result<Vec<ImageId>, StoreError> {
    let ids =
        bases.chunks(Digest::LEN).map(|b| Ok(ImageId(Digest::new(b.try_into().map_err(|_| damaged("the bases of a bundle", "length"))?))));
    ids.collect()
}

fn state(word: &str) -> Result<BuildState, StoreError> {
    Ok(match word {
        "queued" => BuildState::Queued,
        "building" => BuildState::Building,
        "ready" => BuildState::Ready,
        "failed" => BuildState::Failed,
        other => return Err(damaged("a build's state", other)),
    })
}

fn offered(c: &Connection, node: NodeId, image: ImageId) -> Result<Option<Offered>, StoreError> {
    let mut query = c.prepare_cached(
        "SELECT o.bases, b.state, b.object, b.size, b.reason, n.inventory FROM offers o
         JOIN builds b ON b.target = o.image AND b.bases = o.bases JOIN nodes n ON n.id = o.node WHERE o.node = ?1 AND o.image = ?2",
    )?;
    let mut rows = query.query((node.as_bytes(), image.digest().as_bytes()))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let bases = split(&row.get::<_, Vec<u8>>(0)?)?;
    let (_, inventory) = fleet::facts(None, row.get(5)?)?;
    if !bases.iter().all(|base| inventory.images.contains(base)) {
        return Ok(None);
    }
    let object = row.get::<_, Option<[u8; 32]>>(2)?.map(Digest::new);
    Ok(Some(Offered {
        bundle: BundleId { target: image, bases },
        state: state(&row.get::<_, String>(1)?)?,
        object: object.zip(row.get::<_, Option<u64>>(3)?),
        reason: row.get(4)?,
    }))
}

fn needs_image(c: &Connection, node: NodeId, image: ImageId) -> Result<bool, StoreError> {
    let ordered = c
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM deployment_rows WHERE node = ?1 AND image = ?2)")?
        .query_row((node.as_bytes(), image.digest().as_bytes()), |row| row.get(0))?;
    if ordered {
        return Ok(true);
    }
    // The row of an older version that still runs may be forgotten.
    let mut query = c.prepare_cached(
        "SELECT DISTINCT v.specification FROM allocs a JOIN job_versions v ON v.job = a.job AND v.version = a.version
         WHERE a.node = ?1 AND a.desired = 'run'",
    )?;
    let mut rows = query.query([node.as_bytes()])?;
    while let Some(row) = rows.next()? {
        if fleet::specification(&row.get::<_, Vec<u8>>(0)?)?.job.images().any(|config| config.image_id == Some(image)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn offer(c: &Connection, node: NodeId, bundle: &BundleId, now: Timestamp) -> Result<Offered, StoreError> {
    let bases = join(&bundle.bases);
    let target = bundle.target.digest().as_bytes();
    c.prepare_cached(
        "INSERT INTO builds (target, bases, state, queued_at) VALUES (?1, ?2, 'queued', ?3)
         ON CONFLICT (target, bases) DO UPDATE SET state = 'queued', attempts = 0, queued_at = ?3, finished_at = NULL
         WHERE state = 'failed' AND finished_at < ?4",
    )?
    .execute((target, &bases, now.0, forgiven(now)))?;
    c.prepare_cached(
        "INSERT INTO offers (node, image, bases, offered_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (node, image) DO UPDATE SET bases = ?3, offered_at = ?4",
    )?
    .execute((node.as_bytes(), target, &bases, now.0))?;
    // What was offered before and is not begun is not built unless another node waits for it: a node whose inventory changes all the
    // time does not fill the queue.
    c.prepare_cached(
        "DELETE FROM builds AS b WHERE target = ?1 AND state = 'queued'
         AND NOT EXISTS (SELECT 1 FROM offers o WHERE o.image = b.target AND o.bases = b.bases)",
    )?
    .execute([target])?;
    let made = c.prepare_cached("SELECT state, object, size, reason FROM builds WHERE target = ?1 AND bases = ?2")?.query_row(
        (target, &bases),
        |row| {
            let object = row.get::<_, Option<[u8; 32]>>(1)?.map(Digest::new);
            Ok((row.get::<_, String>(0)?, object.zip(row.get::<_, Option<u64>>(2)?), row.get::<_, Option<String>>(3)?))
        },
    )?;
    let size = made.1.map(|(_, size)| size);
    sets::price(c, node, bundle.target, (size, bundle.bases.first().copied()))?;
    let state = state(&made.0)?;
    if state == BuildState::Failed {
        sets::tell(c, node, bundle.target, &News::Failed(build_reason(made.2.as_deref())), now)?;
    }
    Ok(Offered { bundle: bundle.clone(), state, object: made.1, reason: made.2 })
}

fn build_reason(reason: Option<&str>) -> String {
    format!("its bundle could not be built: {}", reason.unwrap_or("no reason is known"))
}

/// Tells every row that waits for this bundle.
fn nodes_waiting(c: &Connection, bundle: &BundleId) -> Result<Vec<NodeId>, StoreError> {
    let mut query = c.prepare_cached("SELECT node FROM offers WHERE image = ?1 AND bases = ?2")?;
    let rows = query.query_map((bundle.target.digest().as_bytes(), join(&bundle.bases)), |row| row.get(0).map(NodeId::new))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn take_build(c: &Connection, now: Timestamp) -> Result<Option<TakenBuild>, StoreError> {
    let taken = c
        .prepare_cached(
            "UPDATE builds SET state = 'building', attempts = attempts + 1 WHERE (target, bases) =
             (SELECT target, bases FROM builds WHERE state = 'queued' AND queued_at <= ?1 ORDER BY queued_at, target, bases LIMIT 1)
             RETURNING target, bases, attempts",
        )?
        .query_row([now.0], |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?)))
        .optional()?;
    let Some((target, bases, attempts)) = taken else { return Ok(None) };
    Ok(Some(TakenBuild { bundle: BundleId { target: ImageId(Digest::new(target)), bases: split(&bases)? }, attempts }))
}

fn give_build_up(c: &Connection, object: &Digest, reason: &str, now: Timestamp) -> Result<u64, StoreError> {
    let mut query = c.prepare_cached(
        "UPDATE builds SET state = 'failed', object = NULL, size = NULL, reason = ?2, finished_at = ?3 WHERE object = ?1
         RETURNING target, bases",
    )?;
    let rows = query.query_map((object.as_bytes(), reason, now.0), |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
    let given_up: Vec<_> = rows.collect::<Result<_, _>>()?;
    for (target, bases) in &given_up {
        let bundle = BundleId { target: ImageId(Digest::new(*target)), bases: split(bases)? };
        for node in nodes_waiting(c, &bundle)? {
            sets::tell(c, node, bundle.target, &News::Failed(build_reason(Some(reason))), now)?;
        }
    }
    Ok(given_up.len() as u64)
}

/// Somebody did something about what made builds fail: those of one target, or all, are as if nobody had tried. One that was given up is
/// built when a node next asks for it, one that waits for its next try at once.
pub(super) fn forgive(c: &Connection, target: Option<ImageId>, now: Timestamp) -> Result<(), StoreError> {
    let target = target.map(|target| *target.digest().as_bytes());
    let sql = "UPDATE builds SET finished_at = 0 WHERE state = 'failed' AND (?1 IS NULL OR target = ?1)";
    c.prepare_cached(sql)?.execute([target])?;
    let sql = "UPDATE builds SET attempts = 0, queued_at = min(queued_at, ?2)
               WHERE state = 'queued' AND attempts > 0 AND (?1 IS NULL OR target = ?1)";
    c.prepare_cached(sql)?.execute((target, now.0))?;
    Ok(())
}

fn built(c: &Connection, image: ImageId) -> Result<Vec<Built>, StoreError> {
    let mut query = c.prepare_cached("SELECT bases, size FROM builds WHERE target = ?1 AND state = 'ready' ORDER BY bases")?;
    let mut rows = query.query([image.digest().as_bytes()])?;
    let mut built = Vec::new();
    while let Some(row) = rows.next()? {
        built.push(Built { bases: split(&row.get::<_, Vec<u8>>(0)?)?, bytes: row.get(1)? });
    }
    Ok(built)
}

fn building(c: &Connection, image: ImageId) -> Result<Vec<Vec<ImageId>>, StoreError> {
    let mut query = c.prepare_cached("SELECT bases FROM builds WHERE target = ?1 AND state IN ('queued', 'building') ORDER BY bases")?;
    let rows = query.query_map([image.digest().as_bytes()], |row| row.get::<_, Vec<u8>>(0))?;
    rows.map(|bases| split(&bases?)).collect()
}

fn failed(c: &Connection, image: ImageId, now: Timestamp) -> Result<Vec<Vec<ImageId>>, StoreError> {
    let sql = "SELECT bases FROM builds WHERE target = ?1 AND state = 'failed' AND finished_at >= ?2 ORDER BY bases";
    let mut query = c.prepare_cached(sql)?;
    let rows = query.query_map((image.digest().as_bytes(), forgiven(now)), |row| row.get::<_, Vec<u8>>(0))?;
    rows.map(|bases| split(&bases?)).collect()
}

/// By id, so that nodes that ask one after the other are told alike; the index by node ends the search early while many wait.
fn waiting(c: &Connection, asking: NodeId, image: ImageId) -> Result<Vec<Node>, StoreError> {
    let mut query = c.prepare_cached(
        "SELECT DISTINCT node FROM deployment_rows WHERE image = ?1 AND state IN ('queued', 'in_transit') AND node <> ?2 ORDER BY node LIMIT ?3",
    )?;
    let ids = query.query_map((image.digest().as_bytes(), asking.as_bytes(), WAITING), |row| row.get(0).map(NodeId::new))?;
    let ids: Vec<_> = ids.collect::<Result<_, _>>()?;
    let mut nodes = Vec::new();
    for id in ids {
        nodes.extend(fleet::node(c, id)?);
    }
    Ok(nodes)
}

#[async_trait]
impl BuildStore for SqliteStore {
    async fn offered(&self, node: NodeId, image: ImageId) -> Result<Option<Offered>, StoreError> {
        self.read(move |c| offered(c, node, image)).await
    }

    async fn needs_image(&self, node: NodeId, image: ImageId) -> Result<bool, StoreError> {
        self.read(move |c| needs_image(c, node, image)).await
    }

    async fn to_choose(&self, node: NodeId, image: ImageId, now: Timestamp) -> Result<Option<ToChoose>, StoreError> {
        self.read(move |c| {
            let Some(node) = fleet::node(c, node)? else { return Ok(None) };
            let fleet = Fleet { images: fleet::images(c)?, ..Fleet::default() };
            let waiting = waiting(c, node.id, image)?;
            let (built, building, failed) = (built(c, image)?, building(c, image)?, failed(c, image, now)?);
            Ok(Some(ToChoose { node, fleet, built, building, failed, waiting }))
        })
        .await
    }

    async fn offer(&self, node: NodeId, bundle: BundleId, now: Timestamp) -> Result<Offered, StoreError> {
        self.write(move |c| offer(c, node, &bundle, now)).await
    }

    async fn take_build(&self, now: Timestamp) -> Result<Option<TakenBuild>, StoreError> {
        self.write(move |c| take_build(c, now)).await
    }

    async fn build_ready(&self, bundle: BundleId, object: Digest, size: u64, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |c| {
            objects::add(c, &object, size, now)?;
            c.prepare_cached(
                "UPDATE builds SET state = 'ready', object = ?3, size = ?4, reason = NULL, finished_at = ?5 WHERE target = ?1 AND bases = ?2",
            )?
            .execute((bundle.target.digest().as_bytes(), join(&bundle.bases), object.as_bytes(), size, now.0))?;
            for node in nodes_waiting(c, &bundle)? {
                sets::price(c, node, bundle.target, (Some(size), bundle.bases.first().copied()))?;
            }
            Ok(())
        })
        .await
    }

    async fn build_failed(&self, bundle: BundleId, reason: String, retry_at: Option<Timestamp>, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |c| {
            let word = if retry_at.is_some() { "queued" } else { "failed" };
            c.prepare_cached(
                "UPDATE builds SET state = ?3, reason = ?4, queued_at = coalesce(?5, queued_at), finished_at = ?6 WHERE target = ?1 AND bases = ?2",
            )?
            .execute((
                bundle.target.digest().as_bytes(),
                join(&bundle.bases),
                word,
                &reason,
                retry_at.map(|t| t.0),
                retry_at.is_none().then_some(now.0),
            ))?;
            if retry_at.is_none() {
                for node in nodes_waiting(c, &bundle)? {
                    sets::tell(c, node, bundle.target, &News::Failed(build_reason(Some(&reason))), now)?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn build_again(&self, object: Digest, now: Timestamp) -> Result<u64, StoreError> {
        self.write(move |c| {
            let sql = "UPDATE builds SET state = 'queued', attempts = 0, object = NULL, size = NULL, queued_at = ?2, finished_at = NULL
                       WHERE object = ?1";
            Ok(u64::try_from(c.execute(sql, (object.as_bytes(), now.0))?).unwrap_or(u64::MAX))
        })
        .await
    }

    async fn give_build_up(&self, object: Digest, reason: String, now: Timestamp) -> Result<u64, StoreError> {
        self.write(move |c| give_build_up(c, &object, &reason, now)).await
    }

    async fn requeue_builds(&self) -> Result<u64, StoreError> {
        self.write(|c| {
            let sql = "UPDATE builds SET state = 'queued', attempts = max(attempts - 1, 0) WHERE state = 'building'";
            Ok(u64::try_from(c.execute(sql, [])?).unwrap_or(u64::MAX))
        })
        .await
    }

    async fn bundles(&self) -> Result<Vec<BundleSummary>, StoreError> {
        self.read(|c| {
            let mut query = c.prepare_cached(
                "SELECT target, bases, state, object, size, reason FROM builds ORDER BY queued_at DESC, target, bases LIMIT 10000",
            )?;
            let mut rows = query.query([])?;
            let mut bundles = Vec::new();
            while let Some(row) = rows.next()? {
                bundles.push(BundleSummary {
                    target: ImageId(Digest::new(row.get(0)?)),
                    bases: split(&row.get::<_, Vec<u8>>(1)?)?,
                    state: state(&row.get::<_, String>(2)?)?,
                    digest: row.get::<_, Option<[u8; 32]>>(3)?.map(Digest::new),
                    size: row.get(4)?,
                    reason: row.get(5)?,
                });
            }
            Ok(bundles)
        })
        .await
    }

    async fn built(&self, images: Vec<ImageId>) -> Result<Vec<(ImageId, Vec<Built>)>, StoreError> {
        self.read(move |c| images.into_iter().map(|image| Ok((image, built(c, image)?))).collect()).await
    }

    async fn builds_pending(&self) -> Result<u64, StoreError> {
        self.read(|c| Ok(c.query_row("SELECT count(*) FROM builds WHERE state IN ('queued', 'building')", [], |row| row.get(0))?)).await
    }

    async fn object_key(&self, new: [u8; 32]) -> Result<[u8; 32], StoreError> {
        self.write(move |c| {
            c.execute("INSERT INTO meta (key, value) VALUES ('object_key', ?1) ON CONFLICT (key) DO NOTHING", [new])?;
            Ok(c.query_row("SELECT value FROM meta WHERE key = 'object_key'", [], |row| row.get(0))?)
        })
        .await
    }
}
