// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// From network to network, through as many as 8 routers at once.
//
//     route ── hop ─┬─ next router ── hop …
//                   ├─ endpoint ── firewall(egress) ─┬─ forward
//                   │                                └─ split
//                   ├─ the router itself ── firewall(egress) ──> echo reply
//                   ├─ DROP_NO_ROUTE, DROP_NO_NEIGHBOUR, DROP_TTL, DROP_TOO_BIG,
//                   │  DROP_TOO_MANY_ROUTERS, DROP_ROUTER_SERVICE,
//                   │  DROP_REVERSE_PATH ── report
//                   ├─ DROP_LINK_LOCAL
//                   └─ DROP_NO_NEIGHBOUR, may be found any moment ── seek
#pragma once
#include "../include/checksum.h"
#include "../include/stage.h"
#include "deliver.h"
#include "learn.h"

#define MAX_ROUTERS 8
#define MAX_NEXT_HOPS 16  // of one prefix

// An ICMP error in both families.
#define ICMP_ANSWER(type4, code4, type6, code6) (((type4) << 8 | (code4)) << 16 | (type6) << 8 | (code6))

enum {
	NET_UNREACHABLE = ICMP_ANSWER(3, 0, 1, 0),
	HOST_UNREACHABLE = ICMP_ANSWER(3, 1, 1, 3),
	PORT_UNREACHABLE = ICMP_ANSWER(3, 3, 1, 4),
	TOO_BIG = ICMP_ANSWER(3, 4, 2, 0),
	BEYOND_SCOPE = ICMP_ANSWER(3, 0, 1, 2),
	PROHIBITED = ICMP_ANSWER(3, 13, 1, 5),  // the source is not one to come from there
	TIME_EXCEEDED = ICMP_ANSWER(11, 0, 3, 0),
};

enum hop { HOP_ON, HOP_THERE, HOP_SELF, HOP_REFUSED };

static __always_inline enum hop refuse(struct packet *p, enum drop why, __u32 answer)
{
	p->why = why;
	p->answer = p->family == FAMILY_IPV4 ? answer >> 16 : answer & 0xffff;
	return HOP_REFUSED;
}

// Return whether one of the further next hops of the packet's source is on a network.
static __always_inline bool leads_by(const struct packet *p, struct route *first, __u32 network)
{
	struct next_hop_key key = { .prefixlen = 64 + 128, .router = p->router, .dst = p->src };
	struct route *route;

	// Counted apart from the key: kernel 6.1 follows no counter that is part of one.
	for (__u32 number = 1; number < MAX_NEXT_HOPS; number++) {
		if (number > first->others)
			break;
		key.number = number;
		route = bpf_map_lookup_elem(&next_hops, &key);
		if (route && route->network == network)
			return true;
	}
	return false;
}

// Return whether a packet came to its router by the network by which that would send
// answers (RFC 3704); a port of that network may send as itself in any case.
static __always_inline bool is_on_reverse_path(const struct packet *p, struct route_key *key)
{
	struct route *back;

	if (p->flags & PACKET_OWN && !p->hops)
		return true;
	if (addr_is_group(&p->src) || addr_is_loopback(&p->src))
		return false;
	key->dst = p->src;
	back = bpf_map_lookup_elem(&routes, key);
	if (!back || (back->kind != ROUTE_CONNECTED && back->kind != ROUTE_VIA))
		return false;
	return back->network == p->entry || (back->others && leads_by(p, back, p->entry));
}

// Return a number that is the same for all packets from one address to another.
static __always_inline __u32 number_of_pair(const struct packet *p)
{
	__u32 number = 0;

	for (int i = 0; i < 4; i++) {
		number = (number ^ p->src.w[i]) * 0x9e3779b1;
		number = (number ^ number >> 15 ^ p->dst.w[i]) * 0x85ebca6b;
		number ^= number >> 13;
	}
	return number;
}

// Return one of several next hops, the same for all packets of a pair of
// addresses: it, or the first behind it whom the network has.
static __always_inline struct route *next_hop(const struct packet *p, struct route *first)
{
	struct next_hop_key key = { .prefixlen = 64 + 128, .router = p->router, .dst = p->dst };
	__u32 count = first->others + 1;
	struct endpoint_key next = {};
	struct route *route;

	key.number = number_of_pair(p) % count;
	for (__u32 tried = 0; tried < MAX_NEXT_HOPS && tried < count; tried++) {
		route = key.number ? bpf_map_lookup_elem(&next_hops, &key) : first;
		if (route) {
			next.network = route->network;
			next.ip = route->via;
			if (bpf_map_lookup_elem(&endpoints, &next))
				return route;
		}
		key.number = key.number + 1 < count ? key.number + 1 : 0;
	}
	return first;
}

