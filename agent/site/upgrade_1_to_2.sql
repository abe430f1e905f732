-- What a post shares with its neighbours: whoever asks why it is dark begins with those. See schema.sql.

alter table node add column house text not null default '';
alter table node add column pole text not null default '';
alter table node add column provider text not null default '';
alter table node add column lat real check (lat between -90 and 90);
alter table node add column lon real check (lon between -180 and 180);

update meta set value = '2' where key = 'schema';
