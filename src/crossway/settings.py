"""What an operator may set, with its default, in one place.

A setting is read from the command line first, then from the environment
(CROSSWAY_ and its name in capitals), then from here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """One thing that may be set: its name, what it is by default, and what it means."""

    name: str
    default: str
    what: str

    @property
    def variable(self) -> str:
        """Return the name of the environment variable that sets it."""
        return f"CROSSWAY_{self.name.upper()}"

    def value(self) -> str:
        """Return what the environment says, or else the default."""
        return os.environ.get(self.variable) or self.default


SERVER = Setting("server", "http://127.0.0.1:9696", "URL of a server, or several with commas between them")
LISTEN = Setting("listen", "127.0.0.1:9696", "address on which the server listens")
DATA = Setting("data", "/var/lib/crossway", "directory of what must outlive a restart")
RUN = Setting("run", "/run/crossway", "directory of an agent's socket, bodies and pinned tables")
LAB = Setting("lab", "", "name of the lab that commands speak to")
EXTERNAL = Setting("external", "172.24.4.1/24", "address of this machine on the external network of `crossway up`")
UNDERLAY_MTU = Setting("underlay_mtu", "1500", "largest IP packet that the network between hosts carries")
OBJECT = Setting("object", "", "path of another build of the data plane than the one that the package carries")

ALL = (SERVER, LISTEN, DATA, RUN, LAB, EXTERNAL, UNDERLAY_MTU, OBJECT)
