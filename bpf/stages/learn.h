// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Addresses that are nobody's fixed ones: of allowed address pairs, and of
// ports without port security. Who has one says so by ARP and neighbour
// discovery, on its own host; there the agent learns it, for the routers of
// all hosts. On the network itself such an address is found as ever: its
// solicitations are flooded, and its holder answers.
//
//     note_holder ── ARP or ND of a port that says it has such an address, or will ──> the agent
//     seek ── a router looks for an address that no row tells ──> the agent
#pragma once
#include "../include/budget.h"
#include "../include/stage.h"
#include "deliver.h"
#include "guard.h"

enum {
	SIGHTINGS = 20,
	SIGHTINGS_PER_SECOND = 10,
};

// Python reads the layout from here.
const struct sighting *const sighting_layout SEC(".rodata") = 0;

static __always_inline int tell_agent(struct packet *p, const struct endpoint_key *at, enum sighting_kind kind)
{
	struct port_key port = p->port;  // on the stack, as in seek()
	struct sighting *s;

	if (!has_budget(&sighting_budgets, &port, p->now, SIGHTINGS, SIGHTINGS_PER_SECOND))
		return 0;
	if (!may_wait(&sightings, &sightings_waiting, &port, sizeof(*s)))
		return 0;
	s = bpf_ringbuf_reserve(&sightings, sizeof(*s), 0);
	if (!s)
		return 0;
	s->port = p->port;
	s->network = at->network;
	s->ip = at->ip;
	mac_copy(s->mac, p->src_mac);
	s->kind = kind;
	s->pad = 0;
	bpf_ringbuf_submit(s, 0);
	return 1;
}

static __always_inline bool has_unknown(__u32 network)
{
	struct network *net = bpf_map_lookup_elem(&networks, &network);

	return net && net->flags & NETWORK_FLOOD_UNKNOWN;
}

// Return whether a port may have an address beside its fixed ones.
static __always_inline bool may_have(const struct packet *p, const struct addr *ip)
{
	return !(p->flags & PACKET_SECURED) || owns(p, ip);
}

// Have the agent learn which address a port says it has, or is about to have, if
// it is one to be learned. Return whether the packet is for the agent alone: it
// answers its probe.
__noinline int note_holder(struct __sk_buff *skb, struct packet *p)
{
	enum sighting_kind kind = SIGHTING_HELD;
	struct endpoint_key key = {};
	struct endpoint *who;
	struct arp arp = {};
	bool probed, known, announced;

	if (!p || p->bad || !has_unknown(p->network))
		return 0;
	key.network = p->network;
	probed = mac_equal(p->dst_mac, GATEWAY_MAC);
	if (p->eth_proto == ETH_P_ARP) {
		if (load_arp(skb, &arp) || !is_arp_of_ipv4(&arp))
			return 0;
		addr_from_arp(&key.ip, arp.sender_ip);
		probed = probed && arp.operation == bpf_htons(ARP_REPLY);
		announced = !__builtin_memcmp(arp.sender_ip, arp.target_ip, 4);
		if (addr_is_unspecified(&key.ip)) {
			kind = SIGHTING_WISHED;
			addr_from_arp(&key.ip, arp.target_ip);
		}
	} else if (p->ttl != 255) {
		return 0;
	} else if (p->rule_port == bpf_htons(ND_NS << 8) && !addr_is_unspecified(&p->src)) {
		key.ip = p->src;
		probed = announced = false;
	} else {
		announced = p->dst_mac[0] & 1;
		if (p->rule_port == bpf_htons(ND_NS << 8))
			kind = SIGHTING_WISHED;
		if (bpf_skb_load_bytes(skb, p->l4 + 8, &key.ip, sizeof(key.ip)))
			return 0;
	}
	if (addr_is_unspecified(&key.ip) || addr_is_group(&key.ip) || addr_is_link_local(&key.ip))
		return 0;
	who = bpf_map_lookup_elem(&endpoints, &key);
	if (who && !(who->place.flags & PORT_LEARNED) && !is_no_router(&who->place))
		return 0;  // it is somebody's fixed one
	// One that has several MACs says by announcements alone which the address has.
	known = who && who->place.kind == PLACE_LOCAL && port_number(&who->place.port) == port_number(&p->port) &&
		(mac_equal(who->mac, p->src_mac) || !announced);
	if (probed)
		kind = SIGHTING_ANSWERED;
	if ((!known || probed) && may_have(p, &key.ip))
		tell_agent(p, &key, kind);
	return probed;
}

// Have the agent look for the address that a router did not find. Return
// whether its sender should wait: it may be found any moment.
__noinline int seek(struct packet *p)
{
	struct search first, *search;
	struct endpoint_key key;

	if (!p || !has_unknown(p->sought.network))
		return 0;
	key = p->sought;  // on the stack: kernel 6.1 takes no other key here
	search = bpf_map_lookup_elem(&sought, &key);
	if (!search || passed_since(p->now, search->last) > 3 * SECOND) {
		if (!tell_agent(p, &key, SIGHTING_SOUGHT))
			return 0;
		first.began = first.last = p->now;
		bpf_map_update_elem(&sought, &key, &first, BPF_ANY);
		return 1;
	}
	if (passed_since(p->now, search->last) > SECOND && tell_agent(p, &key, SIGHTING_SOUGHT))
		search->last = p->now;
	return passed_since(p->now, search->began) < SECOND;
}
