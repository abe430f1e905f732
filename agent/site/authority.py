"""Certificates of a site: P-256, X.509 v3 (RFC 5280), made from values; no file and no clock is touched here.

    authority     CN=<site> Wardpost authority    signs everything below; path length 0
    broker        CN=broker of <site>, SAN: hosts serverAuth, clientAuth (the members of a cluster call each other)
    station       CN=station                      clientAuth
    desk          CN=desk of <site>, SAN: hosts   serverAuth: for browsers
    claim         CN=claim-<random>               clientAuth, for days: may ask for one certificate
    node          CN=<node>, OU=g<generation>     clientAuth

The generation counts how often a post was provisioned. nats-server knows no revocation lists: there a lost card is shut
out by taking `CN=gate-2,OU=g1` off the list of users, while the new card is `OU=g2`. Mosquitto reads the CN alone, and
the list of revoked certificates (CRL).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.errors import Corrupt
from agent.types import NS

YEAR_DAYS = 365
AUTHORITY_DAYS = 25 * YEAR_DAYS
SERVER_DAYS = 5 * YEAR_DAYS
"""Of broker and station: `wardpost site renew` makes them anew, a person brings them there."""
DESK_DAYS = 800
NODE_DAYS = 3 * YEAR_DAYS
"""A post renews by itself in the last third, so one that was in use yesterday may lie in the dark for a year, and at
best for three. Shorter would shut out posts that are put away for a season; longer leaves a stolen key good for longer
where a broker knows no revocation lists."""
CLAIM_DAYS_MAX = 366
SERVER_NOT_BEFORE = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
"""Of the authority and the broker. A post without a battery-backed clock wakes up in the past, before its site was
made; a later date would keep it away from the very network that could tell it the time."""
CLIENT_BACKDATED = dt.timedelta(hours=1)
"""Of what a broker checks, whose clock is kept: only as much as clocks at headquarters differ."""
CSR_BYTES_MAX = 4096
STATION_CN = "station"


@dataclass(frozen=True, slots=True, repr=False)
class Authority:
    """What signs. Its text form shows no key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"Authority({self.certificate.subject.rfc4514_string()})"


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key, in memory only."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS 8, unencrypted: for a file of mode 0600."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """PEM of a certificate."""
    return certificate.public_bytes(Encoding.PEM)


