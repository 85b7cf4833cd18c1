-- Version 1 of the ledger. A later version is a file of its own, run by `PRAGMA user_version`; this one is never edited.
CREATE TABLE fact (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE specification (
    digest BLOB PRIMARY KEY,
    bytes  BLOB NOT NULL
) STRICT;
CREATE TABLE outbox (
    seq   INTEGER PRIMARY KEY,
    at    INTEGER NOT NULL,
    -- 1 for reports of progress: an image has one, and they are given up first when the outbox is full.
    light INTEGER NOT NULL,
    image BLOB,
    event BLOB NOT NULL
) STRICT;
CREATE INDEX outbox_light ON outbox (light, seq);
CREATE TABLE bundle (
    image      BLOB PRIMARY KEY,
    digest     BLOB NOT NULL,
    size       INTEGER NOT NULL,
    capability TEXT NOT NULL,
    release    BLOB NOT NULL
) STRICT;
