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

-- Public keys of the nodes' ledgers. A node's first key is believed, or registered by a person; each one may introduce
-- the next. `root` is the first of such a line of keys, and names the ledger.
create table key (
  node text not null,
  keyid text not null,
  public text not null check (length(public) = 64),
  root text not null,
  how text not null check (how in ('pinned', 'registered', 'introduced')),
  since_utc_ns integer not null,
  primary key (node, keyid)
) without rowid;

-- Lines of the nodes' ledgers, as they came: signature verified. Two of one number are a fork, and both are evidence.
create table line (
  n integer primary key,
  node text not null,
  root text not null,
  seq integer not null check (seq > 0),
  sha256 text not null,
  prev text not null,                -- sha256 of the line before
  kind text not null,
  received_utc_ns integer not null,
  body blob not null,
  unique (node, root, seq, sha256)
);

-- Which sequence numbers of a stream carried a line: they count for its head as events do.
create table carried (
  stream integer not null references stream (stream),
  sequence integer not null check (sequence > 0),
  n integer not null,
  primary key (stream, sequence)
) without rowid;
create index carried_line on carried (n);

-- The newest line of each ledger, and the newest receipt for it.
create table ledger (
  node text not null,
  root text not null,
  epoch text not null,               -- of the store that sent it: where the receipt goes
  seq integer not null,
  head text not null,
  receipt_seq integer not null default 0,
  receipt_sha256 text not null default '',
  primary key (node, root)
) without rowid;

-- Receipts that this station has signed.
create table receipt (
  n integer primary key,
  node text not null,
  root text not null,
  seq integer not null,
  utc_ns integer not null,
  body blob not null
);

-- What is wrong with a node's ledger, by kind. The rows that are told stand in `reject`.
create table alarm (
  node text not null,
  what text not null,
  count integer not null,
  first_utc_ns integer not null,
  told_utc_ns integer not null,
  primary key (node, what)
) without rowid;
