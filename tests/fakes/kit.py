"""A kit as `wardpost provision` writes it, with real keys and certificates: for tests of what reads kits."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

NOW = dt.datetime(2026, 11, 22, 8, 0, tzinfo=dt.UTC)
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGrrkSUOZBT1kWMFMHyC2YhG3ftlxnVlqDoDAwXQlNDz lan@laptop"
CLAIM = "claim-k3v9q2mz7t"
_PEM = serialization.Encoding.PEM


def write_kit(
    site: Path, node: str = "gate-north", *, network: dict[str, Any] | None = None, expires: dt.datetime | None = None
) -> Path:
    """Makes SITE/nodes/NODE/kit with every file, and returns the folder."""
    folder = site / "nodes" / node / "kit"
    folder.mkdir(parents=True)
    ca_key, claim_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (folder / "ca.pem").write_bytes(certificate("Wardpost ward-7", ca_key, ca_key))
    (folder / "claim.pem").write_bytes(certificate(CLAIM, claim_key, ca_key))
    (folder / "claim.key").write_bytes(
        claim_key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    for name in ("command.pub", "station.pub"):
        public = ed25519.Ed25519PrivateKey.generate().public_key()
        (folder / name).write_bytes(public.public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    expires = NOW + dt.timedelta(days=14) if expires is None else expires
    (folder / "claim.toml").write_text(
        toml({
            "node": node, "site": "ward-7", "claim": CLAIM, "expires": expires.isoformat(),
            "brokers": ["mqtts://hq.example.org:8883"],
        })
    )  # fmt: skip
    chosen = wifi("Harbour Road") if network is None else network
    (folder / "network.toml").write_text(
        toml({"hostname": node, "time_zone": "Asia/Ho_Chi_Minh", "user": "lan", "ssh_keys": [SSH_KEY], **chosen})
    )
    (folder / "node.toml").write_text(node_toml(node))
    return folder


def wifi(ssid: str, psk: str = "correct horse") -> dict[str, Any]:
    return {"wifi": {"ssid": ssid, "psk": psk, "country": "VN"}}


def node_toml(node: str) -> str:
    identity = "/var/lib/wardpost/identity"
    return toml({
        "node": {"site": "ward-7", "id": node, "data": "/var/lib/wardpost", "place": "Cổng số 3"},
        "camera": {"driver": "stream", "url": "rtsp://192.0.2.7/stream"},
        "calendar": {"time_zone": "Asia/Ho_Chi_Minh"},
        "uplink": {
            "brokers": ["mqtts://hq.example.org:8883"],
            "command_key": "/etc/wardpost/command.pub",
            "station_key": "/etc/wardpost/station.pub",
            "tls": {"ca": f"{identity}/ca.pem", "cert": f"{identity}/node.pem", "key": f"{identity}/node.key"},
        },
    })  # fmt: skip


def toml(tables: dict[str, Any], path: str = "") -> str:
    """Enough of TOML for these files: JSON's spelling of texts, numbers and lists is TOML's too."""
    plain = [f"{key} = {_value(value)}" for key, value in tables.items() if not isinstance(value, dict)]
    nested = [
        f"\n[{path}{key}]\n{toml(value, f'{path}{key}.')}" for key, value in tables.items() if isinstance(value, dict)
    ]
    return "\n".join([*plain, *nested]) + "\n"


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def certificate(name: str, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey) -> bytes:
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Wardpost ward-7")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=14))
        .sign(by, hashes.SHA256())
    )
    return made.public_bytes(_PEM)
