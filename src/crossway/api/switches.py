"""The operator's table of switches' ports, read anew when it has changed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from crossway.errors import Invalid, Unavailable
from crossway.model.link import Link, switch_ports

LOG = logging.getLogger("crossway.api")
LOOK_SECONDS = 1.0


class Switches:
    """A table that may change at any time; one that cannot be read leaves things as they were."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None
        self._looked, self._seen = time.monotonic(), (0, 0)
        self._table: dict[tuple[str, str], Link] = {}
        if self._path is not None:
            self._read(self._path)

    def __call__(self) -> Mapping[tuple[str, str], Link]:
        """Return where switches' ports lead."""
        now = time.monotonic()
        if self._path is not None and now - self._looked > LOOK_SECONDS:
            self._looked = now
            try:
                self._read(self._path)
            except (Invalid, Unavailable) as error:
                LOG.error("%s; what is known so far stays", error)
        return self._table

    def _read(self, path: Path) -> None:
        try:
            found = os.stat(path)
            if (found.st_ino, found.st_mtime_ns) == self._seen:
                return
            self._table = switch_ports(path.read_text(encoding="utf-8"))
            self._seen = found.st_ino, found.st_mtime_ns
        except OSError as error:
            raise Unavailable(f"table of switches' ports {path}: {error.strerror}") from None
        except ValueError as error:
            raise Invalid(f"table of switches' ports {path}, {error}") from None
