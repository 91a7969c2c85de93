// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// By which links this host reaches an address: what says that it is that address
// must come by one of them, as with the kernel's own rp_filter at its strictest.
#pragma once
#include "../include/stage.h"

enum {
	AF_INET_ = 2, AF_INET6_ = 10,
	FIB_FOUND = 0, FIB_DISABLED = 5, FIB_NO_NEIGHBOUR = 7, FIB_TOO_BIG = 8,  // BPF_FIB_LKUP_RET_*
	LEGS = 16,  // times that a route of several links is asked
};

// Return whether an address is reached by a link. The kernel tells one link of a
// route, by a hash of both addresses: others show themselves to other sources.
__noinline int is_reached_by(struct __sk_buff *skb, struct addr *to, __u32 ifindex)
{
	struct bpf_fib_lookup fib;
	long found;

	if (!to)
		return 0;
	for (__u32 i = 0; i < LEGS; i++) {
		__builtin_memset(&fib, 0, sizeof(fib));
		fib.ifindex = cfg.overlay;
		fib.l4_protocol = IPPROTO_UDP;
		if (addr_is_ipv4(to)) {
			fib.family = AF_INET_;
			fib.ipv4_src = cfg.underlay.w[3] + i;
			fib.ipv4_dst = to->w[3];
		} else {
			fib.family = AF_INET6_;
			for (int j = 0; j < 4; j++) {
				fib.ipv6_src[j] = cfg.underlay.w[j];
				fib.ipv6_dst[j] = to->w[j];
			}
			fib.ipv6_src[3] += i;
		}
		found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
		if (found == FIB_DISABLED)  // it does not say; then it is the kernel's to judge
			return 1;
		if (found != FIB_FOUND && found != FIB_NO_NEIGHBOUR && found != FIB_TOO_BIG)
			return 0;
		if (fib.ifindex == ifindex)
			return 1;
	}
	return 0;
}
