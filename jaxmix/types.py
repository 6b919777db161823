"""Types that several rooms share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
"""What JSON and TOML hold: plain numbers, texts, None, and lists and tables of them."""
