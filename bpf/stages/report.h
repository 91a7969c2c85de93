// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Tell the sender by ICMP why its packet went no further; the drop is counted
// already. What must not be answered (RFC 1122 3.2.2, RFC 4443 2.4) ends here
// in silence, and so does what exceeds the port's budget.
//
//     report ──> ICMP error to the sender
#pragma once
#include "../include/budget.h"
#include "../include/checksum.h"
#include "../include/stage.h"
#include "deliver.h"
#include "route.h"

enum {
	// Removed behind the MAC header, so that a checksum which the kernel
	// owes to the old packet is owed no more.
	SLACK = 128,
	ERRORS = 256,  // that a port may cause at once
	ERRORS_PER_SECOND = 1000,
};

struct icmp_error {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be32 info;
};

struct ipv4_error {
	__be16 version;
	__be16 length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 proto;
	__u16 checksum;
	__be32 from;
	__be32 to;
	struct icmp_error icmp;
};

struct ipv6_error {
	__be32 version;
	__be16 length;
	__u8 next;
	__u8 hop_limit;
	struct addr from;
	struct addr to;
	struct icmp_error icmp;
};

// A router has no address of the packet's family in the network by which it
// came: its link-local one, or the dummy address of RFC 7600.
static __always_inline bool address_of_none(const struct packet *p, const struct interface *foot, struct addr *from)
{
	if (p->entry != p->network)
		return false;  // nobody beyond this link would know it
	if (p->family == FAMILY_IPV4)
		addr_from_ipv4(from, bpf_htonl(0xc0000008));  // 192.0.0.8
	else
		addr_from_mac(from, foot->mac);
	return true;
}

// The address with which the router speaks in the network by which the packet came.
static __always_inline bool router_address(const struct packet *p, struct addr *from)
{
	struct interface_key key = { .network = p->entry, .router = p->router };
	struct interface *foot;

	if ((p->answer & 0xff) == (p->family == FAMILY_IPV4 ? 3 : 4) && p->why == DROP_ROUTER_SERVICE) {
		*from = p->dst;  // its port is unreachable
		return true;
	}
	foot = bpf_map_lookup_elem(&interfaces, &key);
	if (!foot)
		return false;
	*from = foot->ip[p->family == FAMILY_IPV6];
	return !addr_is_unspecified(from) || address_of_none(p, foot, from);
}

static __always_inline int report_ipv4(struct __sk_buff *skb, struct packet *p, struct quote *quote, __u32 quoted,
				       const struct addr *from)
{
	struct ipv4_error e = {};

	e.version = bpf_htons(0x4500);
	e.length = bpf_htons(sizeof(e) + quoted);
	e.fragment = bpf_htons(IP_WHOLE);
	e.ttl = 64;
	e.proto = IPPROTO_ICMP;
	e.from = from->w[3];
	e.to = p->src.w[3];
	e.icmp.type = p->answer >> 8;
	e.icmp.code = p->answer;
	if (p->why == DROP_TOO_BIG)
		e.icmp.info = bpf_htonl(p->answer_mtu);
	e.checksum = checksum_fold(bpf_csum_diff(NULL, 0, (void *)&e, 20, 0));
	e.icmp.checksum = checksum_fold(bpf_csum_diff(NULL, 0, (void *)quote, sizeof(*quote),
						      bpf_csum_diff(NULL, 0, (void *)&e.icmp, sizeof(e.icmp), 0)));
	return bpf_skb_store_bytes(skb, ETH_HLEN, &e, sizeof(e), 0);
}

static __always_inline int report_ipv6(struct __sk_buff *skb, struct packet *p, struct quote *quote, __u32 quoted,
				       const struct addr *from)
{
	struct ipv6_error e = {};
	struct pseudo pseudo = {};
	__u32 sum;

	e.version = bpf_htonl(0x60000000);
	e.length = bpf_htons(sizeof(e.icmp) + quoted);
	e.next = IPPROTO_ICMPV6;
	e.hop_limit = 64;
	e.from = *from;
	e.to = p->src;
	e.icmp.type = p->answer >> 8;
	e.icmp.code = p->answer;
	if (p->why == DROP_TOO_BIG)
		e.icmp.info = bpf_htonl(p->answer_mtu);
	pseudo.src = *from;
	pseudo.dst = p->src;
	pseudo.length = bpf_htonl(sizeof(e.icmp) + quoted);
	pseudo.proto = bpf_htonl(IPPROTO_ICMPV6);
	sum = bpf_csum_diff(NULL, 0, (void *)&pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(NULL, 0, (void *)&e.icmp, sizeof(e.icmp), sum);
	e.icmp.checksum = checksum_fold(bpf_csum_diff(NULL, 0, (void *)quote, sizeof(*quote), sum));
	return bpf_skb_store_bytes(skb, ETH_HLEN, &e, sizeof(e), 0);
}

SEC("tc")
int report(struct __sk_buff *skb)
{
	struct packet *p = packet_in_flight();
	__u32 zero = 0, quoted, head;
	struct quote *quote = bpf_map_lookup_elem(&scratch, &zero);
	struct addr from = {};
	__u8 macs[12] __attribute__((aligned(2)));
	int error;

	if (!p || !quote)
		return TC_ACT_SHOT;
	if (p->flags & (PACKET_ERROR | PACKET_LATER | PACKET_GROUP | PACKET_ND) || addr_is_unspecified(&p->src) ||
	    addr_is_group(&p->src) || !router_address(p, &from) || !has_budget(&budgets, &p->port, p->now, ERRORS, ERRORS_PER_SECOND))
		return TC_ACT_SHOT;

	quoted = skb->len - ETH_HLEN;
	if (quoted > sizeof(*quote))
		quoted = sizeof(*quote);
	if (!is_length(&quoted, 20, sizeof(*quote)))
		return TC_ACT_SHOT;
	__builtin_memset(quote, 0, sizeof(*quote));
	if (bpf_skb_load_bytes(skb, ETH_HLEN, quote, quoted))
		return drop(p, DROP_ERROR);
	head = p->family == FAMILY_IPV4 ? sizeof(struct ipv4_error) : sizeof(struct ipv6_error);
	if (bpf_skb_change_tail(skb, ETH_HLEN + head + quoted + SLACK, 0) ||
	    bpf_skb_adjust_room(skb, -SLACK, BPF_ADJ_ROOM_MAC, 0))
		return drop(p, DROP_ERROR);
	mac_copy(macs, p->src_mac);
	mac_copy(macs + 6, p->dst_mac);
	error = bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0);
	if (p->family == FAMILY_IPV4)
		error |= report_ipv4(skb, p, quote, quoted, &from);
	else
		error |= report_ipv6(skb, p, quote, quoted, &from);
	if (!is_length(&quoted, 20, sizeof(*quote)))
		return TC_ACT_SHOT;
	error |= bpf_skb_store_bytes(skb, ETH_HLEN + head, quote, quoted, 0);
	if (error)
		return drop(p, DROP_ERROR);
	return send_back(skb, p);
}
