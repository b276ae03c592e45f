"""What is behind a failure, in the operator's words: the cause and its remedy, by the key that errors carry."""

from __future__ import annotations
