-- What a node remembers. Times are CLOCK_BOOTTIME nanoseconds of the boot named beside them, unless they say utc.
-- Invariants are check constraints where SQL can say them. Verified by tests/unit/test_store.py and by the simulator.

create table meta (
  key text primary key,              -- 'schema', 'epoch' (UUIDv7: a new store starts its sequence numbers at 1), 'node',
                                     -- 'config' (sha256), 'ledger_seq', 'ledger_head' (last line handed over),
                                     -- 'journal' (highest number of a record that was taken: never used again)
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

-- Every message, delivered or not. The newest row is never deleted, so max(sequence) is never reused.
create table event (
  sequence integer primary key,
  id text not null,
  incident text not null,
  kind text not null,                -- last level of the topic; 'record': a line of the ledger, gone once delivered
  phase text not null check (phase in ('started', 'updated', 'ended')),
  session integer not null,
  boot_ns integer not null,
  body blob not null                 -- wire.CloudEvent (or wire.Record), as it is sent (but for `historical`)
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

-- The journal: facts that are to go on the ledger, in order. Each row is inserted in the transaction of its fact, and
-- deleted in the transaction that puts the line into the outbox.
create table record (
  number integer primary key,        -- never reused: a line names it, so that a cut between the steps doubles nothing
  kind text not null,                -- evidence.records.RecordKind
  boot_id text not null,             -- when the fact became durable
  boot_ns integer not null,
  utc_ns integer not null,
  unc_ns integer,
  body blob not null                 -- JSON object
);

-- Ranges that a person wants kept. Released ones are remembered for a while, so that a command that comes twice is known.
create table hold (
  id text primary key,               -- the command's own id, UUIDv7
  start_utc_ns integer not null,
  end_utc_ns integer not null check (end_utc_ns > start_utc_ns),
  until_utc_ns integer,              -- null: until it is released
  reason text not null,
  asker text not null,
  made_utc_ns integer not null,
  released text not null default ''  -- how it ended; empty: it is in force
) without rowid;

-- What was noticed in passing and may explain a gap later: throttling flags, the uplink. One row per change.
create table sign (
  session integer not null,
  boot_id text not null,
  boot_ns integer not null,
  what text not null,                -- 'power', 'link'
  active integer not null check (active in (0, 1)),
  text text not null,
  primary key (session, boot_ns, what)
) without rowid;

-- The privacy switch, while it is in force: one row or none.
create table privacy (
  one integer primary key check (one = 1),
  boot_id text not null,
  start_ns integer not null,
  until_ns integer not null check (until_ns >= start_ns),
  charged_ns integer not null,       -- up to here it counts as spent, whatever happens
  asker text not null
);

-- What a person says of an alert. Kept so that a command that comes twice makes one line, and for `wardpost audit`.
create table verdict (
  n integer primary key,             -- in the order in which they came
  id text not null unique,           -- the command's own id, UUIDv7
  incident text not null,
  verdict text not null check (verdict in ('true', 'false')),
  reason text not null,
  person text not null,
  asker text not null,
  made_utc_ns integer not null
);
