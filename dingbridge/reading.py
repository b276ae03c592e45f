"""From a document to decoded tables by a schema, every fault gathered on the way."""

from __future__ import annotations

import difflib
import json
import re
import ssl
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dingbridge.decode import Bad, Decode, naming, read_bytes, shown
from dingbridge.model import Secret
from dingbridge.net import Network
from dingbridge.secrets import Surroundings, find_secret, missing_secret


@dataclass(frozen=True, slots=True)
class Field:
    """A key: its decoder, its default as TOML has it, and what to do where it must not be empty.

    A secret has the key `name_file` beside it; see `secrets.py`.
    """

    name: str
    decode: Decode
    default: Any = ""
    required: str = ""
    secret: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.name, f"{self.name}_file") if self.secret else (self.name,)


Schema = Mapping[str, tuple[Field, ...]]


class Reading:
    """One reading of one document. It goes on after a fault, so its values hold only while `faults` is empty."""

    def __init__(self, schema: Schema, around: Surroundings) -> None:
        self.schema = schema
        self.around = around
        self.faults: list[str] = []

    def fault(self, where: str, reason: str) -> None:
        self.faults.append(f"{where}: {reason}")

    @contextmanager
    def noting(self, where: str) -> Iterator[None]:
        try:
            yield
        except Bad as bad:
            for at, reason in bad.reasons:
                self.fault(where + at, reason)

    def known(self, where: str, table: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """The known names of a table; a near miss is told and read as meant, so one slip is one fault."""
        names = list(names)
        result = {name: value for name, value in table.items() if name in names}
        for name in [name for name in table if name not in result]:
            near = difflib.get_close_matches(name.lower().replace("-", "_"), names, n=1)
            kind = "key" if where or not isinstance(table[name], (dict, list)) else "section"
            written = name if re.fullmatch(r"[\w-]+", name) else json.dumps(name)
            self.fault(where + written, f"unknown {kind}" + "".join(f", did you mean {key}" for key in near))
            for key in near:
                result.setdefault(key, table[name])
        return result

    def section(self, document: Mapping[str, Any], name: str) -> dict[str, Any]:
        table = document.get(name, {})
        if isinstance(table, dict):
            return self._fields(name, name, table)
        self.fault(name, f"write it as a section [{name}]" + f", not [[{name}]]" * isinstance(table, list))
        return {}

    def pairs(self, document: Mapping[str, Any], name: str, decode: Decode) -> dict[str, Any]:
        """A section whose keys are anybody's."""
        table = document.get(name, {})
        if not isinstance(table, dict):
            self.fault(name, f"write it as a section [{name}]")
            return {}
        values: dict[str, Any] = {}
        for key, value in table.items():
            with self.noting(f"{name}.{json.dumps(key, ensure_ascii=False)}"):
                values[key] = decode(value)
        return values

    def sections(self, document: Mapping[str, Any], name: str, missing: str) -> list[dict[str, Any]]:
        """The tables written as [[name]], of which there must be one."""
        tables = document.get(name, [])
        if not isinstance(tables, list):
            self.fault(name, f"write it as [[{name}]] with double brackets, it may be there several times")
            tables = [tables] if isinstance(tables, dict) else []
        elif not tables:
            self.fault(name, f"missing, {missing}")
        return [self._numbered(name, index, table) for index, table in enumerate(tables)]

    def _numbered(self, name: str, index: int, table: Any) -> dict[str, Any]:
        if isinstance(table, dict):
            return self._fields(name, f"{name}[{index}]", table)
        self.fault(f"{name}[{index}]", f"write it as a section [[{name}]], got {shown(table)}")
        return {}

    def _fields(self, section: str, where: str, table: Mapping[str, Any]) -> dict[str, Any]:
        fields = self.schema[section]
        table = self.known(f"{where}.", table, [key for field in fields for key in field.keys])
        values: dict[str, Any] = {}
        for field in fields:
            with self.noting(f"{where}.{field.name}"):
                values[field.name] = self._value(section, table, field)
        return values

    def _value(self, section: str, table: Mapping[str, Any], field: Field) -> Any:
        if field.secret:
            if not self.around.secrets:
                return Secret()
            secret = find_secret(section, field.name, table, self.around)
            if field.required and not secret:
                raise Bad(missing_secret(section, field.name, field.required))
            return Secret(field.decode(secret) if secret else "")
        value = table.get(field.name, field.default)
        if field.required and value == "":
            raise Bad(f"missing, {field.required}")
        return field.decode(value)

    def network(self, section: str, values: dict[str, Any]) -> Network:
        """Takes the network keys out of a section's values; the files must be what TLS can use."""
        before = len(self.faults)
        proxy, no_proxy = values.pop("proxy", Secret()), values.pop("no_proxy", ())
        if not self.around.secrets:
            for name in ("ca_file", "client_cert", "client_key"):
                values.pop(name, "")
            return Network(no_proxy=no_proxy)
        ca, cert, key = (self._pem(section, name, values) for name in ("ca_file", "client_cert", "client_key"))
        if len(self.faults) == before:
            with self.noting(f"{section}.ca_file"):
                _try_tls(Network(ca_file=ca), f"{ca}: holds no usable PEM certificate")
            with self.noting(f"{section}.client_cert"):
                _try_tls(Network(client_cert=cert, client_key=key), f"{cert}: is no PEM that fits its key")
            if key and not cert:
                self.fault(f"{section}.client_key", "needs client_cert beside it")
        return Network(proxy, no_proxy, ca, cert, key)

    def _pem(self, section: str, name: str, values: dict[str, Any]) -> Path | None:
        written: str = values.pop(name, "")
        if not written:
            return None
        path = self.around.folder / written
        with self.noting(f"{section}.{name}"):
            if b"ENCRYPTED" in read_bytes(path):  # OpenSSL would wait for a passphrase on the terminal
                raise Bad(f"{path}: protected by a passphrase, save the key without one")
        return path

    def folders(self, where: str, written: Iterable[str]) -> tuple[Path, ...]:
        folders = tuple(self.around.folder / name for name in written)
        for index, folder in enumerate(folders):
            with self.noting(f"{where}[{index}]"), naming(folder):
                if not stat.S_ISDIR(folder.stat().st_mode):
                    raise Bad(f"{folder}: is a file, write the folder it is in")
        return folders


def _try_tls(network: Network, problem: str) -> None:
    """Builds the context once, so that a bad file is told at the start and not by the first connection."""
    if network == Network():
        return
    try:
        network.ssl_context()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.reason if isinstance(error, ssl.SSLError) else ""
        raise Bad(problem + (f" ({reason})" if reason else "")) from None
