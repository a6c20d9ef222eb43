-- Images that eviction and purges leave alone.
CREATE TABLE pin (
    id            INTEGER PRIMARY KEY,
    repository_id INTEGER NOT NULL REFERENCES repository (id),
    -- What was named: a tag, which the pin follows, or a digest.
    reference     TEXT    NOT NULL,
    -- The index or manifest that it stands for now.
    digest        TEXT    NOT NULL,
    reason        TEXT    NOT NULL,
    pinned_at     INTEGER NOT NULL,
    UNIQUE (repository_id, reference)
) STRICT;

-- What a pin covers, whether it is stored or not: what comes later is covered when it comes.
CREATE TABLE pin_content (
    digest TEXT    NOT NULL,
    pin_id INTEGER NOT NULL,
    PRIMARY KEY (digest, pin_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX pin_content_by_pin ON pin_content (pin_id);
