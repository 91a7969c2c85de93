// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// A packet for an address of the host itself; where a port of this host has
// published something there, it is the port's. The client stays who it is, but
// for the host's own loopback, which is the port's gateway to it.
//
//     publish ─┬─ published ── admit ──> deliver
//              │      └─ DROP_TAKEN, DROP_SPOOFED_CLIENT, DROP_TOO_BIG, DROP_ERROR
//              ├─ an ICMP error about a client's connection ──> deliver
//              └──> the host
#pragma once
#include "../include/stage.h"
#include "deliver.h"
#include "owed.h"
#include "reach.h"
#include "translate.h"

// Whom the port sees, of those whom the host sees.
static __always_inline struct addr seen_client(const struct addr *client, const struct published *row)
{
	return addr_is_loopback(client) ? row->gateway : *client;
}

static __always_inline struct published *find_published(const struct addr *ip, __be16 port, __u8 proto)
{
	struct published_key key = { .ip = *ip, .port = port, .proto = proto };

	return bpf_map_lookup_elem(&published, &key);
}

// Return whether the port reaches an address another way than by the host: on its
// own network, or through its gateway on one that routers join, or by their routes,
// default ones left out.
static __noinline int is_of_ports_side(struct published *row, struct addr *client)
{
	struct port *port = row ? bpf_map_lookup_elem(&ports, &row->place.port) : NULL;
	struct route_key key = { .prefixlen = 32 + 128 };
	struct endpoint_key at = {};
	struct endpoint *who;
	struct route *route, *wide;

	if (!port || !client)
		return 0;
	at.network = port->network;
	at.ip = *client;
	if (bpf_map_lookup_elem(&endpoints, &at))
		return 1;
	at.ip = row->gateway;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		who = bpf_map_lookup_elem(&endpoints, &at);
		if (!who || who->place.kind != PLACE_ROUTER)
			return i > 0;  // a next hop: it has a way there
		key.router = who->place.router;
		key.dst = *client;
		route = bpf_map_lookup_elem(&routes, &key);
		if (!route || route->kind == ROUTE_BLACKHOLE)
			return 0;
		if (route->kind != ROUTE_VIA)
			return 1;
		__builtin_memset(&key.dst, 0, sizeof(key.dst));
		if (addr_is_ipv4(client))
			key.dst.w[2] = bpf_htonl(0xffff);
		wide = bpf_map_lookup_elem(&routes, &key);
		if (wide && wide->kind == ROUTE_VIA && wide->network == route->network && addr_equal(&wide->via, &route->via))
			return 0;
		at.network = route->network;
		at.ip = route->via;
	}
	return 1;
}

static __always_inline bool is_same_client(const struct translation *t, const struct packet *p)
{
	return addr_equal(&t->client, &p->src) && addr_equal(&t->host, &p->dst) && t->host_port == p->dst_port;
}

// Return why somebody must not become a client of this flow, or 0. Answers go to
// whom the first packet says that it is from, by the link by which it came: neither
// another one nor another link takes them over while the flow goes on.
static __noinline int refuse_client(struct __sk_buff *skb, struct packet *p, struct published *row, struct flow_key *key,
			     __u32 ifindex)
{
	struct translation *t;
	struct flow *f;

	if (!p || !row || !key)
		return DROP_ERROR;
	t = look_up_translation(key);
	f = t ? look_up_flow(key) : NULL;
	if (f && is_alive(f, p->proto, p->now) && !is_ending(f->flags)) {
		if (!is_same_client(t, p))
			return DROP_TAKEN;
		if (t->ifindex != ifindex &&
		    (t->ifindex == LOOPBACK || ifindex == LOOPBACK || !is_reached_by(skb, &p->src, ifindex, 0)))
			return DROP_TAKEN;
	}
	// The host's own loopback is the gateway to the port.
	if (!addr_is_loopback(&p->src) && is_of_ports_side(row, &p->src))
		return DROP_SPOOFED_CLIENT;
	return 0;
}

// Take note to whom answers of this flow go; 0, or why it cannot be.
static __always_inline enum drop note_client(const struct packet *p, __u32 ifindex, const struct flow_key *key)
{
	struct translation now = {
		.seen = p->now, .client = p->src, .host = p->dst, .ifindex = ifindex, .host_port = p->dst_port,
	};

	if (!bpf_map_update_elem(&translations_assured, key, &now, BPF_EXIST))
		return 0;
	if (charge(port_number(&key->port), SHARE_TRANSLATIONS) &&
	    !bpf_map_update_elem(&translations_assured, key, &now, BPF_ANY)) {
		bpf_map_delete_elem(&translations, key);
		return 0;
	}
	return bpf_map_update_elem(&translations, key, &now, BPF_ANY) ? DROP_ERROR : 0;
}

// Let a client in; 0, or why it cannot be.
static __always_inline enum drop let_in(struct __sk_buff *skb, struct packet *p, struct published *row,
					struct flow_key *key, __u32 ifindex)
{
	struct translation *t = look_up_translation(key);
	bool known = t && is_same_client(t, p) && t->ifindex == ifindex;
	enum drop why = 0;

	// An answer to there would be taken for a host's.
	if (is_hosts_port(p->proto, p->src_port))
		return DROP_SPOOFED_CLIENT;
	if (!known)
		why = refuse_client(skb, p, row, key, ifindex);
	if (!why && row->place.flags & PORT_SECURED)
		why = admit(p, key, row->place.identity);
	if (why)
		return why;
	// A borrowed one may come into its port's share.
	return !known || passed_since(p->now, t->seen) > SECOND ? note_client(p, ifindex, key) : 0;
}

