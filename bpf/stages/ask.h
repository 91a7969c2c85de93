// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// A guest asks what the agent answers: DHCP, DHCPv6, router solicitations, DNS.
// The agent learns which port asked; the answer comes from the port's own link.
//
//     ask ─┬──────────────────────────> the agent
//          └─ DNS: firewall(egress) ──> the agent
//               └─ DROP_POLICY_OUT         ├─ DROP_NO_SERVICE
//                                          └─ DROP_PUNT_SHARE
#pragma once
#include "../include/budget.h"
#include "../include/stage.h"
#include "firewall.h"
#include "guard.h"

enum {
	DNS = 53,
	QUESTIONS = 20,
	QUESTIONS_PER_SECOND = 10,
	NAMES = 100,  // and of names
	NAMES_PER_SECOND = 100,
};

// Python reads the layout from here.
const struct asked *const asked_layout SEC(".rodata") = 0;

static __always_inline bool is_dns(const struct packet *p)
{
	return p->proto == IPPROTO_UDP && p->dst_port == bpf_htons(DNS);
}

// Return whether a packet's destination is on a network that its router joins.
static __always_inline bool is_behind_router(const struct packet *p)
{
	struct route_key key = { .prefixlen = 32 + 128, .dst = p->dst };
	struct mac_key mac = { .network = p->network };
	struct place *next;
	struct route *route;

	mac_copy(mac.mac, p->dst_mac);
	next = bpf_map_lookup_elem(&macs, &mac);
	if (!next || next->kind != PLACE_ROUTER || is_no_router(next))
		return false;
	key.router = next->router;
	route = bpf_map_lookup_elem(&routes, &key);
	return route && route->kind == ROUTE_CONNECTED;
}

// Return whether who is asked for a name is a router, or what stands in for one:
// a server of names on the network itself, or on the next, is a port's, though
// the host's own may have the same address.
static __always_inline bool is_of_names(const struct packet *p)
{
	struct endpoint_key key = { .network = p->network, .ip = p->dst };
	struct endpoint *who = bpf_map_lookup_elem(&endpoints, &key);

	if (!who || who->place.kind != PLACE_ROUTER)
		return false;
	return !is_no_router(&who->place) || !is_behind_router(p);
}

// Return whether a packet is a question that the port's agent answers.
static __always_inline bool is_question(const struct packet *p, const struct port *port)
{
	if ((p->flags & (PACKET_IP | PACKET_UNSEEN | PACKET_FRAGMENT)) != PACKET_IP)
		return false;
	if (port->flags & PORT_NAMES && is_dns(p))
		return is_of_names(p);
	if (p->family == FAMILY_IPV4)
		return port->flags & PORT_DHCP && p->proto == IPPROTO_UDP && p->src_port == bpf_htons(DHCP_CLIENT) &&
		       p->dst_port == bpf_htons(DHCP_SERVER);
	if (!(port->flags & PORT_ADVERTISED) || !(p->flags & PACKET_GROUP))
		return false;
	if (p->proto == IPPROTO_UDP)
		return p->src_port == bpf_htons(DHCPV6_CLIENT) && p->dst_port == bpf_htons(DHCPV6_SERVER);
	return p->proto == IPPROTO_ICMPV6 && *(__u8 *)&p->rule_port == ND_RS;
}

SEC("tc")
int ask(struct __sk_buff *skb)
{
	struct packet *p = packet_in_flight();
	__u32 length = skb->len, zero = 0;
	struct asked *q;
	enum drop why;
	bool heard;

	if (!p)
		return TC_ACT_SHOT;
	if (is_dns(p)) {
		if (p->flags & PACKET_SECURED) {
			why = pass_firewall(skb, p, port_number(&p->port), WAY_OUT, p->identity, 0);
			if (why)
				return drop(p, why);
		}
		heard = has_budget(&curiosity, &p->port, p->now, NAMES, NAMES_PER_SECOND);
	} else {
		heard = has_budget(&patience, &p->port, p->now, QUESTIONS, QUESTIONS_PER_SECOND);
	}
	barrier_on(length);
	if (length < ETH_HLEN || length > QUESTION_MAX || !heard)
		return drop(p, DROP_NO_SERVICE);
	q = bpf_map_lookup_elem(&question, &zero);
	if (!q)
		return drop(p, DROP_ERROR);
	q->port = p->port;
	q->length = length;
	if (bpf_skb_load_bytes(skb, 0, q->frame, length))
		return drop(p, DROP_SHORT);
	if (!may_wait(&questions, &waiting, &p->port, offsetof(struct asked, frame) + length))
		return drop(p, DROP_PUNT_SHARE);
	barrier_on(length);
	if (length > QUESTION_MAX || bpf_ringbuf_output(&questions, q, offsetof(struct asked, frame) + length, 0))
		return drop(p, DROP_NO_SERVICE);
	return TC_ACT_STOLEN;
}
