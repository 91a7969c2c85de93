// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// By which links this host reaches an address: what says that it is that address
// must come by one of them, as with the kernel's own rp_filter at its strictest.
#pragma once
#include <bpf/bpf_core_read.h>
#include "../include/budget.h"
#include "../include/stage.h"
#include "owed.h"

enum {
	PKT_OTHERHOST = 3,  // of linux/if_packet.h
	AF_INET_ = 2, AF_INET6_ = 10,
	FIB_FOUND = 0, FIB_DISABLED = 5, FIB_NO_NEIGHBOUR = 7, FIB_TOO_BIG = 8,  // BPF_FIB_LKUP_RET_*
	FIRST_TRIES = 16, LEG_TRIES = 256,  // that are made of a route of several links; the last is a power of two
	LEG_SEARCHES = 1000,  // a second and link that make all of them
};

// A search for a link among those of a route, of which the kernel tells one at a time.
struct search_of_leg {
	struct __sk_buff *skb;
	struct addr to;
	__u32 ifindex;
	__u32 first;  // the number of the try that is made first
	__u32 begin;
	__u32 found;  // 1 + the number of the try that found it
	bool ended;   // there is nothing more to find
};

// Ask the kernel once: it chooses by a hash of addresses and, if so set, of ports, so
// that others show themselves to other sources, all of them of this host's own prefix.
static long try_leg(__u32 i, struct search_of_leg *search)
{
	const __u32 number = ((i + search->begin) ^ search->first) % LEG_TRIES;
	struct bpf_fib_lookup fib = {
		.ifindex = cfg.overlay, .l4_protocol = IPPROTO_UDP, .sport = bpf_htons(number),
	};
	long told;

	if (addr_is_ipv4(&search->to)) {
		fib.family = AF_INET_;
		fib.ipv4_src = cfg.underlay.w[3] ^ bpf_htonl(number);
		fib.ipv4_dst = search->to.w[3];
	} else {
		fib.family = AF_INET6_;
		for (int j = 0; j < 4; j++) {
			fib.ipv6_src[j] = cfg.underlay.w[j];
			fib.ipv6_dst[j] = search->to.w[j];
		}
		fib.ipv6_src[3] ^= bpf_htonl(number);
	}
	told = bpf_fib_lookup(search->skb, &fib, sizeof(fib), 0);
	search->ended = told != FIB_FOUND && told != FIB_NO_NEIGHBOUR && told != FIB_TOO_BIG;
	// A kernel that does not tell leaves it to its own judgement.
	if (told == FIB_DISABLED || (!search->ended && fib.ifindex == search->ifindex)) {
		search->found = 1 + number;
		search->ended = true;
	}
	return search->ended;
}

// Return whether an address is reached by a link: 1 + the number of the try that found
// it, by which it is found at once the next time, as *first*. A route of few links has
// them all found by a few tries; more are made only so often for a link, since one by
// which an address is not reached costs them all, whoever writes that address.
__noinline int is_reached_by(struct __sk_buff *skb, struct addr *to, __u32 ifindex, __u32 first)
{
	struct search_of_leg search = { .skb = skb, .ifindex = ifindex, .first = first };
	struct port_key link = { .ifindex = ifindex };

	if (!to)
		return 0;
	search.to = *to;
	bpf_loop(FIRST_TRIES, try_leg, &search, 0);
	if (!search.ended && has_budget(&searches, &link, bpf_ktime_get_coarse_ns(), LEG_SEARCHES, LEG_SEARCHES)) {
		search.begin = FIRST_TRIES;
		bpf_loop(LEG_TRIES - FIRST_TRIES, try_leg, &search, 0);
	}
	return search.found;
}

// What programs are not told of a link: that another one (a bridge, a bond) takes
// what comes by it.
struct net_device___enslaved {
	void *rx_handler;
} __attribute__((preserve_access_index));

struct sk_buff___arrived {
	struct net_device___enslaved *dev;
} __attribute__((preserve_access_index));

