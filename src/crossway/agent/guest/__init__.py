"""What a guest asks when it boots, and what it is told: DHCP, DHCPv6, router advertisements.

Each module turns a question's bytes into an answer's; none of them touches a
socket. `desk` reads questions off the data plane and sends the answers.
"""
