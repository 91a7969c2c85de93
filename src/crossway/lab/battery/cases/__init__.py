"""The cases, an area a file, in the order in which they are told."""

from crossway.lab.battery.cases import switched  # noqa: I001
from crossway.lab.battery.cases import routed
from crossway.lab.battery.cases import addresses
from crossway.lab.battery.cases import names
from crossway.lab.battery.cases import security
from crossway.lab.battery.cases import fragments
from crossway.lab.battery.cases import spoofing
from crossway.lab.battery.cases import life

__all__ = ["addresses", "fragments", "life", "names", "routed", "security", "spoofing", "switched"]
