// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Time between packets, as their processors' clocks tell it.
#pragma once
#include <linux/types.h>

#define SECOND 1000000000ull  // in nanoseconds

// Return how many nanoseconds have passed since *then*; 0 if that is ahead of *now*:
// the clock of another CPU may be a tick further.
static __always_inline __u64 passed_since(__u64 now, __u64 then)
{
	const __s64 passed = now - then;

	return passed > 0 ? passed : 0;
}