static __always_inline bool is_enslaved(struct __sk_buff *skb)
{
	struct sk_buff___arrived *kernels;
	struct net_device___enslaved *dev;
	void *handler = NULL;

	if (cfg.sums_hidden)
		return false;
	if (cfg.casts) {
		kernels = bpf_cast_to_kern_ctx(skb);
		return kernels->dev->rx_handler;
	}
	kernels = (void *)skb;
	if (bpf_probe_read_kernel(&dev, sizeof(dev), (void *)kernels + bpf_core_field_offset(kernels->dev)) ||
	    bpf_probe_read_kernel(&handler, sizeof(handler), (void *)dev + bpf_core_field_offset(dev->rx_handler)))
		return false;
	return handler;
}

enum arrived { FROM_STRANGER, FROM_HOST, FROM_ELSEWHERE };

// Ask whether an address is a known host's, and a packet from it may come by this link:
// enum arrived. A link of a bridge or bond is none that routes tell of; what comes
// by it is judged where it goes on, by the kernel.
static __noinline int ask_arrival(struct __sk_buff *skb, struct addr *from, struct arrival *row)
{
	const __u64 lifetime = 100000000;
	__u32 ifindex = skb->ifindex, first = 0;

	if (!from || !row || !bpf_map_lookup_elem(&hosts, from))
		return FROM_STRANGER;
	barrier_on(ifindex);
	if (row->good && row->ifindex == ifindex && addr_equal(&row->host, from))
		first = row->good - 1;
	row->until = 0;
	row->host = *from;
	row->ifindex = ifindex;
	row->good = is_enslaved(skb) ? 1 : is_reached_by(skb, from, ifindex, first);
	row->until = bpf_ktime_get_coarse_ns() + lifetime;
	return row->good ? FROM_HOST : FROM_ELSEWHERE;
}

static __always_inline int arrived(struct __sk_buff *skb, struct addr *from, __u64 now)
{
	__u32 ifindex = skb->ifindex, slot = ((from->w[3] ^ ifindex << 8) * 0x9e3779b1) >> 24;
	struct arrival *row = bpf_map_lookup_elem(&arrivals, &slot);

	if (row && now < row->until && row->ifindex == ifindex && addr_equal(&row->host, from))
		return row->good ? FROM_HOST : FROM_ELSEWHERE;
	return ask_arrival(skb, from, row);
}

// Return whether a packet for the host itself is of the overlay or of hosts' own
// talk, and says that it is from a host that is not reached by this link.
__noinline int is_stray(struct __sk_buff *skb, struct packet *p)
{
	__be16 ports[2] = {};
	struct addr from;

	if (!p || skb->vlan_present || skb->pkt_type == PKT_OTHERHOST || skb->ifindex == LOOPBACK)
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct {
			struct iphdr ip;
			__be16 ports[2];
		} head;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &head, sizeof(head)) || head.ip.protocol != IPPROTO_UDP ||
		    head.ip.frag_off & bpf_htons(IP_OFFSET))
			return 0;
		ports[1] = head.ports[1];
		if (head.ip.ihl != 5 && bpf_skb_load_bytes(skb, ETH_HLEN + head.ip.ihl * 4, ports, sizeof(ports)))
			return 0;
		addr_from_ipv4(&from, head.ip.saddr);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
			return 0;
		__builtin_memcpy(&from, &ip.saddr, 16);
		if (ip.nexthdr == IPPROTO_UDP) {
			if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), ports, sizeof(ports)))
				return 0;
		} else if (is_extension(ip.nexthdr)) {
			p->flags = 0;
			// What cannot be read here may be read by the kernel.
			if (parse_linear(skb, p))
				ports[1] = cfg.vxlan_port;
			else if (p->proto == IPPROTO_UDP)
				ports[1] = p->dst_port;
		}
	}
	return ports[1] && is_hosts_port(IPPROTO_UDP, ports[1]) &&
	       arrived(skb, &from, bpf_ktime_get_coarse_ns()) == FROM_ELSEWHERE;
}
