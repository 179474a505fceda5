"""Certificates for an engine that brings none: an authority of the study, and one certificate of the server."""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_DAYS: Final = 365
_HERE: Final = ("127.0.0.1", "localhost")
"""How processes beside the server can call it; a firewall's address is not its own."""
_CURVE: Final = ec.SECP384R1()


def make_authority_and_server(folder: Path, host: str) -> None:
    """Write ca.key, ca.crt, server.key and server.crt; the server's certificate is for `host` and the machine itself.

    Args:
        folder: Where to; the keys get mode 0600.
        host: How the sites call the server, a name or an address.

    Raises:
        FileExistsError: A key of that name is there already.
    """
    authority, server = ec.generate_private_key(_CURVE), ec.generate_private_key(_CURVE)
    issuer = _name("SecureFed study authority")
    names = [_alternative(name) for name in dict.fromkeys((host, *_HERE))]
    root = (
        _certificate(issuer, issuer, authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    leaf = (
        _certificate(_name("SecureFed study server"), issuer, server.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    for name, key in (("ca.key", authority), ("server.key", server)):
        _write_secret(folder / name, _pem(key, serialization.PrivateFormat.PKCS8))
    for name, certificate in (("ca.crt", root), ("server.crt", leaf)):
        (folder / name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def make_node_key(folder: Path, site: str) -> tuple[Path, Path]:
    """Write an EC key pair in OpenSSH's format, `<site>.key` and `<site>.pub`, and return both paths.

    Raises:
        FileExistsError: A key of that name is there already.
    """
    key = ec.generate_private_key(_CURVE)
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    secret, public = folder / f"{site}.key", folder / f"{site}.pub"
    _write_secret(secret, _pem(key, serialization.PrivateFormat.OpenSSH))
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    )
    return secret, public


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _write_secret(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # never over another key
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
