// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// To all of a network: a clone for each port of this host and, for what began
// here, for each other host and the uplink. Each copy costs who causes it: a port
// of this host, or all others of the network together.
//
//     flood ─┬─ DROP_FLOOD_RATE
//            └─ each member ─┬─ LOCAL ── firewall(ingress) ──> clone
//                           ├─ REMOTE ──> clone to the overlay
//                           └─ UPLINK ──> clone to the uplink
#pragma once
#include "../include/stage.h"
#include "deliver.h"

enum {
	FLOOD_BURST = 2,    // seconds' worth of copies at once
	FLOOD_LEAST = 25,   // packets a second that pass, however many members there are
	COPY = 8,           // a copy costs as much as so many members that get none
};

struct flooding {
	struct __sk_buff *skb;
	__u32 network;
	__u32 cost;
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

// Find until when what the sender of a packet has caused is paid for: in the future,
// if it must wait. NULL if it need not pay.
static __always_inline __s64 *flood_account(const struct packet *p)
{
	const __s64 now = p->now, earliest = now - FLOOD_BURST * SECOND;
	struct port_key who = p->port;
	__s64 *paid_until, first = earliest;

	if (!cfg.flood_copies)
		return NULL;
	if (!(p->flags & PACKET_LOCAL))
		who = (struct port_key){ .ifindex = p->network, .pad = 1 };
	paid_until = bpf_map_lookup_elem(&flooded, &who);
	if (!paid_until) {
		bpf_map_update_elem(&flooded, &who, &first, BPF_NOEXIST);
		return bpf_map_lookup_elem(&flooded, &who);
	}
	first = *(volatile __s64 *)paid_until;
	if (first < earliest)
		__sync_val_compare_and_swap(paid_until, first, earliest);
	return paid_until;
}

// Return how many nanoseconds of its sender's rate a flood has cost.
static __always_inline __s64 flood_price(__u32 cost)
{
	const __u64 most = SECOND / FLOOD_LEAST;
	__u64 price = cost * (SECOND / COPY / (cfg.flood_copies ?: 1));

	return price < most ? price : most;
}

// Give a port its copy: whether it has cost one.
static __always_inline bool flood_port(struct __sk_buff *skb, struct packet *p, const struct port_key *key)
{
	__u64 number = port_number(key);
	struct port *to;
	enum drop why;

	if (p->flags & PACKET_LOCAL ? number == port_number(&p->port) : is_of(p, number))
		return false;
	to = bpf_map_lookup_elem(&ports, key);
	if (!to)
		return false;  // its row in the flood list is about to go, too
	if (to->flags & PORT_SECURED) {
		if (!may_be_at(p, key))
			return false;
		why = pass_firewall(skb, p, number, WAY_IN, to->identity, p->identity);
		if (why) {
			drop_at(p, number, why, to->identity);
			return false;
		}
	}
	if (to->flags & PORT_LIMITED && !within_rate(skb, number, WAY_IN)) {
		drop_at(p, number, DROP_RATE, to->identity);
		return false;
	}
	if (clone(skb, key->ifindex, to->body == BODY_VLAN ? key->vlan : 0))
		drop_at(p, number, DROP_ERROR, to->identity);
	return true;
}

static long flood_member(__u32 slot, struct flooding *f)
{
	struct member_key key = { .network = f->network, .slot = slot };
	struct place *place = bpf_map_lookup_elem(&members, &key);
	struct packet *p = packet_in_flight();
	struct port_key port;

	if (!place || !p)
		return 0;
	f->cost++;
	if (place->kind == PLACE_LOCAL) {
		port = place->port;
		if (flood_port(f->skb, p, &port))
			f->cost += COPY;
		return 0;
	}
	if (!(p->flags & PACKET_LOCAL))
		return 0;
	f->cost += COPY;
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
	__s64 *paid_until;

	if (!p)
		return TC_ACT_SHOT;
	net = bpf_map_lookup_elem(&networks, &p->network);
	if (!net)
		return drop(p, DROP_NO_NETWORK);
	f.network = p->network;
	f.uplink = net->uplink;
	f.uplink_vlan = net->uplink_vlan;
	paid_until = flood_account(p);
	if (paid_until && *(volatile __s64 *)paid_until > (__s64)p->now) {
		if (!(p->flags & PACKET_UPLINK))
			return drop(p, DROP_FLOOD_RATE);
		count(p, 0, DROP_FLOOD_RATE, p->identity, 0);
		return to_host(skb, p);
	}
	// Senders without an identity leave half of the slots to those that have one.
	if (!(p->flags & PACKET_LOCAL))
		gather(p, others_of(p->network), p->identity != 0);
	bpf_loop(net->members, flood_member, &f, 0);
	if (paid_until)
		__sync_fetch_and_add(paid_until, flood_price(f.cost));
	if (!(p->flags & PACKET_UPLINK))
		return TC_ACT_STOLEN;
	return to_host(skb, p);  // which may want it as well
}
