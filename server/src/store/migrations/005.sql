-- Allocations that a node keeps and that neither its manifest nor this server knows, as it says itself: a server that was put back to an older
-- backup forgot them. An operator adopts them, or orders the node to stop them.
CREATE TABLE unknown_allocs (
    node          BLOB NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    alloc         BLOB NOT NULL CHECK (length(alloc) = 16),
    job           TEXT NOT NULL,
    grp           TEXT NOT NULL,
    idx           INTEGER NOT NULL,
    version       INTEGER NOT NULL,
    specification BLOB NOT NULL CHECK (length(specification) = 32),
    status        TEXT NOT NULL CHECK (status IN ('pending', 'running', 'complete', 'failed')),
    told_at       INTEGER NOT NULL,
    buried        TEXT,                      -- why it is ordered to stop; none while it is not
    PRIMARY KEY (node, alloc)
) STRICT, WITHOUT ROWID;
CREATE INDEX unknown_allocs_by_specification ON unknown_allocs (specification);

-- Their specifications, which nodes handed back: envelopes that a release key signed.
CREATE TABLE found_specifications (
    digest   BLOB PRIMARY KEY CHECK (length(digest) = 32),
    envelope BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- What a server before this one made of the mark that a node has which lost its own: no agent takes it.
DELETE FROM manifests WHERE epoch >= 281474976710656 OR counter >= 281474976710656;
