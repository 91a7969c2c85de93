// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The Internet checksum (RFC 1071).
#pragma once
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "types.h"

// What an ICMPv6 checksum begins with (RFC 8200 8.1).
struct pseudo {
	struct addr src;
	struct addr dst;
	__be32 length;
	__be32 proto;
};

static __always_inline __u16 checksum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

// Return the checksum of a header in which one half-word has changed (RFC 1624).
static __always_inline __u16 checksum_replace(__u16 sum, __u16 old, __u16 new)
{
	return checksum_fold((__u64)(__u16)~sum + (__u16)~old + new);
}
