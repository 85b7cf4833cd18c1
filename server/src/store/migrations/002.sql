-- What nodes decide alone, and what operators order about them: health, waits, lost allocations, drain, variables, node meta.

ALTER TABLE allocs ADD COLUMN healthy INTEGER;                        -- the node's judgement: 0, 1; none before there is one
ALTER TABLE allocs ADD COLUMN waits_until INTEGER;
ALTER TABLE allocs ADD COLUMN reported_at INTEGER;                    -- when the node last said something of it
ALTER TABLE allocs ADD COLUMN running_since INTEGER;                  -- without a restart; none while it does not run
ALTER TABLE allocs ADD COLUMN placed_at INTEGER NOT NULL DEFAULT 0;   -- of the first of those that took each other's place
ALTER TABLE allocs ADD COLUMN covers INTEGER NOT NULL DEFAULT 0;      -- the one whose place it took runs until this one does
ALTER TABLE allocs ADD COLUMN lost_after INTEGER;                     -- of its group, milliseconds
ALTER TABLE allocs ADD COLUMN lost_at INTEGER;                        -- the verdict: its node was silent for longer
ALTER TABLE allocs ADD COLUMN retry INTEGER NOT NULL DEFAULT 0;
ALTER TABLE allocs ADD COLUMN override_lock INTEGER NOT NULL DEFAULT 0;
UPDATE allocs SET placed_at = created_at;
UPDATE allocs SET reported_at = updated_at WHERE status <> 'pending';
UPDATE allocs SET running_since = updated_at WHERE status = 'running';
CREATE INDEX allocs_watched ON allocs (node) WHERE lost_after IS NOT NULL AND desired = 'run';
CREATE INDEX allocs_lost ON allocs (node) WHERE lost_at IS NOT NULL;

-- The last states of an allocation as its node told them; retention takes older ones away with each new one.
CREATE TABLE alloc_states (
    alloc       BLOB NOT NULL REFERENCES allocs (id) ON DELETE CASCADE,
    seq         INTEGER NOT NULL,            -- counts up per allocation
    at          INTEGER NOT NULL,
    status      TEXT NOT NULL,
    reason      TEXT NOT NULL,
    healthy     INTEGER,
    restarts    INTEGER NOT NULL,
    waits_until INTEGER,
    PRIMARY KEY (alloc, seq)
) STRICT, WITHOUT ROWID;

-- The last runs of periodic allocations.
CREATE TABLE alloc_runs (
    alloc    BLOB NOT NULL REFERENCES allocs (id) ON DELETE CASCADE,
    run      INTEGER NOT NULL,
    status   TEXT NOT NULL,
    reason   TEXT NOT NULL,
    first_at INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (alloc, run)
) STRICT, WITHOUT ROWID;

ALTER TABLE nodes ADD COLUMN eligible INTEGER NOT NULL DEFAULT 1;
ALTER TABLE nodes ADD COLUMN drained_at INTEGER;                      -- since when work is taken off it
ALTER TABLE nodes ADD COLUMN drain_deadline INTEGER;
ALTER TABLE nodes ADD COLUMN drain_ignores_system INTEGER NOT NULL DEFAULT 0;
CREATE INDEX nodes_drained ON nodes (drained_at) WHERE drained_at IS NOT NULL;

-- Node meta set on the server.
CREATE TABLE node_meta (
    node  BLOB NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (node, key)
) STRICT, WITHOUT ROWID;

-- Variables, in the clear.
CREATE TABLE variables (
    path       TEXT PRIMARY KEY,
    items      BLOB NOT NULL,                -- CBOR of a map of texts
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
