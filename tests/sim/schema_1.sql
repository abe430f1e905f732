-- What a node remembers. Times are CLOCK_BOOTTIME nanoseconds of the boot named beside them, unless they say utc.
-- Invariants are check constraints where SQL can say them. Verified by tests/unit/test_store.py and by the simulator.

create table meta (
  key text primary key,              -- 'schema', 'epoch' (UUIDv7: a new store starts its sequence numbers at 1), 'node'
  value text not null
) without rowid;

-- One row per start of the agent.
create table session (
  session integer primary key,       -- counts from 1
  boot_id text not null check (length(boot_id) = 32),
  start_ns integer not null,
  alive_ns integer not null check (alive_ns >= start_ns),  -- last sign of life, at most a minute old when it died
  stop text                          -- null: still running, or died; else why it stopped
);

-- Pairings of boot time and wall clock. Added, never rewritten: the reader picks the best one of a boot.
create table anchor (
  boot_id text not null,
  boot_ns integer not null,
  utc_ns integer not null,
  unc_ns integer check (unc_ns >= 0),  -- null: nobody vouches for it
  source text not null,
  primary key (boot_id, boot_ns)
) without rowid;

-- Sealed footage (invariant 2: a row means a whole file with this hash).
create table segment (
  name text primary key,             -- path below the data folder
  session integer not null,
  boot_id text not null check (length(boot_id) = 32),
  start_ns integer not null,
  end_ns integer not null check (end_ns >= start_ns),
  bytes integer not null check (bytes > 0),
  fragments integer not null check (fragments > 0),
  sha256 text not null check (length(sha256) = 64),
  end_reason text not null,
  width integer not null,
  height integer not null,
  state text not null default 'sealed' check (state in ('sealed', 'garbage'))  -- garbage: about to be unlinked
) without rowid;
create index segment_age on segment (session, start_ns);

-- What was deleted, and why. Neighbours are merged, so this stays small.
create table tombstone (
  boot_id text not null,
  start_ns integer not null,
  end_ns integer not null check (end_ns >= start_ns),
  segments integer not null,
  bytes integer not null,
  reason text not null,
  primary key (boot_id, start_ns)
) without rowid;

-- Stretches in which nothing was recorded although the agent was running, and why.
create table gap (
  boot_id text not null,
  start_ns integer not null,
  end_ns integer not null check (end_ns >= start_ns),
  cause text not null,
  detail text not null,
  primary key (boot_id, start_ns, cause)
) without rowid;

-- Every event message, delivered or not. The newest row is never deleted, so max(sequence) is never reused.
create table event (
  sequence integer primary key,
  id text not null,
  incident text not null,
  kind text not null,                -- last level of the topic
  phase text not null check (phase in ('started', 'updated', 'ended')),
  session integer not null,
  boot_ns integer not null,
  body blob not null                 -- wire.CloudEvent as JSON, as it is sent (but for `historical`)
);

-- Rows the station has not acknowledged yet (invariant 1). Same transaction as the event row.
create table outbox (
  priority integer not null check (priority between 0 and 4),  -- types.Priority
  sequence integer not null references event (sequence),
  primary key (priority, sequence)
) without rowid;

-- What was given up undelivered for lack of room, and why.
create table shed (
  boot_ns integer not null,
  session integer not null,
  priority integer not null,
  first_sequence integer not null,
  last_sequence integer not null,
  rows integer not null check (rows > 0),
  reason text not null,
  primary key (session, first_sequence, last_sequence, priority)
) without rowid;
