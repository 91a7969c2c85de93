// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What a secured port must not send: what is not its own, and what is a
// server's or a router's to say.
//
//     guard ── TCP or UDP from the port's first addresses ──> pass
//       └─ the long way ──> pass
//            └─ DROP_SPOOFED_*, DROP_ROGUE_*, DROP_NOT_IP, DROP_SHORT,
//               DROP_MALFORMED
#pragma once
#include "../include/stage.h"

enum { DHCP_SERVER = 67, DHCP_CLIENT = 68, DHCPV6_CLIENT = 546, DHCPV6_SERVER = 547 };

struct arp {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_size;
	__u8 protocol_size;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender_ip[4];  // not aligned
	__u8 target_mac[6];
	__u8 target_ip[4];
} __attribute__((packed, aligned(2)));

enum { ARP_REQUEST = 1, ARP_REPLY = 2, OPTION_SOURCE = 1, OPTION_TARGET = 2, ND_OPTIONS = 8 };

static __always_inline int load_arp(struct __sk_buff *skb, struct arp *arp)
{
	return bpf_skb_load_bytes(skb, ETH_HLEN, arp, sizeof(*arp));
}

static __always_inline bool is_arp_of_ipv4(const struct arp *arp)
{
	return arp->hardware == bpf_htons(1) && arp->protocol == bpf_htons(ETH_P_IP) && arp->hardware_size == 6 &&
	       arp->protocol_size == 4;
}

static __always_inline void addr_from_arp(struct addr *a, const __u8 *ip)
{
	__be32 word;

	__builtin_memcpy(&word, ip, 4);
	addr_from_ipv4(a, word);
}

// Return whether a port may send from this MAC and this address.
static __always_inline bool owns(const struct packet *p, const struct addr *ip)
{
	struct source_key key = { .prefixlen = 256, .port = p->port, .ip = *ip };

	mac_copy(key.mac, p->src_mac);
	return bpf_map_lookup_elem(&sources, &key);
}

// ARP: who speaks must be who he says.
static __always_inline enum drop guard_arp(struct __sk_buff *skb, const struct packet *p, const struct port *port)
{
	struct arp arp;
	struct addr sender, target;

	if (load_arp(skb, &arp))
		return DROP_SHORT;
	if (!is_arp_of_ipv4(&arp))
		return DROP_MALFORMED;
	if (!mac_equal(arp.sender_mac, p->src_mac))
		return DROP_SPOOFED_ARP;
	addr_from_arp(&sender, arp.sender_ip);
	addr_from_arp(&target, arp.target_ip);
	if (addr_is_unspecified(&sender) && arp.operation == bpf_htons(ARP_REQUEST)) {
		// A probe (RFC 5227) says nothing; but its MAC must be the port's.
		if (mac_equal(p->src_mac, port->mac) || owns(p, &target))
			return 0;
		return DROP_SPOOFED_MAC;
	}
	if (owns(p, &sender))
		return 0;
	return mac_equal(p->src_mac, port->mac) ? DROP_SPOOFED_ARP : DROP_SPOOFED_MAC;
}

// Return whether all link-layer options of that type name the sender's MAC.
static __always_inline enum drop guard_options(struct __sk_buff *skb, const struct packet *p, __u32 at, __u8 type,
					       bool none)
{
	__u8 option[8] __attribute__((aligned(2)));

#pragma unroll
	for (int i = 0; i < ND_OPTIONS; i++) {
		if (at >= skb->len)
			return 0;
		if (bpf_skb_load_bytes(skb, at, option, 8) || !option[1])
			return DROP_MALFORMED;
		if (option[0] == type && (none || !mac_equal(option + 2, p->src_mac)))
			return DROP_SPOOFED_ND;
		at += option[1] * 8;
	}
	return DROP_MALFORMED;
}

// Neighbour discovery (RFC 4861).
static __always_inline enum drop guard_nd(struct __sk_buff *skb, const struct packet *p, __u8 type)
{
	struct addr target;

	if (p->ttl != 255 || p->flags & PACKET_FRAGMENT || p->rule_port & bpf_htons(0xff))
		return DROP_MALFORMED;
	if (type == ND_RS)
		return guard_options(skb, p, p->l4 + 8, OPTION_SOURCE, addr_is_unspecified(&p->src));
	if (bpf_skb_load_bytes(skb, p->l4 + 8, &target, sizeof(target)))
		return DROP_SHORT;
	if (addr_is_group(&target))
		return DROP_MALFORMED;
	if (type == ND_NS)
		return guard_options(skb, p, p->l4 + 24, OPTION_SOURCE, addr_is_unspecified(&p->src));
	if (!owns(p, &target))
		return DROP_SPOOFED_ND;
	return guard_options(skb, p, p->l4 + 24, OPTION_TARGET, false);
}

