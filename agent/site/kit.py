"""The files of a post's kit as text: pure, from values. `agent/card/kit.py` reads them, strictly.

The settings of a post are a profile (`deploy/profiles`) with a head: who it is, where its camera and its brokers are.
The profile's text is kept as it is, comments and all, for a technician will read it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from agent.card.kit import IDENTITY, NODE_PATHS, RELEASE_KEY, Network, network_problems
from agent.errors import ConfigError
from agent.site.folder import toml_text

NO_PROFILE = """\
[calendar]
time_zone = "UTC"                     # IANA name, for schedules
"""
_TIME_ZONE = re.compile(r'^time_zone = "[^"]*"', re.MULTILINE)
_HEAD = re.compile(r"^\[(?:node|camera|release|setup_page|uplink(?:\.tls)?)\]", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """What is said of a post when it is provisioned."""

    node: str
    site: str
    brokers: tuple[str, ...]
    place: str = ""
    camera_url: str = ""
    time_zone: str = ""  # empty: the profile's
    profile: str = NO_PROFILE  # text of its tables
    network: Network = field(default_factory=lambda: Network(hostname=""))
    setup_code: str = ""  # of the installation page; empty: it has none


def check_network(network: Network) -> None:
    """Raises ConfigError with everything that is wrong, a line each. A password is never repeated."""
    found = list(network_problems(network))
    psk = "" if network.wifi is None else network.wifi.psk
    if psk and not psk.isascii():
        found.append("wifi.psk: holds a letter that is not ASCII; access points disagree on such passwords")
    if found:
        raise ConfigError("\n".join(found))


def time_zone_of(post: Post) -> str:
    """The time zone that a post will live in. Raises ConfigError for one that is not known."""
    match = _TIME_ZONE.search(post.profile)
    name = post.time_zone or (match[0].split('"')[1] if match else "UTC")
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConfigError(f"--time-zone: {name!r} is not known; an IANA name like Asia/Ho_Chi_Minh") from None
    return name


def node_toml(post: Post) -> str:
    """node.toml: complete, with the paths that the card has. Raises ConfigError for a profile that cannot be one."""
    clash = _HEAD.search(post.profile)
    if clash:
        raise ConfigError(f"--profile: holds {clash[0]}, which provisioning writes; leave it out")
    zone = f"time_zone = {toml_text(time_zone_of(post))}"
    profile, found = _TIME_ZONE.subn(lambda _: zone, post.profile, count=1)
    if not found:
        if "[calendar]" in profile:
            profile = profile.replace("[calendar]", f"[calendar]\n{zone}", 1)
        else:
            profile = f"[calendar]\n{zone}\n\n{profile}"
    camera = f'driver = "stream"\nurl = {toml_text(post.camera_url)}' if post.camera_url else 'driver = "picamera2"'
    return f"""\
# Settings of the post {post.node}, written by `wardpost provision`. Every setting is explained in
# deploy/node.example.toml; after a change: wardpost check

[node]
site = {toml_text(post.site)}
id = {toml_text(post.node)}
data = {toml_text(NODE_PATHS["node.data"])}
place = {toml_text(post.place)}

[camera]
{camera}

[uplink]
brokers = [{", ".join(toml_text(url) for url in post.brokers)}]
command_key = {toml_text(NODE_PATHS["uplink.command_key"])}
station_key = {toml_text(NODE_PATHS["uplink.station_key"])}

[uplink.tls]
ca = {toml_text(NODE_PATHS["uplink.tls.ca"])}
cert = {toml_text(NODE_PATHS["uplink.tls.cert"])}
key = {toml_text(NODE_PATHS["uplink.tls.key"])}

[release]
key = {toml_text(f"/etc/wardpost/{RELEASE_KEY}")}

[setup_page]
code = {toml_text(post.setup_code)}

{profile.strip()}
"""


def claim_toml(post: Post, *, claim: str, expires: str) -> str:
    """claim.toml. `expires` in RFC 3339."""
    return f"""\
# The one-time right of this card to ask for its certificate; used up by the first key that asks. `wardpost enrol` reads
# it in {IDENTITY}.
node = {toml_text(post.node)}
site = {toml_text(post.site)}
claim = {toml_text(claim)}
expires = {toml_text(expires)}
brokers = [{", ".join(toml_text(url) for url in post.brokers)}]
"""


def network_toml(network: Network) -> str:
    """network.toml."""
    lines = [
        "# How the post is reached, and who may log in. Holds passwords: it stays at headquarters.",
        f"hostname = {toml_text(network.hostname)}",
        f"time_zone = {toml_text(network.time_zone)}",
        f"user = {toml_text(network.user)}",
        f"ssh_keys = [{', '.join(toml_text(key) for key in network.ssh_keys)}]",
    ]
    if network.wifi is not None:
        wifi = network.wifi
        lines += ["", "[wifi]", f"ssid = {toml_text(wifi.ssid)}", f"psk = {toml_text(wifi.psk)}"]
        lines.append(f"country = {toml_text(wifi.country)}")
    if network.ethernet is not None:
        lines += ["", "[ethernet]"]
    if network.lte is not None:
        lte = network.lte
        values = (("apn", lte.apn), ("user", lte.user), ("pass", lte.password), ("pin", lte.pin))
        lines += ["", "[lte]", *(f"{name} = {toml_text(value)}" for name, value in values)]
    return "\n".join(lines) + "\n"


def network_kind(network: Network) -> str:
    """In a word, for the register."""
    kinds = [name for name in ("wifi", "ethernet", "lte") if getattr(network, name) is not None]
    return ", ".join(kinds)
