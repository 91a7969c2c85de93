// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// A packet comes from another host, for a port of this one.
//
//     from_overlay ─┬─ arrive ──> a port
//           │       ├─ flood ──> ports of this host
//           │       ├─ encap ──> the host to which the port has moved
//           │       └─ DROP_NO_MAC, DROP_LOOP
//           └─ DROP_NO_TUNNEL, DROP_UNKNOWN_HOST, DROP_NO_NETWORK
#pragma once
#include "include/stage.h"
#include "stages/deliver.h"

// Read who sent the packet, on which network, as whom; 0 or -errno.
static __always_inline int take_tunnel(struct __sk_buff *skb, struct packet *p)
{
	struct bpf_tunnel_key key = {};
	__u32 group = 0;

	if (cfg.tunnel_from_cb) {
		p->network = skb->cb[0];
		p->identity = skb->cb[1] & 0xffff;
		if (skb->cb[1] & GROUP_RELAYED)
			p->flags |= PACKET_RELAYED;
		addr_from_ipv4(&p->host, skb->cb[2]);
		return p->network ? 0 : -1;
	}
	if (!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0)) {
		addr_from_ipv4(&p->host, bpf_htonl(key.remote_ipv4));
	} else {
		if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6))
			return -1;
		__builtin_memcpy(&p->host, key.remote_ipv6, 16);
	}
	p->network = key.tunnel_id;
	if (bpf_skb_get_tunnel_opt(skb, &group, sizeof(group)) < 0)
		group = 0;  // nobody's: a packet of identity 0 carries no policy
	p->identity = group & 0xffff;
	if (group & GROUP_RELAYED)
		p->flags |= PACKET_RELAYED;
	return 0;
}

SEC("tc")
int from_overlay(struct __sk_buff *skb)
{
	struct packet *p = packet_in_flight();
	struct mac_key mac = {};
	struct place *place;
	int error;

	if (!p)
		return TC_ACT_SHOT;
	p->port = (struct port_key){};
	p->flags = PACKET_OVERLAY;
	p->network = 0;
	p->identity = 0;
	p->place.kind = 0;
	p->place.identity = 0;
	error = take_tunnel(skb, p);
	parse(skb, p);
	if (error)
		return drop(p, DROP_NO_TUNNEL);
	if (!bpf_map_lookup_elem(&hosts, &p->host))
		return drop(p, DROP_UNKNOWN_HOST);
	if (p->bad == DROP_SPOOFED_VLAN || skb->vlan_present)
		return drop(p, DROP_SPOOFED_VLAN);
	if (p->dst_mac[0] & 1)
		return go(skb, p, FLOOD);
	mac.network = p->network;
	mac_copy(mac.mac, p->dst_mac);
	place = bpf_map_lookup_elem(&macs, &mac);
	if (!place) {
		struct network *net = bpf_map_lookup_elem(&networks, &p->network);

		if (!net)
			return drop(p, DROP_NO_NETWORK);
		if (net->flags & NETWORK_FLOOD_UNKNOWN)
			return go(skb, p, FLOOD);
		return drop(p, DROP_NO_MAC);
	}
	p->place = *place;
	if (place->kind == PLACE_LOCAL)
		return arrive_from_elsewhere(skb, p);
	if (place->kind != PLACE_REMOTE || !(place->flags & PORT_MOVED) || p->flags & PACKET_RELAYED)
		return drop(p, DROP_LOOP);
	p->flags |= PACKET_RELAYED;
	return encap(skb, p);
}
