// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What is fixed when a program is loaded. Frozen before the verifier runs, so
// a branch on a constant costs nothing and no code hides behind an #ifdef.
#pragma once
#include "types.h"

struct config {
	__u32 overlay;         // ifindex of the VXLAN device
	__u32 flow_idle_tcp;   // seconds an established TCP flow may be silent
	__u32 flow_idle_new;   // seconds a flow without an answer may be silent
	__u32 flow_idle_udp;   // seconds an answered flow of another protocol may be silent
	__u32 flow_idle_end;   // seconds a TCP flow lives on after FIN or RST
	__u32 flood_copies;    // that a port may cause a second; 0: any number
	__u32 fragment_wait;   // seconds a fragment waits for the first one of its datagram
	__u32 hash_seed;       // makes slots of hashes such as no sender can foresee
	__u8 tunnel_from_cb;   // packet tests: the tunnel's VNI and identity are in
	                       // cb[0] and cb[1], the sender's IPv4 underlay address
	                       // (network order) in cb[2]; a test run has no tunnel
	__u8 direct;           // make and take off VXLAN here where it is plain
	__u8 casts;            // the kernel shows programs its own record of a packet
	__u8 sums_hidden;      // it does not, and lets them read no memory either (lockdown)
	__be16 vxlan_port;
	__be16 peer_port;      // UDP port by which hosts speak to each other
	struct addr underlay;  // this host's own address in the underlay; all-zero: by route
	union enums enums[0];   // see there
};

const volatile struct config cfg = {
	.flow_idle_tcp = 86400,
	.flow_idle_new = 60,
	.flow_idle_udp = 180,
	.flow_idle_end = 30,
	.flood_copies = 20000,
	.fragment_wait = 1,
};
