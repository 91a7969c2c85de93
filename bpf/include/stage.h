// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// How a stage hands a packet to the next, and how a packet is dropped.
#pragma once
#include <linux/pkt_cls.h>
#include "clock.h"
#include "config.h"
#include "fragment.h"
#include "maps.h"
#include "parse.h"

int answer(struct __sk_buff *skb);
int flood(struct __sk_buff *skb);
int route(struct __sk_buff *skb);
int split(struct __sk_buff *skb);
int report(struct __sk_buff *skb);
int ask(struct __sk_buff *skb);
int publish(struct __sk_buff *skb);
int publish_error(struct __sk_buff *skb);
int respond(struct __sk_buff *skb);
int respond_error(struct __sk_buff *skb);
int hold(struct __sk_buff *skb);
int release(struct __sk_buff *skb);
int from_workload(struct __sk_buff *skb);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(max_entries, STAGE_MAX);
	__array(values, int(struct __sk_buff *));
} stages SEC(".maps") = {
	.values = {
		[ANSWER] = (void *)&answer,
		[FLOOD] = (void *)&flood,
		[ROUTE] = (void *)&route,
		[SPLIT] = (void *)&split,
		[REPORT] = (void *)&report,
		[ASK] = (void *)&ask,
		[PORT] = (void *)&from_workload,
		[PUBLISH] = (void *)&publish,
		[PUBLISH_ERROR] = (void *)&publish_error,
		[RESPOND] = (void *)&respond,
		[RESPOND_ERROR] = (void *)&respond_error,
		[HOLD] = (void *)&hold,
		[RELEASE] = (void *)&release,
	},
};

enum { LOOPBACK = 1 };  // the device, in every network namespace

// The overlay's, and that by which hosts speak to each other.
static __always_inline bool is_hosts_port(__u8 proto, __be16 port)
{
	return proto == IPPROTO_UDP && (port == cfg.vxlan_port || port == cfg.peer_port);
}

static __always_inline bool is_no_router(const struct place *place)
{
	return place->kind == PLACE_ROUTER && place->router == NO_ROUTER;
}

static __always_inline struct packet *packet_in_flight(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&current, &zero);
}

static __always_inline __u64 port_number(const struct port_key *port)
{
	return port->ifindex | (__u64)port->vlan << 32;
}

static __always_inline struct port_key port_of(__u64 number)
{
	return (struct port_key){ .ifindex = number, .vlan = number >> 32 };
}

// Where counting begins: not on the stack, at whose deep end packets are counted.
const struct drop_record NOTHING_YET = {};

// Count a packet at a port (`port_number`, 0 for none) with what it was.
__noinline int count(struct packet *p, __u64 port, __u32 why, __u32 identity, __u32 remote_identity)
{
	struct drop_key key = { .port = port_of(port), .why = why };
	struct drop_record *r;

	if (!p)
		return 0;
	r = bpf_map_lookup_elem(&drops, &key);
	if (!r) {
		bpf_map_update_elem(&drops, &key, &NOTHING_YET, BPF_NOEXIST);
		r = bpf_map_lookup_elem(&drops, &key);
		if (!r)
			return 0;
	}
	__sync_fetch_and_add(&r->packets, 1);
	r->seen = p->now;
	r->src = p->src;
	r->dst = p->dst;
	r->network = p->network;
	r->identity = identity;
	r->remote_identity = remote_identity;
	r->src_port = p->src_port;
	r->dst_port = p->dst_port;
	if (p->flags & PACKET_IP && is_icmp(p)) {
		r->src_port = p->rule_port;
		r->dst_port = 0;
	}
	r->eth_proto = p->eth_proto;
	r->proto = p->proto;
	return 0;
}

// Drop what a port sent, or what no port has to do with.
static __always_inline int drop(struct packet *p, enum drop why)
{
	p->why = why;
	count(p, port_number(&p->port), why, p->identity, p->place.identity);
	return TC_ACT_SHOT;
}

// Drop what a port was to get.
static __always_inline int drop_at(struct packet *p, __u64 port, enum drop why, __u32 identity)
{
	p->why = why;
	count(p, port, why, identity, p->identity);
	return TC_ACT_SHOT;
}

static __always_inline int go(struct __sk_buff *skb, struct packet *p, enum stage next)
{
	bpf_tail_call(skb, &stages, next);
	return drop(p, DROP_NO_STAGE);  // reached only if the slot is empty
}

static __always_inline int redirect(struct packet *p, __u32 ifindex)
{
	p->out = ifindex;
	return bpf_redirect(ifindex, 0);
}
