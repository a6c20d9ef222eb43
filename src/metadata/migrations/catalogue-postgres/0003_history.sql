-- What goes by itself: tags that expire, manifests that lost what held them, places that were deleted long ago.

-- From the policy, for the statements that remove: for how long what is deleted can come back, and whether (1) manifests
-- without a tag stay.
ALTER TABLE namespace ADD COLUMN restore_for_ms BIGINT NOT NULL DEFAULT 1209600000;
ALTER TABLE namespace ADD COLUMN keeps_untagged BIGINT NOT NULL DEFAULT 0;

-- Since when all of it is being removed: it cannot come back. A repository's name is free again from then on, and the
-- row's ends in `#` and its id.
ALTER TABLE namespace ADD COLUMN purged_at BIGINT;
ALTER TABLE repository ADD COLUMN purged_at BIGINT;

CREATE INDEX repository_deleted ON repository (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX repository_purged ON repository (id) WHERE purged_at IS NOT NULL;
CREATE INDEX repository_by_namespace ON repository (namespace);

-- When a tag goes by itself. In the history: when it was to go at the time when the row was the last one.
ALTER TABLE tag ADD COLUMN expires_at BIGINT;
ALTER TABLE tag_history ADD COLUMN expires_at BIGINT;

CREATE INDEX tag_by_expiry ON tag (expires_at) WHERE expires_at IS NOT NULL;

-- When a manifest last lost something that held it: a tag, an index that lists it, its subject.
ALTER TABLE manifest_link ADD COLUMN loose_since BIGINT;

CREATE INDEX manifest_link_loose ON manifest_link (loose_since) WHERE loose_since IS NOT NULL;

-- When content of a repository was last asked for by a client.
CREATE TABLE content_use (
    repository_id BIGINT NOT NULL REFERENCES repository (id),
    digest        TEXT COLLATE "C"    NOT NULL,
    used_at       BIGINT NOT NULL,
    PRIMARY KEY (repository_id, digest)
);

-- Blobs that somebody is about to put into a store. No blob is condemned, and none recorded anew, without a look at this
-- row under its lock.
CREATE TABLE blob_announcement (
    digest       TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
    announced_at BIGINT NOT NULL
);

CREATE INDEX blob_announcement_by_age ON blob_announcement (announced_at);

CREATE INDEX upload_by_repository ON upload (repository_id);

-- What only one node at a time does.
CREATE TABLE lease (
    name      TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
    holder    TEXT COLLATE "C"    NOT NULL,
    ends_at   BIGINT NOT NULL
);
