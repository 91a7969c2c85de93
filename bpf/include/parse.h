// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Headers of a packet. Only this file touches `data` and `data_end`.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"

#define barrier() asm volatile("" ::: "memory")
#define barrier_on(value) asm volatile("" : "+r"(value))

// Show the verifier that a length is one that helpers take: two comparisons
// that the compiler must not make one.
static __always_inline bool is_length(__u32 *length, __u32 least, __u32 most)
{
	__u32 n = *length;

	barrier_on(n);
	if (n > most)
		return false;
	barrier_on(n);
	if (n < least)
		return false;
	*length = n;
	return true;
}

enum {
	IP_WHOLE = 0x4000,
	IP_MORE = 0x2000,
	IP_OFFSET = 0x1fff,
	GSO_BY_FRAGS = 0xffff,  // SCTP's segments are made already, each as large as its path allows
	PULL = 512,            // of a packet whose headers are not in one piece
	MAX_EXTENSIONS = 8,    // IPv6 extension headers in a row
	PROTO_HOP = 0, PROTO_ROUTING = 43, PROTO_FRAGMENT = 44, PROTO_AH = 51, PROTO_OPTIONS = 60,
	PROTO_SCTP = 132, PROTO_DCCP = 33, PROTO_UDPLITE = 136,
	ICMP_ECHOREPLY = 0, ICMP_DEST_UNREACH = 3, ICMP_REDIRECT = 5, ICMP_ECHO = 8, ICMP_ROUTER = 9,
	ICMP_TIME_EXCEEDED = 11, ICMP_PARAMETERPROB = 12,
	ICMPV6_ECHO_REQUEST = 128, ICMPV6_ECHO_REPLY = 129,
	ND_RS = 133, ND_RA, ND_NS, ND_NA, ND_REDIRECT,
	ND_MAX = 48,  // bytes: target, and options for a MAC and a nonce, or as much
	MLD_QUERY = 130, MLD_REPORT, MLD_DONE, MLD2_REPORT = 143,
	ROUTER_ALERT = 5,
	TCP_HEADER = 20,  // bytes without options
	TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 16,
};

static __always_inline void addr_from_ipv4(struct addr *a, __be32 ip)
{
	a->w[0] = 0;
	a->w[1] = 0;
	a->w[2] = bpf_htonl(0xffff);
	a->w[3] = ip;
}

static __always_inline bool addr_equal(const struct addr *a, const struct addr *b)
{
	return a->w[3] == b->w[3] && a->w[2] == b->w[2] && a->w[1] == b->w[1] && a->w[0] == b->w[0];
}

static __always_inline bool addr_is_ipv4(const struct addr *a)
{
	return !a->w[0] && !a->w[1] && a->w[2] == bpf_htonl(0xffff);
}

// :: or 0.0.0.0
static __always_inline bool addr_is_unspecified(const struct addr *a)
{
	return !a->w[0] && !a->w[1] && !a->w[3] && (!a->w[2] || a->w[2] == bpf_htonl(0xffff));
}