// Pass one router: from `router` and `entry` to the next, or to `place`.
__noinline int hop(struct packet *p)
{
	struct route_key key = { .prefixlen = 32 + 128 };
	struct endpoint_key next = {};
	struct endpoint *who;
	struct network *net;
	struct route *route;

	if (!p)
		return HOP_REFUSED;
	key.router = p->router;
	key.dst = p->dst;
	route = bpf_map_lookup_elem(&routes, &key);
	if (!route || route->kind == ROUTE_BLACKHOLE) {
		if (p->router == NO_ROUTER)  // a port may be the gateway
			p->sought.network = p->entry;
		return refuse(p, DROP_NO_ROUTE, NET_UNREACHABLE);
	}
	if (route->kind == ROUTE_SELF)
		return HOP_SELF;
	if (!is_on_reverse_path(p, &key))
		return refuse(p, DROP_REVERSE_PATH, PROHIBITED);
	if (route->others)
		route = next_hop(p, route);
	if (p->ttl <= p->hops + 1)
		return refuse(p, DROP_TTL, TIME_EXCEEDED);
	net = bpf_map_lookup_elem(&networks, &route->network);
	if (!net)
		return refuse(p, DROP_NO_NETWORK, NET_UNREACHABLE);
	if (p->size > net->mtu) {
		if (p->flags & PACKET_WHOLE) {
			p->answer_mtu = net->mtu;
			return refuse(p, DROP_TOO_BIG, TOO_BIG);
		}
		// In pieces at once as small as some router must make them.
		if (!(p->flags & PACKET_SPLIT) || net->mtu < p->fit)
			p->fit = net->mtu;
		p->flags |= PACKET_SPLIT;
	}
	next.network = route->network;
	next.ip = route->kind == ROUTE_VIA ? route->via : p->dst;
	who = bpf_map_lookup_elem(&endpoints, &next);
	if (!who) {
		p->sought = next;
		return refuse(p, DROP_NO_NEIGHBOUR, HOST_UNREACHABLE);
	}
	p->hops++;
	p->exit = next.network;
	if (who->place.kind == PLACE_ROUTER) {
		p->entry = next.network;
		p->router = who->place.router;
		return HOP_ON;
	}
	p->place = who->place;
	mac_copy(p->next_mac, who->mac);
	return HOP_THERE;
}

// Turn an echo request around; each fragment of one for itself.
static __always_inline int echo(struct __sk_buff *skb, struct packet *p)
{
	__u8 macs[12] __attribute__((aligned(2)));
	int error;

	mac_copy(macs, p->src_mac);
	mac_copy(macs + 6, p->dst_mac);
	error = bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0);
	if (p->family == FAMILY_IPV4) {
		__be32 ips[2] = { p->dst.w[3], p->src.w[3] };
		__be16 ttl[2];

		error |= bpf_skb_load_bytes(skb, ETH_HLEN + 8, ttl, 4);
		if (error)
			return drop(p, DROP_ERROR);
		ttl[1] = checksum_replace(ttl[1], ttl[0], bpf_htons(64 << 8 | IPPROTO_ICMP));
		ttl[0] = bpf_htons(64 << 8 | IPPROTO_ICMP);
		error |= bpf_skb_store_bytes(skb, ETH_HLEN + 8, ttl, 4, 0);
		error |= bpf_skb_store_bytes(skb, ETH_HLEN + 12, ips, 8, 0);
	} else {
		__u8 limit = 64;

		error |= bpf_skb_store_bytes(skb, ETH_HLEN + 7, &limit, 1, BPF_F_RECOMPUTE_CSUM);
		error |= bpf_skb_store_bytes(skb, ETH_HLEN + 8, &p->dst, 16, 0);
		error |= bpf_skb_store_bytes(skb, ETH_HLEN + 24, &p->src, 16, 0);
	}
	if (!(p->flags & PACKET_LATER)) {
		__be16 head[2], type = bpf_htons(p->family == FAMILY_IPV4 ? 0 : ICMPV6_ECHO_REPLY << 8);

		error |= bpf_skb_load_bytes(skb, p->l4, head, 4);
		if (error)
			return drop(p, DROP_ERROR);
		type |= head[0] & bpf_htons(0xff);
		head[1] = checksum_replace(head[1], head[0], type);
		head[0] = type;
		error |= bpf_skb_store_bytes(skb, p->l4, head, 4, 0);
	}
	if (error)
		return drop(p, DROP_ERROR);
	return send_back(skb, p);
}

