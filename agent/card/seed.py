r"""From a kit to the texts of the boot partition, as pure functions: cloud-init (Trixie) and firstrun (Bookworm).

Both only start `node/install.py` (agent/card/install.py), which does the work and repeats it until it is done. What
must survive a power cut is therefore never left to cloud-init's `runcmd` (marked done before it runs) or `write_files`
(a cut leaves files of 0 bytes).

Formats: cloud-init NoCloud (`meta-data` with `instance-id`, hyphen), netplan v2, keyfiles of NetworkManager, and
`systemd.run=` on the kernel's command line. All texts are UTF-8: the name of a Wi-Fi network is never spelt `\xHH`.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from agent.card.kit import IDENTITY, RELEASE_KEY, Kit, LteSettings, Network, WifiSettings
from agent.errors import ConfigError
from agent.setup_page import network as setup_network

MOUNT = "/boot/firmware"  # of the boot partition, on both generations
FOLDER = "node"  # on the boot partition: everything of ours that the system itself does not look for
INSTALLER = "install.py"
PLAN = "plan.json"
PROGRESS = "progress.txt"
PROGRESS_BYTES = 4096  # of this size from the start, so that the installer changes bytes and never the file table
PROGRESS_TEXT = "The card is written, and has not been in a post yet. Put it into the post and give it power.\n"
PLAN_VERSION = 1
CMDLINE_BYTES_MAX = 1024  # the firmware takes more, the kernel of arm64 2048
ENABLE_SSH = "test -L /etc/systemd/system/multi-user.target.wants/ssh.service || systemctl --no-block enable --now ssh"
NEUTRAL_NETWORK = "network: {config: disabled}\n"
"""What takes the place of `network-config` once it is used: cloud-init leaves the network as it is, come what may."""


class Generation(StrEnum):
    """By what a stock image takes its first orders."""

    TRIXIE = "trixie"  # cloud-init
    BOOKWORM = "bookworm"  # firstrun.sh; the first images of Trixie as well


@dataclass(frozen=True, slots=True)
class Placement:
    """One file that the installer takes from the card's folder to its place on the node."""

    source: str  # below node/
    target: str
    mode: int
    owner: str = "root"  # user and group
    secret: bool = False  # removed from the boot partition once it is in place


def instance_id(kit: Kit) -> str:
    """Of cloud-init, and of the installer's done flag: a new claim is a new instance."""
    return f"wardpost-{kit.node}-{kit.claim.claim.removeprefix('claim-')}"


def generation_of(names: Iterator[str] | frozenset[str] | set[str]) -> Generation:
    """From the names in the root of the boot partition. Raises ConfigError when it is no Raspberry Pi OS."""
    there = {name.lower() for name in names}
    if not {"cmdline.txt", "config.txt"} <= there:
        raise ConfigError(
            "the boot partition has no cmdline.txt and config.txt: this is not Raspberry Pi OS;"
            " take its 64-bit Lite image"
        )
    return Generation.TRIXIE if {"user-data", "meta-data"} & there else Generation.BOOKWORM


def boot_files(kit: Kit, *, generation: Generation, cmdline: str, bundle: Mapping[str, str] | None) -> dict[str, bytes]:
    """Every file of the boot partition that depends on the kit: path there -> content.

    `cmdline`: the one on the card. `bundle`: files of the bundle below node/ with their SHA-256, None without a bundle.
    """
    placements = [*_of_kit(kit), *_of_network(kit.network, generation), *_of_setup_page(kit)]
    files: dict[str, bytes] = {
        f"{FOLDER}/{placement.source}": kit.files[placement.source.rpartition("/")[2]] for placement in _of_kit(kit)
    }
    files |= {f"{FOLDER}/secret/{name}": text.encode() for name, text in network_files(kit, generation).items()}
    if kit.setup_code:  # read in its place by the node: each new content switches the installation page on once
        files[f"{FOLDER}/{setup_network.REQUEST_FILE}"] = setup_network.request_text(instance_id(kit)).encode()
    hashes = dict(bundle or {})
    for placement in placements:
        if not placement.secret:  # a hash of a Wi-Fi password on the card would be as good as the password
            hashes[placement.source] = hashlib.sha256(files[f"{FOLDER}/{placement.source}"]).hexdigest()
    files[f"{FOLDER}/{PLAN}"] = plan(kit, generation, placements, hashes, bundle=bundle is not None).encode()
    files[f"{FOLDER}/{PROGRESS}"] = PROGRESS_TEXT.ljust(PROGRESS_BYTES - 1).encode() + b"\n"
    files["cmdline.txt"] = command_line(
        cmdline,
        generation=generation,
        instance=instance_id(kit),
        country=kit.network.wifi.country if kit.network.wifi else "",
    ).encode()
    if generation is Generation.TRIXIE:
        files["meta-data"] = meta_data(kit).encode()
        files["user-data"] = user_data(kit).encode()
        files["network-config"] = network_config(kit.network).encode()
    else:
        files["firstrun.sh"] = firstrun().encode()
    return files


