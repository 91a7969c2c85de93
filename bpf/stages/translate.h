// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Put other addresses and ports into a packet, and into one that an ICMP error
// quotes, and mend the checksums.
#pragma once
#include "../include/stage.h"
#include "firewall.h"

static __always_inline bool is_published_proto(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP;
}

// Find who a client is, be it within its port's share or borrowed.
static __always_inline struct translation *look_up_translation(const struct flow_key *key)
{
	return bpf_map_lookup_elem(&translations_assured, key) ?: bpf_map_lookup_elem(&translations, key);
}

// Give a packet another source, or another destination.
__noinline int set_end(struct __sk_buff *skb, struct packet *p, __u32 source, struct addr *to, __u32 port)
{
	__be16 old_port, new_port = port;
	__u64 mark = 0;
	struct addr from;
	__u32 sum = 0;
	int error = 0;

	if (!p || !to)
		return -1;
	from = source ? p->src : p->dst;
	old_port = source ? p->src_port : p->dst_port;
	if (!(p->flags & PACKET_LATER)) {
		if (p->proto == IPPROTO_TCP)
			sum = p->l4 + 16;
		else if (p->proto == IPPROTO_UDP)
			sum = p->l4 + 6;
		else if (p->proto == IPPROTO_ICMPV6)
			sum = p->l4 + 2;
		if (p->proto == IPPROTO_UDP)
			mark = BPF_F_MARK_MANGLED_0;
	}
	if (p->family == FAMILY_IPV4) {
		if (sum)
			error |= bpf_l4_csum_replace(skb, sum, from.w[3], to->w[3], mark | BPF_F_PSEUDO_HDR | 4);
		error |= bpf_l3_csum_replace(skb, ETH_HLEN + 10, from.w[3], to->w[3], 4);
		error |= bpf_skb_store_bytes(skb, ETH_HLEN + (source ? 12 : 16), &to->w[3], 4, 0);
	} else {
		if (sum)
			error |= bpf_l4_csum_replace(skb, sum, 0, bpf_csum_diff(from.w, 16, to->w, 16, 0),
						     mark | BPF_F_PSEUDO_HDR);
		error |= bpf_skb_store_bytes(skb, ETH_HLEN + (source ? 8 : 24), to, 16, BPF_F_RECOMPUTE_CSUM);
	}
	if (source)
		p->src = *to;
	else
		p->dst = *to;
	if (!is_published_proto(p->proto))
		return error;
	if (sum && new_port != old_port) {
		error |= bpf_l4_csum_replace(skb, sum, old_port, new_port, mark | 2);
		error |= bpf_skb_store_bytes(skb, p->l4 + (source ? 0 : 2), &new_port, 2, 0);
	}
	if (source)
		p->src_port = new_port;
	else
		p->dst_port = new_port;
	return error;
}

// Give the packet that an ICMP error quotes another source, or another
// destination. Its own transport checksum stays: often it is not all there, and
// nobody looks at it.
__noinline int set_quoted(struct __sk_buff *skb, struct quoted *q, __u32 source, struct addr *to, __u32 port)
{
	__be16 old_port, new_port = port;
	struct addr from;
	__u32 sum;
	int error = 0;

	if (!q || !to)
		return -1;
	sum = q->ip - 8 + 2;
	from = source ? q->src : q->dst;
	old_port = source ? q->src_port : q->dst_port;
	if (addr_is_ipv4(to)) {
		// To the error's checksum, address and header's checksum cancel out.
		error |= bpf_l3_csum_replace(skb, q->ip + 10, from.w[3], to->w[3], 4);
		error |= bpf_skb_store_bytes(skb, q->ip + (source ? 12 : 16), &to->w[3], 4, 0);
	} else {
		error |= bpf_l4_csum_replace(skb, sum, 0, bpf_csum_diff(from.w, 16, to->w, 16, 0), 0);
		error |= bpf_skb_store_bytes(skb, q->ip + (source ? 8 : 24), to, 16, 0);
	}
	if (new_port != old_port) {
		error |= bpf_l4_csum_replace(skb, sum, old_port, new_port, 2);
		error |= bpf_skb_store_bytes(skb, q->l4 + (source ? 0 : 2), &new_port, 2, 0);
	}
	return error;
}
