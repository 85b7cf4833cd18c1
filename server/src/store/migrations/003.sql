-- Orders for what tasks wrote, and what their nodes answered. Retention forgets them, answered or not.
CREATE TABLE log_orders (
    id          BLOB PRIMARY KEY,
    node        BLOB NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    alloc       BLOB NOT NULL REFERENCES allocs (id) ON DELETE CASCADE,
    task        TEXT,                        -- none: the only one
    lines       INTEGER NOT NULL,
    ordered_at  INTEGER NOT NULL,
    answered_at INTEGER,
    answer      BLOB                         -- CBOR, as it came
) STRICT;
CREATE INDEX log_orders_open ON log_orders (node, ordered_at) WHERE answered_at IS NULL;
CREATE INDEX log_orders_node ON log_orders (node, answered_at);
CREATE INDEX log_orders_age ON log_orders (ordered_at);
CREATE INDEX log_orders_alloc ON log_orders (alloc);
