//! What is forgotten after a while.

use async_trait::async_trait;
use skerry_wire::{Millis, Timestamp};

use super::{SqliteStore, StoreError};

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Deployment sets after their end; the newest set of a job is always kept. As long, stopped allocations after their node said that
    /// they are over, and versions of jobs that nothing names any more.
    pub ended_sets: Millis,
    /// Manifests per node, the newest first.
    pub manifests_per_node: u32,
    /// Rows of the audit log, the newest first; at least 1,000.
    pub audit_rows: u32,
    /// Bundles after they were built, or failed, when no open deployment row needs their target.
    pub bundles: Millis,
    /// Orders for what tasks wrote, and the answers, after they were ordered.
    pub logs: Millis,
}

/// What was forgotten, in rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Deployment sets.
    pub sets: usize,
    /// Manifests.
    pub manifests: usize,
    /// Audit rows.
    pub audit: usize,
    /// Bundles; their objects go with the next collection of objects.
    pub bundles: usize,
    /// Allocations.
    pub allocs: usize,
    /// Versions of jobs.
    pub versions: usize,
    /// Orders for what tasks wrote.
    pub logs: usize,
}

/// Forgetting.
#[async_trait]
pub trait RetentionStore {
    /// Forgets what `keep` says at `now`.
    async fn forget_old(&self, keep: Keep, now: Timestamp) -> Result<Removed, StoreError>;

    /// Removes enrolment tokens whose time is over; gives how many.
    async fn remove_expired_tokens(&self, now: Timestamp) -> Result<usize, StoreError>;
}

