-- When the bytes of an item were last compared with its digest: when it came, or by a later look; 0 for what was
-- found on the disk and never looked at. What has waited longest is next.
ALTER TABLE content ADD COLUMN verified_at INTEGER NOT NULL DEFAULT 0;

UPDATE content SET verified_at = stored_at;

CREATE INDEX content_by_verification ON content (verified_at, digest);

-- Which repositories have shown to have an item.
CREATE INDEX proof_by_digest ON proof (digest);
