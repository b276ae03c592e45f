"""The unit and the configuration that go with it, judged by systemd itself and by the code that reads them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dingbridge import config
from dingbridge.errors import ConfigError
from dingbridge.settings import Config

SYSTEMD = Path(__file__).parents[1] / "systemd"
UNIT = SYSTEMD / "dingbridge.service"
EXPOSURE = 15  # tenths; 96 is a unit without any hardening
SECRETS = {"dingtalk.client_secret": "a-client-secret", "anythingllm.api_key": "an-api-key"}


def settings(name: str) -> list[str]:
    """All values of one directive, in order."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text("utf-8"), flags=re.MULTILINE)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists here; nothing else is changed."""
    if shutil.which("systemd-analyze") is None:
        why = "systemd-analyze is not installed (Debian: apt-get install systemd)"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    copy = tmp_path / UNIT.name
    program = shutil.which("true")
    copy.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={program}", UNIT.read_text("utf-8")), "utf-8")
    return copy


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False, env={**os.environ}
    )


def test_systemd_understands_the_unit(unit: Path) -> None:
    """Every directive is known and in its section: `verify` has nothing to say."""
    seen = analyze("verify", "--man=no", str(unit))
    assert (seen.returncode, seen.stdout + seen.stderr) == (0, "")


def test_systemd_finds_the_unit_little_exposed(unit: Path) -> None:
    """The hardening holds: the exposure that systemd computes stays below the bar."""
    seen = analyze("security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager", str(unit))
    assert seen.returncode == 0, seen.stdout[-300:] + seen.stderr


def test_an_unhardened_unit_would_be_told(unit: Path) -> None:
    """The bar is a bar: the same unit without its hardening does not pass."""
    bare = unit.with_name("bare.service")
    bare.write_text("[Service]\nExecStart=/bin/true\n", "utf-8")
    assert analyze("security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager", str(bare)).returncode == 1


def test_configuration_faults_are_not_restarted() -> None:
    """Exit codes that another start would only repeat end the unit; everything else is started again for ever."""
    assert settings("RestartPreventExitStatus") == ["2 78"]
    assert settings("Restart") == ["always"]
    assert settings("StartLimitIntervalSec") == ["0"]


def test_stopping_leaves_time_to_drain() -> None:
    """The unit waits longer than the daemon does for its answers and its closing."""
    drain_s = next(field.default for field in config.SCHEMA["limits"] if field.name == "drain_s")
    assert isinstance(drain_s, int)
    assert int(settings("TimeoutStopSec")[0]) >= drain_s + 15


def packaged(tmp_path: Path, credentials: dict[str, str], file: Path = SYSTEMD / "dingbridge.toml") -> Config:
    """The packaged configuration as the unit lets it be read."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    for name, secret in credentials.items():
        (folder / name).write_text(secret + "\n", "utf-8")
    environ = {"CREDENTIALS_DIRECTORY": str(folder), "STATE_DIRECTORY": str(tmp_path / "state")}
    return config.load(file, environ)


def test_the_packaged_configuration_takes_its_secrets_from_systemd(tmp_path: Path) -> None:
    """Credentials with the names in the unit are found, and nothing else is needed."""
    assert [value.partition(":")[0] for value in settings("LoadCredential")] == list(SECRETS)
    loaded = packaged(tmp_path, SECRETS)
    assert loaded.dingtalk.client_secret.reveal() == "a-client-secret"
    assert loaded.anythingllm.api_key.reveal() == "an-api-key"


def test_a_shared_store_takes_its_password_from_systemd(tmp_path: Path) -> None:
    """With both commented lines in force the configuration reads PostgreSQL's password as a credential, too."""
    told = (SYSTEMD / "dingbridge.toml").read_text("utf-8")
    (line,) = re.findall(r"(?m)^#LoadCredential=(.+):/etc/dingbridge/store_password$", UNIT.read_text("utf-8"))
    (url,) = re.findall(r'(?m)^#(url = "postgresql:.+")$', told)
    several = tmp_path / "several.toml"
    several.write_text(re.sub(r'(?m)^url = ".+db"$', url, told), "utf-8")
    loaded = packaged(tmp_path, {**SECRETS, line: "a-password"}, several)
    assert loaded.store.is_postgres
    assert loaded.store.password.reveal() == "a-password"


def test_the_store_lies_in_the_state_folder_for_everybody(tmp_path: Path) -> None:
    """The path is written out, so that root's commands find the service's store without its environment."""
    folder = Path("/var/lib", settings("StateDirectory")[0])
    assert packaged(tmp_path, SECRETS).store.path == folder / "dingbridge.db"


def test_a_reload_is_a_hangup() -> None:
    """`systemctl reload` sends SIGHUP to the daemon itself."""
    assert settings("ExecReload") == ["kill -HUP $MAINPID"]


def test_a_missing_credential_is_named(tmp_path: Path) -> None:
    """Without its credential the packaged configuration is refused, and the fault names it."""
    with pytest.raises(ConfigError) as refused:
        packaged(tmp_path, {"dingtalk.client_secret": "a-client-secret"})
    assert [fault.partition(":")[0] for fault in refused.value.faults] == ["anythingllm.api_key"]
    assert "systemd credential anythingllm.api_key" in refused.value.faults[0]


def test_the_packaged_configuration_holds_no_secret() -> None:
    """The file may be read by anyone on the machine: no secret stands in it, nor the way to one."""
    text = (SYSTEMD / "dingbridge.toml").read_text("utf-8")
    keys = re.findall(r"^\s*#?\s*([a-z_]+)\s*=", text, flags=re.MULTILINE)
    assert set(keys) == {"client_id", "base_url", "url", "workspace"}