static __always_inline bool addr_is_group(const struct addr *a)
{
	if (addr_is_ipv4(a))
		return (a->w[3] & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) || a->w[3] == 0xffffffff;
	return (a->w[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
}

static __always_inline bool addr_is_link_local(const struct addr *a)
{
	return (a->w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

// The link-local address that a station makes of its MAC (RFC 4291 appendix A).
static __always_inline void addr_from_mac(struct addr *a, const __u8 *mac)
{
	a->w[0] = bpf_htonl(0xfe800000);
	a->w[1] = 0;
	a->w[2] = bpf_htonl((__u32)(mac[0] ^ 2) << 24 | mac[1] << 16 | mac[2] << 8 | 0xff);
	a->w[3] = bpf_htonl(0xfe000000 | mac[3] << 16 | mac[4] << 8 | mac[5]);
}

static __always_inline bool addr_is_loopback(const struct addr *a)
{
	if (addr_is_ipv4(a))
		return (a->w[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !a->w[0] && !a->w[1] && !a->w[2] && a->w[3] == bpf_htonl(1);
}

// Of IPv4: 0.0.0.0/8 and 240.0.0.0/4, whose nobody is (RFC 6890).
static __always_inline bool addr_is_reserved(const struct addr *a)
{
	return addr_is_ipv4(a) && (!(a->w[3] & bpf_htonl(0xff000000)) ||
				   (a->w[3] & bpf_htonl(0xf0000000)) == bpf_htonl(0xf0000000));
}

// MACs stand at even addresses; the stack wants nothing wider there.
static __always_inline bool mac_equal(const __u8 *a, const __u8 *b)
{
	const __u16 *x = (const __u16 *)a, *y = (const __u16 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2];
}

static __always_inline void mac_copy(__u8 *to, const __u8 *from)
{
	__u16 *x = (__u16 *)to;
	const __u16 *y = (const __u16 *)from;

	x[0] = y[0];
	x[1] = y[1];
	x[2] = y[2];
}

static __always_inline bool has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == PROTO_SCTP || proto == PROTO_DCCP ||
	       proto == PROTO_UDPLITE;
}

static __always_inline bool is_icmp(const struct packet *p)
{
	return p->proto == (p->family == FAMILY_IPV4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

// What an ICMP type means to the stages.
static __always_inline __u32 icmp_flags(__u8 family, __u8 type)
{
	if (family == FAMILY_IPV4)
		switch (type) {
		case ICMP_ECHO:
			return PACKET_ECHO | PACKET_TRACKED;
		case ICMP_ECHOREPLY:
			return PACKET_REPLY | PACKET_TRACKED;
		case ICMP_DEST_UNREACH:
		case ICMP_TIME_EXCEEDED:
		case ICMP_PARAMETERPROB:
			return PACKET_ERROR;
		}
	else
		switch (type) {
		case ICMPV6_ECHO_REQUEST:
			return PACKET_ECHO | PACKET_TRACKED;
		case ICMPV6_ECHO_REPLY:
			return PACKET_REPLY | PACKET_TRACKED;
		case 1 ... 4:
			return PACKET_ERROR;
		case ND_NS:
		case ND_NA:
			return PACKET_ND;  // parse() takes it back from what only looks so
		case MLD_QUERY:
		case MLD_REPORT:
		case MLD_DONE:
		case MLD2_REPORT:
			return PACKET_MLD;
		}
	return 0;
}

// Return whether no router hands this on: it is for neighbours alone.
static __always_inline bool is_for_link(const struct packet *p)
{
	__u8 type = *(const __u8 *)&p->rule_port;

	return p->proto == IPPROTO_ICMPV6 && p->family == FAMILY_IPV6 &&
	       ((type >= ND_RS && type <= ND_REDIRECT) || (type >= MLD_QUERY && type <= MLD_DONE) || type == MLD2_REPORT);
}

// Set what policy and flows ask of a transport header whose first 8 bytes are
// at *h. An echo's identifier stands on the side that asks.
static __always_inline void take_ports(struct packet *p, const void *h)
{
	const __be16 *half = h;
	__be16 id;

	if (!is_icmp(p)) {
		p->src_port = half[0];
		p->dst_port = half[1];
		p->rule_port = half[1];
		p->flags |= PACKET_TRACKED;
		return;
	}
	p->flags |= icmp_flags(p->family, *(const __u8 *)h);
	p->rule_port = half[0];
	id = half[2];
	p->src_port = p->flags & PACKET_ECHO ? id : 0;
	p->dst_port = p->flags & PACKET_REPLY ? id : 0;
}

static __always_inline enum drop take_tcp(struct packet *p, const __u8 *h, __u32 rest)
{
	__u32 size = (h[12] >> 4) * 4;

	if (size < TCP_HEADER)
		return DROP_MALFORMED;
	if (size > rest)
		return DROP_SHORT;
	p->tcp_flags = h[13];
	p->tcp_sequence = *(const __be16 *)(h + 4);
	p->head = p->l4 - ETH_HLEN + size;
	take_ports(p, h);
	return 0;
}

static __always_inline enum drop take_other(struct packet *p, const __u8 *h, __u32 rest)
{
	if (rest < 8)
		return DROP_SHORT;
	if (p->proto == IPPROTO_UDP && *(__be16 *)(h + 4) && bpf_ntohs(*(__be16 *)(h + 4)) < 8)
		return DROP_MALFORMED;
	p->head = p->l4 - ETH_HLEN + 8;
	take_ports(p, h);
	return 0;
}

// Read the transport header at *h, of which the packet says that *rest* bytes follow.
static __always_inline enum drop parse_transport(struct __sk_buff *skb, struct packet *p, void *h, void *end, __u32 rest)
{
	__u8 copy[16];

	p->head = p->l4 - ETH_HLEN;
	if (p->proto == IPPROTO_TCP) {
		if (h && h + 16 <= end)
			return take_tcp(p, h, rest);
		if (bpf_skb_load_bytes(skb, p->l4, copy, 16))
			return DROP_SHORT;
		return take_tcp(p, copy, rest);
	}
	if (has_ports(p->proto) || is_icmp(p)) {
		if (h && h + 8 <= end)
			return take_other(p, h, rest);
		if (bpf_skb_load_bytes(skb, p->l4, copy, 8))
			return DROP_SHORT;
		return take_other(p, copy, rest);
	}
	p->flags |= PACKET_TRACKED;
	return 0;
}

// Take note of which part of its datagram a fragment is, *size* bytes at *at*. A
// receiver would rebuild from what is refused here something that nobody has judged:
// a TCP header is 20 bytes at least, so none goes on at 8 or 16 (RFC 3128).
static __always_inline enum drop take_fragment(struct packet *p, __u32 at, __u32 size, bool more)
{
	p->flags |= at ? PACKET_FRAGMENT | PACKET_LATER : PACKET_FRAGMENT;
	p->fragment_at = at;
	p->fragment_end = at + size;
	if (!size || at + size > 0xffff || (more && size & 7))
		return DROP_MALFORMED;
	return at && at < TCP_HEADER && p->proto == IPPROTO_TCP ? DROP_MALFORMED : 0;
}

static __always_inline enum drop parse_ipv4(struct __sk_buff *skb, struct packet *p, struct iphdr *ip, void *end)
{
	__u32 length, size;

	if ((void *)(ip + 1) > end)
		return DROP_SHORT;
	p->family = FAMILY_IPV4;
	p->proto = ip->protocol;
	p->ttl = ip->ttl;
	addr_from_ipv4(&p->src, ip->saddr);
	addr_from_ipv4(&p->dst, ip->daddr);
	length = bpf_ntohs(ip->tot_len);
	size = ip->ihl * 4;
	if (ip->version != 4 || size < sizeof(*ip))
		return DROP_MALFORMED;
	if (!length && skb->gso_size)
		length = skb->len - ETH_HLEN;
	if (length < size)
		return DROP_MALFORMED;
	if (length > skb->len - ETH_HLEN)
		return DROP_SHORT;
	p->l4 = ETH_HLEN + size;
	p->head = size;
	if (ip->frag_off & bpf_htons(IP_WHOLE))
		p->flags |= PACKET_WHOLE;
	if (ip->frag_off & bpf_htons(IP_MORE | IP_OFFSET)) {
		enum drop bad = take_fragment(p, (bpf_ntohs(ip->frag_off) & IP_OFFSET) * 8, length - size,
					      ip->frag_off & bpf_htons(IP_MORE));

		p->fragment_id = ip->id;
		if (bad || p->flags & PACKET_LATER)
			return bad;
	}
	return parse_transport(skb, p, (void *)ip + size, end, length - size);
}

static __always_inline bool is_extension(__u8 proto)
{
	return proto == PROTO_HOP || proto == PROTO_ROUTING || proto == PROTO_FRAGMENT || proto == PROTO_AH ||
	       proto == PROTO_OPTIONS;
}

static __always_inline enum drop parse_ipv6(struct __sk_buff *skb, struct packet *p, struct ipv6hdr *ip, void *end)
{
	__u32 at = ETH_HLEN + sizeof(*ip), length, limit;
	__u8 proto, h[8];
	enum drop bad;

	if ((void *)(ip + 1) > end)
		return DROP_SHORT;
	p->family = FAMILY_IPV6;
	p->ttl = ip->hop_limit;
	__builtin_memcpy(&p->src, &ip->saddr, 16);
	__builtin_memcpy(&p->dst, &ip->daddr, 16);
	p->proto = proto = ip->nexthdr;
	p->l4 = at;
	p->head = sizeof(*ip);
	// Nobody's wire has mapped addresses (RFC 4291 2.5.5.2): they are IPv4's here.
	if (ip->version != 6 || addr_is_ipv4(&p->src) || addr_is_ipv4(&p->dst))
		return DROP_MALFORMED;
	length = bpf_ntohs(ip->payload_len);
	if (!length && skb->gso_size)  // a jumbogram, which only the host itself can make
		length = skb->len - at;
	if (length > skb->len - at)
		return DROP_SHORT;
	if (!is_extension(proto))
		return parse_transport(skb, p, ip + 1, end, length);
	limit = at + length;
	// Kernel 6.1 refuses some shapes of loop that compilers make.
#pragma unroll
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		if (!is_extension(proto))
			break;
		if (proto == PROTO_HOP && i)
			return DROP_MALFORMED;
		if (at + 8 > limit || bpf_skb_load_bytes(skb, at, h, 8))
			return DROP_SHORT;
		if (proto == PROTO_ROUTING && !h[2])  // type 0: RFC 5095
			return DROP_MALFORMED;
		if (proto == PROTO_FRAGMENT) {
			if (p->flags & PACKET_FRAGMENT)
				return DROP_MALFORMED;
			at += 8;
			p->proto = h[0];
			p->l4 = at;
			p->fragment_id = *(__u32 *)(h + 4);
			bad = take_fragment(p, bpf_ntohs(*(__be16 *)(h + 2)) & 0xfff8, limit - at, h[3] & 1);
			if (bad || p->flags & PACKET_LATER)
				return bad;
		} else if (proto == PROTO_AH) {
			at += (h[1] + 2) * 4;
		} else {
			at += (h[1] + 1) * 8;
		}
		proto = h[0];
		if (at > limit)
			return DROP_SHORT;
	}
	if (is_extension(proto))
		return DROP_MALFORMED;
	p->proto = proto;
	p->l4 = at;
	return parse_transport(skb, p, NULL, end, limit - at);
}

// Read the headers that are in one piece.
__noinline int parse_linear(struct __sk_buff *skb, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if (!p)
		return DROP_ERROR;
	if ((void *)(eth + 1) > end)
		return DROP_SHORT;
	__builtin_memcpy(p->dst_mac, eth, 2 * ETH_ALEN);
	p->eth_proto = bpf_ntohs(eth->h_proto);
	p->flags &= PACKET_SECURED | PACKET_LOCAL | PACKET_OVERLAY | PACKET_UPLINK | PACKET_RELAYED;
	if (p->dst_mac[0] & 1)
		p->flags |= PACKET_GROUP;
	p->tcp_flags = 0;
	p->src_port = 0;
	p->dst_port = 0;
	p->rule_port = 0;
	switch (p->eth_proto) {
	case ETH_P_IP:
		p->flags |= PACKET_IP;
		return parse_ipv4(skb, p, (void *)(eth + 1), end);
	case ETH_P_IPV6:
		p->flags |= PACKET_IP | PACKET_WHOLE;
		return parse_ipv6(skb, p, (void *)(eth + 1), end);
	case ETH_P_8021Q:
	case ETH_P_8021AD:
		return DROP_SPOOFED_VLAN;
	}
	p->proto = 0;
	__builtin_memset(&p->src, 0, 16);
	__builtin_memset(&p->dst, 0, 16);
	// Nothing but ARP is in the frame, and what makes it long enough for the wire.
	return p->eth_proto == ETH_P_ARP && skb->len > ETH_ZLEN ? DROP_MALFORMED : 0;
}

struct walk {
	struct __sk_buff *skb;
	__u32 at;
};

// One record of a listener report (RFC 3810 5.2): past it, or stop.
static long pass_record(__u32 i, struct walk *w)
{
	__u8 record[20];

	if (bpf_skb_load_bytes(w->skb, w->at, record, sizeof(record)) || record[0] < 1 || record[0] > 6 || record[1] ||
	    record[4] != 0xff) {
		w->at = 0;
		return 1;
	}
	w->at += sizeof(record) + (record[2] << 8 | record[3]) * 16;
	return 0;
}

// Return whether an ICMPv6 message at the packet's end is, *size* bytes large, what
// neighbours say to find each other (RFC 4861, RFC 6980): no more than target and
// some small options.
static __always_inline bool is_nd(struct __sk_buff *skb, const struct packet *p, __u32 size)
{
	__u32 at = 24;
	__u8 option[2];

	if (p->ttl != 255 || p->l4 != ETH_HLEN + sizeof(struct ipv6hdr) || size < at || size > ND_MAX)
		return false;
#pragma unroll
	for (int i = 0; i < (ND_MAX - 24) / 8; i++) {
		if (at == size)
			break;
		if (bpf_skb_load_bytes(skb, p->l4 + at, option, 2) || !option[1])
			return false;
		at += option[1] * 8;
		if (at > size)
			return false;
	}
	return at == size;
}

// Return whether it is what keeps listeners to groups known (RFC 2710, RFC 3590, RFC
// 3810): to a group, not beyond the link, and marked for routers; a query for no
// sources, a report of what its records are and no more.
static __always_inline bool is_mld(struct __sk_buff *skb, const struct packet *p, __u32 size)
{
	struct walk w = { .skb = skb, .at = p->l4 + 8 };
	__u8 type = *(const __u8 *)&p->rule_port;
	__u8 alert[8];
	__be16 count;
	struct addr group;

	if (p->ttl != 1 || p->l4 != ETH_HLEN + sizeof(struct ipv6hdr) + sizeof(alert) || !addr_is_group(&p->dst) ||
	    !(addr_is_link_local(&p->src) || (type != MLD_QUERY && addr_is_unspecified(&p->src))))
		return false;
	// The one option, and padding before or behind it.
	if (bpf_skb_load_bytes(skb, p->l4 - sizeof(alert), alert, sizeof(alert)))
		return false;
	if (!(alert[2] == ROUTER_ALERT && alert[3] == 2 && !alert[4] && !alert[5] && alert[6] < 2 && !alert[7]) &&
	    !(alert[2] < 2 && !alert[3] && alert[4] == ROUTER_ALERT && alert[5] == 2 && !alert[6] && !alert[7]))
		return false;
	if (type == MLD2_REPORT) {
		if (bpf_skb_load_bytes(skb, p->l4 + 6, &count, 2))
			return false;
		bpf_loop(bpf_ntohs(count), pass_record, &w, 0);
		return w.at == p->l4 + size;
	}
	if (bpf_skb_load_bytes(skb, p->l4 + 8, &group, sizeof(group)))
		return false;
	if (type != MLD_QUERY)
		return size == 24 && addr_is_group(&group);
	if (size == 28 && (bpf_skb_load_bytes(skb, p->l4 + 26, &count, 2) || count))
		return false;
	return (size == 24 || size == 28) && (addr_is_unspecified(&group) || addr_is_group(&group));
}

// Return whether what looks like neighbour discovery, or like listeners', is that.
__noinline int is_of_neighbours(struct __sk_buff *skb, struct packet *p)
{
	__be16 length;
	__u32 size;

	if (!p || p->flags & PACKET_FRAGMENT || p->rule_port & bpf_htons(0xff) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, payload_len), &length, 2))
		return 0;
	size = ETH_HLEN + sizeof(struct ipv6hdr) + bpf_ntohs(length) - p->l4;
	if (p->l4 + size != skb->len)  // there is something behind
		return 0;
	return p->flags & PACKET_ND ? is_nd(skb, p, size) : is_mld(skb, p, size);
}

// Fill the packet's record from its headers; what is wrong with them is `bad`.
static __always_inline void parse(struct __sk_buff *skb, struct packet *p)
{
	__u32 segment, length;
	enum drop bad;

	p->now = bpf_ktime_get_coarse_ns();
	bad = parse_linear(skb, p);
	if (bad == DROP_SHORT && skb->len > skb->data_end - skb->data) {
		bpf_skb_pull_data(skb, skb->len < PULL ? skb->len : PULL);
		bad = parse_linear(skb, p);
	}
	p->bad = bad;
	if (p->flags & (PACKET_LATER | PACKET_ND | PACKET_MLD)) {
		if (p->flags & PACKET_LATER && !bad)
			p->flags |= PACKET_UNSEEN;  // until its first one is looked for: fragment.h
		if (p->flags & (PACKET_ND | PACKET_MLD) && (bad || !is_of_neighbours(skb, p)))
			p->flags &= ~(PACKET_ND | PACKET_MLD);
	}
	if (p->flags & PACKET_IP && addr_is_group(&p->dst))
		p->flags |= PACKET_GROUP;
	segment = skb->gso_size;
	length = skb->len;
	barrier_on(segment);  // or the compiler makes the two loads one, of a pointer that varies
	barrier_on(length);
	p->size = !segment ? length - ETH_HLEN : segment == GSO_BY_FRAGS ? p->head : p->head + segment;
}