// Give the packet the MACs and the TTL with which its last router sends it.
static __always_inline int rewrite(struct __sk_buff *skb, struct packet *p)
{
	struct interface_key key = { .network = p->exit, .router = p->router };
	struct interface *foot = bpf_map_lookup_elem(&interfaces, &key);
	__u8 macs[12] __attribute__((aligned(2)));

	if (!foot)
		return -1;
	mac_copy(macs, p->next_mac);
	mac_copy(macs + 6, foot->mac);
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return -1;
	if (p->family == FAMILY_IPV4) {
		__be16 ttl[2], old;

		if (bpf_skb_load_bytes(skb, ETH_HLEN + 8, ttl, 4))
			return -1;
		old = ttl[0];
		ttl[0] = bpf_htons((p->ttl - p->hops) << 8 | p->proto);
		ttl[1] = checksum_replace(ttl[1], old, ttl[0]);
		return bpf_skb_store_bytes(skb, ETH_HLEN + 8, ttl, 4, 0);
	}
	__u8 limit = p->ttl - p->hops;

	return bpf_skb_store_bytes(skb, ETH_HLEN + 7, &limit, 1, BPF_F_RECOMPUTE_CSUM);
}

static __always_inline enum drop leave_port(struct __sk_buff *skb, struct packet *p)
{
	if (!(p->flags & PACKET_SECURED))
		return 0;
	return pass_firewall(skb, p, port_number(&p->port), WAY_OUT, p->identity, p->place.identity);
}

// For the router itself.
static __always_inline int serve(struct __sk_buff *skb, struct packet *p)
{
	enum drop why = leave_port(skb, p);

	if (why)
		return drop(p, why);
	if (p->flags & PACKET_ECHO)
		return echo(skb, p);
	drop(p, DROP_ROUTER_SERVICE);
	if (p->proto != IPPROTO_UDP)
		return TC_ACT_SHOT;
	refuse(p, DROP_ROUTER_SERVICE, PORT_UNREACHABLE);
	return go(skb, p, REPORT);
}

SEC("tc")
int route(struct __sk_buff *skb)
{
	struct packet *p = packet_in_flight();
	enum hop hopped = HOP_ON;
	enum drop why;

	if (!p)
		return TC_ACT_SHOT;
	if (!(p->flags & PACKET_IP))
		return drop(p, DROP_NOT_IP);
	if (p->bad)
		return drop(p, p->bad);
	if (addr_is_group(&p->dst))  // to the router's MAC: nothing to forward
		return drop(p, DROP_NO_ROUTE);
	p->router = p->place.router;
	p->entry = p->network;
	p->hops = 0;
	__builtin_memset(&p->sought, 0, sizeof(p->sought));
	__builtin_memset(&p->place, 0, sizeof(p->place));
	p->place.kind = PLACE_ROUTER;
	if (addr_is_link_local(&p->dst)) {
		struct endpoint_key key = { .network = p->network, .ip = p->dst };
		struct endpoint *who = bpf_map_lookup_elem(&endpoints, &key);

		if (who && who->place.kind == PLACE_ROUTER && who->place.router == p->router)
			return serve(skb, p);
		return drop(p, DROP_NO_ROUTE);
	}
	if (is_for_link(p))
		return drop(p, DROP_LINK_LOCAL);
	if (addr_is_link_local(&p->src)) {
		refuse(p, DROP_NO_ROUTE, BEYOND_SCOPE);
		hopped = HOP_REFUSED;
	}
#pragma unroll
	for (int i = 0; i < MAX_ROUTERS && hopped == HOP_ON; i++)
		hopped = hop(p);
	if (hopped == HOP_SELF)
		return serve(skb, p);
	if (hopped == HOP_ON)
		refuse(p, DROP_TOO_MANY_ROUTERS, TIME_EXCEEDED);
	if (hopped != HOP_THERE) {
		drop(p, p->why);
		if (p->sought.network && seek(p))
			return TC_ACT_SHOT;
		return go(skb, p, REPORT);
	}
	why = leave_port(skb, p);
	if (why)
		return drop(p, why);
	if (p->flags & PACKET_UNSEEN && is_judged_here(p))
		return go(skb, p, HOLD);
	p->network = p->exit;
	if (rewrite(skb, p))
		return drop(p, DROP_ERROR);
	if (p->flags & (PACKET_SPLIT | PACKET_FRAGMENT))
		return go(skb, p, SPLIT);
	return forward(skb, p);
}
