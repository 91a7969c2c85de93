"""What a guest asks, and what it is told: DHCP, DHCPv6, router advertisements, names.

Each module turns a question's bytes into an answer's, without a socket. `desk`
reads questions off the data plane and sends the answers; `names` asks others
for what it does not know.
"""
