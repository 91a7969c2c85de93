// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// VXLAN made and taken off here, past the host's own stack: half of what a
// packet between hosts costs otherwise. Only what is plain goes this short
// way; all else goes by the VXLAN device, which can do everything.
//
//     wrap ── route and neighbour known, and it fits ──> the underlay
//     unwrap ── plain, from a known host that is reached by this link, for a veth here ──> arrive
#pragma once
#include <linux/udp.h>
#include "../include/checksum.h"
#include "../include/stage.h"
#include "reach.h"

enum {
	VXLAN_GROUP = 0x80,  // the packet carries an identity
	VXLAN_NUMBER = 0x08,
	FIRST_PORT = 32768,  // of 32,768 source ports, one a flow
	INNER_IPV6 = 1 << 8, // BPF_F_ADJ_ROOM_DECAP_L3_IPV6, since kernel 6.3
};

struct vxlan {
	__u8 flags;
	__u8 more;
	__be16 group;
	__be32 number;  // 24 bits, then 8 that are zero
};

// What stands before the packet of a port on its way between hosts.
struct wrapping {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct vxlan vxlan;
	struct ethhdr inner;
} __attribute__((packed, aligned(2)));

enum { WRAPPING = sizeof(struct wrapping) - ETH_HLEN };

// Which of the slots for hosts is whose.
static __always_inline __u32 slot_of(__be32 host)
{
	return (host * 0x9e3779b1) >> 24;
}

// A number that a flow's packets share: for source ports.
static __always_inline __u32 spread(const struct packet *p)
{
	__u32 n = (p->src.w[3] ^ p->src.w[1]) * 0x9e3779b1 + (p->dst.w[3] ^ p->dst.w[1]);

	n = (n ^ n >> 15) * 0x85ebca6b + (p->src_port << 16 | p->dst_port) + p->proto;
	n = (n ^ n >> 13) * 0xc2b2ae35;
	return n ^ n >> 16;
}

// Return whether it is time to go the long way: only there does the kernel
// look whether its neighbours in the underlay are where they were.
static __always_inline bool is_due(__be32 host, __u64 now)
{
	__u32 slot = slot_of(host);
	__u64 *last = bpf_map_lookup_elem(&refreshed, &slot);

	if (!last || passed_since(now, *last) < SECOND)
		return false;
	*last = now;
	return true;
}

// Find by which device and neighbour a host is reached; NULL if by none that is
// known. The kernel is asked anew after 10 ms: that is half of the cost of wrap().
static __always_inline struct underlay_way *find_way(struct __sk_buff *skb, __be32 host, __u64 now)
{
	const __u64 lifetime = 10000000;
	__u32 slot = slot_of(host);
	struct underlay_way *way = bpf_map_lookup_elem(&ways, &slot);
	struct bpf_fib_lookup fib = {};

	if (!way || (way->host == host && now < way->until))
		return way;
	fib.family = 2;  // AF_INET
	fib.l4_protocol = IPPROTO_UDP;
	fib.tot_len = 1;  // for the MTU to be told
	fib.ifindex = cfg.overlay;
	fib.ipv4_src = cfg.underlay.w[3];
	fib.ipv4_dst = host;
	way->host = 0;
	if (bpf_fib_lookup(skb, &fib, sizeof(fib), 0))
		return NULL;
	way->until = now + lifetime;
	way->ifindex = fib.ifindex;
	way->mtu = fib.mtu_result;
	mac_copy(way->macs, fib.dmac);
	mac_copy(way->macs + 6, fib.smac);
	way->host = host;
	return way;
}

