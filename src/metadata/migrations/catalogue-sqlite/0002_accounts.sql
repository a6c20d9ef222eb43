-- Who may do what: accounts, the keys that tokens are signed with, and what a namespace allows.

CREATE TABLE account (
    name          TEXT    NOT NULL PRIMARY KEY,
    -- A PHC string; without one, nobody can log in by password.
    password_hash TEXT,
    -- What the account may do everywhere. What it may do in one namespace or repository gets a table of its own, as do
    -- the tokens of robots.
    role          TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    created_by    TEXT    NOT NULL,
    disabled_at   INTEGER
) STRICT, WITHOUT ROWID;

-- The newest signs; all nodes share it.
CREATE TABLE signing_key (
    id         TEXT    NOT NULL PRIMARY KEY,
    secret     BLOB    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A JSON object, as the use cases write it.
ALTER TABLE namespace ADD COLUMN policy TEXT NOT NULL DEFAULT '{}';
