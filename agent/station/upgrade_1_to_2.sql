-- From schema 1 to 2: ledgers.

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

update meta set value = '2' where key = 'schema';
