//! The tables, made and checked by the program, and the statements on them. See `docs/formats/store.md`.

/// Version of the tables below.
pub(super) const VERSION: i32 = 1;

/// Only one process makes or migrates tables at a time.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(8102024520260001)";

/// Whether the tables are there.
pub(super) const EXISTS: &str = "SELECT to_regclass('qurrent.mark') IS NOT NULL";

/// Steps from each version to the next; the first makes everything.
pub(super) const MIGRATIONS: [&str; 1] = ["
    CREATE SCHEMA qurrent;
    CREATE TABLE qurrent.mark (
        name text PRIMARY KEY,
        value bytea NOT NULL
    );
    CREATE TABLE qurrent.owner (
        only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
        epoch bigint NOT NULL,
        replica text NOT NULL,
        heartbeat timestamptz NOT NULL,
        lease_ms bigint NOT NULL,
        released boolean NOT NULL
    ) WITH (fillfactor = 10);
    INSERT INTO qurrent.owner VALUES (true, 0, '', '-infinity', 0, true);
    CREATE TABLE qurrent.kek (
        id bigint PRIMARY KEY,
        class smallint NOT NULL,
        sealed bytea NOT NULL
    );
    CREATE TABLE qurrent.rows (
        row bytea PRIMARY KEY,
        value_kek bigint NOT NULL,
        value bytea NOT NULL,
        secret_kek bigint,
        secret bytea,
        CHECK ((secret_kek IS NULL) = (secret IS NULL))
    );
    ALTER TABLE qurrent.rows ALTER COLUMN value SET STORAGE EXTERNAL, ALTER COLUMN secret SET STORAGE EXTERNAL;
    CREATE INDEX rows_by_value_kek ON qurrent.rows (value_kek);
    CREATE INDEX rows_by_secret_kek ON qurrent.rows (secret_kek) WHERE secret_kek IS NOT NULL;
"];

/// Nothing at all changes the row of another epoch; a takeover waits for the lock that this takes.
pub(super) const FENCE: &str =
    "UPDATE qurrent.owner SET heartbeat = clock_timestamp() WHERE epoch = $1 AND NOT released";

pub(super) const TAKE_OVER: &str = "
    UPDATE qurrent.owner
    SET epoch = epoch + 1, replica = $1, heartbeat = clock_timestamp(), lease_ms = $2, released = false
    WHERE released OR heartbeat + lease_ms * interval '1 millisecond' < clock_timestamp()
    RETURNING epoch";

pub(super) const WRITER: &str = "
    SELECT replica, greatest(0, extract(epoch FROM clock_timestamp() - heartbeat) * 1000)::bigint
    FROM qurrent.owner WHERE NOT released";

pub(super) const RELEASE: &str = "UPDATE qurrent.owner SET released = true WHERE epoch = $1";

pub(super) const OLD_ROWS: &str = "
    SELECT r.row, r.value_kek, r.secret_kek, octet_length(r.secret)::bigint
    FROM unnest($1::bytea[]) AS k(row) JOIN qurrent.rows r USING (row)";

pub(super) const PUT: &str = "
    INSERT INTO qurrent.rows (row, value_kek, value, secret_kek, secret)
    SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bytea[])
    ON CONFLICT (row) DO UPDATE SET value_kek = excluded.value_kek, value = excluded.value,
        secret_kek = excluded.secret_kek, secret = excluded.secret";

pub(super) const UPDATE: &str = "
    UPDATE qurrent.rows r SET value_kek = u.kek, value = u.value
    FROM unnest($1::bytea[], $2::bigint[], $3::bytea[]) AS u(row, kek, value) WHERE r.row = u.row";

pub(super) const DELETE: &str = "DELETE FROM qurrent.rows WHERE row = ANY ($1)";

pub(super) const PUT_KEKS: &str = "
    INSERT INTO qurrent.kek (id, class, sealed) SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::bytea[])
    ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed";

pub(super) const DELETE_KEKS: &str = "DELETE FROM qurrent.kek WHERE id = ANY ($1)";

pub(super) const KEKS: &str = "SELECT id, class, sealed FROM qurrent.kek ORDER BY id";

pub(super) const COUNTS: &str = "
    SELECT kek, count(*) FROM (
        SELECT value_kek AS kek FROM qurrent.rows
        UNION ALL SELECT secret_kek FROM qurrent.rows WHERE secret_kek IS NOT NULL
    ) AS pieces GROUP BY kek";

pub(super) const SECRETS: &str =
    "SELECT count(secret), coalesce(sum(octet_length(secret)), 0)::bigint FROM qurrent.rows";

pub(super) const PAGE: &str = "
    SELECT row, value_kek, value, secret_kek, secret FROM qurrent.rows
    WHERE row > $1 AND row < $2 ORDER BY row LIMIT $3";

pub(super) const ROWS_OF_KEK: &str = "
    SELECT row, value_kek, value, secret_kek, secret FROM qurrent.rows WHERE value_kek = $1 OR secret_kek = $1";

pub(super) const MARK: &str = "SELECT value FROM qurrent.mark WHERE name = $1";

pub(super) const SET_MARK: &str =
    "INSERT INTO qurrent.mark VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
