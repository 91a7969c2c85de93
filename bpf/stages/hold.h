// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Fragments that come before the first of their datagram wait for it, and go on in
// its own run. Each port has a ring of slots for them: its own next ones replace
// them, nobody else's. What waits in vain is counted when it is replaced, or when the
// agent has `expire` run.
//
//     hold ──> a slot of the port
//       └─ DROP_FRAGMENT
//     release ─┬─ of a port here ──> all of them once more from that port, the first one first
//              └─ from elsewhere ──> all of them to the port, whose firewall has let the first in
//                                        └─ DROP_MALFORMED, DROP_RATE, DROP_ERROR
#pragma once
#include "../include/fragment.h"
#include "../include/stage.h"
#include "deliver.h"

enum {
	RELEASE_ROOM = 128,  // removed behind the MAC header, which is all that may owe a checksum: see report.h
};

// Whose share it is: the sender's, if it is of this host, else the receiver's.
static __always_inline __u64 holder(const struct packet *p)
{
	return p->flags & PACKET_LOCAL ? port_number(&p->port) : port_number(&p->place.port);
}

static __always_inline int drop_held(struct packet *p, enum drop why)
{
	return p->flags & PACKET_LOCAL ? drop(p, why) : drop_at(p, holder(p), why, p->place.identity);
}

SEC("tc")
int hold(struct __sk_buff *skb)
{
	struct packet *p = packet_in_flight();
	__u32 length = skb->len, zero = 0;
	struct early_fragment *e;
	struct fragment *row;
	struct share_key key = { .of = SHARE_EARLY };
	struct slot_key at = {}, slot;
	struct share *share;
	__u64 *charged, bit, before;

	if (!p)
		return TC_ACT_SHOT;
	key.port = at.port = port_of(holder(p));
	share = bpf_map_lookup_elem(&shares, &key);
	charged = bpf_map_lookup_elem(&charges, &key);
	e = bpf_map_lookup_elem(&holding, &zero);
	barrier_on(length);
	if (!share || !share->until || !charged || !e || skb->gso_size ||
	    !is_length(&length, ETH_HLEN, EARLY_MAX) || bpf_skb_load_bytes(skb, 0, e->bytes, length))
		return drop_held(p, DROP_FRAGMENT);
	e->port = key.port;
	e->of = fragment_key_of(p);
	e->seen = p->now;
	e->length = length;
	e->at = p->fragment_at;
	e->charge = __sync_fetch_and_add(charged, 1);
	at.slot = e->charge & (share->until - 1) & (EARLY_SLOTS - 1);
	if (bpf_map_lookup_elem(&early_fragments, &at))
		drop_held(p, DROP_FRAGMENT);  // that one
	if (bpf_map_update_elem(&early_fragments, &at, e, BPF_ANY))
		return drop_held(p, DROP_FRAGMENT);
	row = find_datagram(p, port_number(&key.port), 0, &slot);
	if (!row) {
		struct fragment new = { .of = fragment_key_of(p), .seen = p->now };

		bpf_map_update_elem(&fragments, &slot, &new, BPF_ANY);
		row = bpf_map_lookup_elem(&fragments, &slot);
	}
	if (!row)
		return drop_held(p, DROP_FRAGMENT);
	bit = 1ull << at.slot;
	// With its result used it is a full barrier; without, it orders nothing on arm64.
	before = __sync_fetch_and_or(&row->early, bit);
	barrier_on(before);
	// The first may have come by another processor just now, and not have met it.
	if (read_first(row).end && __sync_fetch_and_and(&row->early, ~bit) & bit) {
		bpf_map_delete_elem(&early_fragments, &at);
		return drop_held(p, DROP_FRAGMENT);
	}
	return TC_ACT_STOLEN;
}

struct releasing {
	struct __sk_buff *skb;
	__u64 early;
	__u32 ifindex;
	__u16 vlan;
	__u16 pad;
	__u64 flags;  // of the redirect
};

static __always_inline int clone_to(const struct releasing *r)
{
	int error;

	if (r->vlan && bpf_skb_vlan_push(r->skb, bpf_htons(ETH_P_8021Q), r->vlan))
		return -1;
	error = bpf_clone_redirect(r->skb, r->ifindex, r->flags);
	if (r->vlan)
		bpf_skb_vlan_pop(r->skb);
	return error;
}

// Make the packet that fragment; 0, or why it goes nowhere, DROP_NONE included for
// one that is not there any more.
static __always_inline int make_of(struct __sk_buff *skb, struct packet *p, struct early_fragment *e, __u64 charge,
				   enum drop *why)
{
	__u32 length = e->length;

