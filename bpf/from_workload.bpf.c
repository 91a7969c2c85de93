// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// A packet leaves a port and enters its network.
//
//     from_workload ── guard ─┬─ firewall(egress) ── forward ──> a port, the overlay, the uplink
//           │            │    ├─ ask       DHCP, router solicitations, DNS ──> the agent
//           │            │    │    └─ DROP_NO_SERVICE
//           │            │    ├─ hold, release   fragments that come before their first one
//           │            │    ├─ answer    ARP, neighbour solicitations; note_holder ──> the agent
//           │            │    ├─ route     to a router
//           │            │    ├─ respond   answers to clients of published ports
//           │            │    └─ flood     groups, unknown destinations
//           │            │         └─ DROP_POLICY_OUT, DROP_NO_MAC, DROP_TOO_BIG, DROP_LOOP, DROP_RATE
//           │            └─ DROP_SPOOFED_*, DROP_ROGUE_*, DROP_NOT_IP
//           └─ DROP_NO_PORT, DROP_SPOOFED_VLAN
#pragma once
#include "include/stage.h"
#include "stages/answer.h"
#include "stages/ask.h"
#include "stages/deliver.h"
#include "stages/guard.h"
#include "stages/learn.h"
#include "stages/owed.h"
#include "stages/respond.h"
#include "stages/route.h"

enum { TAG = 0xfff, NO_TAG = 0x1000 };

// Take the outer VLAN tag off: its number, 0 if there is none, negative if the
// tags are none that a port may have: who sends two is known by the outer one.
static __always_inline int untag(struct __sk_buff *skb)
{
	__be16 tag;
	int vlan;

	if (skb->vlan_present) {
		if (skb->vlan_proto != bpf_htons(ETH_P_8021Q))
			return -NO_TAG;
		vlan = skb->vlan_tci & 0xfff;
	} else if (skb->protocol == bpf_htons(ETH_P_8021Q)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &tag, 2))
			return -NO_TAG;
		vlan = bpf_ntohs(tag) & 0xfff;
	} else {
		return skb->protocol == bpf_htons(ETH_P_8021AD) ? -NO_TAG : 0;
	}
	if (bpf_skb_vlan_pop(skb))
		return -NO_TAG;
	if (skb->vlan_present)
		return vlan ? -vlan : -NO_TAG;
	return vlan ?: -NO_TAG;
}

SEC("tc")
int from_workload(struct __sk_buff *skb)
{
	struct packet *p = packet_in_flight();
	struct mac_key mac = {};
	struct place *place;
	struct port *port;
	enum drop why;
	__u32 mtu, flags;
	int vlan;

	if (!p)
		return TC_ACT_SHOT;
	vlan = untag(skb);
	p->port = (struct port_key){ .ifindex = skb->ifindex, .vlan = (vlan < 0 ? -vlan : vlan) & TAG };
	p->flags = PACKET_LOCAL;
	p->network = 0;
	p->identity = 0;
	p->place.kind = 0;
	p->place.identity = 0;
	port = bpf_map_lookup_elem(&ports, &p->port);
	if (port && vlan < 0) {
		parse(skb, p);
		return drop(p, DROP_SPOOFED_VLAN);
	}
	if (!port) {
		struct port_key untagged = { .ifindex = skb->ifindex };

		parse(skb, p);
		p->port = untagged;
		if (vlan && bpf_map_lookup_elem(&ports, &untagged))
			return drop(p, DROP_SPOOFED_VLAN);
		p->port = (struct port_key){};
		return drop(p, vlan < 0 ? DROP_SPOOFED_VLAN : DROP_NO_PORT);
	}
	p->network = port->network;
	p->identity = port->identity;
	p->body = port->body;
	mtu = port->mtu;
	flags = port->flags;
	if (port->flags & PORT_SECURED)
		p->flags |= PACKET_SECURED;
	parse(skb, p);
	if (p->bad == DROP_SPOOFED_VLAN)
		return drop(p, DROP_SPOOFED_VLAN);
	if (owes_elsewhere(skb, p))
		return drop(p, DROP_MALFORMED);
	if (p->flags & PACKET_SECURED) {
		why = guard(skb, p, port);
		if (why)
			return drop(p, why);
	}
	if (is_question(p, port))
		return go(skb, p, ASK);
	if (p->flags & PACKET_FRAGMENT) {
		gather(p, port_number(&p->port), 1);
		if (p->flags & PACKET_EARLY)
			return go(skb, p, RELEASE);
		if ((p->flags & (PACKET_UNSEEN | PACKET_SECURED)) == (PACKET_UNSEEN | PACKET_SECURED))
			return go(skb, p, HOLD);
	}
	if (!(p->flags & PACKET_IP) || p->flags & PACKET_ND) {
		if (note_holder(skb, p))
			return TC_ACT_STOLEN;
		if (is_solicitation(skb, p))
			return go(skb, p, ANSWER);
	}

	if (p->size > mtu)
		return drop(p, DROP_TOO_BIG);
	if (flags & PORT_LIMITED && p->flags & PACKET_IP && !within_rate(skb, port_number(&p->port), WAY_OUT))
		return drop(p, DROP_RATE);
	if (flags & PORT_PUBLISHED && is_response(skb, p))
		return go(skb, p, p->flags & PACKET_ERROR ? RESPOND_ERROR : RESPOND);
	if (!(p->dst_mac[0] & 1)) {
		mac.network = p->network;
		mac_copy(mac.mac, p->dst_mac);
		place = bpf_map_lookup_elem(&macs, &mac);
		if (place) {
			p->place = *place;
			if (place->kind == PLACE_ROUTER)
				return go(skb, p, ROUTE);
			if (place->kind == PLACE_LOCAL && port_number(&p->place.port) == port_number(&p->port))
				return drop(p, DROP_LOOP);
			if (p->flags & PACKET_UNSEEN && is_judged_here(p))
				return go(skb, p, HOLD);
		} else {
			struct network *net = bpf_map_lookup_elem(&networks, &p->network);

			if (!net)
				return drop(p, DROP_NO_NETWORK);
			if (!(net->flags & (NETWORK_FLOOD_UNKNOWN | NETWORK_PROVIDER)))
				return drop(p, DROP_NO_MAC);
			if (!(net->flags & NETWORK_FLOOD_UNKNOWN))
				p->place.kind = PLACE_UPLINK;
		}
	}
	why = leave_port(skb, p);
	if (why)
		return drop(p, why);
	if (!p->place.kind)
		return go(skb, p, FLOOD);
	return forward(skb, p);
}
