// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// A checksum that is still to be made (CHECKSUM_PARTIAL) is written into the
// packet when it leaves for a device that makes none itself, or by that
// device: past every judgement. Where to, a guest says in the virtio header
// before its frame, and a container by PACKET_VNET_HDR; the kernel only asks
// that it is 20 bytes from the frame's beginning. So it must be the checksum of
// the packet's own transport header, or of something within its payload.
//
//     owes_elsewhere ── of what ports of this host send, and strangers to them
//
// What another host sends has been through this there.
#pragma once
#include <bpf/bpf_core_read.h>
#include "../include/stage.h"

enum { SUM_PARTIAL = 3 };  // CHECKSUM_PARTIAL of linux/skbuff.h

// What programs are not told of a packet: `struct sk_buff`, in which libbpf
// finds these by the kernel's BTF.
struct sk_buff___owed {
	__u8 ip_summed : 2;
	__u32 csum;         // csum_start and csum_offset, if it is still to be made: where what is summed
	                    // up begins, and from there where the checksum is
	__u16 mac_header;   // both this and `start` count from where the packet's memory begins
} __attribute__((preserve_access_index));

void *bpf_cast_to_kern_ctx(void *ctx) __ksym __weak;  // since kernel 6.2

// Return whether a checksum is to be made, and then which, and where the frame begins.
static __always_inline bool is_partial(struct __sk_buff *skb, __u32 *sum, __u16 *mac)
{
	struct sk_buff___owed *kernels;
	__u64 window[12], summed;  // of the kernel's record: one read costs 35 ns, of whatever size
	__u32 from, csum_at, mac_at;

	if (cfg.casts) {
		kernels = bpf_cast_to_kern_ctx(skb);
		if (BPF_CORE_READ_BITFIELD(kernels, ip_summed) != SUM_PARTIAL)
			return false;
		*sum = kernels->csum;
		*mac = kernels->mac_header;
		return true;
	}
	kernels = (void *)skb;  // they are the same while programs run
	from = __CORE_RELO(kernels, ip_summed, BYTE_OFFSET);
	csum_at = bpf_core_field_offset(kernels->csum) - from;
	mac_at = bpf_core_field_offset(kernels->mac_header) - from;
	if (bpf_probe_read_kernel(window, mac_at + sizeof(*mac), (void *)kernels + from))
		return false;
	summed = window[0] << __CORE_RELO(kernels, ip_summed, LSHIFT_U64);
	if (summed >> __CORE_RELO(kernels, ip_summed, RSHIFT_U64) != SUM_PARTIAL)
		return false;
	*sum = *(__u32 *)((void *)window + csum_at);
	*mac = *(__u16 *)((void *)window + mac_at);
	return true;
}

// Return where the checksum is in the transport header of a packet, negative if
// no stage looks into that header.
static __always_inline int own_checksum(const struct packet *p)
{
	if (p->flags & PACKET_LATER)
		return -1;
	switch (p->proto) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
	case PROTO_UDPLITE:
	case PROTO_DCCP:
		return 6;
	case PROTO_SCTP:
		return 8;
	}
	return is_icmp(p) ? 2 : -1;
}

// Return whether the packet is one whose checksum would be written over what
// has been judged, or into what is none of its sender's payload.
__noinline int owes_elsewhere(struct __sk_buff *skb, struct packet *p)
{
	__u32 sum = 0, offset;
	int own, start, l4;
	__u16 mac = 0;

	if (cfg.sums_hidden || !p || !is_partial(skb, &sum, &mac) || p->bad)
		return 0;
	if (!(p->flags & PACKET_IP))
		return p->eth_proto == ETH_P_ARP;
	start = (int)(sum & 0xffff) - mac;
	offset = sum >> 16;
	l4 = p->l4;
	own = own_checksum(p);
	if (own < 0)
		return start < l4;
	if (start == l4)
		return offset != (__u32)own;
	return is_icmp(p) || start < ETH_HLEN + (int)p->head;
}
