"""A private CA made for one test, with certificates for servers and clients; or one as sloppy as some that inspect."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dingbridge.net import Network


class Authority:
    """`ca_file`, `cert` and `key` are files as an administrator would have them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca_file)
        self.cert, self.key = folder / "client.pem", folder / "client.key"
        issued = self._ca.issue_cert("bridge@example.com")
        issued.cert_chain_pems[0].write_to_path(self.cert)
        issued.private_key_pem.write_to_path(self.key)

    def server(self, *hosts: str, wants_client: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert(*(hosts or ("localhost",))).configure_cert(context)
        if wants_client:
            self._ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    @property
    def trusted(self) -> Network:
        return Network(ca_file=self.ca_file)

    @property
    def known(self) -> Network:
        """Trusting this CA, and with a certificate of it."""
        return Network(ca_file=self.ca_file, client_cert=self.cert, client_key=self.key)


def sloppy(folder: Path, host: str, *, ca_days: int = 1, days: int = 1) -> tuple[Path, ssl.SSLContext]:
    """The file of a CA without key usage and key identifiers, basic constraints not critical; a server's context.

    In so many days the CA's certificate and the server's end; negative where they have ended.
    """
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Inspection CA")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    ca = _blank(ca_name, ca_name, ca_key.public_key(), ca_days)
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
    names: list[x509.GeneralName] = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    leaf = _blank(ca_name, name, key.public_key(), days)
    leaf = leaf.add_extension(x509.SubjectAlternativeName(names), critical=False)
    pem = serialization.Encoding.PEM
    ca_file, chain = folder / "sloppy-ca.pem", folder / "sloppy-server.pem"
    ca_file.write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain.write_bytes(leaf.sign(ca_key, hashes.SHA256()).public_bytes(pem) + private)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain)
    return ca_file, context


def _blank(issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=30))
        .not_valid_after(now + dt.timedelta(days=days))
    )
