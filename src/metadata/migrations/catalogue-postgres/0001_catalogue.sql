-- The catalogue of hosted content. Both engines have the same tables; `src/ARCHITECTURE.md` says how they hang
-- together. Digests and names are text in the order of its bytes, moments are milliseconds
-- since the Unix epoch, words are those of the logs.

CREATE TABLE namespace (
    name       TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL,
    created_by TEXT COLLATE "C"    NOT NULL,
    deleted_at BIGINT,
    deleted_by TEXT COLLATE "C"
);

CREATE TABLE repository (
    id         BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name       TEXT COLLATE "C"    NOT NULL UNIQUE,
    namespace  TEXT COLLATE "C"    NOT NULL REFERENCES namespace (name),
    created_at BIGINT NOT NULL,
    created_by TEXT COLLATE "C"    NOT NULL,
    deleted_at BIGINT,
    deleted_by TEXT COLLATE "C"
);

CREATE TABLE blob (
    digest       TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
    size_bytes   BIGINT NOT NULL,
    recorded_at  BIGINT NOT NULL,
    -- Since when its bytes are being removed: nobody may be given it any more.
    condemned_at BIGINT
);

CREATE INDEX blob_condemned ON blob (digest) WHERE condemned_at IS NOT NULL;

CREATE TABLE blob_location (
    digest      TEXT COLLATE "C"    NOT NULL REFERENCES blob (digest),
    -- What the store calls the object.
    location    TEXT COLLATE "C"    NOT NULL,
    recorded_at BIGINT NOT NULL,
    PRIMARY KEY (digest, location)
);

-- Which repositories may give a blob out.
CREATE TABLE blob_link (
    repository_id BIGINT NOT NULL REFERENCES repository (id),
    digest        TEXT COLLATE "C"    NOT NULL REFERENCES blob (digest),
    linked_at     BIGINT NOT NULL,
    PRIMARY KEY (repository_id, digest)
);

CREATE INDEX blob_link_by_digest ON blob_link (digest);

CREATE TABLE manifest (
    digest        TEXT COLLATE "C"    NOT NULL UNIQUE,
    media_type    TEXT COLLATE "C"    NOT NULL,
    artifact_type TEXT COLLATE "C",
    -- The digest of the manifest that it is about.
    subject       TEXT COLLATE "C",
    -- A JSON object of texts.
    annotations   TEXT COLLATE "C"    NOT NULL,
    size_bytes    BIGINT NOT NULL,
    recorded_at   BIGINT NOT NULL,
    payload       BYTEA   NOT NULL
);

-- Which repositories have a manifest. A deleted row may come back until it is collected.
CREATE TABLE manifest_link (
    repository_id BIGINT NOT NULL REFERENCES repository (id),
    digest        TEXT COLLATE "C"    NOT NULL REFERENCES manifest (digest),
    subject       TEXT COLLATE "C",
    pushed_at     BIGINT NOT NULL,
    pushed_by     TEXT COLLATE "C"    NOT NULL,
    deleted_at    BIGINT,
    deleted_by    TEXT COLLATE "C",
    PRIMARY KEY (repository_id, digest)
);

CREATE INDEX manifest_link_deleted ON manifest_link (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX manifest_link_by_digest ON manifest_link (digest);
CREATE INDEX manifest_link_by_subject ON manifest_link (repository_id, subject, digest) WHERE subject IS NOT NULL;

-- What a manifest lists. No reference to what is listed: an index may come before its children.
CREATE TABLE manifest_edge (
    parent TEXT COLLATE "C" NOT NULL REFERENCES manifest (digest),
    kind   TEXT COLLATE "C" NOT NULL,
    child  TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (parent, kind, child)
);

CREATE INDEX manifest_edge_by_child ON manifest_edge (child, kind, parent);

-- Append-only: the last row of a tag is what it is now. A row without a digest says that it was deleted.
CREATE TABLE tag_history (
    id            BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    repository_id BIGINT NOT NULL REFERENCES repository (id),
    tag           TEXT COLLATE "C"    NOT NULL,
    digest        TEXT COLLATE "C",
    changed_at    BIGINT NOT NULL,
    changed_by    TEXT COLLATE "C"    NOT NULL
);

CREATE INDEX tag_history_by_tag ON tag_history (repository_id, tag, id);
CREATE INDEX tag_history_by_digest ON tag_history (repository_id, digest, changed_at) WHERE digest IS NOT NULL;

-- The last rows of the history that have a digest, so that listings need not look for them.
CREATE TABLE tag (
    repository_id BIGINT NOT NULL REFERENCES repository (id),
    tag           TEXT COLLATE "C"    NOT NULL,
    digest        TEXT COLLATE "C"    NOT NULL,
    history_id    BIGINT NOT NULL REFERENCES tag_history (id),
    PRIMARY KEY (repository_id, tag)
);

CREATE INDEX tag_by_digest ON tag (repository_id, digest, tag);

CREATE TABLE upload (
    id            TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
    repository_id BIGINT NOT NULL REFERENCES repository (id),
    offset_bytes  BIGINT NOT NULL,
    -- Where the hash stands, as the use case wrote it.
    hash_state    BYTEA   NOT NULL,
    started_at    BIGINT NOT NULL,
    started_by    TEXT COLLATE "C"    NOT NULL,
    touched_at    BIGINT NOT NULL
);

CREATE INDEX upload_by_touch ON upload (touched_at, id);

-- One row. Taken last in every transaction, and held until its end: numbers are in the order of the commits.
CREATE TABLE change_counter (
    id   BIGINT PRIMARY KEY CHECK (id = 1),
    last BIGINT NOT NULL
);

INSERT INTO change_counter (id, last) VALUES (1, 0);

CREATE TABLE change (
    number     BIGINT PRIMARY KEY,
    kind       TEXT COLLATE "C"    NOT NULL,
    -- The namespace or repository.
    place      TEXT COLLATE "C"    NOT NULL,
    tag        TEXT COLLATE "C",
    digest     TEXT COLLATE "C",
    changed_at BIGINT NOT NULL,
    changed_by TEXT COLLATE "C"    NOT NULL
);
