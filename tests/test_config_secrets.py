"""Where secrets and certificates come from, and what is told of those that cannot be used."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from dingbridge.config import SCHEMA, find, load
from dingbridge.errors import ConfigError
from dingbridge.model import Secret
from dingbridge.net import Network
from dingbridge.settings import Config
from tests.configurations import ENV, HIDDEN, faults, loaded, toml

NOBODY = 65_534


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder another user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for inner in folder.iterdir():
        inner.chmod(0o700)
    shutil.rmtree(folder)


@pytest.fixture
def unprivileged() -> Iterator[int]:
    """Runs the test as a user whom file modes bind."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    yield os.geteuid()
    os.seteuid(before)


def test_a_forbidden_secret_file_tells_who_may_read_it(open_folder: Path, request: pytest.FixtureRequest) -> None:
    """Permission denied comes with owner, mode and the user dingbridge runs as, never with content."""
    (open_folder / "key").write_text(HIDDEN)
    (open_folder / "key").chmod(0)
    path = open_folder / "dingbridge.toml"
    path.write_text(toml(anythingllm='api_key_file = "key"'))
    owner = f"uid {os.geteuid()} gid {(open_folder / 'key').stat().st_gid}"
    uid = request.getfixturevalue("unprivileged")

    with pytest.raises(ConfigError) as raised:
        load(path, ENV | {"DINGBRIDGE_ANYTHINGLLM_API_KEY": ""})

    assert raised.value.faults == [
        (
            f"anythingllm.api_key_file: {open_folder}/key: permission denied, it belongs to {owner} with mode 0000"
            f" and dingbridge runs as uid {uid}; let that user read it"
        )
    ]


def test_a_forbidden_folder_is_told_as_such(open_folder: Path, request: pytest.FixtureRequest) -> None:
    """A file in a folder that may not be entered is a fault, not a crash; nor does `find` pass over it."""
    closed = open_folder / "closed"
    closed.mkdir()
    (closed / "key").write_text(HIDDEN)
    closed.chmod(0)
    path = open_folder / "dingbridge.toml"
    path.write_text(toml(dingtalk='ca_file = "closed/key"', rest='[handlers]\npath = ["closed/x"]'))
    uid = request.getfixturevalue("unprivileged")

    with pytest.raises(ConfigError) as raised:
        load(path, ENV | {"CREDENTIALS_DIRECTORY": str(closed)})

    why = f"permission denied, dingbridge runs as uid {uid}, which may not enter the folder"
    told = [(fault.split(":")[0], why in fault) for fault in raised.value.faults]
    assert told == [
        ("dingtalk.client_secret", True),
        ("dingtalk.proxy", True),
        ("dingtalk.ca_file", True),
        ("anythingllm.api_key", True),
        ("anythingllm.proxy", True),
        ("store.password", True),
        ("handlers.path[0]", True),
        ("web.admin_token", True),
    ]
    assert find(closed / "key", {}) == closed / "key"


SECRETS = [(section, field.name) for section, fields in SCHEMA.items() for field in fields if field.secret]


def secret_of(config: Config, section: str, key: str) -> str:
    place: Any = getattr(config, section)
    return str(getattr(place.network if key == "proxy" else place, key).reveal())


def with_key(section: str, line: str) -> str:
    if section == "store":
        line = f'url = "postgresql://u@db/x"\n{line}'
    return toml(rest=f"[{section}]\n{line}") if section in ("web", "store") else toml(**{section: line})


@pytest.mark.parametrize(("section", "key"), SECRETS)
def test_precedence_of_a_secrets_sources(tmp_path: Path, section: str, key: str) -> None:
    """Every secret: systemd credential before environment before file or inline; a loser is not even read."""

    def value(origin: str) -> str:
        return f"http://{origin}:1" if key == "proxy" else origin

    folder = tmp_path / "credentials"
    folder.mkdir()
    (tmp_path / "file").write_text(value("file"))
    variable = f"DINGBRIDGE_{section}_{key}".upper()
    by_file, inline = with_key(section, f'{key}_file = "file"'), with_key(section, f'{key} = "{value("inline")}"')
    credentials = ENV | {"CREDENTIALS_DIRECTORY": str(folder)}

    assert secret_of(loaded(tmp_path, inline, credentials | {variable: ""}), section, key) == value("inline")
    assert secret_of(loaded(tmp_path, by_file, credentials | {variable: ""}), section, key) == value("file")
    overriding = credentials | {variable: value("environment")}
    (tmp_path / "file").unlink()
    assert secret_of(loaded(tmp_path, inline, overriding), section, key) == value("environment")
    assert secret_of(loaded(tmp_path, by_file, overriding), section, key) == value("environment")
    (folder / f"{section}.{key}").write_text(value("credential") + "\n")
    assert secret_of(loaded(tmp_path, by_file, overriding), section, key) == value("credential")
    both = with_key(section, f'{key} = "{HIDDEN}"\n{key}_file = "file"')
    assert faults(tmp_path, both, overriding) == [f"{section}.{key}: given inline and by {key}_file, keep only one"]


def test_only_secrets_come_from_the_environment(tmp_path: Path) -> None:
    """A variable for another key is not read, nor are the proxies of the process."""
    environ = ENV | {"DINGBRIDGE_DINGTALK_CLIENT_ID": "other", "HTTPS_PROXY": "http://p:1"}
    config = loaded(tmp_path, toml(), environ)

    assert (config.dingtalk.client_id, config.dingtalk.network.proxy) == ("dingx", Secret())


