// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// A packet comes from the provider network, or from another host by a device
// of the underlay; what is not for a port of this host stays with the host's
// own stack, which may share the device: it goes on (TC_ACT_UNSPEC) to what
// filters others have on the same hook.
//
//     from_uplink ─┬─ unwrap ── arrive ──> a port
//                  ├─ from_workload, if the tag is a bare-metal server's
//                  ├─ arrive ──> a port
//                  ├─ flood ──> ports of this host, and the host
//                  ├─ publish ──> a port, or the host
//                  └─ DROP_SPOOFED_HOST
#pragma once
#include "include/stage.h"
#include "stages/deliver.h"
#include "stages/owed.h"

// Take the tag off, if the network has one; 0 or -errno.
static __always_inline int strip(struct __sk_buff *skb, struct packet *p)
{
	return p->tag ? bpf_skb_vlan_pop(skb) : 0;
}

// Take tags of VLAN 0 off, which say a priority alone (IEEE 802.1Q): the kernel takes
// such a frame for an untagged one, and so must what judges it. 0 or -errno.
static __always_inline int drop_priority_tags(struct __sk_buff *skb)
{
	__be16 tag;

#pragma unroll
	for (int i = 0; i < 3; i++) {
		if (skb->vlan_present) {
			if (skb->vlan_tci & 0xfff)
				return 0;
		} else if (skb->protocol == bpf_htons(ETH_P_8021Q) || skb->protocol == bpf_htons(ETH_P_8021AD)) {
			if (bpf_skb_load_bytes(skb, ETH_HLEN, &tag, 2) || tag & bpf_htons(0xfff))
				return 0;
		} else {
			return 0;
		}
		if (i == 2 || bpf_skb_vlan_pop(skb))
			return -1;
	}
	return 0;
}

// To the host itself, unless a port has something published there: the agent
// empties that slot while nothing is published, and calling it then leads on.
static __always_inline int to_self(struct __sk_buff *skb)
{
	if (skb->pkt_type == PKT_HOST && !skb->vlan_present &&
	    (skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6)))
		bpf_tail_call(skb, &stages, PUBLISH);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int from_uplink(struct __sk_buff *skb)
{
	struct packet *p = packet_in_flight();
	struct uplink_key uplink = { .ifindex = skb->ifindex };
	struct endpoint_key from = {};
	struct mac_key mac = {};
	struct endpoint *who;
	struct place *place;
	__u32 *network;

	if (!p)
		return TC_ACT_UNSPEC;
	if (drop_priority_tags(skb)) {
		p->port = (struct port_key){};
		p->flags = PACKET_UPLINK;
		parse(skb, p);
		return drop(p, DROP_SPOOFED_VLAN);
	}
	if (cfg.direct && !skb->vlan_present && skb->protocol == bpf_htons(ETH_P_IP) && unwrap(skb, p)) {
		p->port = (struct port_key){};
		p->flags = PACKET_OVERLAY;
		parse(skb, p);
		if (p->bad == DROP_SPOOFED_VLAN)
			return drop(p, DROP_SPOOFED_VLAN);
		return arrive_from_elsewhere(skb, p);
	}
	if (is_stray(skb, p)) {
		p->port = (struct port_key){};
		p->flags = PACKET_UPLINK;
		p->network = 0;
		p->identity = 0;
		p->place.identity = 0;
		parse(skb, p);
		return drop(p, DROP_SPOOFED_HOST);
	}
	if (skb->vlan_present) {
		uplink.vlan = skb->vlan_tci & 0xfff;
	} else if (skb->protocol == bpf_htons(ETH_P_8021Q)) {
		__be16 tag;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &tag, 2))
			return TC_ACT_UNSPEC;
		uplink.vlan = bpf_ntohs(tag) & 0xfff;
	}
	if (uplink.vlan) {
		struct port_key port = { .ifindex = skb->ifindex, .vlan = uplink.vlan };

		if (bpf_map_lookup_elem(&ports, &port))
			return go(skb, p, PORT);
	}
	network = bpf_map_lookup_elem(&uplinks, &uplink);
	if (!network)
		return to_self(skb);
	p->port = (struct port_key){};
	p->flags = PACKET_UPLINK;
	p->network = *network;
	p->identity = 0;
	p->tag = uplink.vlan;
	p->place.kind = 0;
	p->place.identity = 0;
	mac.network = p->network;
	if (bpf_skb_load_bytes(skb, 0, mac.mac, 6))
		return TC_ACT_UNSPEC;
	if (!(mac.mac[0] & 1)) {
		place = bpf_map_lookup_elem(&macs, &mac);
		if (!place || place->kind != PLACE_LOCAL)
			return to_self(skb);
		p->place = *place;
	}
	if (strip(skb, p))
		return drop(p, DROP_ERROR);
	parse(skb, p);
	if (owes_elsewhere(skb, p))
		return drop(p, DROP_MALFORMED);
	// A port elsewhere on the provider network is known by its address and its
	// MAC: the wire carries no identity.
	if (p->flags & PACKET_IP) {
		from.network = p->network;
		from.ip = p->src;
		who = bpf_map_lookup_elem(&endpoints, &from);
		if (who && who->place.kind != PLACE_LOCAL && mac_equal(who->mac, p->src_mac))
			p->identity = who->place.identity;
	}
	if (!p->place.kind) {
		// What a port of this network sent to all has come through the
		// overlay, if from another host, or has been here already.
		mac_copy(mac.mac, p->src_mac);
		if (!bpf_map_lookup_elem(&macs, &mac))
			return go(skb, p, FLOOD);
		return to_host(skb, p);
	}
	return arrive_from_elsewhere(skb, p);
}
