-- The register of a site: who has which certificate, and why. `utc_ns` is the wall clock of the machine that wrote.

create table meta (
  key text primary key,              -- 'schema', 'site', 'brokers' (URLs, a line each), 'crl' (number of the newest)
  value text not null
) strict, without rowid;

-- One row per post.
create table node (
  node text primary key,
  generation integer not null check (generation > 0),   -- how often it was provisioned
  state text not null check (state in ('provisioned', 'enrolled', 'revoked')),
  device text not null default '',   -- serial number on the board, or what the technician calls it
  place text not null default '',
  custodian text not null default '',                   -- who looks after it, and how to reach them
  consent text not null default '',  -- of the household: who agreed, when, where the paper is
  profile text not null default '',
  made_utc_ns integer not null,
  house text not null default '',    -- one mains connection and one router
  pole text not null default '',     -- of the street: the line that several houses hang on
  provider text not null default '', -- who carries its messages
  lat real check (lat between -90 and 90),              -- WGS 84; null: nobody has said
  lon real check (lon between -180 and 180)
) strict, without rowid;

-- Every certificate that the authority has signed.
create table certificate (
  serial text primary key,           -- hexadecimal
  kind text not null check (kind in ('authority', 'broker', 'station', 'claim', 'node')),
  name text not null,                -- common name
  node text not null default '',     -- of a claim and of a node's own
  generation integer not null default 0,
  key_sha256 text not null,          -- of the SubjectPublicKeyInfo
  pem text not null,
  not_after_utc_ns integer not null,
  issued_utc_ns integer not null,
  revoked_utc_ns integer,
  reason text not null default ''
) strict, without rowid;

create index certificate_node on certificate (node, generation);

-- One-time claims. A claim is used by the first key that asks with it; the same key may ask again.
create table claim (
  claim text primary key,            -- common name of its certificate
  node text not null references node (node),
  generation integer not null,
  hash text not null unique,         -- SHA-256 of the SubjectPublicKeyInfo of the claim's own key
  expires_utc_ns integer not null,
  used_by text,                      -- SHA-256 of the key that enrolled
  used_utc_ns integer,
  serial text references certificate (serial)           -- of the certificate that was given for it
) strict, without rowid;

-- What was done, and by whom: never changed. Refusals are counted, so that nobody can fill the disk with them.
create table audit (
  n integer primary key,
  utc_ns integer not null,
  what text not null,
  node text not null default '',
  detail text not null default ''
) strict;

create table refusal (
  claim text not null,
  kind text not null,
  node text not null default '',
  detail text not null,              -- the newest
  count integer not null default 1,
  first_utc_ns integer not null,
  last_utc_ns integer not null,
  primary key (claim, kind)
) strict, without rowid;