# -- cloud-init --------------------------------------------------------------------------------------------------------


def meta_data(kit: Kit) -> str:
    """`instance-id` with a hyphen: with an underscore, as in the stock file, it is not seen."""
    return f"instance-id: {instance_id(kit)}\nlocal-hostname: {kit.network.hostname}\n"


def user_data(kit: Kit) -> str:
    """The smallest `#cloud-config` that makes the login and starts the installer at every boot until it is done."""
    network = kit.network
    start = (
        f"grep -qsxF {instance_id(kit)} /etc/wardpost/card-done || systemd-run --no-block --collect"
        f" --unit=wardpost-card-boot --property=RequiresMountsFor={MOUNT}"
        " --property=Restart=on-failure --property=RestartSec=30"
        " --property=StandardOutput=journal+console"
        f" /usr/bin/python3 -I {MOUNT}/{FOLDER}/{INSTALLER}"
    )
    lines = [
        "#cloud-config",
        "# Written by `wardpost flash`. The work is done by node/install.py, which is repeated until it is done.",
        f"hostname: {yaml(network.hostname)}",
        "manage_etc_hosts: true",
        f"timezone: {yaml(network.time_zone)}",
        "user:",
        f"  name: {yaml(network.user)}",
        "  shell: /bin/bash",
        "  groups: [adm, sudo, video]",
        "  lock_passwd: true",
        f"  sudo: {yaml('ALL=(ALL) NOPASSWD:ALL')}",
        f"  ssh_authorized_keys: [{', '.join(yaml(key) for key in network.ssh_keys)}]",
        "ssh_pwauth: false",
        "package_update: false",
        "package_upgrade: false",
        "bootcmd:",
        # In every boot, and never waited for: both would wait for a target that waits for cloud-init.
        f"  - {yaml(start)}",
        # Asked first: to enable what is enabled would cost every boot, for years, a reading of all units.
        *([f"  - {yaml(ENABLE_SSH)}"] if network.ssh_keys else []),
    ]
    return "\n".join(lines) + "\n"


def network_config(network: Network) -> str:
    """In the form of netplan v2. LTE is not in it: the installer gives the modem to NetworkManager."""
    lines = ["network:", "  version: 2"]
    # Without `optional` a missing cable would hold up the boot for two minutes.
    lines += ["  ethernets:", "    eth0:", "      dhcp4: true", "      dhcp6: true", "      optional: true"]
    if wifi := network.wifi:
        lines += [
            "  wifis:",
            "    wlan0:",
            "      dhcp4: true",
            "      dhcp6: true",
            "      optional: true",
            f"      regulatory-domain: {yaml(wifi.country)}",
            "      access-points:",
            f"        {yaml(wifi.ssid)}:{'' if wifi.psk else ' {}'}",
            *([f"          password: {yaml(wifi.psk)}"] if wifi.psk else []),
        ]
    return "\n".join(lines) + "\n"


