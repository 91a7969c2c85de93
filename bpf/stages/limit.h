// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// How fast a port may get, or send: a bucket of tokens, kept as the time at
// which all that has passed is paid for. A packet passes while that is not in
// the future, whatever its size: what GSO makes one may be larger than a burst.
#pragma once
#include "../include/stage.h"

// Return whether a limited port may send or get this packet now.
__noinline int within_rate(struct __sk_buff *skb, __u64 port, __u32 way)
{
	struct rate_key key = { .port = port_of(port), .way = way };
	struct rate *rate = bpf_map_lookup_elem(&rates, &key);
	__s64 now, earliest, first, *paid_until;
	__u32 length = skb->len;

	if (!rate || !rate->bits)
		return 1;
	now = bpf_ktime_get_ns();
	earliest = now - (__s64)rate->burst;
	paid_until = bpf_map_lookup_elem(&paid, &key);
	if (!paid_until) {
		first = earliest;
		bpf_map_update_elem(&paid, &key, &first, BPF_NOEXIST);
		paid_until = bpf_map_lookup_elem(&paid, &key);
		if (!paid_until)
			return 1;
	}
	first = *(volatile __s64 *)paid_until;
	if (first < earliest)
		__sync_val_compare_and_swap(paid_until, first, earliest);
	else if (first > now)
		return 0;
	// Processors that come here at once pass a packet each.
	__sync_fetch_and_add(paid_until, (__s64)((__u64)length * 8 * SECOND / rate->bits));
	return 1;
}
