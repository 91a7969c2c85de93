"""The ways in: what container engines and runtimes say to a host's agent, in their own protocols."""
