-- The first schema. Ids are 16 bytes, digests 32 bytes, times milliseconds since 1970 on the server's clock, sizes bytes.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- What the object folder holds. A file without a row is a leftover, a row without a file is damage.
CREATE TABLE objects (
    digest     BLOB PRIMARY KEY CHECK (length(digest) = 32),
    size       INTEGER NOT NULL CHECK (size >= 0),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- ---- images ----

CREATE TABLE layers (
    diff_id    BLOB PRIMARY KEY CHECK (length(diff_id) = 32),
    size       INTEGER NOT NULL,             -- uncompressed
    stored     INTEGER NOT NULL,             -- as kept
    object     BLOB NOT NULL REFERENCES objects (digest),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX layers_by_object ON layers (object);

CREATE TABLE layer_indexes (
    diff_id BLOB PRIMARY KEY REFERENCES layers (diff_id) ON DELETE CASCADE,
    object  BLOB REFERENCES objects (digest), -- none when it could not be made
    error   TEXT,
    made_at INTEGER NOT NULL,
    CHECK ((object IS NULL) <> (error IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX layer_indexes_by_object ON layer_indexes (object);

CREATE TABLE images (
    image_id     BLOB PRIMARY KEY CHECK (length(image_id) = 32),
    config       BLOB NOT NULL,
    architecture TEXT NOT NULL,
    os           TEXT NOT NULL,
    size         INTEGER NOT NULL,           -- uncompressed layers together
    created_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE image_layers (
    image_id BLOB NOT NULL REFERENCES images (image_id) ON DELETE CASCADE,
    position INTEGER NOT NULL,               -- lowest layer is 0
    diff_id  BLOB NOT NULL REFERENCES layers (diff_id),
    PRIMARY KEY (image_id, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layers_by_layer ON image_layers (diff_id);

-- History is kept: of one (name, tag) the row with the highest id is in force.
CREATE TABLE releases (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT NOT NULL,
    tag          TEXT NOT NULL,
    image_id     BLOB NOT NULL REFERENCES images (image_id),
    envelope     BLOB NOT NULL,
    digest       BLOB NOT NULL UNIQUE CHECK (length(digest) = 32), -- of the envelope: the same release twice is one row
    key_id       BLOB NOT NULL CHECK (length(key_id) = 8),
    published_at INTEGER NOT NULL
) STRICT;
CREATE INDEX releases_by_name ON releases (name, tag, id);
CREATE INDEX releases_by_image ON releases (image_id, id);

-- ---- who may come in ----

-- Enrolment tokens. Only the SHA-256 of the secret is kept.
CREATE TABLE tokens (
    id          BLOB PRIMARY KEY CHECK (length(id) = 16),
    secret_hash BLOB NOT NULL CHECK (length(secret_hash) = 32),
    pool        TEXT NOT NULL,
    uses        INTEGER NOT NULL,
    used        INTEGER NOT NULL DEFAULT 0 CHECK (used <= uses),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER
) STRICT, WITHOUT ROWID;

-- Which node key used which token: a repeated enrolment of one key is one use.
CREATE TABLE token_uses (
    token   BLOB NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    key     BLOB NOT NULL CHECK (length(key) = 32),
    used_at INTEGER NOT NULL,
    PRIMARY KEY (token, key)
) STRICT, WITHOUT ROWID;

-- Operators' bearer tokens.
CREATE TABLE operators (
    id          BLOB PRIMARY KEY CHECK (length(id) = 16),
    secret_hash BLOB NOT NULL CHECK (length(secret_hash) = 32),
    role        TEXT NOT NULL CHECK (role IN ('admin', 'publisher', 'operator', 'reader')),
    name        TEXT NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Append-only: rows are never changed, and only retention takes old ones away, never any of the newest 1,000.
CREATE TABLE audit (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    at   INTEGER NOT NULL,
    who  TEXT NOT NULL,
    what TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
CREATE TRIGGER audit_keeps_the_newest BEFORE DELETE ON audit
WHEN old.id > (SELECT max(id) FROM audit) - 1000
BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;

-- ---- nodes ----

CREATE TABLE nodes (
    id           BLOB PRIMARY KEY CHECK (length(id) = 16),
    key          BLOB NOT NULL UNIQUE CHECK (length(key) = 32),
    pool         TEXT NOT NULL,
    name         TEXT NOT NULL,
    fingerprint  BLOB,                       -- CBOR of wire::node::Fingerprint
    inventory    BLOB,                       -- CBOR of wire::node::Inventory
    hardware     BLOB,                       -- CBOR of the hardware serials at enrolment
    enrolled_at  INTEGER NOT NULL,
    last_seen    INTEGER,
    boot         BLOB,
    seq          INTEGER NOT NULL DEFAULT 0,
    acknowledged INTEGER NOT NULL DEFAULT 0, -- highest report sequence that was counted
    mark_root    INTEGER NOT NULL DEFAULT 0, -- mark of the manifest that the node holds
    mark_epoch   INTEGER NOT NULL DEFAULT 0,
    mark_counter INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX nodes_by_name ON nodes (name);

-- ---- jobs ----

CREATE TABLE jobs (
    id         TEXT PRIMARY KEY,
    version    INTEGER NOT NULL,             -- the current one
    stopped_at INTEGER,
    stopped_by TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE job_versions (
    job           TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    version       INTEGER NOT NULL,
    specification BLOB NOT NULL,             -- envelope of wire::release::Specification
    digest        BLOB NOT NULL CHECK (length(digest) = 32),
    source        TEXT NOT NULL,
    name          TEXT NOT NULL,
    email         TEXT NOT NULL,
    submitted_at  INTEGER NOT NULL,
    PRIMARY KEY (job, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_versions_by_digest ON job_versions (digest);

CREATE TABLE allocs (
    id         BLOB PRIMARY KEY CHECK (length(id) = 16),
    job        TEXT NOT NULL,
    version    INTEGER NOT NULL,
    grp        TEXT NOT NULL,
    idx        INTEGER NOT NULL,
    node       BLOB NOT NULL REFERENCES nodes (id),
    desired    TEXT NOT NULL CHECK (desired IN ('run', 'stop')),
    status     TEXT NOT NULL CHECK (status IN ('pending', 'running', 'complete', 'failed')),
    reason     TEXT NOT NULL DEFAULT '',
    restarts   INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    FOREIGN KEY (job, version) REFERENCES job_versions (job, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX allocs_by_node ON allocs (node, desired);
CREATE INDEX allocs_by_job ON allocs (job, version);

CREATE TABLE manifests (
    node       BLOB NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    root       INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    counter    INTEGER NOT NULL,
    envelope   BLOB NOT NULL,                -- envelope of wire::manifest::Manifest
    created_at INTEGER NOT NULL,
    PRIMARY KEY (node, root, epoch, counter)
) STRICT, WITHOUT ROWID;

CREATE TABLE tombstones (
    node       BLOB NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    alloc      BLOB NOT NULL REFERENCES allocs (id) ON DELETE CASCADE,
    reason     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    done_at    INTEGER,                      -- when the node reported it stopped
    PRIMARY KEY (node, alloc)
) STRICT, WITHOUT ROWID;

-- ---- deployment sets ----

CREATE TABLE deployment_sets (
    id          BLOB PRIMARY KEY CHECK (length(id) = 16),
    job         TEXT NOT NULL,
    version     INTEGER NOT NULL,
    name        TEXT NOT NULL,
    email       TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('queued', 'in_transit', 'succeeded', 'failed')),
    created_at  INTEGER NOT NULL,
    finished_at INTEGER,
    FOREIGN KEY (job, version) REFERENCES job_versions (job, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX deployment_sets_by_job ON deployment_sets (job, version);

CREATE TABLE deployment_rows (
    set_id     BLOB NOT NULL REFERENCES deployment_sets (id) ON DELETE CASCADE,
    node       BLOB NOT NULL REFERENCES nodes (id),
    image      BLOB NOT NULL REFERENCES images (image_id),
    state      TEXT NOT NULL CHECK (state IN ('queued', 'in_transit', 'succeeded', 'failed')),
    reason     TEXT,
    size       INTEGER,                      -- of the bundle
    base       BLOB,                         -- image id of the bundle's base
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (set_id, node, image)
) STRICT, WITHOUT ROWID;
CREATE INDEX deployment_rows_by_node ON deployment_rows (node, image, state);

-- ---- bundles ----

-- One row per distinct bundle: a target image and the sorted image ids of its bases, one after the other; empty for a full bundle.
CREATE TABLE builds (
    target      BLOB NOT NULL REFERENCES images (image_id),
    bases       BLOB NOT NULL CHECK (length(bases) % 32 = 0),
    state       TEXT NOT NULL CHECK (state IN ('queued', 'building', 'ready', 'failed')),
    reason      TEXT,
    object      BLOB REFERENCES objects (digest),
    size        INTEGER,
    attempts    INTEGER NOT NULL DEFAULT 0,
    queued_at   INTEGER NOT NULL,
    finished_at INTEGER,
    PRIMARY KEY (target, bases),
    CHECK ((state = 'ready') = (object IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX builds_by_state ON builds (state, queued_at);
CREATE INDEX builds_by_object ON builds (object);

-- The bundle that a node was offered for an image: it stays the same while the node holds its bases, so that nothing is fetched twice.
CREATE TABLE offers (
    node       BLOB NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    image      BLOB NOT NULL REFERENCES images (image_id),
    bases      BLOB NOT NULL,
    offered_at INTEGER NOT NULL,
    PRIMARY KEY (node, image),
    FOREIGN KEY (image, bases) REFERENCES builds (target, bases) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX offers_by_bundle ON offers (image, bases);
