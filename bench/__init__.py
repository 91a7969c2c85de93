"""Crossway side by side with what a user would take instead.

    python -m bench [--only CASE]… [--repeats N] [--seconds S] [--rules N,N,N]

Every set-up lives in network namespaces of its own, all at once; each repeat
measures all of them in a new random order, so that whatever else the machine
does meets all alike. Not part of the package.
"""
