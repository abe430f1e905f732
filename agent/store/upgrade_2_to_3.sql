-- From schema 2 to 3: what headquarters says of alerts. Earlier verdicts are on the ledger only.
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
update meta set value = '3' where key = 'schema';