	*why = DROP_MALFORMED;
	if (e->at < p->fragment_end)
		return -1;
	*why = DROP_ERROR;
	barrier_on(length);
	if (!is_length(&length, ETH_HLEN, EARLY_MAX) || bpf_skb_change_tail(skb, length, 0))
		return -1;
	if (!is_length(&length, ETH_HLEN, EARLY_MAX) || bpf_skb_store_bytes(skb, 0, e->bytes, length, 0))
		return -1;
	// It may have been replaced meanwhile, and its memory be another port's.
	barrier();
	*why = DROP_NONE;
	if (e->charge != charge || port_number(&e->port) != holder(p) || !is_of_datagram(&e->of, p))
		return -1;
	return 0;
}

static long release_slot(__u32 i, struct releasing *r)
{
	struct packet *p = packet_in_flight();
	struct slot_key key = { .slot = i };
	struct early_fragment *e;
	enum drop why;
	__u64 charge;

	if (!p || !(r->early >> (i & (EARLY_SLOTS - 1)) & 1))
		return 0;
	key.port = port_of(holder(p));
	e = bpf_map_lookup_elem(&early_fragments, &key);
	// Another one's by now, or one that has waited for too long: counted when it goes.
	if (!e || !is_of_datagram(&e->of, p) || (__s64)(p->now - e->seen) > (__s64)(cfg.fragment_wait * SECOND))
		return 0;
	charge = e->charge;
	if (make_of(r->skb, p, e, charge, &why)) {
		if (why)
			drop_held(p, why);
	} else if (!(p->flags & PACKET_LOCAL) && p->place.flags & PORT_LIMITED &&
		   !within_rate(r->skb, holder(p), WAY_IN)) {
		drop_held(p, DROP_RATE);
	} else if (clone_to(r)) {
		drop_held(p, DROP_ERROR);
	}
	e = bpf_map_lookup_elem(&early_fragments, &key);
	if (e && e->charge == charge)
		bpf_map_delete_elem(&early_fragments, &key);
	return 0;
}

SEC("tc")
int release(struct __sk_buff *skb)
{
	struct packet *p = packet_in_flight();
	struct releasing r = { .skb = skb };

	if (!p)
		return TC_ACT_SHOT;
	if (p->flags & PACKET_LOCAL) {
		r.ifindex = p->port.ifindex;
		r.vlan = p->port.vlan;
		r.flags = BPF_F_INGRESS;
	} else {
		r.ifindex = p->place.port.ifindex;
		if (p->place.body == BODY_VLAN)
			r.vlan = p->place.port.vlan;
	}
	r.early = p->early;
	p->out = r.ifindex;
	if (clone_to(&r))
		return drop_held(p, DROP_ERROR);
	// Of the first one only the MAC header stays, so that none has its checksum.
	if (bpf_skb_change_tail(skb, p->l4 + RELEASE_ROOM, 0) ||
	    bpf_skb_adjust_room(skb, -RELEASE_ROOM, BPF_ADJ_ROOM_MAC, 0) || bpf_skb_change_tail(skb, EARLY_MAX, 0)) {
		drop_held(p, DROP_ERROR);
		return TC_ACT_STOLEN;
	}
	bpf_loop(EARLY_SLOTS, release_slot, &r, 0);
	return TC_ACT_STOLEN;
}

// ---- What waits no more. The agent runs it now and then, on no packet.

struct bpf_map;

struct expiring {
	__u64 now;
	struct packet *p;
};

static long expire_early(struct bpf_map *map, struct slot_key *key, struct early_fragment *e, struct expiring *x)
{
	__u32 zero = 0;
	struct packet *p = bpf_map_lookup_elem(&expired, &zero);

	if (!p || (__s64)(x->now - e->seen) <= (__s64)(cfg.fragment_wait * SECOND))
		return 0;
	p->now = x->now;
	p->flags = PACKET_IP;
	p->network = e->of.network;
	p->family = addr_is_ipv4(&e->of.src) ? FAMILY_IPV4 : FAMILY_IPV6;
	p->eth_proto = p->family == FAMILY_IPV4 ? ETH_P_IP : ETH_P_IPV6;
	p->proto = e->of.proto;
	p->src = e->of.src;
	p->dst = e->of.dst;
	count(p, port_number(&e->port), DROP_FRAGMENT, 0, 0);
	bpf_map_delete_elem(map, key);
	return 0;
}

static long expire_datagram(struct bpf_map *map, struct slot_key *key, struct fragment *row, struct expiring *x)
{
	__u64 life = read_first(row).end ? FRAGMENT_LIFE : cfg.fragment_wait * SECOND;

	if ((__s64)(x->now - row->seen) > (__s64)life)
		bpf_map_delete_elem(map, key);
	return 0;
}

SEC("tc")
int expire(struct __sk_buff *skb)
{
	struct expiring x = { .now = bpf_ktime_get_coarse_ns() };

	bpf_for_each_map_elem(&early_fragments, expire_early, &x, 0);
	bpf_for_each_map_elem(&fragments, expire_datagram, &x, 0);
	return TC_ACT_UNSPEC;
}
