// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// How often a port may cause work, as a bucket of time that fills again, and how
// much of it may wait for the agent.
#pragma once
#include "clock.h"
#include "maps.h"

// Return whether the port may do one more thing now, of *burst* at once and so many a second.
static __always_inline bool has_budget(void *table, const struct port_key *port, __u64 now, __u64 burst,
				       __u64 per_second)
{
	const __u64 each = SECOND / per_second, full = burst * each;
	__u64 have, passed;
	struct budget first = { .seen = now, .nanoseconds = full - each };
	struct budget *b = bpf_map_lookup_elem(table, port);

	if (!b) {
		bpf_map_update_elem(table, port, &first, BPF_ANY);
		return true;
	}
	passed = passed_since(now, b->seen);
	have = passed > full ? full : b->nanoseconds + passed;
	if (have > full)
		have = full;
	b->seen += passed;
	b->nanoseconds = have < each ? have : have - each;
	return have >= each;
}

enum { RING_SHARE = 8 };  // a port has an eighth of what is free in a ring, at most

// Return whether one more record of a port may wait in a ring for the agent, and
// count it in *table*. A port may have an eighth of what the others leave free:
// however many write without end, there is room for one that has nothing in it.
static __always_inline bool may_wait(void *ring, void *table, const struct port_key *port, __u64 length)
{
	const __u64 size = (length + BPF_RINGBUF_HDR_SZ + 7) & ~7ull;
	__u64 read = bpf_ringbuf_query(ring, BPF_RB_CONS_POS);
	__u64 put = bpf_ringbuf_query(ring, BPF_RB_PROD_POS);
	__u64 free = bpf_ringbuf_query(ring, BPF_RB_RING_SIZE) - (put - read);
	struct in_flight first = { .mark = put + size, .before = size }, *of;
	__u64 have;

	of = bpf_map_lookup_elem(table, port);
	if (!of) {
		bpf_map_update_elem(table, port, &first, BPF_ANY);
		return true;
	}
	if (read >= of->mark) {
		of->before = read >= put ? 0 : of->after;
		of->after = 0;
		of->mark = put;
	}
	have = of->before + of->after;
	if (have && have + size > free / RING_SHARE)
		return false;
	__sync_fetch_and_add(&of->after, size);
	return true;
}
