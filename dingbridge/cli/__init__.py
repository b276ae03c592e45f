"""The verbs. stdout is the result, stderr is diagnostics; what a verb needs is imported when it runs.

Exit codes: 0 done, 1 failed, 2 usage, 78 configuration.
"""

from __future__ import annotations

from dingbridge.cli import daemon, demo, operating, storing, trying  # noqa: F401 - they register their verbs
from dingbridge.cli.root import main

__all__ = ["main"]
