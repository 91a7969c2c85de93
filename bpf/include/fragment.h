// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The fragments of a packet: the first one has the ports that all are judged by, and
// leaves them for the others of the same sender. Who comes before the first waits for
// it: hold.h. Each port has slots of its own for that, in which its datagrams replace
// each other. What policy has not let in, or not yet, has half of them at most.
#pragma once
#include "config.h"
#include "maps.h"
#include "parse.h"

enum {
	OTHERS = 0xffff,  // no VLAN tag: of what is for no port alone, by network
	SLOT_WAYS = 4,    // slots of each half in which a datagram may be
};

// Longer than any host waits for the rest of a packet (RFC 791, RFC 8200).
#define FRAGMENT_LIFE 30000000000ull

// What a first fragment leaves for the others: one word, so that who sees the end sees the ports.
union first_fragment {
	struct {
		__be16 src_port;
		__be16 dst_port;
		__be16 rule_port;
		__u16 end;
	};
	__u64 word;
};

_Static_assert(offsetof(struct fragment, src_port) % 8 == 0 &&
	       offsetof(struct fragment, end) - offsetof(struct fragment, src_port) ==
	       offsetof(union first_fragment, end), "struct fragment has no such word");

static __always_inline union first_fragment read_first(const struct fragment *row)
{
	return (union first_fragment){ .word = *(const volatile __u64 *)&row->src_port };
}

static __always_inline __u16 origin_of(const struct packet *p)
{
	return p->flags & (PACKET_LOCAL | PACKET_OVERLAY | PACKET_UPLINK);
}

static __always_inline struct fragment_key fragment_key_of(const struct packet *p)
{
	struct fragment_key key = {
		.network = p->network, .id = p->fragment_id, .src = p->src, .dst = p->dst,
		.identity = p->identity, .origin = origin_of(p), .proto = p->proto,
	};

	if (p->flags & PACKET_OVERLAY)
		key.host = p->host;
	return key;
}

static __always_inline bool is_of_datagram(const struct fragment_key *of, const struct packet *p)
{
	return of->id == p->fragment_id && of->network == p->network && of->proto == p->proto &&
	       of->identity == p->identity && of->origin == origin_of(p) && addr_equal(&of->src, &p->src) &&
	       addr_equal(&of->dst, &p->dst) && (!(p->flags & PACKET_OVERLAY) || addr_equal(&of->host, &p->host));
}

// Whose slots those are of what comes for no port alone: a network's groups; 0: clients
// of published ports.
static __always_inline __u64 others_of(__u32 network)
{
	return network | (__u64)OTHERS << 32;
}

static __always_inline __u32 mix(__u32 hash, __u32 word)
{
	hash = (hash ^ word) * 0x85ebca6b;
	return hash ^ hash >> 15;
}

static __always_inline __u32 mix_address(__u32 hash, const struct addr *a)
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		hash = mix(hash, a->w[i]);
	return hash;
}

// Return where a packet's datagram may be. Numbers that follow each other, as a
// sender's do, have slots of their own; whose datagrams have the same ones, no sender
// can foresee.
static __always_inline __u32 slot_hash(const struct packet *p)
{
	__u32 id = p->fragment_id, sender;

	sender = mix(cfg.hash_seed, p->identity << 16 | origin_of(p));
	if (p->flags & PACKET_OVERLAY)
		sender = mix_address(sender, &p->host);
	sender = mix_address(sender, &p->src);
	sender = mix_address(sender, &p->dst);
	id += id >> 8;
	id += id >> 16;
	return id + mix(sender, 0);
}

// Find a packet's datagram, and *slot: where it is, or may be; of those that are there,
// the longest there gives way. What was not let in (*allowed*), or not yet, may be in the
// upper half alone.
static __always_inline struct fragment *find_datagram(const struct packet *p, __u64 port, __u32 allowed,
						      struct slot_key *slot)
{
	struct share_key key = { .port = { .ifindex = port, .vlan = port >> 32 }, .of = SHARE_FRAGMENTS };
	struct share *share = bpf_map_lookup_elem(&shares, &key);
	__u32 slots = share ? share->until ?: 1 : SLOT_WAYS, upper = slots / 2, at = slot_hash(p);
	__u32 ways = upper ? (upper - 1) & (SLOT_WAYS - 1) : 0;
	__u64 oldest = ~0ull;