// Into the port of `place`, which has let the packet in.
static __always_inline int hand_in(struct __sk_buff *skb, struct packet *p, const struct published *row, __u32 ifindex)
{
	__u64 number = port_number(&p->place.port);
	__u8 macs[12] __attribute__((aligned(2)));
	struct port *port;

	mac_copy(macs, row->mac);
	mac_copy(macs + 6, GATEWAY_MAC);
	if (p->place.flags & PORT_LIMITED && !within_rate(skb, number, WAY_IN))
		return drop_at(p, number, DROP_RATE, p->place.identity);
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return drop_at(p, number, DROP_ERROR, p->place.identity);
	if (ifindex != LOOPBACK || p->place.body != BODY_VETH)
		return deliver(skb, p, number, p->place.body);
	// What the host itself sends has a route, of which redirect_peer would not
	// rid it before kernel 6.16; and it may be of any size.
	port = bpf_map_lookup_elem(&ports, &p->place.port);
	if (!port || p->size > port->mtu)
		return drop_at(p, number, DROP_TOO_BIG, p->place.identity);
	return redirect(p, p->place.port.ifindex);
}

// An ICMP error about what a port has answered to a client.
SEC("tc")
int publish_error(struct __sk_buff *skb)
{
	struct packet *p = packet_in_flight();
	__u32 ifindex = skb->ifindex;
	struct published *row;
	struct quoted q = {};
	struct flow_key key;
	struct addr ip, client;
	struct flow *f;
	int error;

	if (!p)
		return TC_ACT_UNSPEC;
	barrier_on(ifindex);
	if (!read_quoted(skb, p, &q) || !is_published_proto(q.proto))
		return TC_ACT_UNSPEC;
	row = find_published(&q.src, q.src_port, q.proto);
	if (!row)
		return TC_ACT_UNSPEC;
	key = (struct flow_key){ .port = row->place.port, .proto = q.proto };
	key.local = row->ip;
	key.remote = seen_client(&q.dst, row);
	key.local_port = row->port;
	key.remote_port = q.dst_port;
	if (!look_up_translation(&key))
		return TC_ACT_UNSPEC;
	f = look_up_flow(&key);
	if (f && (!(f->flags & FLOW_PUBLISHED) || !is_in_window(skb, &q, f)))
		return TC_ACT_UNSPEC;
	p->place = row->place;
	ip = row->ip;
	error = set_quoted(skb, &q, 1, &ip, row->port);
	error |= set_end(skb, p, 0, &ip, 0);
	if (addr_is_loopback(&q.dst))
		error |= set_quoted(skb, &q, 0, &key.remote, q.dst_port);
	if (addr_is_loopback(&p->src)) {
		client = row->gateway;
		error |= set_end(skb, p, 1, &client, 0);
	}
	if (error)
		return drop_at(p, port_number(&p->place.port), DROP_ERROR, p->place.identity);
	return hand_in(skb, p, row, ifindex);
}

SEC("tc")
int publish(struct __sk_buff *skb)
{
	struct packet *p = packet_in_flight();
	__u32 ifindex = skb->ifindex;
	struct published *row;
	struct addr client, ip;
	struct flow_key key;
	enum drop why;
	__u64 number;
	int error;

	if (!p)
		return TC_ACT_UNSPEC;
	barrier_on(ifindex);
	p->port = (struct port_key){};
	p->flags = PACKET_UPLINK;
	p->network = 0;
	p->identity = 0;
	p->place.kind = 0;
	p->place.identity = 0;
	parse(skb, p);
	if (p->flags & PACKET_LATER)
		gather(p, others_of(0), 0);
	// What is wrong, or cannot be answered, is the host's to judge.
	if (p->bad || p->flags & (PACKET_UNSEEN | PACKET_GROUP) || addr_is_unspecified(&p->src) ||
	    addr_is_group(&p->src) || addr_is_reserved(&p->src) || addr_is_link_local(&p->src) || owes_elsewhere(skb, p))
		return TC_ACT_UNSPEC;
	if (ifindex != LOOPBACK && (addr_is_loopback(&p->src) || addr_is_loopback(&p->dst)))
		return TC_ACT_UNSPEC;
	if (p->flags & PACKET_ERROR)
		return go(skb, p, PUBLISH_ERROR);
	if (!is_published_proto(p->proto))
		return TC_ACT_UNSPEC;
	row = find_published(&p->dst, p->dst_port, p->proto);
	if (!row)
		return TC_ACT_UNSPEC;
	p->place = row->place;
	number = port_number(&p->place.port);
	client = seen_client(&p->src, row);
	key = (struct flow_key){ .port = row->place.port, .proto = p->proto };
	key.local = row->ip;
	key.remote = client;
	key.local_port = row->port;
	key.remote_port = p->src_port;
	why = let_in(skb, p, row, &key, ifindex);
	if (is_first_fragment(p))
		gather_fragment(p, others_of(0), !why);
	if (why)
		return drop_at(p, number, why, p->place.identity);
	ip = row->ip;
	error = set_end(skb, p, 0, &ip, row->port);
	if (!addr_equal(&client, &p->src))
		error |= set_end(skb, p, 1, &client, p->src_port);
	if (error)
		return drop_at(p, number, DROP_ERROR, p->place.identity);
	return hand_in(skb, p, row, ifindex);
}
