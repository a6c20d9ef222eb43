-- What is looked for by all that it is looked for by, however many rows a repository has.

-- With all that a list of referrers asks of the table, as `SQLite` has to have it.
DROP INDEX manifest_link_by_subject;
CREATE INDEX manifest_link_by_subject ON manifest_link (repository_id, subject, digest, deleted_at)
    WHERE subject IS NOT NULL;

-- Every row of the history that is purged is looked for here.
CREATE INDEX tag_by_history ON tag (history_id);
