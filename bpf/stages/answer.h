// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// ARP requests and neighbour solicitations of this host's ports, answered from
// the table of endpoints.
//
//     answer ── known ──> reply to the sender
//        ├─ gateway of a published port, and no router is it ──> reply
//        ├─ the sender's own address ──> nothing to say
//        ├─ unknown ──> flood, or to the uplink
//        └─ DROP_NO_NEIGHBOUR
#pragma once
#include "../include/checksum.h"
#include "../include/stage.h"
#include "deliver.h"
#include "guard.h"
#include "learn.h"

struct arp_frame {
	__u8 dst[6];
	__u8 src[6];
	__be16 proto;
	struct arp arp;
} __attribute__((packed, aligned(2)));

struct advertisement {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__u8 flags;
	__u8 reserved[3];
	struct addr target;
	__u8 option;
	__u8 words;
	__u8 mac[6];
};

struct ipv6_frame {
	__u8 dst[6];
	__u8 src[6];
	__be16 proto;
	__u8 version;
	__u8 flow[3];
	__be16 length;
	__u8 next;
	__u8 hop_limit;
	struct addr from;
	struct addr to;
} __attribute__((packed, aligned(2)));

enum { NA_ROUTER = 0x80, NA_SOLICITED = 0x40, NA_OVERRIDE = 0x20 };

// Return whether this asks who has an address.
static __always_inline bool is_solicitation(struct __sk_buff *skb, const struct packet *p)
{
	__be16 operation;

	if (p->bad)
		return false;
	if (p->eth_proto == ETH_P_ARP)
		return !bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct arp, operation), &operation, 2) &&
		       operation == bpf_htons(ARP_REQUEST);
	return p->flags & PACKET_ND && p->rule_port == bpf_htons(ND_NS << 8);
}

static __always_inline int answer_arp(struct __sk_buff *skb, struct packet *p, const struct arp *request,
				      const struct endpoint *who)
{
	struct arp_frame f = { .arp = *request };

	mac_copy(f.dst, p->src_mac);
	mac_copy(f.src, who->mac);
	f.proto = bpf_htons(ETH_P_ARP);
	f.arp.operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(f.arp.target_mac, request->sender_mac, 10);  // and the IP behind it
	__builtin_memcpy(f.arp.sender_mac, f.src, 6);
	__builtin_memcpy(f.arp.sender_ip, request->target_ip, 4);
	if (bpf_skb_store_bytes(skb, 0, &f, sizeof(f), 0))
		return drop(p, DROP_ERROR);
	return send_back(skb, p);
}

static __always_inline int answer_nd(struct __sk_buff *skb, struct packet *p, const struct addr *target,
				     const struct endpoint *who)
{
	struct {
		struct pseudo pseudo;
		struct advertisement na;
	} said = {};
	struct ipv6_frame f = {};
	bool unspecified = addr_is_unspecified(&p->src);

	said.na.type = ND_NA;
	said.na.flags = NA_OVERRIDE;
	if (who->place.kind == PLACE_ROUTER)
		said.na.flags |= NA_ROUTER;
	said.na.target = *target;
	said.na.option = OPTION_TARGET;
	said.na.words = 1;
	mac_copy(said.na.mac, who->mac);
	f.proto = bpf_htons(ETH_P_IPV6);
	mac_copy(f.src, who->mac);
	f.version = 0x60;
	f.length = bpf_htons(sizeof(said.na));
	f.next = IPPROTO_ICMPV6;
	f.hop_limit = 255;
	f.from = *target;
	if (unspecified) {  // tell all: somebody asks whether the address is free
		f.to.w[0] = bpf_htonl(0xff020000);
		f.to.w[3] = bpf_htonl(1);
		*(__be16 *)f.dst = bpf_htons(0x3333);
		*(__be16 *)(f.dst + 4) = bpf_htons(1);
	} else {
		said.na.flags |= NA_SOLICITED;
		f.to = p->src;
		mac_copy(f.dst, p->src_mac);
	}
	said.pseudo.src = f.from;
	said.pseudo.dst = f.to;
	said.pseudo.length = bpf_htonl(sizeof(said.na));
	said.pseudo.proto = bpf_htonl(IPPROTO_ICMPV6);
	said.na.checksum = checksum_fold(bpf_csum_diff(NULL, 0, (void *)&said, sizeof(said), 0));
	if (bpf_skb_change_tail(skb, sizeof(f) + sizeof(said.na), 0) || bpf_skb_store_bytes(skb, 0, &f, sizeof(f), 0) ||
	    bpf_skb_store_bytes(skb, sizeof(f), &said.na, sizeof(said.na), 0))
		return drop(p, DROP_ERROR);
	return send_back(skb, p);
}

