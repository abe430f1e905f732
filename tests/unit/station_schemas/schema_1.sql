-- What a station remembers. `utc_ns` columns are the station's own wall clock. One writer; any number of readers.

create table meta (
  key text primary key,              -- 'schema', 'site', 'deleted' (events given up for lack of room)
  value text not null
) without rowid;

-- One row per node that was ever heard, and what it last said.
create table node (
  node text primary key,
  place text not null default '',
  version text not null default '',
  session integer not null default 0,
  said text not null default 'online' check (said in ('online', 'offline')),  -- its own status, or its last will
  seen_boot_id text not null,        -- of the station, as seen_ns: ages are boot time wherever that is possible
  seen_ns integer not null,
  seen_utc_ns integer not null,
  state text not null default 'online' check (state in ('online', 'late', 'dark', 'offline')),
  state_since_utc_ns integer not null,
  heartbeat blob                     -- the newest, as it came
) without rowid;

-- One life of a node's store. Its sequence numbers count from 1; everything from 1 to head is stored.
create table stream (
  stream integer primary key,
  node text not null,
  epoch text not null,
  head integer not null default 0 check (head >= 0),
  unique (node, epoch)
);

-- Every event message, once (both unique constraints), in order of arrival.
create table event (
  n integer primary key,
  stream integer not null references stream (stream),
  sequence integer not null check (sequence > 0),
  id text not null unique,
  kind text not null,                -- last level of the topic
  incident text,                     -- null: a form this station does not understand; the body is kept
  received_utc_ns integer not null,
  body blob not null,
  unique (stream, sequence)
);

-- Messages that were refused, the newest only.
create table reject (
  n integer primary key,
  received_utc_ns integer not null,
  topic text not null,
  reason text not null,
  bytes integer not null,
  head blob not null                 -- the first bytes
);

-- Nodes that came and went, the newest only.
create table change (
  n integer primary key,
  node text not null,
  state text not null,
  utc_ns integer not null,           -- when the station noticed
  since_utc_ns integer not null      -- when the node was last heard, or heard again
);
