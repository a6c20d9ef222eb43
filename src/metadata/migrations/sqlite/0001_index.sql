-- The node's own index.
--
-- Digests are text, as everywhere outside memory: half the size as bytes would not pay for an index
-- that nobody can read with the sqlite3 shell, at some 10,000 items on a node. The order of the text
-- is the order of `Digest`. Words (kind, segment) are the ones of the logs. Moments are milliseconds
-- since the Unix epoch.

CREATE TABLE repository (
    id       INTEGER PRIMARY KEY,
    upstream TEXT NOT NULL,
    name     TEXT NOT NULL,
    UNIQUE (upstream, name)
) STRICT;

-- Which upstreams have a repository of this name.
CREATE INDEX repository_by_name ON repository (name, upstream);

CREATE TABLE content (
    digest       TEXT    NOT NULL PRIMARY KEY,
    kind         TEXT    NOT NULL,
    size_bytes   INTEGER NOT NULL,
    media_type   TEXT,
    stored_at    INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL,
    -- The place in the segment's order of eviction: the last use, or later for what was demoted.
    ordered_at   INTEGER NOT NULL,
    segment      TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- Order of eviction; holds the size so that sums are read from the index alone.
CREATE INDEX content_by_use ON content (kind, segment, ordered_at, digest, size_bytes);

CREATE TABLE proof (
    repository_id INTEGER NOT NULL REFERENCES repository (id),
    digest        TEXT    NOT NULL,
    kind          TEXT    NOT NULL,
    size_bytes    INTEGER,
    media_type    TEXT,
    PRIMARY KEY (repository_id, digest, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE tag (
    repository_id INTEGER NOT NULL REFERENCES repository (id),
    tag           TEXT    NOT NULL,
    -- `AcceptClass::key`: empty where every type was welcome.
    class         TEXT    NOT NULL,
    digest        TEXT    NOT NULL,
    media_type    TEXT    NOT NULL,
    size_bytes    INTEGER NOT NULL,
    checked_at    INTEGER NOT NULL,
    PRIMARY KEY (repository_id, tag, class)
) STRICT, WITHOUT ROWID;

-- Bodies are large: this table keeps its rowid, so that the look-up does not drag them along.
CREATE TABLE listing (
    repository_id INTEGER NOT NULL REFERENCES repository (id),
    kind          TEXT    NOT NULL,
    key           TEXT    NOT NULL,
    body          BLOB    NOT NULL,
    fetched_at    INTEGER NOT NULL,
    UNIQUE (repository_id, kind, key)
) STRICT;

CREATE INDEX listing_by_age ON listing (fetched_at);

-- One row from the moment on that the index was compared with all files on disk.
CREATE TABLE rebuild (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    rebuilt_at INTEGER NOT NULL
) STRICT;