	slot->port = key.port;
	slot->slot = (at | upper) & (slots - 1);
#pragma unroll
	for (__u32 i = 0; i < 2 * SLOT_WAYS; i++) {
		struct slot_key one = { .port = key.port };
		struct fragment *row;

		one.slot = ((i < SLOT_WAYS ? at | upper : at & ~upper) ^ (i & ways)) & (slots - 1);
		row = bpf_map_lookup_elem(&fragments, &one);
		// A clock behind `seen` is that of another CPU.
		if (row && is_of_datagram(&row->of, p) && (__s64)(p->now - row->seen) <= (__s64)FRAGMENT_LIFE) {
			slot->slot = one.slot;
			return row;
		}
		if ((allowed || i < SLOT_WAYS) && (!row || row->seen < oldest)) {
			oldest = row ? row->seen : 0;
			slot->slot = one.slot;
		}
	}
	return NULL;
}

// Leave the ports of a first fragment for the others, or give a later one those of
// its first. To be called when the source is known to be right, or one port could
// speak for another's packets. Only a first one that is let in (*allowed*) takes with it
// who came before, or the place of another first one of the same datagram.
__noinline int gather_fragment(struct packet *p, __u64 port, __u32 allowed)
{
	union first_fragment first = {};
	struct fragment *row, new = {};
	struct slot_key slot;

	if (!p)
		return DROP_ERROR;
	row = find_datagram(p, port, allowed, &slot);
	if (p->flags & PACKET_LATER) {
		if (row)
			first = read_first(row);
		if (!first.end)
			return 0;
		p->flags &= ~PACKET_UNSEEN;
		// It must not lie over any of the first (RFC 5722): the headers that
		// are judged are there.
		if (p->fragment_at < first.end) {
			p->bad = DROP_MALFORMED;
			return 0;
		}
		p->src_port = first.src_port;
		p->dst_port = first.dst_port;
		p->rule_port = first.rule_port;
		if (!is_icmp(p))
			p->flags |= PACKET_TRACKED;
		else
			p->flags |= icmp_flags(p->family, *(__u8 *)&p->rule_port) &
				    ~(PACKET_ERROR | PACKET_ND | PACKET_MLD);
		return 0;
	}
	first.src_port = p->src_port;
	first.dst_port = p->dst_port;
	first.rule_port = p->rule_port;
	first.end = p->fragment_end;
	if (row) {
		if (!allowed && read_first(row).end)
			return 0;
		row->seen = p->now;
		*(volatile __u64 *)&row->src_port = first.word;
		if (!allowed)
			return 0;
		// Who comes from now on finds it seen; who came before is here: the exchange
		// is a full barrier, as is what hold does before it looks for the first.
		p->early = __sync_lock_test_and_set(&row->early, 0);
		if (p->early)
			p->flags |= PACKET_EARLY;
		return 0;
	}
	new.of = fragment_key_of(p);
	new.seen = p->now;
	new.src_port = first.src_port;
	new.dst_port = first.dst_port;
	new.rule_port = first.rule_port;
	new.end = first.end;
	bpf_map_update_elem(&fragments, &slot, &new, BPF_ANY);
	return 0;
}

static __always_inline bool is_first_fragment(const struct packet *p)
{
	return (p->flags & (PACKET_FRAGMENT | PACKET_LATER)) == PACKET_FRAGMENT && !p->bad;
}

static __always_inline void gather(struct packet *p, __u64 port, __u32 allowed)
{
	if (p->flags & PACKET_FRAGMENT && !p->bad)
		gather_fragment(p, port, allowed);
}
