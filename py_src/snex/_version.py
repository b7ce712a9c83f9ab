"""Version of the package and of the protocol that it speaks."""

from __future__ import annotations

VERSION = "1.0.0-rc.1"
PROTOCOL = 4
