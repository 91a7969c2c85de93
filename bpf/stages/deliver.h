// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The last step of a packet: into a port of this host, to another host through
// the overlay, or out to the provider network.
//
//     forward ─┬─ LOCAL ── firewall(ingress) ──> deliver
//              ├─ REMOTE ──> encap               └─ DROP_POLICY_IN, DROP_RATE
//              ├─ UPLINK ──> leave
//              └─ DROP_NO_UPLINK, DROP_ERROR
#pragma once
#include "../include/stage.h"
#include "firewall.h"
#include "limit.h"
#include "wrap.h"

enum {
	PKT_HOST = 0,             // PACKET_HOST of linux/if_packet.h
	GROUP_RELAYED = 1 << 22,  // VXLAN_GBP_DONT_LEARN of net/vxlan.h
};

// As whom the host speaks to ports of which something is published: that of NO_ROUTER.
#define GATEWAY_MAC ((const __u8[6]){ 0x02, 0xc0, 0x55, 0, 0, 1 })

// Send the packet by a device, and have it still.
static __always_inline int clone(struct __sk_buff *skb, __u32 ifindex, __u16 vlan)
{
	int error;

	if (!vlan)
		return bpf_clone_redirect(skb, ifindex, 0);
	error = bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), vlan);
	if (error)
		return error;
	error = bpf_clone_redirect(skb, ifindex, 0);
	bpf_skb_vlan_pop(skb);
	return error;
}

// Into a port.
static __always_inline int deliver(struct __sk_buff *skb, struct packet *p, __u64 port, __u8 body)
{
	struct port_key key = port_of(port);

	if (body == BODY_VETH) {
		// The device's own MAC is not the workload's: its stack would take
		// the packet for another's.
		if (skb->pkt_type != PKT_HOST)
			bpf_skb_change_type(skb, PKT_HOST);
		p->out = key.ifindex;
		return bpf_redirect_peer(key.ifindex, 0);
	}
	if (body == BODY_VLAN && bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), key.vlan))
		return drop(p, DROP_ERROR);
	return redirect(p, key.ifindex);
}

// Back to the port that sent the packet.
static __always_inline int send_back(struct __sk_buff *skb, struct packet *p)
{
	return deliver(skb, p, port_number(&p->port), p->body);
}

// Set where in the underlay the packet goes; 0 or -errno.
static __always_inline int set_tunnel(struct __sk_buff *skb, struct packet *p, const struct addr *underlay)
{
	struct bpf_tunnel_key key = { .tunnel_id = p->network, .tunnel_ttl = 64 };
	__u32 group = p->identity | (p->flags & PACKET_RELAYED ? GROUP_RELAYED : 0);
	int error;

	if (addr_is_ipv4(underlay)) {
		key.remote_ipv4 = bpf_ntohl(underlay->w[3]);
		key.local_ipv4 = bpf_ntohl(cfg.underlay.w[3]);
		error = bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_ZERO_CSUM_TX);
	} else {
		__builtin_memcpy(key.remote_ipv6, underlay, 16);
		for (int i = 0; i < 4; i++)
			key.local_ipv6[i] = cfg.underlay.w[i];
		error = bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_ZERO_CSUM_TX | BPF_F_TUNINFO_IPV6);
	}
	if (!error && group)
		error = bpf_skb_set_tunnel_opt(skb, &group, sizeof(group));
	return error;
}

// To another host.
static __always_inline int encap(struct __sk_buff *skb, struct packet *p)
{
	// What is one datagram goes one way: a piece that overtook the first would wait for it.
	if (cfg.direct && addr_is_ipv4(&p->place.underlay) && !(p->flags & (PACKET_RELAYED | PACKET_SPLIT))) {
		int device = wrap(skb, p);

		if (device > 0)
			return redirect(p, device);
		if (device < 0)
			return drop(p, DROP_ERROR);
	}
	if (!cfg.overlay || set_tunnel(skb, p, &p->place.underlay))
		return drop(p, DROP_ERROR);
	return redirect(p, cfg.overlay);
}

// Out to the provider network.
static __always_inline int leave(struct __sk_buff *skb, struct packet *p)
{
	struct network *net = bpf_map_lookup_elem(&networks, &p->network);

	if (!net)
		return drop(p, DROP_NO_NETWORK);
	if (!net->uplink)
		return drop(p, DROP_NO_UPLINK);
	if (net->uplink_vlan && bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), net->uplink_vlan))
		return drop(p, DROP_ERROR);
	return redirect(p, net->uplink);
}

// Leave the packet to the host's own stack, as it came, past others' filters.
static __always_inline int to_host(struct __sk_buff *skb, struct packet *p)
{
	if (p->tag)
		bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), p->tag);
	return TC_ACT_UNSPEC;
}

// Return why the port of this host at `place` must not get the packet, or 0.
static __always_inline enum drop enter_port(struct __sk_buff *skb, struct packet *p, __u64 number)
{
	enum drop why;

	if (p->place.flags & PORT_SECURED) {
		why = pass_firewall(skb, p, number, WAY_IN, p->place.identity, p->identity);
		if (why)
			return why;
	}
	if (p->place.flags & PORT_LIMITED && !within_rate(skb, number, WAY_IN))
		return DROP_RATE;
	return 0;
}

// Return whether the firewall of a port here judges the packet where it goes.
static __always_inline bool is_judged_here(const struct packet *p)
{
	return p->place.kind == PLACE_LOCAL && p->place.flags & PORT_SECURED;
}

// To the port of this host at `place`, past its firewall.
static __always_inline int arrive(struct __sk_buff *skb, struct packet *p)
{
	__u64 number = port_number(&p->place.port);
	enum drop why;

	why = enter_port(skb, p, number);
	if (why)
		return drop_at(p, number, why, p->place.identity);
	return deliver(skb, p, number, p->place.body);
}

// The same, of what comes from elsewhere: of a fragmented packet, the first one tells
// the port's own slots what has become of it.
static __always_inline int arrive_from_elsewhere(struct __sk_buff *skb, struct packet *p)
{
	__u64 number = port_number(&p->place.port);
	enum drop why;

	if (p->flags & PACKET_LATER) {
		gather(p, number, 0);
		if (p->flags & PACKET_UNSEEN && p->place.flags & PORT_SECURED)
			return go(skb, p, HOLD);
	}
	why = enter_port(skb, p, number);
	if (is_first_fragment(p))
		gather_fragment(p, number, !why);
	if (why)
		return drop_at(p, number, why, p->place.identity);
	if (p->flags & PACKET_EARLY)
		return go(skb, p, RELEASE);
	return deliver(skb, p, number, p->place.body);
}

// From a port of this host to `place`.
static __always_inline int forward(struct __sk_buff *skb, struct packet *p)
{
	switch (p->place.kind) {
	case PLACE_LOCAL:
		return arrive(skb, p);
	case PLACE_REMOTE:
		return encap(skb, p);
	case PLACE_UPLINK:
		return leave(skb, p);
	}
	return drop(p, DROP_ERROR);
}
