-- The catalogue of hosted content. Both engines have the same tables; `src/ARCHITECTURE.md` says how they hang
-- together. Digests and names are text, moments are milliseconds since the Unix epoch, words are those of the logs.

CREATE TABLE namespace (
    name       TEXT    NOT NULL PRIMARY KEY,
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    deleted_at INTEGER,
    deleted_by TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE repository (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL UNIQUE,
    namespace  TEXT    NOT NULL REFERENCES namespace (name),
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    deleted_at INTEGER,
    deleted_by TEXT
) STRICT;

CREATE TABLE blob (
    digest       TEXT    NOT NULL PRIMARY KEY,
    size_bytes   INTEGER NOT NULL,
    recorded_at  INTEGER NOT NULL,
    -- Since when its bytes are being removed: nobody may be given it any more.
    condemned_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX blob_condemned ON blob (digest) WHERE condemned_at IS NOT NULL;

CREATE TABLE blob_location (
    digest      TEXT    NOT NULL REFERENCES blob (digest),
    -- What the store calls the object.
    location    TEXT    NOT NULL,
    recorded_at INTEGER NOT NULL,
    PRIMARY KEY (digest, location)
) STRICT, WITHOUT ROWID;

-- Which repositories may give a blob out.
CREATE TABLE blob_link (
    repository_id INTEGER NOT NULL REFERENCES repository (id),
    digest        TEXT    NOT NULL REFERENCES blob (digest),
    linked_at     INTEGER NOT NULL,
    PRIMARY KEY (repository_id, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX blob_link_by_digest ON blob_link (digest);

-- Payloads are last: what reads the columns before them does not read their pages.
CREATE TABLE manifest (
    digest        TEXT    NOT NULL UNIQUE,
    media_type    TEXT    NOT NULL,
    artifact_type TEXT,
    -- The digest of the manifest that it is about.
    subject       TEXT,
    -- A JSON object of texts.
    annotations   TEXT    NOT NULL,
    size_bytes    INTEGER NOT NULL,
    recorded_at   INTEGER NOT NULL,
    payload       BLOB    NOT NULL
) STRICT;

-- Which repositories have a manifest. A deleted row may come back until it is collected.
CREATE TABLE manifest_link (
    repository_id INTEGER NOT NULL REFERENCES repository (id),
    digest        TEXT    NOT NULL REFERENCES manifest (digest),
    subject       TEXT,
    pushed_at     INTEGER NOT NULL,
    pushed_by     TEXT    NOT NULL,
    deleted_at    INTEGER,
    deleted_by    TEXT,
    PRIMARY KEY (repository_id, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX manifest_link_deleted ON manifest_link (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX manifest_link_by_digest ON manifest_link (digest);
CREATE INDEX manifest_link_by_subject ON manifest_link (repository_id, subject, digest) WHERE subject IS NOT NULL;

-- What a manifest lists. No reference to what is listed: an index may come before its children.
CREATE TABLE manifest_edge (
    parent TEXT NOT NULL REFERENCES manifest (digest),
    kind   TEXT NOT NULL,
    child  TEXT NOT NULL,
    PRIMARY KEY (parent, kind, child)
) STRICT, WITHOUT ROWID;

CREATE INDEX manifest_edge_by_child ON manifest_edge (child, kind, parent);

-- Append-only: the last row of a tag is what it is now. A row without a digest says that it was deleted.
CREATE TABLE tag_history (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    repository_id INTEGER NOT NULL REFERENCES repository (id),
    tag           TEXT    NOT NULL,
    digest        TEXT,
    changed_at    INTEGER NOT NULL,
    changed_by    TEXT    NOT NULL
) STRICT;

CREATE INDEX tag_history_by_tag ON tag_history (repository_id, tag, id);
CREATE INDEX tag_history_by_digest ON tag_history (repository_id, digest, changed_at) WHERE digest IS NOT NULL;

-- The last rows of the history that have a digest, so that listings need not look for them.
CREATE TABLE tag (
    repository_id INTEGER NOT NULL REFERENCES repository (id),
    tag           TEXT    NOT NULL,
    digest        TEXT    NOT NULL,
    history_id    INTEGER NOT NULL REFERENCES tag_history (id),
    PRIMARY KEY (repository_id, tag)
) STRICT, WITHOUT ROWID;

CREATE INDEX tag_by_digest ON tag (repository_id, digest, tag);

CREATE TABLE upload (
    id            TEXT    NOT NULL PRIMARY KEY,
    repository_id INTEGER NOT NULL REFERENCES repository (id),
    offset_bytes  INTEGER NOT NULL,
    -- Where the hash stands, as the use case wrote it.
    hash_state    BLOB    NOT NULL,
    started_at    INTEGER NOT NULL,
    started_by    TEXT    NOT NULL,
    touched_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX upload_by_touch ON upload (touched_at, id);

-- One row. Taken last in every transaction, and held until its end: numbers are in the order of the commits.
CREATE TABLE change_counter (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    last INTEGER NOT NULL
) STRICT;

INSERT INTO change_counter (id, last) VALUES (1, 0);

CREATE TABLE change (
    number     INTEGER PRIMARY KEY,
    kind       TEXT    NOT NULL,
    -- The namespace or repository.
    place      TEXT    NOT NULL,
    tag        TEXT,
    digest     TEXT,
    changed_at INTEGER NOT NULL,
    changed_by TEXT    NOT NULL
) STRICT;
