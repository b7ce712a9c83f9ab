"""Version of the package and of the protocol that it speaks."""

from __future__ import annotations

VERSION = "0.1.0"
PROTOCOL = 4
