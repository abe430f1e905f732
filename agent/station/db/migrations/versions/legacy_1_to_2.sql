
create table key (
  node text not null,
  keyid text not null,
  public text not null check (length(public) = 64),
  root text not null,
  how text not null check (how in ('pinned', 'registered', 'introduced')),
  since_utc_ns integer not null,
  primary key (node, keyid)
) without rowid;

create table line (
  n integer primary key,
  node text not null,
  root text not null,
  seq integer not null check (seq > 0),
  sha256 text not null,
  prev text not null,
  kind text not null,
  received_utc_ns integer not null,
  body blob not null,
  unique (node, root, seq, sha256)
);

create table carried (
  stream integer not null references stream (stream),
  sequence integer not null check (sequence > 0),
  n integer not null,
  primary key (stream, sequence)
) without rowid;
create index carried_line on carried (n);

create table ledger (
  node text not null,
  root text not null,
  epoch text not null,
  seq integer not null,
  head text not null,
  receipt_seq integer not null default 0,
  receipt_sha256 text not null default '',
  primary key (node, root)
) without rowid;

create table receipt (
  n integer primary key,
  node text not null,
  root text not null,
  seq integer not null,
  utc_ns integer not null,
  body blob not null
);

create table alarm (
  node text not null,
  what text not null,
  count integer not null,
  first_utc_ns integer not null,
  told_utc_ns integer not null,
  primary key (node, what)
) without rowid;

