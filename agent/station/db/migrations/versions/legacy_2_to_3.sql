
create table rollout (
  n integer primary key,
  id text not null unique,
  utc_ns integer not null,
  body text not null
);

create table rollout_post (
  rollout integer not null references rollout (n),
  node text not null,
  body text not null,
  primary key (rollout, node)
) without rowid;

create table rollout_log (
  n integer primary key,
  utc_ns integer not null,
  rollout text not null,
  text text not null,
  request text unique
);

