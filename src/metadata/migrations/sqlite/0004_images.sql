-- Which manifests of an index were here: the platforms that somebody pulled or had warmed. A row outlives the
-- manifest's content, so that an image that lost a platform counts as incomplete and not as one that never
-- had it.
CREATE TABLE image_child (
    index_digest    TEXT NOT NULL,
    manifest_digest TEXT NOT NULL,
    PRIMARY KEY (index_digest, manifest_digest)
) STRICT, WITHOUT ROWID;

-- Orders to make images complete. One that is not finished is taken up again when the process starts.
CREATE TABLE warm_job (
    id          TEXT    NOT NULL PRIMARY KEY,
    -- The order as the use case serialized it.
    body        TEXT    NOT NULL,
    begun_at    INTEGER NOT NULL,
    finished_at INTEGER
) STRICT, WITHOUT ROWID;
