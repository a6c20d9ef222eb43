-- Who may do what: accounts, the keys that tokens are signed with, and what a namespace allows.

CREATE TABLE account (
    name          TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
    -- A PHC string; without one, nobody can log in by password.
    password_hash TEXT COLLATE "C",
    -- What the account may do everywhere. What it may do in one namespace or repository gets a table of its own, as do
    -- the tokens of robots.
    role          TEXT COLLATE "C"    NOT NULL,
    created_at    BIGINT NOT NULL,
    created_by    TEXT COLLATE "C"    NOT NULL,
    disabled_at   BIGINT
);

-- The newest signs; all nodes share it.
CREATE TABLE signing_key (
    id         TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
    secret     BYTEA   NOT NULL,
    created_at BIGINT NOT NULL
);

-- A JSON object, as the use cases write it.
ALTER TABLE namespace ADD COLUMN policy TEXT COLLATE "C" NOT NULL DEFAULT '{}';
