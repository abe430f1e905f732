-- From schema 1 to 2: the journal of what goes on the ledger. What happened before is not on the ledger.
create table record (
  number integer primary key,
  kind text not null,
  boot_id text not null,
  boot_ns integer not null,
  utc_ns integer not null,
  unc_ns integer,
  body blob not null
);
-- Holds, signs and the privacy switch: see schema.sql.
create table hold (
  id text primary key,
  start_utc_ns integer not null,
  end_utc_ns integer not null check (end_utc_ns > start_utc_ns),
  until_utc_ns integer,
  reason text not null,
  asker text not null,
  made_utc_ns integer not null,
  released text not null default ''
) without rowid;
create table sign (
  session integer not null,
  boot_id text not null,
  boot_ns integer not null,
  what text not null,
  active integer not null check (active in (0, 1)),
  text text not null,
  primary key (session, boot_ns, what)
) without rowid;
create table privacy (
  one integer primary key check (one = 1),
  boot_id text not null,
  start_ns integer not null,
  until_ns integer not null check (until_ns >= start_ns),
  charged_ns integer not null,
  asker text not null
);
update meta set value = '2' where key = 'schema';