// A gateway that is published ports' alone, for want of a router.
static __always_inline bool is_own_gateway(const struct packet *p, const struct addr *ip)
{
	struct gateway_key key = { .port = p->port, .ip = *ip };

	return bpf_map_lookup_elem(&gateways, &key);
}

// Return whether who asks for an address asks whether it is free, or announces it.
static __always_inline bool is_own_claim(const struct packet *p, const struct addr *ip)
{
	return addr_is_unspecified(&p->src) || addr_equal(&p->src, ip);
}

SEC("tc")
int answer(struct __sk_buff *skb)
{
	struct packet *p = packet_in_flight();
	struct endpoint_key key = {};
	struct endpoint *who;
	struct network *net;
	struct arp request = {};
	struct endpoint own = {};

	if (!p)
		return TC_ACT_SHOT;
	key.network = p->network;
	if (p->eth_proto == ETH_P_ARP) {
		if (load_arp(skb, &request))
			return drop(p, DROP_SHORT);
		if (!is_arp_of_ipv4(&request))
			return drop(p, DROP_MALFORMED);
		addr_from_arp(&p->src, request.sender_ip);
		addr_from_arp(&p->dst, request.target_ip);
		key.ip = p->dst;
	} else if (bpf_skb_load_bytes(skb, p->l4 + 8, &key.ip, sizeof(key.ip))) {
		return drop(p, DROP_SHORT);
	}
	net = bpf_map_lookup_elem(&networks, &p->network);
	if (!net)
		return drop(p, DROP_NO_NETWORK);
	who = bpf_map_lookup_elem(&endpoints, &key);
	// Its holder answers: what was learned may be old, and is no answer to who asks whether it is free.
	if (who && who->place.flags & PORT_LEARNED)
		return go(skb, p, FLOOD);
	// What stands in for a router gives way to a port that takes its address.
	if (who && is_no_router(&who->place) && net->flags & NETWORK_FLOOD_UNKNOWN && is_own_claim(p, &key.ip) &&
	    may_have(p, &key.ip))
		return go(skb, p, FLOOD);
	if (!who && is_own_gateway(p, &key.ip)) {
		own.place.kind = PLACE_ROUTER;
		mac_copy(own.mac, GATEWAY_MAC);
		who = &own;
	}
	// Of a provider network's addresses those outside know better.
	if (who && is_no_router(&who->place) && net->flags & NETWORK_PROVIDER)
		return leave(skb, p);
	if (who && !(who->place.kind == PLACE_LOCAL && port_number(&who->place.port) == port_number(&p->port))) {
		if (p->eth_proto == ETH_P_ARP)
			return answer_arp(skb, p, &request, who);
		return answer_nd(skb, p, &key.ip, who);
	}
	// What the port says of itself is for those whom no table tells it.
	if (!who && net->flags & NETWORK_FLOOD_UNKNOWN)
		return go(skb, p, FLOOD);
	if (net->flags & NETWORK_PROVIDER)
		return leave(skb, p);
	if (who)
		return TC_ACT_STOLEN;
	// A solicitation goes to a group; what is missing is whom it asks for.
	p->dst = key.ip;
	return drop(p, DROP_NO_NEIGHBOUR);
}
