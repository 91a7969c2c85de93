"""Several hosts on one machine, in network namespaces: for trying, testing, measuring."""

from crossway.lab.lab import Host, Lab, Workload, down, sweep

__all__ = ["Host", "Lab", "Workload", "down", "sweep"]