@pytest.mark.parametrize("written", [b"s3", b"s3\n", b"s3\r\n", b"\xef\xbb\xbfs3\n"])
def test_one_newline_at_a_secret_files_end_is_dropped(tmp_path: Path, written: bytes) -> None:
    """Editors and echo end a file with a newline; it is no part of the secret."""
    (tmp_path / "s").write_bytes(written)

    assert loaded(tmp_path, with_key("web", 'admin_token_file = "s"')).web.admin_token.reveal() == "s3"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"", "web.admin_token_file: s: empty, write the secret into it"),
        (b"\n", "web.admin_token_file: s: empty, write the secret into it"),
        (b"\xff\xfe" + HIDDEN.encode(), "web.admin_token_file: s: not UTF-8, save as UTF-8"),
        (HIDDEN.encode() + b"\n\n", "web.admin_token: has blanks at its ends (file s), remove them"),
        (b" " + HIDDEN.encode(), "web.admin_token: has blanks at its ends (file s), remove them"),
        (
            HIDDEN.encode() + b"\n" + HIDDEN.encode(),
            "web.admin_token: has an invisible character or a line break inside (file s), copy it again",
        ),
    ],
)
def test_a_secret_file_that_cannot_be_right_is_refused(tmp_path: Path, written: bytes, expected: str) -> None:
    """Copying leaves blanks, breaks and empty files; they are told without the content."""
    (tmp_path / "s").write_bytes(written)

    assert faults(tmp_path, with_key("web", 'admin_token_file = "s"')) == [expected]


def test_an_empty_credential_or_blank_variable_is_refused(tmp_path: Path) -> None:
    """A source that is present but unusable does not fall through to the next one."""
    (tmp_path / "dingtalk.client_secret").touch()
    environ = ENV | {"CREDENTIALS_DIRECTORY": str(tmp_path), "DINGBRIDGE_WEB_ADMIN_TOKEN": f"{HIDDEN} "}

    assert faults(tmp_path, toml(), environ) == [
        "dingtalk.client_secret: dingtalk.client_secret: empty, write the secret into it",
        "web.admin_token: has blanks at its ends (environment DINGBRIDGE_WEB_ADMIN_TOKEN), remove them",
    ]


def test_a_configuration_shows_no_secret(tmp_path: Path) -> None:
    """Printing the configuration, in a traceback for instance, gives nothing away."""
    lines = f'client_secret = "{HIDDEN}"\nproxy = "http://u:{HIDDEN}@p:1"'
    rest = f'[web]\nadmin_token = "{HIDDEN}"'
    environ = {"HOME": "/h", "DINGBRIDGE_ANYTHINGLLM_API_KEY": HIDDEN}

    assert HIDDEN not in repr(loaded(tmp_path, toml(dingtalk=lines, rest=rest), environ))


# ── network files ──


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, cert.pem, key.pem, both.pem, other.pem (a foreign key), junk.pem, locked.pem."""
    folder = tmp_path_factory.mktemp("pems")
    ca = trustme.CA()
    cert, other = ca.issue_cert("bot@corp.example"), ca.issue_cert("other@corp.example")
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    cert.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    cert.private_key_pem.write_to_path(str(folder / "key.pem"))
    cert.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    other.private_key_pem.write_to_path(str(folder / "other.pem"))
    (folder / "junk.pem").write_text(HIDDEN)
    (folder / "locked.pem").write_text(
        f"-----BEGIN ENCRYPTED PRIVATE KEY-----\n{HIDDEN}\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    return folder


@pytest.mark.parametrize("section", ["dingtalk", "anythingllm"])
def test_network_files_are_relative_to_the_configuration(tmp_path: Path, pems: Path, section: str) -> None:
    """CA, client certificate and key are found from the configuration's folder, wherever one starts from."""
    shutil.copytree(pems, tmp_path / "tls")
    lines = 'ca_file = "tls/ca.pem"\nclient_cert = "tls/cert.pem"\nclient_key = "tls/key.pem"'
    config = loaded(tmp_path, toml(**{section: lines}))

    network: Network = getattr(config, section).network
    tls = tmp_path / "tls"
    assert network == Network(ca_file=tls / "ca.pem", client_cert=tls / "cert.pem", client_key=tls / "key.pem")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('client_cert = "both.pem"', []),
        ('client_key = "key.pem"', ["dingtalk.client_key: needs client_cert beside it"]),
        ('client_cert = "cert.pem"', ["dingtalk.client_cert: cert.pem: is no PEM that fits its key"]),
        (
            'client_cert = "cert.pem"\nclient_key = "other.pem"',
            ["dingtalk.client_cert: cert.pem: is no PEM that fits its key (KEY_VALUES_MISMATCH)"],
        ),
        ('ca_file = "junk.pem"', ["dingtalk.ca_file: junk.pem: holds no usable PEM certificate"]),
        ('ca_file = "."', ["dingtalk.ca_file: .: cannot be read: Is a directory"]),
        (
            'client_cert = "cert.pem"\nclient_key = "locked.pem"',
            ["dingtalk.client_key: locked.pem: protected by a passphrase, save the key without one"],
        ),
    ],
)
def test_certificates_are_tried_at_the_start(pems: Path, lines: str, expected: list[str]) -> None:
    """A file TLS cannot use is named at once; a passphrase never makes the daemon wait at a terminal."""
    if not expected:
        assert loaded(pems, toml(dingtalk=lines)).dingtalk.network.client_cert == pems / "both.pem"
        return
    told = [fault.replace(str(pems), ".") for fault in faults(pems, toml(dingtalk=lines))]
    assert [fault.startswith(start) for fault, start in zip(told, expected, strict=True)] == [True], told