// Return why a secured port must not send this, or 0.
__noinline int guard_long(struct __sk_buff *skb, struct packet *p, struct port *port)
{
	bool unspecified, own_mac, is_icmpv6;
	__u8 type;

	if (!p || !port)
		return DROP_ERROR;
	own_mac = mac_equal(p->src_mac, port->mac);
	if (!(p->flags & PACKET_IP)) {
		if (p->bad)
			return p->bad;
		if (p->eth_proto == ETH_P_ARP)
			return guard_arp(skb, p, port);
		return own_mac ? DROP_NOT_IP : DROP_SPOOFED_MAC;
	}
	if (p->bad)
		return p->bad;
	type = *(__u8 *)&p->rule_port;
	is_icmpv6 = p->family == FAMILY_IPV6 && p->proto == IPPROTO_ICMPV6 && !(p->flags & PACKET_UNSEEN);
	unspecified = addr_is_unspecified(&p->src);
	if (unspecified) {
		// An address that is being asked for: DHCP, and in IPv6 the
		// solicitations and reports of a host that has none yet.
		if (!own_mac && !(is_icmpv6 && type == ND_NS))
			return DROP_SPOOFED_MAC;
		if (p->family == FAMILY_IPV4) {
			if (p->proto != IPPROTO_UDP || p->src_port != bpf_htons(DHCP_CLIENT) ||
			    p->dst_port != bpf_htons(DHCP_SERVER) || p->flags & PACKET_FRAGMENT ||
			    !(p->dst_mac[0] & 1))
				return DROP_SPOOFED_IPV4;
			return 0;
		}
		if (!is_icmpv6 ||
		    !(type == ND_RS || type == ND_NS || type == MLD_REPORT || type == MLD_DONE || type == MLD2_REPORT))
			return DROP_SPOOFED_IPV6;
		if (!own_mac) {
			struct addr target;

			if (bpf_skb_load_bytes(skb, p->l4 + 8, &target, sizeof(target)) || !owns(p, &target))
				return DROP_SPOOFED_MAC;
		}
	} else {
		bool own_ip = own_mac && addr_equal(&p->src, &port->ip[p->family == FAMILY_IPV6]);

		if (own_ip) {
			p->flags |= PACKET_OWN;
		} else if (!owns(p, &p->src)) {
			if (!own_mac)
				return DROP_SPOOFED_MAC;
			return p->family == FAMILY_IPV4 ? DROP_SPOOFED_IPV4 : DROP_SPOOFED_IPV6;
		}
	}
	// What clients take for a server's answer is what comes to their port: few
	// look at the port that it came from.
	if (p->proto == IPPROTO_UDP && !(p->flags & PACKET_UNSEEN) &&
	    p->dst_port == (p->family == FAMILY_IPV4 ? bpf_htons(DHCP_CLIENT) : bpf_htons(DHCPV6_CLIENT)))
		return DROP_ROGUE_DHCP;
	if (p->family == FAMILY_IPV4 && p->proto == IPPROTO_ICMP && !(p->flags & PACKET_UNSEEN) &&
	    (type == ICMP_REDIRECT || type == ICMP_ROUTER))
		return DROP_ROGUE_RA;
	if (is_icmpv6) {
		if (type == ND_RA || type == ND_REDIRECT)
			return DROP_ROGUE_RA;
		if (type == ND_RS || type == ND_NS || type == ND_NA)
			return guard_nd(skb, p, type);
	}
	return 0;
}

static __always_inline enum drop guard(struct __sk_buff *skb, struct packet *p, struct port *port)
{
	if ((p->flags & (PACKET_IP | PACKET_FRAGMENT)) == PACKET_IP && !p->bad && mac_equal(p->src_mac, port->mac) &&
	    addr_equal(&p->src, &port->ip[p->family == FAMILY_IPV6]) && !addr_is_unspecified(&p->src) &&
	    (p->proto == IPPROTO_TCP || (p->proto == IPPROTO_UDP && bpf_ntohs(p->dst_port) != DHCP_SERVER &&
					 bpf_ntohs(p->dst_port) != DHCP_CLIENT &&
					 bpf_ntohs(p->dst_port) != DHCPV6_CLIENT &&
					 bpf_ntohs(p->dst_port) != DHCPV6_SERVER))) {
		p->flags |= PACKET_OWN;
		return 0;
	}
	return guard_long(skb, p, port);
}
