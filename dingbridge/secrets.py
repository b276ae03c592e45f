"""Where a secret may come from: systemd credential, environment, file or the configuration itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dingbridge.decode import Bad, read_bytes, visible


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What values refer to: the configuration file's folder and the process environment.

    secrets: False leaves every secret and certificate unread and empty, for who needs none of them.
    """

    folder: Path
    environ: Mapping[str, str]
    secrets: bool = True


def variable(section: str, key: str) -> str:
    return f"DINGBRIDGE_{section}_{key}".upper()


def find_secret(section: str, key: str, table: Mapping[str, Any], around: Surroundings) -> str:
    """The secret's text, "" where it is nowhere; credential before environment before file or inline.

    Inline and file together are refused even when something above them wins: the operator would
    correct one of them and wonder. A source that does not win is not read.
    """
    inline, file = _written(table, key)
    if inline and file:
        raise Bad(f"given inline and by {key}_file, keep only one")
    if around.environ.get("CREDENTIALS_DIRECTORY"):
        credential = Path(around.environ["CREDENTIALS_DIRECTORY"], f"{section}.{key}")
        if _is_there(credential):
            return _checked(_content(credential, ""), f"credential {credential}")
    if value := around.environ.get(variable(section, key)):
        return _checked(value, f"environment {variable(section, key)}")
    if file:
        return _checked(_content(around.folder / file, "_file"), f"file {around.folder / file}")
    return _checked(inline, "inline")


def missing_secret(section: str, key: str, remedy: str) -> str:
    return (
        f"missing, {remedy} and give it by {key}_file, the environment variable {variable(section, key)},"
        f" the systemd credential {section}.{key}, or inline"
    )


def _written(table: Mapping[str, Any], key: str) -> tuple[str, str]:
    inline = table.get(key, "")
    if not isinstance(inline, str):
        raise Bad("must be a text in quotes")  # the value is not shown
    try:
        return inline, visible(table.get(f"{key}_file", ""))
    except Bad as bad:
        raise Bad(*(("_file", reason) for _, reason in bad.reasons)) from None


def _is_there(credential: Path) -> bool:
    try:
        credential.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # reading it tells why
    return True


def _content(path: Path, at: str) -> str:
    """The file without one newline at its end (most editors and `echo` put it there)."""
    try:
        content = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Bad((at, f"{path}: not UTF-8, save as UTF-8")) from None
    except Bad as bad:
        raise Bad(*((at, reason) for _, reason in bad.reasons)) from None
    content = content.removesuffix("\n").removesuffix("\r") if content.endswith("\n") else content
    if not content:
        raise Bad((at, f"{path}: empty, write the secret into it"))
    return content


def _checked(value: str, origin: str) -> str:
    if value != value.strip():
        raise Bad(f"has blanks at its ends ({origin}), remove them")
    if not value.isprintable():
        raise Bad(f"has an invisible character or a line break inside ({origin}), copy it again")
    return value
