"""A C2PA manifest in the clip, for tools that show "content credentials". Optional: needs the package c2pa-python.

The signature is by a P-256 certificate made for this one export, whose subject names the node and whose issuer is a
throw-away authority: C2PA refuses Ed25519 keys without a certificate chain of its profile, and a post has none. So it
ties the manifest to the clip, not the clip to the node: that is what the ledger in the package does. c2pa's own reader
checks the result before it is used.
"""

from __future__ import annotations

import datetime as dt
import importlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.errors import Corrupt

VALID_DAYS = 3650
_CAPTURED = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"


def available() -> bool:
    """Whether c2pa-python is installed."""
    return importlib.util.find_spec("c2pa") is not None


def marker(*, node: str, agent: str, utc_ns: int) -> Callable[[Path], str]:
    """What `package.export` takes as `mark`. The result raises Corrupt when c2pa refuses, or its reader finds fault."""

    def mark(path: Path) -> str:
        return _mark(path, node=node, agent=agent, utc_ns=utc_ns)

    return mark


def _mark(path: Path, *, node: str, agent: str, utc_ns: int) -> str:
    c2pa = importlib.import_module("c2pa")
    chain, key = _certificates(node, utc_ns)
    created = {"action": "c2pa.created", "digitalSourceType": _CAPTURED}
    told = {
        "claim_generator_info": [{"name": "Wardpost", "version": agent}],
        "title": path.name,
        "format": "video/mp4",
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }
    signed = path.with_name(f".{path.name}.c2pa.mp4")
    try:
        info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, chain, key, None)
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(told)) as builder:
            builder.sign_file(str(path), str(signed), signer)
        with c2pa.Reader(str(signed)) as reader:
            report = json.loads(reader.json())
    except c2pa.C2paError as error:
        signed.unlink(missing_ok=True)
        raise Corrupt(f"export: c2pa cannot mark {path.name}: {error}") from error
    faults = [s["code"] for s in report.get("validation_status", []) if s["code"] != "signingCredential.untrusted"]
    if faults:
        signed.unlink(missing_ok=True)
        raise Corrupt(f"export: c2pa's reader refuses {path.name}: {', '.join(faults)}")
    signed.replace(path)
    return f"manifest {report['active_manifest']}; signed by a certificate made for this export"


def _certificates(node: str, utc_ns: int) -> tuple[bytes, bytes]:
    """A certificate chain in PEM, leaf first, and the leaf's key."""
    now = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=utc_ns // 1_000_000_000)
    authority, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _name("Wardpost, an authority for one export")
    root = _builder(issuer, issuer, authority.public_key(), now).add_extension(x509.BasicConstraints(True, 0), True)
    root = root.add_extension(_usage(sign=False), True)
    identity = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    root = root.add_extension(identity, False)
    end = _builder(_name(f"wardpost/{node}"[:64]), issuer, leaf.public_key(), now)
    end = end.add_extension(x509.BasicConstraints(False, None), True).add_extension(_usage(sign=True), True)
    end = end.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    end = end.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identity), False)
    end = end.add_extension(x509.SubjectKeyIdentifier.from_public_key(leaf.public_key()), False)
    certificates = [builder.sign(authority, hashes.SHA256()) for builder in (end, root)]
    pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
    return pem, leaf.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(common: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Wardpost"), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=VALID_DAYS))
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not sign,
        crl_sign=not sign,
        encipher_only=False,
        decipher_only=False,
    )
