"""The loop on each host: view, plan, changes, kernel; and the status back."""

from crossway.agent.run import purge, run, serve

__all__ = ["purge", "run", "serve"]