def public_der(key: ec.EllipticCurvePublicKey) -> bytes:
    """SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_digest(key: ec.EllipticCurvePublicKey) -> str:
    """What names a key in the register and on the wire: SHA-256 of its SubjectPublicKeyInfo, in hex."""
    return hashlib.sha256(public_der(key)).hexdigest()


def make_authority(site: str, *, now_ns: int) -> Authority:
    """A new authority for a site; `now_ns` is UTC."""
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{site} Wardpost authority")])
    builder = (
        _builder(name, name, key.public_key())
        .not_valid_before(SERVER_NOT_BEFORE)
        .not_valid_after(_after(now_ns, AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def load_authority(certificate: bytes, key: bytes) -> Authority:
    """From their PEM files. Raises Corrupt when they are none, or do not belong together."""
    try:
        loaded = x509.load_pem_x509_certificate(certificate)
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Corrupt(f"the authority's certificate or key cannot be read: {error}") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or loaded.public_key() != private.public_key():
        raise Corrupt("the authority's certificate and key do not belong together")
    return Authority(loaded, private)


def issue_broker(
    authority: Authority, site: str, hosts: Sequence[str], key: ec.EllipticCurvePublicKey, *, now_ns: int
) -> x509.Certificate:
    """A server's certificate for host names and addresses, at least one."""
    names = [_general_name(host) for host in hosts]
    return _issue(
        authority,
        # Spaces: whoever calls a broker with this is nobody there, for no post and no topic can have such a name.
        [x509.NameAttribute(NameOID.COMMON_NAME, f"broker of {site}")],
        key,
        before=SERVER_NOT_BEFORE,
        after=_after(now_ns, SERVER_DAYS),
        usage=[ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
        names=names,
    )


def issue_desk(
    authority: Authority, site: str, hosts: Sequence[str], key: ec.EllipticCurvePublicKey, *, now_ns: int
) -> x509.Certificate:
    """A certificate for the desk's pages. Raises ValueError for a host that cannot be one."""
    return _issue(
        authority,
        [x509.NameAttribute(NameOID.COMMON_NAME, f"desk of {site}")],
        key,
        before=_moment(now_ns) - CLIENT_BACKDATED,
        after=_after(now_ns, DESK_DAYS),
        usage=[ExtendedKeyUsageOID.SERVER_AUTH],
        names=[_general_name(host) for host in hosts],
    )


def issue_station(authority: Authority, key: ec.EllipticCurvePublicKey, *, now_ns: int) -> x509.Certificate:
    """The station's certificate as a client of the broker."""
    return _issue_client(authority, STATION_CN, "", key, now_ns=now_ns, days=SERVER_DAYS)


def issue_claim(
    authority: Authority, claim: str, key: ec.EllipticCurvePublicKey, *, now_ns: int, days: int
) -> x509.Certificate:
    """A claim's certificate; `claim` is its whole name."""
    return _issue_client(authority, claim, "", key, now_ns=now_ns, days=days)


def issue_node(
    authority: Authority,
    node: str,
    generation: int,
    key: ec.EllipticCurvePublicKey,
    *,
    now_ns: int,
    days: float = NODE_DAYS,
) -> x509.Certificate:
    """A post's certificate."""
    return _issue_client(authority, node, f"g{generation}", key, now_ns=now_ns, days=days)


def generation_of(certificate: bytes, *, authority: x509.Certificate, node: str) -> int | None:
    """The generation in a post's certificate (PEM) that this authority has made; None for any other."""
    try:
        given = x509.load_pem_x509_certificate(certificate)
        given.verify_directly_issued_by(authority)
        names = [str(part.value) for part in given.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        units = [str(part.value) for part in given.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        return None
    if names != [node] or len(units) != 1 or not re.fullmatch(r"g[0-9]{1,9}", units[0]):
        return None
    return int(units[0][1:])


def newer(certificate: bytes, other: bytes) -> bool:
    """Whether a certificate (PEM) begins after another one. What cannot be read is not newer."""
    try:
        first, second = (x509.load_pem_x509_certificate(pem) for pem in (certificate, other))
    except ValueError:
        return False
    return first.not_valid_before_utc > second.not_valid_before_utc


def renewal_due(issued_utc_ns: int, ends_utc_ns: int, now_utc_ns: int) -> bool:
    """Whether less than a third of a certificate's life is left."""
    return 3 * (ends_utc_ns - now_utc_ns) < ends_utc_ns - issued_utc_ns


def make_crl(authority: Authority, revoked: Sequence[tuple[int, int]], *, number: int, now_ns: int) -> bytes:
    """The list of revoked certificates as PEM; `revoked`: serial number and UTC ns of each.

    It is good until its authority ends: with a list that has run out OpenSSL refuses every certificate, so a station
    that nobody touches for a month would lock out all posts.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(_moment(now_ns) - CLIENT_BACKDATED)
        .next_update(authority.certificate.not_valid_after_utc)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    for serial, utc_ns in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_moment(utc_ns)).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def make_csr(node: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A request (PKCS 10) for a post's certificate, signed by its key; PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)])
    return (
        x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    )


def read_csr(pem: str, node: str) -> ec.EllipticCurvePublicKey:
    """The key that asks, once the request is what a post of that name would send. Raises Corrupt, in one line."""
    if len(pem) > CSR_BYTES_MAX:
        raise Corrupt(f"the request has {len(pem)} characters; {CSR_BYTES_MAX} at most")
    try:
        csr = x509.load_pem_x509_csr(pem.encode("utf-8", "surrogatepass"))
        right = csr.is_signature_valid
        key = csr.public_key()
        names = [str(part.value) for part in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise Corrupt(f"the request cannot be read: {str(error)[:100]}") from None
    if not right:
        raise Corrupt("the request is not signed by the key it asks for")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Corrupt("the request is not for a P-256 key")
    if names != [node]:
        raise Corrupt(f"the request is for {', '.join(names)[:64] or 'nobody'}, the claim for {node}")
    return key


def fits(certificate: bytes, *, authority: bytes, node: str, key: ec.EllipticCurvePublicKey) -> str:
    """Why a certificate (PEM) is not the one a post asked for; empty when it is. Dates are not judged: the post's clock
    may be wrong.
    """
    try:
        given = x509.load_pem_x509_certificate(certificate)
        signer = x509.load_pem_x509_certificate(authority)
        names = [str(part.value) for part in given.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        given.verify_directly_issued_by(signer)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        return f"it cannot be read: {str(error)[:100]}"
    except InvalidSignature:
        return "it is not signed by this site's authority"
    if names != [node]:
        return f"it is for {', '.join(names)[:64] or 'nobody'}"
    if given.public_key() != key:
        return "it is for another key"
    return ""


def _issue_client(
    authority: Authority, name: str, unit: str, key: ec.EllipticCurvePublicKey, *, now_ns: int, days: float
) -> x509.Certificate:
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)] if unit else []
    return _issue(
        authority,
        [*units, x509.NameAttribute(NameOID.COMMON_NAME, name)],
        key,
        before=_moment(now_ns) - CLIENT_BACKDATED,
        after=_after(now_ns, days),
        usage=[ExtendedKeyUsageOID.CLIENT_AUTH],
        names=[],
    )


def _issue(
    authority: Authority,
    subject: Sequence[x509.NameAttribute[str]],
    key: ec.EllipticCurvePublicKey,
    *,
    before: dt.datetime,
    after: dt.datetime,
    usage: Sequence[x509.ObjectIdentifier],
    names: Sequence[x509.GeneralName],
) -> x509.Certificate:
    issuer = authority.certificate
    builder = (
        _builder(x509.Name(subject), issuer.subject, key)
        .not_valid_before(before)
        .not_valid_after(min(after, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _moment(utc_ns: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(utc_ns // NS, dt.UTC)


def _after(now_ns: int, days: float) -> dt.datetime:
    return _moment(now_ns) + dt.timedelta(days=days)
