"""The main job on real input: containers, a virtual machine and a bare-metal server of two tenants on three hosts.

Each tenant has Docker engines of its own on the hosts, the same names and the
same addresses. Everybody tries to reach everybody, over IPv4 and IPv6, and what
comes of it is held against the declared policy.
"""