#[async_trait]
impl RetentionStore for SqliteStore {
    async fn forget_old(&self, keep: Keep, now: Timestamp) -> Result<Removed, StoreError> {
        let cut = move |span: Millis| now.0.saturating_sub_unsigned(span.0);
        self.write(move |c| {
            Ok(Removed {
                sets: c.execute(
                    "DELETE FROM deployment_sets AS s WHERE finished_at < ?1
                     AND EXISTS (SELECT 1 FROM deployment_sets n WHERE n.job = s.job AND n.version > s.version)",
                    [cut(keep.ended_sets)],
                )?,
                manifests: c.execute(
                    "DELETE FROM manifests WHERE (node, root, epoch, counter) IN
                     (SELECT node, root, epoch, counter FROM
                      (SELECT node, root, epoch, counter,
                              row_number() OVER (PARTITION BY node ORDER BY root DESC, epoch DESC, counter DESC) AS place FROM manifests)
                      WHERE place > ?1)",
                    [keep.manifests_per_node.max(1)],
                )?,
                audit: c.execute("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?1", [keep.audit_rows.max(1000)])?,
                bundles: c.execute(
                    "DELETE FROM builds AS b WHERE state IN ('ready', 'failed') AND finished_at < ?1 AND NOT EXISTS
                     (SELECT 1 FROM deployment_rows r WHERE r.image = b.target AND r.state IN ('queued', 'in_transit'))",
                    [cut(keep.bundles)],
                )?,
                allocs: c.execute(
                    "DELETE FROM allocs AS a WHERE desired = 'stop' AND status IN ('complete', 'failed') AND updated_at < ?1
                     AND NOT EXISTS (SELECT 1 FROM tombstones t WHERE t.alloc = a.id AND t.done_at IS NULL)",
                    [cut(keep.ended_sets)],
                )?,
                // After the sets and allocations that name them.
                versions: c.execute(
                    "DELETE FROM job_versions AS v WHERE submitted_at < ?1
                     AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = v.job AND j.version = v.version)
                     AND NOT EXISTS (SELECT 1 FROM allocs a WHERE a.job = v.job AND a.version = v.version)
                     AND NOT EXISTS (SELECT 1 FROM deployment_sets s WHERE s.job = v.job AND s.version = v.version)",
                    [cut(keep.ended_sets)],
                )?,
                logs: c.execute("DELETE FROM log_orders WHERE ordered_at < ?1", [cut(keep.logs)])?,
            })
        })
        .await
    }

    async fn remove_expired_tokens(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.write(move |c| Ok(c.execute("DELETE FROM tokens WHERE expires_at <= ?1", [now.0])?)).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[tokio::test]
    async fn old_things_go_and_the_newest_stay() {
        let (store, _folder) = testing::store();
        let rows: Result<(), StoreError> = store
            .write(|c| {
                c.execute_batch(
                    "INSERT INTO nodes (id, key, pool, name, enrolled_at) VALUES (zeroblob(16), zeroblob(32), 'p', 'n', 0);
                     INSERT INTO jobs (id, version) VALUES ('j', 2);
                     INSERT INTO job_versions (job, version, specification, digest, source, name, email, submitted_at)
                       VALUES ('j', 1, x'00', zeroblob(32), '', '', '', 0), ('j', 2, x'00', zeroblob(32), '', '', '', 0);
                     INSERT INTO allocs (id, job, version, grp, idx, node, desired, status, created_at, updated_at) VALUES
                       (zeroblob(16), 'j', 1, 'g', 0, zeroblob(16), 'stop', 'complete', 0, 10),
                       (randomblob(16), 'j', 1, 'g', 1, zeroblob(16), 'stop', 'failed', 0, 60),
                       (randomblob(16), 'j', 2, 'g', 0, zeroblob(16), 'run', 'failed', 0, 10),
                       (randomblob(16), 'j', 2, 'g', 1, zeroblob(16), 'stop', 'running', 0, 10),
                       (x'07070707070707070707070707070707', 'j', 2, 'g', 2, zeroblob(16), 'stop', 'failed', 0, 10);
                     INSERT INTO tombstones (node, alloc, reason, created_at)
                       VALUES (zeroblob(16), x'07070707070707070707070707070707', '', 0);
                     INSERT INTO deployment_sets (id, job, version, name, email, state, created_at, finished_at)
                       VALUES (zeroblob(16), 'j', 1, '', '', 'succeeded', 0, 10), (randomblob(16), 'j', 2, '', '', 'succeeded', 0, 10);
                     INSERT INTO tokens (id, secret_hash, pool, uses, created_at, expires_at)
                       VALUES (zeroblob(16), zeroblob(32), 'p', 1, 0, 50), (randomblob(16), zeroblob(32), 'p', 1, 0, NULL);",
                )?;
                c.execute_batch(
                    "INSERT INTO log_orders (id, node, alloc, lines, ordered_at, answered_at) VALUES
                       (zeroblob(16), zeroblob(16), x'07070707070707070707070707070707', 5, 0, NULL),
                       (randomblob(16), zeroblob(16), x'07070707070707070707070707070707', 5, 45, 46);",
                )?;
                for counter in 1..=5 {
                    c.execute("INSERT INTO manifests VALUES (zeroblob(16), 1, 1, ?1, x'00', 0)", [counter])?;
                }
                for n in 0..1500 {
                    c.execute("INSERT INTO audit (at, who, what) VALUES (?1, 'w', 'x')", [n])?;
                }
                Ok(())
            })
            .await;
        rows.unwrap();
        let keep = Keep { ended_sets: Millis(100), manifests_per_node: 2, audit_rows: 0, bundles: Millis(100), logs: Millis(40) };
        let removed = store.forget_old(keep, Timestamp(50)).await.unwrap();
        assert_eq!(removed, Removed { manifests: 3, audit: 500, logs: 1, ..Removed::default() });
        // Version 1 goes with its last allocation; what runs, or is not said to be over, stays however old it is.
        let removed = store.forget_old(keep, Timestamp(150)).await.unwrap();
        assert_eq!(removed, Removed { sets: 1, allocs: 1, logs: 1, ..Removed::default() });
        let removed = store.forget_old(keep, Timestamp(200)).await.unwrap();
        assert_eq!(removed, Removed { allocs: 1, versions: 1, ..Removed::default() });
        assert_eq!(store.forget_old(keep, Timestamp(10_000)).await.unwrap(), Removed::default());
        assert_eq!(store.remove_expired_tokens(Timestamp(49)).await.unwrap(), 0);
        assert_eq!(store.remove_expired_tokens(Timestamp(50)).await.unwrap(), 1);
        assert_eq!(store.tokens_left().await, 1);
    }

    impl SqliteStore {
        async fn tokens_left(&self) -> i64 {
            let count: Result<i64, StoreError> = self.read(|c| Ok(c.query_row("SELECT count(*) FROM tokens", [], |r| r.get(0))?)).await;
            count.unwrap()
        }
    }
}