def yaml(text: str) -> str:
    """A double-quoted scalar of YAML 1.1. JSON's spelling is one, but for what YAML takes for ends of lines."""
    quoted = json.dumps(text, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", quoted)


# -- firstrun ----------------------------------------------------------------------------------------------------------


def firstrun() -> str:
    """Runs before anything else, prepares the real installer as a service, and is taken out of cmdline.txt by it."""
    return (
        "#!/bin/sh\n"
        "# Written by `wardpost flash`; started by systemd.run= in cmdline.txt, until install.py has taken that out.\n"
        f"exec /usr/bin/python3 -I {MOUNT}/{FOLDER}/{INSTALLER} --prepare\n"
    )


# -- both --------------------------------------------------------------------------------------------------------------

_OURS = re.compile(
    r"\s(ds=nocloud\S*|cfg80211\.ieee80211_regdom=\S*|systemd\.run=\S*|systemd\.run_success_action=\S*"
    r"|systemd\.run_failure_action=\S*|systemd\.unit=kernel-command-line\.target|resize"
    # Both grow the root and change the disk's id in three places, of which a cut may leave one: a card that boots no
    # more. The room is for the data partition anyway.
    r"|init=/usr/lib/raspberrypi-sys-mods/firstboot)(?=\s|$)"
)


def command_line(text: str, *, generation: Generation, instance: str, country: str) -> str:
    """cmdline.txt: one line, ours added, what was ours or stock's `resize` taken out. Applied twice it is the same.

    Raises ConfigError when it is not one line, or names no root.
    """
    lines = [line for line in text.replace("\x00", "").splitlines() if line.strip()]
    if len(lines) != 1 or " root=" not in f" {lines[0]}":
        raise ConfigError(
            "cmdline.txt on the card is not one line that names root=; the card is damaged: write it anew"
        )
    line = " ".join(_OURS.sub("", f" {lines[0]}").split())
    if generation is Generation.TRIXIE:
        line += f" ds=nocloud;i={instance}"
    if country:
        line += f" cfg80211.ieee80211_regdom={country}"
    if generation is Generation.BOOKWORM:
        line += (
            f" systemd.run={MOUNT}/firstrun.sh systemd.run_success_action=reboot"
            " systemd.run_failure_action=reboot systemd.unit=kernel-command-line.target"
        )
    if len(line.encode()) > CMDLINE_BYTES_MAX:
        raise ConfigError(f"cmdline.txt would be {len(line)} bytes long, {CMDLINE_BYTES_MAX} at most; shorten it")
    return line + "\n"


def network_files(kit: Kit, generation: Generation) -> dict[str, str]:
    """Files with passwords that the installer places itself: a cut may leave those of cloud-init at 0 bytes."""
    files = {}
    if generation is Generation.TRIXIE:
        files["60-wardpost.yaml"] = network_config(kit.network)
    elif kit.network.wifi is not None:
        files["wardpost-wifi.nmconnection"] = wifi_keyfile(kit.network.wifi, kit.node)
    if kit.network.lte is not None:
        files["wardpost-lte.nmconnection"] = lte_keyfile(kit.network.lte, kit.node)
    if kit.setup_code:
        files[setup_network.HOTSPOT_FILE] = setup_network.hotspot_keyfile(kit.node, kit.setup_code)
    return files


def wifi_keyfile(wifi: WifiSettings, node: str) -> str:
    """A profile of NetworkManager. The name goes as a list of bytes: the one spelling that no character escapes."""
    ssid = "".join(f"{byte};" for byte in wifi.ssid.encode())
    security = ["", "[wifi-security]", "key-mgmt=wpa-psk", f"psk={keyfile_text(wifi.psk)}"] if wifi.psk else []
    return "\n".join([
        *_connection("wardpost-wifi", "wifi", node),
        "", "[wifi]", "mode=infrastructure", f"ssid={ssid}", *security,
        "", "[ipv4]", "method=auto", "", "[ipv6]", "method=auto", "",
    ])  # fmt: skip


def lte_keyfile(lte: LteSettings, node: str) -> str:
    """A profile of NetworkManager for the first modem that ModemManager finds."""
    return "\n".join([
        *_connection("wardpost-lte", "gsm", node),
        "", "[gsm]", f"apn={keyfile_text(lte.apn)}",
        *([f"username={keyfile_text(lte.user)}"] if lte.user else []),
        *([f"password={keyfile_text(lte.password)}"] if lte.password else []),
        *([f"pin={lte.pin}"] if lte.pin else []),
        # Dearer than Wi-Fi and cable, so only used when they do not lead anywhere.
        "", "[ipv4]", "method=auto", "route-metric=700", "", "[ipv6]", "method=auto", "route-metric=700", "",
    ])  # fmt: skip


def _connection(name: str, kind: str, node: str) -> list[str]:
    return [
        "[connection]",
        f"id={name}",
        f"uuid={uuid.uuid5(uuid.NAMESPACE_DNS, f'{node}.{name}')}",
        f"type={kind}",
        "autoconnect=true",
        "autoconnect-retries=0",  # 0: for ever; the default gives up after four tries
    ]


def keyfile_text(text: str) -> str:
    r"""A value of a GKeyFile: the backslash is its escape character, spaces at the ends are cut off (`\s`)."""
    escaped = text.replace("\\", "\\\\")
    if escaped.startswith(" "):
        escaped = "\\s" + escaped[1:]
    return escaped[:-1] + "\\s" if escaped.endswith(" ") else escaped


def _of_kit(kit: Kit) -> tuple[Placement, ...]:
    release = Placement(RELEASE_KEY, f"/etc/wardpost/{RELEASE_KEY}", 0o644)
    return (
        *([release] if RELEASE_KEY in kit.files else []),
        Placement("node.toml", "/etc/wardpost/node.toml", 0o644),
        Placement("command.pub", "/etc/wardpost/command.pub", 0o644),
        Placement("station.pub", "/etc/wardpost/station.pub", 0o644),
        Placement("ca.pem", f"{IDENTITY}/ca.pem", 0o644, "wardpost"),
        Placement("claim.pem", f"{IDENTITY}/claim.pem", 0o644, "wardpost"),
        Placement("claim.toml", f"{IDENTITY}/claim.toml", 0o644, "wardpost"),
        Placement("secret/claim.key", f"{IDENTITY}/claim.key", 0o600, "wardpost", secret=True),
    )


def _of_network(network: Network, generation: Generation) -> Iterator[Placement]:
    if generation is Generation.TRIXIE:
        yield Placement("secret/60-wardpost.yaml", "/etc/netplan/60-wardpost.yaml", 0o600, secret=True)
    folder = "/etc/NetworkManager/system-connections"
    if network.wifi is not None and generation is Generation.BOOKWORM:
        name = "wardpost-wifi.nmconnection"
        yield Placement(f"secret/{name}", f"{folder}/{name}", 0o600, secret=True)
    if network.lte is not None:
        name = "wardpost-lte.nmconnection"
        yield Placement(f"secret/{name}", f"{folder}/{name}", 0o600, secret=True)


def _of_setup_page(kit: Kit) -> Iterator[Placement]:
    if kit.setup_code:
        name = setup_network.HOTSPOT_FILE
        folder = "/etc/NetworkManager/system-connections"
        yield Placement(f"secret/{name}", f"{folder}/{name}", 0o600, secret=True)


def plan(
    kit: Kit, generation: Generation, placements: list[Placement], hashes: Mapping[str, str], *, bundle: bool
) -> str:
    """What the installer is to do, as JSON. It holds no secret, and no hash of one."""
    return json.dumps(
        {
            "version": PLAN_VERSION,
            "node": kit.node,
            "site": kit.site,
            "instance": instance_id(kit),
            "generation": generation.value,
            "hostname": kit.network.hostname,
            "time_zone": kit.network.time_zone,
            "user": kit.network.user,
            "ssh_keys": list(kit.network.ssh_keys),
            "wifi": kit.network.wifi is not None,
            "bundle": bundle,
            "place": [
                {
                    "from": p.source, "to": p.target, "mode": p.mode, "owner": p.owner,
                    "secret": p.secret}
                for p in placements
            ],
            "sha256": dict(sorted(hashes.items())),
        },
        indent=1,
        ensure_ascii=False,
    ) + "\n"  # fmt: skip
