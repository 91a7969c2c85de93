// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What is larger than a network that it is routed into, and may be fragmented,
// goes there in pieces (RFC 791 2.3, RFC 1812 5.2.6): fragments of IPv4, and
// packets without DF. It is judged and counted as the one packet that it is.
//
//     split ─┬─ firewall(ingress), if it is for a port here ── pieces ──> a port, the overlay, the uplink
//            │                                                    └─ DROP_TOO_BIG, DROP_MALFORMED, DROP_ERROR
//            ├─ forward, if it fits: a fragment, by the way that the others go
//            └─ forward, if it is many packets in one (GSO), or a checksum within
//               it is owed that is not its own: whole, as the last resort
#pragma once
#include "../include/checksum.h"
#include "../include/stage.h"
#include "deliver.h"

enum {
	PIECES = 64,  // rows of `pieces`
	IP_HEAD_MAX = 60,
	OPTIONS_MAX = IP_HEAD_MAX - 20,
	OPTION_END = 0, OPTION_NONE = 1, OPTION_COPIED = 0x80,
	CHUNK = 512,  // that bpf_csum_diff sums up at most
	TCP_HEAD = 20,
	OWED = 128,   // removed behind the MAC header, which is all that may owe a checksum: see report.h
};

// What each piece begins with. In `scratch`.
struct split_head {
	__u8 pad[2];
	struct ethhdr eth;
	struct iphdr ip;
	__u8 options[OPTIONS_MAX + 4];
} __attribute__((packed, aligned(4)));

struct splitting {
	struct __sk_buff *skb;
	struct split_head *head;
	__u32 l4;
	__u32 payload;  // bytes behind the IP header
	__u32 each;     // of them in each piece but the last
	__u32 count;
	__u32 fragment; // flags and offset of the packet itself
	__u32 done;
	__u32 sum;      // of the payload, if it is wanted
	__u32 ifindex;
	__u16 vlan;
	__u8 summed;
	__u8 whole;     // it must not be cut
};

// What a UDP or TCP checksum begins with.
struct ipv4_pseudo {
	__be32 src;
	__be32 dst;
	__be16 proto;
	__be16 length;
};

// Return how many bytes of the payload a piece has, in a way that shows the
// verifier that these are 1 to PIECE_MAX.
static __always_inline __u32 piece_size(const struct splitting *s, __u32 i)
{
	__u32 less = (i + 1 < s->count ? s->each : s->payload - i * s->each) - 1;

	barrier_on(less);
	less &= PIECE_MAX - 1;
	barrier_on(less);
	return less + 1;
}

static __always_inline __u32 sum_piece(struct piece *piece, __u32 size, __u32 sum)
{
	__u32 at, n;

	__builtin_memset(piece->bytes + size, 0, 4);
	for (at = 0; at < PIECE_MAX && at < size; at += CHUNK) {
		n = (size - at + 3) & ~3u;
		if (!is_length(&n, 4, CHUNK))
			n = CHUNK;
		sum = bpf_csum_diff(NULL, 0, (__be32 *)(piece->bytes + at), n, sum);
	}
	return sum;
}

static long take_piece(__u32 i, struct splitting *s)
{
	struct piece *piece = bpf_map_lookup_elem(&pieces, &i);
	__u32 size = piece_size(s, i);

	if (!piece || bpf_skb_load_bytes(s->skb, s->l4 + i * s->each, piece->bytes, size))
		return 1;
	if (s->summed)
		s->sum = sum_piece(piece, size, s->sum);
	s->done++;
	return 0;
}

// Leave those options out that belong to the first piece alone.
static __always_inline void keep_copied_options(struct split_head *head, __u32 size)
{
	__u32 left = 0, copied = 0;

	for (__u32 i = 0; i < OPTIONS_MAX; i++) {
		if (i >= size)
			return;
		if (!left) {
			if (head->options[i] == OPTION_END)
				return;
			if (head->options[i] == OPTION_NONE)
				continue;
			copied = head->options[i] & OPTION_COPIED;
			left = head->options[i + 1];
			if (left < 2 || left > size - i)
				return;
		}
		left--;
		if (!copied)
			head->options[i] = OPTION_NONE;
	}
}

static long send_piece(__u32 i, struct splitting *s)
{
	struct piece *piece = bpf_map_lookup_elem(&pieces, &i);
	struct split_head *head = s->head;
	__u32 size = piece_size(s, i), length = s->l4 - ETH_HLEN;
	int error;

	if (!piece || !is_length(&length, sizeof(head->ip), IP_HEAD_MAX))
		return 1;
	if (i == 1)
		keep_copied_options(head, length - sizeof(head->ip));
	head->ip.tot_len = bpf_htons(length + size);
	head->ip.frag_off = bpf_htons((s->fragment + i * s->each / 8) | (i + 1 < s->count ? IP_MORE : 0));
	head->ip.check = 0;
	head->ip.check = checksum_fold(bpf_csum_diff(NULL, 0, (__be32 *)&head->ip, length, 0));
	length += ETH_HLEN;
	error = bpf_skb_change_tail(s->skb, length + size, 0);
	if (!is_length(&length, ETH_HLEN + sizeof(head->ip), ETH_HLEN + IP_HEAD_MAX))
		return 1;
	error |= bpf_skb_store_bytes(s->skb, 0, &head->eth, length, 0);
	error |= bpf_skb_store_bytes(s->skb, length, piece->bytes, size, 0);
	if (error || clone(s->skb, s->ifindex, s->vlan))
		return 1;
	s->done++;
	return 0;
}

