// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What a port answers to a client of a published port: it leaves by the device
// by which the client came, from the address to which the client spoke.
//
//     respond ── firewall(egress) ─┬─> the client, by its neighbour or gateway
//        │                         └─> the host's own loopback
//        ├─ DROP_TOO_BIG ── report
//        └─ DROP_POLICY_OUT, DROP_ERROR
#pragma once
#include "../include/stage.h"
#include "route.h"
#include "translate.h"

static __always_inline struct translation *find_translation(const struct packet *p, struct flow_key *key)
{
	name_flow(key, p, port_number(&p->port), WAY_OUT);
	return look_up_translation(key);
}

static __always_inline struct translation *find_quoted(const struct packet *p, const struct quoted *q,
						       struct flow_key *key)
{
	name_quoted(key, q, port_number(&p->port), WAY_OUT);
	return look_up_translation(key);
}

// Return whether a packet of a port is for a client of one of its published ports.
__noinline int is_response(struct __sk_buff *skb, struct packet *p)
{
	struct quoted q = {};
	struct flow_key key;

	if (!p || p->bad || !(p->flags & PACKET_IP) || p->flags & (PACKET_GROUP | PACKET_UNSEEN))
		return 0;
	if (p->flags & PACKET_ERROR)
		return read_quoted(skb, p, &q) && find_quoted(p, &q, &key) && !is_unpublished(&key, p->now);
	return is_published_proto(p->proto) && find_translation(p, &key) && !is_unpublished(&key, p->now);
}

// Return whether a packet is larger than the device's MTU, and tell that to the port.
static __always_inline bool is_too_big(struct __sk_buff *skb, struct packet *p, __u32 ifindex)
{
	__u32 mtu = 0;

	if (bpf_check_mtu(skb, ifindex, &mtu, 0, 0) < 0 || p->size <= mtu)
		return false;
	refuse(p, DROP_TOO_BIG, TOO_BIG);
	p->answer_mtu = mtu;
	p->entry = p->network;  // its gateway tells it
	p->router = NO_ROUTER;
	return true;
}

// Out of the host, or to the host's own loopback.
static __always_inline int hand_out(struct __sk_buff *skb, struct packet *p, __u32 ifindex)
{
	__u8 macs[12] = {};

	p->out = ifindex;
	if (ifindex != LOOPBACK)
		return bpf_redirect_neigh(ifindex, NULL, 0, 0);
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return drop(p, DROP_ERROR);
	return bpf_redirect(ifindex, BPF_F_INGRESS);
}

// An ICMP error about what a client has sent.
SEC("tc")
int respond_error(struct __sk_buff *skb)
{
	struct packet *p = packet_in_flight();
	struct translation *t, to;
	struct quoted q = {};
	struct flow_key key;
	int error;

	if (!p)
		return TC_ACT_SHOT;
	if (!read_quoted(skb, p, &q) || !(t = find_quoted(p, &q, &key)))
		return drop(p, DROP_ERROR);
	to = *t;
	error = set_quoted(skb, &q, 0, &to.host, to.host_port);
	error |= set_end(skb, p, 1, &to.host, 0);
	if (!addr_equal(&to.client, &q.src))
		error |= set_quoted(skb, &q, 1, &to.client, q.src_port);
	if (!addr_equal(&to.client, &p->dst))
		error |= set_end(skb, p, 0, &to.client, 0);
	if (error)
		return drop(p, DROP_ERROR);
	return hand_out(skb, p, to.ifindex);
}

SEC("tc")
int respond(struct __sk_buff *skb)
{
	struct packet *p = packet_in_flight();
	struct translation *t, to;
	struct flow_key key;
	enum drop why;
	struct flow *f;
	int error;

	if (!p)
		return TC_ACT_SHOT;
	if (is_hosts_port(p->proto, p->dst_port))
		return drop(p, DROP_SPOOFED_CLIENT);
	name_flow(&key, p, port_number(&p->port), WAY_OUT);
	f = look_up_flow(&key);
	why = leave_port(skb, p);
	if (why)
		return drop(p, why);
	// Whose flow has been lost goes on as what it was.
	if (!f && (f = look_up_flow(&key)))
		f->flags |= FLOW_PUBLISHED;
	t = find_translation(p, &key);
	if (!t)  // it gave way to another just now
		return drop(p, DROP_ERROR);
	if (passed_since(p->now, t->seen) > SECOND)
		t->seen = p->now;
	to = *t;
	if (is_too_big(skb, p, to.ifindex)) {
		drop(p, p->why);
		return p->flags & PACKET_WHOLE ? go(skb, p, REPORT) : TC_ACT_SHOT;
	}
	error = set_end(skb, p, 1, &to.host, to.host_port);
	if (!addr_equal(&to.client, &p->dst))
		error |= set_end(skb, p, 0, &to.client, p->dst_port);
	if (error)
		return drop(p, DROP_ERROR);
	return hand_out(skb, p, to.ifindex);
}
