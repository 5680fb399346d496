"""The SQL of checkpoints and leases in PostgreSQL.

Texts only; what executes them is in `aiovbo.postgres`. `{schema}` is the schema of the tables.
"""

TABLES = """
CREATE TABLE {schema}.aiovbo_format (version integer NOT NULL);
INSERT INTO {schema}.aiovbo_format VALUES ({version});
CREATE TABLE {schema}.aiovbo_processes (
    "group" text NOT NULL, id uuid NOT NULL, expires timestamptz NOT NULL,
    PRIMARY KEY ("group", id)
);
CREATE TABLE {schema}.aiovbo_leases (
    "group" text NOT NULL, server text NOT NULL, owner uuid, epoch bigint NOT NULL DEFAULT 0,
    PRIMARY KEY ("group", server)
);
CREATE TABLE {schema}.aiovbo_servers (
    "group" text NOT NULL, server text NOT NULL, horizon timestamptz, installation uuid,
    saved timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY ("group", server)
);
CREATE TABLE {schema}.aiovbo_records (
    "group" text NOT NULL, server text NOT NULL, id uuid NOT NULL, created timestamptz NOT NULL,
    open boolean NOT NULL, marks bytea NOT NULL, revision integer NOT NULL, kind text NOT NULL,
    PRIMARY KEY ("group", server, id)
);
"""
EXISTS = """
SELECT 1 FROM pg_tables WHERE schemaname = %(schema)s AND tablename = 'aiovbo_format'
"""
VERSION = "SELECT version FROM {schema}.aiovbo_format"
JOIN = """
INSERT INTO {schema}.aiovbo_processes
VALUES (%(group)s, %(id)s, clock_timestamp() + %(lease)s)
"""
CLEAN_UP = """
DELETE FROM {schema}.aiovbo_processes WHERE "group" = %(group)s AND expires < clock_timestamp() - %(lease)s
"""
ADD_SERVERS = """
INSERT INTO {schema}.aiovbo_leases ("group", server) SELECT %(group)s, unnest(%(servers)s::text[])
ON CONFLICT DO NOTHING
"""
# Its own row only: the rows of the leases may be locked by a transaction of the consumer for long.
RENEW = """
UPDATE {schema}.aiovbo_processes SET expires = clock_timestamp() + %(lease)s
WHERE "group" = %(group)s AND id = %(id)s AND expires > clock_timestamp() RETURNING 1
"""
SURVEY = """
WITH live AS (
    SELECT id, expires FROM {schema}.aiovbo_processes
    WHERE "group" = %(group)s AND expires > clock_timestamp()
)
SELECT server, epoch, owner = %(id)s, live.id IS NULL, (SELECT count(*) FROM live), (
    SELECT extract(epoch FROM min(expires) - clock_timestamp())::float8 FROM live WHERE id <> %(id)s
)
FROM {schema}.aiovbo_leases LEFT JOIN live ON live.id = owner
WHERE "group" = %(group)s AND (server = ANY(%(servers)s) OR owner = %(id)s)
"""
LOCK_FREE = """
SELECT server FROM {schema}.aiovbo_leases AS lease
WHERE "group" = %(group)s AND server = ANY(%(servers)s) AND NOT EXISTS (
    SELECT 1 FROM {schema}.aiovbo_processes AS process
    WHERE process."group" = lease."group" AND id = owner AND expires > clock_timestamp()
)
LIMIT %(count)s FOR UPDATE SKIP LOCKED
"""
# Checked once more, now that the rows cannot change: another process may have claimed them just before.
CLAIM = """
UPDATE {schema}.aiovbo_leases AS lease SET owner = %(id)s, epoch = epoch + 1
WHERE "group" = %(group)s AND server = ANY(%(servers)s) AND NOT EXISTS (
    SELECT 1 FROM {schema}.aiovbo_processes AS process
    WHERE process."group" = lease."group" AND id = owner AND expires > clock_timestamp()
)
RETURNING server, epoch
"""
RELEASE = """
UPDATE {schema}.aiovbo_leases SET owner = NULL WHERE "group" = %(group)s AND server IN (
    SELECT server FROM {schema}.aiovbo_leases
    WHERE "group" = %(group)s AND owner = %(id)s AND server = ANY(%(servers)s)
    FOR UPDATE SKIP LOCKED
)
RETURNING server
"""
LEAVE = """
DELETE FROM {schema}.aiovbo_processes WHERE "group" = %(group)s AND id = %(id)s
"""
# The lock keeps others from claiming the server before this transaction has ended: a mere SELECT would let
# a late writer commit.
HOLD = """
SELECT server FROM {schema}.aiovbo_leases
JOIN unnest(%(servers)s::text[], %(epochs)s::bigint[]) AS held (name, number)
ON server = name AND epoch = number
WHERE "group" = %(group)s AND owner = %(id)s
ORDER BY server FOR SHARE OF aiovbo_leases
"""
SAVE_SERVER = """
INSERT INTO {schema}.aiovbo_servers ("group", server, horizon, installation)
VALUES (%(group)s, %(server)s, %(horizon)s, %(installation)s)
ON CONFLICT ("group", server) DO UPDATE SET
horizon = excluded.horizon, installation = excluded.installation, saved = clock_timestamp()
"""
# What exists is left alone: this row is changed by the watch's own saves, which must not wait.
NOTE_SERVER = """
INSERT INTO {schema}.aiovbo_servers ("group", server) VALUES (%(group)s, %(server)s) ON CONFLICT DO NOTHING
"""
SAVE_RECORDS = """
INSERT INTO {schema}.aiovbo_records
SELECT %(group)s, %(server)s, * FROM unnest(
    %(ids)s::uuid[], %(created)s::timestamptz[], %(open)s::boolean[],
    %(marks)s::bytea[], %(revisions)s::integer[], %(kinds)s::text[]
)
ON CONFLICT ("group", server, id) DO UPDATE SET created = excluded.created, open = excluded.open,
marks = excluded.marks, revision = excluded.revision, kind = excluded.kind
"""
DELETE_RECORDS = """
DELETE FROM {schema}.aiovbo_records
WHERE "group" = %(group)s AND server = %(server)s AND id = ANY(%(ids)s)
"""
LOAD_SERVER = """
SELECT horizon AT TIME ZONE 'UTC', installation FROM {schema}.aiovbo_servers
WHERE "group" = %(group)s AND server = %(server)s
"""
LOAD_RECORDS = """
SELECT id, created AT TIME ZONE 'UTC', open, marks, revision, kind FROM {schema}.aiovbo_records
WHERE "group" = %(group)s AND server = %(server)s
"""
SERVERS = """
SELECT server, installation FROM {schema}.aiovbo_servers WHERE "group" = %(group)s ORDER BY saved
"""
# No process can claim the server before this transaction has ended.
WATCHED = """
SELECT EXISTS (
    SELECT 1 FROM {schema}.aiovbo_processes AS process
    WHERE process."group" = lease."group" AND id = owner AND expires > clock_timestamp()
)
FROM {schema}.aiovbo_leases AS lease WHERE "group" = %(group)s AND server = %(server)s FOR UPDATE
"""
# A process that watched it before, and has expired, can save nothing any more.
REVOKE = """
UPDATE {schema}.aiovbo_leases SET owner = NULL, epoch = epoch + 1
WHERE "group" = %(group)s AND server = %(server)s
"""
REWIND_SERVER = """
UPDATE {schema}.aiovbo_servers SET horizon = CASE WHEN horizon > %(since)s THEN %(since)s ELSE horizon END
WHERE "group" = %(group)s AND server = %(server)s RETURNING 1
"""
REWIND_RECORDS = """
DELETE FROM {schema}.aiovbo_records
WHERE "group" = %(group)s AND server = %(server)s AND created > %(since)s
AND kind IN ('session', 'removed', 'rejected')
"""
OUTCOMES = """
SELECT number, pg_xact_status(number::xid8) FROM unnest(%(transactions)s::text[]) AS one (number)
"""

TRANSACTION = "SELECT pg_current_xact_id()::text"
ABORT = "DO $$ BEGIN RAISE EXCEPTION 'aiovbo: this transaction must be rolled back'; END $$"