// Return whether a checksum of UDP or TCP is still to be made, as it is for what
// a container or guest leaves to its network card: then the sum of its pseudo
// header stands there. One in 65,536 that is made looks so, too, and is made
// again to what it was.
static __always_inline bool is_owed(const struct packet *p, __u32 length, __be16 check)
{
	struct ipv4_pseudo pseudo = {
		.src = p->src.w[3], .dst = p->dst.w[3], .proto = bpf_htons(p->proto), .length = bpf_htons(length),
	};

	return check && check == (__be16)~checksum_fold(bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0));
}

// Put the packet into `pieces`, if it is one to be cut; 0, or why it goes nowhere.
static __always_inline enum drop take(struct __sk_buff *skb, struct packet *p, struct splitting *s)
{
	__u32 length = p->l4, zero = 0, check_at = 0, room;
	struct split_head *head = s->head;
	struct piece *first;
	__be32 check = 0;

	if (!is_length(&length, ETH_HLEN + sizeof(head->ip), ETH_HLEN + IP_HEAD_MAX) ||
	    bpf_skb_load_bytes(skb, 0, &head->eth, length))
		return DROP_ERROR;
	s->l4 = length;
	s->payload = bpf_ntohs(head->ip.tot_len) - (length - ETH_HLEN);
	s->fragment = bpf_ntohs(head->ip.frag_off);
	if ((s->fragment & IP_OFFSET) * 8 + s->payload > 0xffff)
		return DROP_MALFORMED;
	room = p->fit - (length - ETH_HLEN);
	if (p->fit < length - ETH_HLEN + 8)
		return DROP_TOO_BIG;
	s->each = room > PIECE_MAX ? PIECE_MAX : room & ~7u;
	s->count = (s->payload + s->each - 1) / s->each;
	if (!s->count || s->count > PIECES)
		return DROP_TOO_BIG;
	if (!(p->flags & PACKET_FRAGMENT)) {
		if (p->proto == IPPROTO_UDP)
			check_at = 6;
		else if (p->proto == IPPROTO_TCP)
			check_at = 16;
		else if (p->proto == PROTO_SCTP)
			s->whole = !bpf_skb_load_bytes(skb, length + 8, &check, 4) && !check;
	}
	if (check_at && !bpf_skb_load_bytes(skb, length + check_at, &check, 2) && is_owed(p, s->payload, check)) {
		s->summed = 1;
		s->whole = s->each < 24;  // the checksum is not in the first piece
	}
	if (s->whole)
		return 0;
	bpf_loop(s->count, take_piece, s, 0);
	first = bpf_map_lookup_elem(&pieces, &zero);
	if (s->done != s->count || !first)
		return DROP_ERROR;
	if (s->summed) {
		__u16 made = checksum_fold(s->sum);

		if (p->proto == IPPROTO_UDP)
			*(__u16 *)(first->bytes + 6) = made ?: 0xffff;
		else
			*(__u16 *)(first->bytes + 16) = made;
	}
	return 0;
}

// Find by which device the pieces go.
static __always_inline enum drop find_device(struct __sk_buff *skb, struct packet *p, struct splitting *s)
{
	struct network *net;

	switch (p->place.kind) {
	case PLACE_LOCAL:
		s->ifindex = p->place.port.ifindex;
		if (p->place.body == BODY_VLAN)
			s->vlan = p->place.port.vlan;
		return 0;
	case PLACE_REMOTE:
		s->ifindex = cfg.overlay;
		return !cfg.overlay || set_tunnel(skb, p, &p->place.underlay) ? DROP_ERROR : 0;
	case PLACE_UPLINK:
		net = bpf_map_lookup_elem(&networks, &p->network);
		if (!net)
			return DROP_NO_NETWORK;
		s->ifindex = net->uplink;
		s->vlan = net->uplink_vlan;
		return s->ifindex ? 0 : DROP_NO_UPLINK;
	}
	return DROP_ERROR;
}

SEC("tc")
int split(struct __sk_buff *skb)
{
	struct packet *p = packet_in_flight();
	struct splitting s = { .skb = skb };
	__u32 zero = 0;
	enum drop why;

	if (!p)
		return TC_ACT_SHOT;
	s.head = bpf_map_lookup_elem(&scratch, &zero);
	if (!s.head)
		return drop(p, DROP_ERROR);
	if (!(p->flags & PACKET_SPLIT)) {
		if (!(p->flags & PACKET_WHOLE))
			p->flags |= PACKET_SPLIT;  // as others of its datagram may be
		return forward(skb, p);
	}
	if (skb->gso_size)
		return forward(skb, p);
	why = take(skb, p, &s);
	if (why)
		return drop(p, why);
	if (s.whole)
		return forward(skb, p);
	if (p->place.kind == PLACE_LOCAL) {
		__u64 number = port_number(&p->place.port);

		why = enter_port(skb, p, number);
		if (why)
			return drop_at(p, number, why, p->place.identity);
	}
	why = find_device(skb, p, &s);
	if (why)
		return drop(p, why);
	// The kernel refuses, and it goes on whole, if it is in a tunnel of the
	// port's own or owes a checksum to what is within it.
	if (bpf_skb_change_tail(skb, s.l4 + TCP_HEAD, 0))
		return p->place.kind == PLACE_LOCAL ? deliver(skb, p, port_number(&p->place.port), p->place.body)
						    : forward(skb, p);
	if (bpf_skb_change_tail(skb, s.l4 + OWED, 0) || bpf_skb_adjust_room(skb, -OWED, BPF_ADJ_ROOM_MAC, 0))
		return drop(p, DROP_ERROR);
	s.done = 0;
	bpf_loop(s.count, send_piece, &s, 0);
	if (s.done != s.count)
		return drop(p, DROP_ERROR);
	p->out = s.ifindex;
	return TC_ACT_STOLEN;
}
