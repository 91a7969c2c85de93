// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The fragments of a packet: the first one has the ports that all are judged by, and
// leaves them for the others. Who comes before the first waits for it: hold.h. Each
// port has slots of its own for that, in which its datagrams replace each other.
#pragma once
#include "config.h"
#include "maps.h"
#include "parse.h"

enum {
	SLOTS_OF_OTHERS = 256,  // of what is for no port alone: groups, a host's own addresses
	OTHERS = 0xffff,        // no VLAN tag
	SLOT_WAYS = 4,          // slots in which a datagram may be
};

// Longer than any host waits for the rest of a packet (RFC 791, RFC 8200).
#define FRAGMENT_LIFE 30000000000ull

static __always_inline struct fragment_key fragment_key_of(const struct packet *p)
{
	return (struct fragment_key){
		.network = p->network, .id = p->fragment_id, .src = p->src, .dst = p->dst, .proto = p->proto,
	};
}

static __always_inline bool is_of_datagram(const struct fragment_key *of, const struct packet *p)
{
	return of->id == p->fragment_id && of->network == p->network && of->proto == p->proto &&
	       addr_equal(&of->src, &p->src) && addr_equal(&of->dst, &p->dst);
}

// Whose slots those are of what comes for no port alone.
static __always_inline __u64 others_of(__u32 network)
{
	return network | (__u64)OTHERS << 32;
}

// Find a packet's datagram, and *slot: where it is, or may be. Numbers that follow
// each other, as a sender's do, have slots of their own; of those that have the same
// ones by chance, the longest there gives way.
static __always_inline struct fragment *find_datagram(const struct packet *p, __u64 port, struct slot_key *slot)
{
	struct share_key key = { .port = { .ifindex = port, .vlan = port >> 32 }, .of = SHARE_FRAGMENTS };
	struct share *share = bpf_map_lookup_elem(&shares, &key);
	__u32 slots = share ? share->until : SLOTS_OF_OTHERS, id = p->fragment_id, at;
	__u64 oldest = ~0ull;

	id += id >> 8;
	id += id >> 16;
	id += (p->src.w[3] ^ p->dst.w[3]) * 0x9e3779b1 >> 16;
	at = id & (slots - 1);
	slot->port = key.port;
#pragma unroll
	for (__u32 i = 0; i < SLOT_WAYS; i++) {
		struct slot_key one = { .port = key.port, .slot = (at ^ i) & (slots - 1) };
		struct fragment *row = bpf_map_lookup_elem(&fragments, &one);

		// A clock behind `seen` is that of another CPU.
		if (row && is_of_datagram(&row->of, p) && (__s64)(p->now - row->seen) <= (__s64)FRAGMENT_LIFE) {
			slot->slot = one.slot;
			return row;
		}
		if (!row || row->seen < oldest) {
			oldest = row ? row->seen : 0;
			slot->slot = one.slot;
		}
	}
	return NULL;
}

// Leave the ports of a first fragment for the others, or give a later one those of
// its first. To be called when the source is known to be right, or one port could
// speak for another's packets.
__noinline int gather_fragment(struct packet *p, __u64 port)
{
	struct fragment *row, new = {};
	struct slot_key slot;

	if (!p)
		return DROP_ERROR;
	row = find_datagram(p, port, &slot);
	if (p->flags & PACKET_LATER) {
		if (!row || !row->end)
			return 0;
		p->flags &= ~PACKET_UNSEEN;
		// It must not lie over any of the first (RFC 5722): the headers that
		// are judged are there.
		if (p->fragment_at < row->end) {
			p->bad = DROP_MALFORMED;
			return 0;
		}
		p->src_port = row->src_port;
		p->dst_port = row->dst_port;
		p->rule_port = row->rule_port;
		if (!is_icmp(p))
			p->flags |= PACKET_TRACKED;
		else
			p->flags |= icmp_flags(p->family, *(__u8 *)&p->rule_port) &
				    ~(PACKET_ERROR | PACKET_ND | PACKET_MLD);
		return 0;
	}
	if (row) {
		row->seen = p->now;
		row->src_port = p->src_port;
		row->dst_port = p->dst_port;
		row->rule_port = p->rule_port;
		row->end = p->fragment_end;
		barrier();
		// Whoever comes from now on finds it seen; who came before is here.
		if (row->early) {
			p->early = __sync_lock_test_and_set(&row->early, 0);
			if (p->early)
				p->flags |= PACKET_EARLY;
		}
		return 0;
	}
	new.of = fragment_key_of(p);
	new.seen = p->now;
	new.src_port = p->src_port;
	new.dst_port = p->dst_port;
	new.rule_port = p->rule_port;
	new.end = p->fragment_end;
	bpf_map_update_elem(&fragments, &slot, &new, BPF_ANY);
	return 0;
}

static __always_inline void gather(struct packet *p, __u64 port)
{
	if (p->flags & PACKET_FRAGMENT && !p->bad)
		gather_fragment(p, port);
}
