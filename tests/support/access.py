"""Files of keys and certificates for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deployments.access.key_file import changing
from deployments.access.keys import KeyRing, new_key
from deployments.access.rules import SCOPES, Scope
from deployments.access.settings import LimitSettings


def add_key(path: Path, *scopes: Scope, expires: datetime | None = None, **of_key: float) -> str:
    """Adds a key to a file, with all scopes unless some are named, and limits of its own; returns the token."""
    limits = LimitSettings.model_validate({"key": of_key} if of_key else {})
    key, token = new_key("a test", frozenset(scopes or SCOPES), expires, limits, "")
    with changing(path) as rings:
        rings[0] = KeyRing(keys=(*rings[0].keys, key))
    return token


def remove_key(path: Path, token: str) -> None:
    """Takes a key out of a file."""
    with changing(path) as rings:
        rings[0] = KeyRing(keys=tuple(key for key in rings[0].keys if key.id != token.split("_")[1]))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 and localhost, and its private key, each in a file."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "amser test")])
    now = datetime.now(UTC)
    alternatives = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "private.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(private.private_bytes(*encoding))
    return files
