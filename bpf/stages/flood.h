// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// To all of a network: a clone for each port of this host and, for what began
// here, for each other host and the uplink.
//
//     flood ── each member ─┬─ LOCAL ── firewall(ingress) ──> clone
//                           ├─ REMOTE ──> clone to the overlay
//                           └─ UPLINK ──> clone to the uplink
#pragma once
#include "../include/stage.h"
#include "deliver.h"

struct flooding {
	struct __sk_buff *skb;
	__u32 network;
	__u32 uplink;
	__u16 uplink_vlan;
};

// Return whether a secured port may have what its network does not know: only
// as one of the addresses that it may send from.
static __always_inline bool may_be_at(const struct packet *p, const struct port_key *port)
{
	struct source_key key = { .prefixlen = 256, .port = *port, .ip = p->dst };

	if (p->flags & PACKET_GROUP || !(p->flags & PACKET_IP))
		return true;
	mac_copy(key.mac, p->dst_mac);
	return bpf_map_lookup_elem(&sources, &key);
}

// Return whether a port sent the packet itself: it was not from here when it
// left another host, which serves the port as well and has it from the same
// wire. Given back, it would come in there again, and go in circles.
static __always_inline bool is_of(const struct packet *p, __u64 port)
{
	struct mac_key key = { .network = p->network };
	struct place *place;

	mac_copy(key.mac, p->src_mac);
	place = bpf_map_lookup_elem(&macs, &key);
	return place && place->kind == PLACE_LOCAL && port_number(&place->port) == port;
}

static __always_inline void flood_port(struct __sk_buff *skb, struct packet *p, const struct port_key *key)
{
	__u64 number = port_number(key);
	struct port *to;
	enum drop why;

	if (p->flags & PACKET_LOCAL ? number == port_number(&p->port) : is_of(p, number))
		return;
	to = bpf_map_lookup_elem(&ports, key);
	if (!to)
		return;  // its row in the flood list is about to go, too
	if (to->flags & PORT_SECURED) {
		if (!may_be_at(p, key))
			return;
		why = pass_firewall(skb, p, number, WAY_IN, to->identity, p->identity);
		if (why) {
			drop_at(p, number, why, to->identity);
			return;
		}
	}
	if (to->flags & PORT_LIMITED && !within_rate(skb, number, WAY_IN)) {
		drop_at(p, number, DROP_RATE, to->identity);
		return;
	}
	if (clone(skb, key->ifindex, to->body == BODY_VLAN ? key->vlan : 0))
		drop_at(p, number, DROP_ERROR, to->identity);
}

static long flood_member(__u32 slot, struct flooding *f)
{
	struct member_key key = { .network = f->network, .slot = slot };
	struct place *place = bpf_map_lookup_elem(&members, &key);
	struct packet *p = packet_in_flight();
	struct port_key port;

	if (!place || !p)
		return 0;
	if (place->kind == PLACE_LOCAL) {
		port = place->port;
		flood_port(f->skb, p, &port);
		return 0;
	}
	if (!(p->flags & PACKET_LOCAL))
		return 0;
	if (place->kind == PLACE_REMOTE) {
		if (set_tunnel(f->skb, p, &place->underlay) || clone(f->skb, cfg.overlay, 0))
			drop(p, DROP_ERROR);
	} else if (place->kind == PLACE_UPLINK && f->uplink) {
		if (clone(f->skb, f->uplink, f->uplink_vlan))
			drop(p, DROP_ERROR);
	}
	return 0;
}

SEC("tc")
int flood(struct __sk_buff *skb)
{
	struct packet *p = packet_in_flight();
	struct flooding f = { .skb = skb };
	struct network *net;

	if (!p)
		return TC_ACT_SHOT;
	net = bpf_map_lookup_elem(&networks, &p->network);
	if (!net)
		return drop(p, DROP_NO_NETWORK);
	f.network = p->network;
	f.uplink = net->uplink;
	f.uplink_vlan = net->uplink_vlan;
	bpf_loop(net->members, flood_member, &f, 0);
	if (!(p->flags & PACKET_UPLINK))
		return TC_ACT_STOLEN;
	return to_host(skb, p);  // which may want it as well
}