// Put the packet into VXLAN, ready for the device that is returned; 0: it is
// as it was.
__noinline int wrap(struct __sk_buff *skb, struct packet *p)
{
	const __u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
			    BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH;
	struct underlay_way *way;
	__u32 length, sum = 0;
	struct wrapping *w;
	struct ethhdr inner;
	__be32 host;

	if (!p)
		return 0;
	host = p->place.underlay.w[3];
	length = skb->len + WRAPPING - ETH_HLEN;
	if (length > 0xffff || is_due(host, p->now))
		return 0;
	way = find_way(skb, host, p->now);
	if (!way || p->size + WRAPPING > way->mtu)
		return 0;
	if (bpf_skb_load_bytes(skb, 0, &inner, sizeof(inner)) ||
	    bpf_skb_adjust_room(skb, WRAPPING, BPF_ADJ_ROOM_MAC, flags))
		return 0;
	w = (void *)(long)skb->data;
	if ((void *)(w + 1) > (void *)(long)skb->data_end)
		return -1;
	mac_copy(w->eth.h_dest, way->macs);
	mac_copy(w->eth.h_source, way->macs + 6);
	w->eth.h_proto = bpf_htons(ETH_P_IP);
	w->ip.version = 4;
	w->ip.ihl = 5;
	w->ip.tos = 0;
	w->ip.tot_len = bpf_htons(length);
	w->ip.id = bpf_get_prandom_u32();
	w->ip.frag_off = 0;
	w->ip.ttl = 64;
	w->ip.protocol = IPPROTO_UDP;
	w->ip.check = 0;
	w->ip.saddr = cfg.underlay.w[3];
	w->ip.daddr = host;
	for (int i = 0; i < 10; i++)
		sum += ((__be16 *)&w->ip)[i];
	w->ip.check = checksum_fold(sum);
	w->udp.source = bpf_htons(FIRST_PORT | (spread(p) & 0x7fff));
	w->udp.dest = cfg.vxlan_port;
	w->udp.len = bpf_htons(length - sizeof(struct iphdr));
	w->udp.check = 0;
	w->vxlan.flags = p->identity ? VXLAN_NUMBER | VXLAN_GROUP : VXLAN_NUMBER;
	w->vxlan.more = 0;
	w->vxlan.group = bpf_htons(p->identity);
	w->vxlan.number = bpf_htonl(p->network << 8);
	w->inner = inner;
	return way->ifindex;
}

// Return whether a packet is plain VXLAN for this host.
static __always_inline bool is_plain(const struct wrapping *w, __u32 length)
{
	__u32 sum = 0;

	if (w->eth.h_proto != bpf_htons(ETH_P_IP) || w->ip.version != 4 || w->ip.ihl != 5 ||
	    w->ip.frag_off & bpf_htons(IP_MORE | IP_OFFSET) || w->ip.protocol != IPPROTO_UDP ||
	    w->udp.dest != cfg.vxlan_port || w->udp.check || w->ip.daddr != cfg.underlay.w[3])
		return false;
	if (bpf_ntohs(w->ip.tot_len) != length || bpf_ntohs(w->udp.len) != length - sizeof(w->ip))
		return false;
	if ((w->vxlan.flags & ~VXLAN_GROUP) != VXLAN_NUMBER || w->vxlan.more || w->vxlan.number & bpf_htonl(0xff))
		return false;
	for (int i = 0; i < 10; i++)
		sum += ((const __be16 *)&w->ip)[i];
	return !checksum_fold(sum);
}

// Take a plain packet out of its VXLAN, if it is for a veth of this host; else
// it is as it was. What a tap hands on must be out of every wrapping by the
// kernel's own account, too, which only the long way settles.
__noinline int unwrap(struct __sk_buff *skb, struct packet *p)
{
	struct addr underlay;
	struct mac_key mac = {};
	struct place *place;
	struct wrapping *w;
	struct ethhdr inner;
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;

	if (!p)
		return 0;
	if (skb->len < sizeof(*w) || skb->pkt_type != 0)
		return 0;
	w = (void *)(long)skb->data;
	if ((void *)(w + 1) > (void *)(long)skb->data_end) {
		if (bpf_skb_pull_data(skb, sizeof(*w)))
			return 0;
		w = (void *)(long)skb->data;
		if ((void *)(w + 1) > (void *)(long)skb->data_end)
			return 0;
	}
	if (!is_plain(w, skb->len - ETH_HLEN))
		return 0;
	if (w->inner.h_proto == bpf_htons(ETH_P_IPV6))
		flags |= INNER_IPV6;
	else if (w->inner.h_proto != bpf_htons(ETH_P_IP))
		return 0;
	mac.network = bpf_ntohl(w->vxlan.number) >> 8;
	mac_copy(mac.mac, w->inner.h_dest);
	addr_from_ipv4(&underlay, w->ip.saddr);
	p->network = mac.network;
	p->identity = w->vxlan.flags & VXLAN_GROUP ? bpf_ntohs(w->vxlan.group) : 0;
	inner = w->inner;
	place = bpf_map_lookup_elem(&macs, &mac);
	if (!place || place->kind != PLACE_LOCAL || place->body != BODY_VETH ||
	    arrived(skb, &underlay, bpf_ktime_get_coarse_ns()) != FROM_HOST)
		return 0;
	if (bpf_skb_adjust_room(skb, -WRAPPING, BPF_ADJ_ROOM_MAC, flags))
		return 0;
	p->place = *place;
	p->host = underlay;
	w = (void *)(long)skb->data;
	if ((void *)(&w->eth + 1) > (void *)(long)skb->data_end)
		return 0;
	w->eth = inner;
	return 1;
}
