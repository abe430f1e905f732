-- From schema 2 to 3: rollouts.

-- A release over the fleet, by rings (agent/station/rollout.py), the newest only.
create table rollout (
  n integer primary key,
  id text not null unique,
  utc_ns integer not null,           -- when it began
  body text not null                 -- rollout.Rollout as JSON, without its posts
);

-- What each post has come to in it.
create table rollout_post (
  rollout integer not null references rollout (n),
  node text not null,
  body text not null,                -- rollout.Post as JSON
  primary key (rollout, node)
) without rowid;

-- Each step of it, in words. `request`: what a person asked for by this id is done, and is not done again.
create table rollout_log (
  n integer primary key,
  utc_ns integer not null,
  rollout text not null,
  text text not null,
  request text unique
);

update meta set value = '3' where key = 'schema';
