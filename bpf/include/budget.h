// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// How often a port may cause work, as a bucket of time that fills again.
#pragma once
#include "maps.h"

// Return whether the port may do one more thing now, of *burst* at once and so many a second.
static __always_inline bool has_budget(void *table, const struct port_key *port, __u64 now, __u64 burst,
				       __u64 per_second)
{
	const __u64 each = SECOND / per_second, full = burst * each;
	__u64 have;
	struct budget first = { .seen = now, .nanoseconds = full - each };
	struct budget *b = bpf_map_lookup_elem(table, port);

	if (!b) {
		bpf_map_update_elem(table, port, &first, BPF_ANY);
		return true;
	}
	have = now - b->seen > full ? full : b->nanoseconds + (now - b->seen);
	if (have > full)
		have = full;
	b->seen = now;
	b->nanoseconds = have < each ? have : have - each;
	return have >= each;
}
