// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// To all of a network: a clone for each port of this host and, for what began
// here, for each other host and the uplink. Each copy costs who causes it: a port
// of this host, or of senders elsewhere the one that it is, and then all of them
// together. What asks for the address that only one port of this host may have is
// for that alone.
//
//     flood ─┬─ who has the address of a port here? ── firewall(ingress) ──> clone
//            ├─ DROP_FLOOD_RATE
//            └─ each member ─┬─ LOCAL ── firewall(ingress) ──> clone
//                           ├─ REMOTE ──> clone to the overlay
//                           └─ UPLINK ──> clone to the uplink
#pragma once
#include "../include/stage.h"
#include "deliver.h"
#include "guard.h"

enum {
	FLOOD_BURST = 2,    // seconds' worth of copies at once
	FLOOD_LEAST = 25,   // packets a second that pass, however many members there are
	COPY = 8,           // a copy costs as much as so many members that get none
	SENDERS = 64,       // of a network elsewhere, each of which is assured that part of the rate
	SENDER_LEAST = 5,   // packets a second of each that pass, however many members there are
	SENDER_IDLE = 300,  // seconds of silence after which a part is another sender's
};

struct flooding {
	struct __sk_buff *skb;
	__u32 network;
	__u32 cost;
	__u32 uplink;
	__u16 uplink_vlan;
};

// Return whether a secured port may have what its network does not know: only
// as one of the addresses that it may send from.
static __always_inline bool may_be_at(const struct packet *p, const struct port_key *port)
{
	struct source_key key = { .prefixlen = 256, .port = *port, .ip = p->dst };

	if (p->flags & PACKET_GROUP || !(p->flags & PACKET_IP))
		return true;
	mac_copy(key.mac, p->dst_mac);
	return bpf_map_lookup_elem(&sources, &key);
}

// Return whether a port sent the packet itself: it was not from here when it
// left another host, which serves the port as well and has it from the same
// wire. Given back, it would come in there again, and go in circles.
static __always_inline bool is_of(const struct packet *p, __u64 port)
{
	struct mac_key key = { .network = p->network };
	struct place *place;

	mac_copy(key.mac, p->src_mac);
	place = bpf_map_lookup_elem(&macs, &key);
	return place && place->kind == PLACE_LOCAL && port_number(&place->port) == port;
}

static __always_inline struct flood_account *flood_account(const struct flood_key *who, __s64 now)
{
	const __s64 earliest = now - FLOOD_BURST * SECOND;
	struct flood_account *account = bpf_map_lookup_elem(&flooded, who);
	struct flood_account first = { .paid_until = earliest };
	__s64 until;

	if (!account) {
		bpf_map_update_elem(&flooded, who, &first, BPF_NOEXIST);
		return bpf_map_lookup_elem(&flooded, who);
	}
	until = *(volatile __s64 *)&account->paid_until;
	if (until < earliest)
		__sync_val_compare_and_swap(&account->paid_until, until, earliest);
	return account;
}

static __always_inline bool must_wait(struct flood_account *account, __s64 now)
{
	return account && *(volatile __s64 *)&account->paid_until > now;
}

// Return whether an account is that of a packet's sender outside, whose MAC may be
// made up: none is taken from a sender that was heard of late.
static __always_inline bool is_account_of(struct flood_account *account, const struct packet *p)
{
	__u64 seen = account->seen;

	if (mac_equal(account->mac, p->src_mac)) {
		account->seen = p->now;
		return true;
	}
	if ((seen && passed_since(p->now, seen) < SENDER_IDLE * SECOND) ||
	    __sync_val_compare_and_swap(&account->seen, seen, p->now) != seen)
		return false;
	mac_copy(account->mac, p->src_mac);
	return true;
}

// Find the account of a packet's sender: a port's own; or of a sender elsewhere the one
// with the part of the rate that is assured to it alone, or to it and those few that
// have the same hash, or else that of all such senders of the network. *part* tells which.
static __noinline struct flood_account *account_of_sender(const struct packet *p, bool *part)
{
	const bool outside = p->flags & PACKET_UPLINK;
	struct flood_key who = { .number = p->port.ifindex, .part = p->port.vlan };
	const __u8 *mac = p->src_mac;
	struct flood_account *account;
	__u32 number;

	if (p->flags & PACKET_LOCAL)
		return flood_account(&who, p->now);
	who.number = p->network;
	who.senders = outside ? SENDERS_OUTSIDE : SENDERS_HOSTS;
	if (outside)
		number = (mac[0] << 8 | mac[1]) ^ ((__u32)mac[2] << 24 | mac[3] << 16 | mac[4] << 8 | mac[5]);
	else
		number = p->host.w[0] ^ p->host.w[1] ^ p->host.w[2] ^ p->host.w[3];
	who.part = 1 + (number * 0x9e3779b1) / (0xffffffff / SENDERS + 1);
	account = flood_account(&who, p->now);
	*part = account && (!outside || is_account_of(account, p)) && !must_wait(account, p->now);
	if (*part)
		return account;
	who.part = 0;
	return flood_account(&who, p->now);
}

// Return how many nanoseconds of its sender's rate, or of a part of it, a flood has cost.
static __always_inline __s64 flood_price(__u32 cost, bool part)
{
	const __u64 most = part ? SECOND / SENDER_LEAST : SECOND / FLOOD_LEAST;
	__u64 price = cost * (SECOND / COPY / (cfg.flood_copies ?: 1)) * (part ? SENDERS : 1);

	return price < most ? price : most;
}

// Give a port its copy: whether it has cost one.
static __always_inline bool flood_port(struct __sk_buff *skb, struct packet *p, const struct port_key *key)
{
	__u64 number = port_number(key);
	struct port *to;
	enum drop why;

	if (p->flags & PACKET_LOCAL ? number == port_number(&p->port) : is_of(p, number))
		return false;
	to = bpf_map_lookup_elem(&ports, key);
	if (!to)
		return false;  // its row in the flood list is about to go, too
	if (to->flags & PORT_SECURED) {
		if (!may_be_at(p, key))
			return false;
		why = pass_firewall(skb, p, number, WAY_IN, to->identity, p->identity);
		if (why) {
			drop_at(p, number, why, to->identity);
			return false;
		}
	}
	if (to->flags & PORT_LIMITED && !within_rate(skb, number, WAY_IN)) {
		drop_at(p, number, DROP_RATE, to->identity);
		return false;
	}
	if (clone(skb, key->ifindex, to->body == BODY_VLAN ? key->vlan : 0))
		drop_at(p, number, DROP_ERROR, to->identity);
	return true;
}

enum asked_of { ASKED_NONE, ASKED_MAYBE, ASKED_PORT };

// Find the port of this host, into `place`, that has the address for which what comes
// from elsewhere asks; ASKED_MAYBE: that has been seen to have the address for which
// it asks or is, or that others of the network may have as well. An announcement is
// for all.
static __noinline int find_asked(struct __sk_buff *skb, struct packet *p)
{
	const bool group = p->dst_mac[0] & 1;
	struct endpoint_key key = { .network = p->network };
	struct endpoint *who;
	struct arp arp;

	if (p->bad)
		return ASKED_NONE;
	if (!group && p->flags & PACKET_IP) {
		key.ip = p->dst;
	} else if (group && p->eth_proto == ETH_P_ARP) {
		if (load_arp(skb, &arp) || !is_arp_of_ipv4(&arp) || arp.operation != bpf_htons(ARP_REQUEST) ||
		    !__builtin_memcmp(arp.sender_ip, arp.target_ip, 4))
			return ASKED_NONE;
		addr_from_arp(&key.ip, arp.target_ip);
	} else if (group && p->flags & PACKET_ND && p->rule_port == bpf_htons(ND_NS << 8)) {
		if (bpf_skb_load_bytes(skb, p->l4 + 8, &key.ip, sizeof(key.ip)))
			return ASKED_NONE;
	} else {
		return ASKED_NONE;
	}
	who = bpf_map_lookup_elem(&endpoints, &key);
	if (!who || who->place.kind != PLACE_LOCAL || (!group && !mac_equal(who->mac, p->dst_mac)))
		return ASKED_NONE;
	p->place.port = who->place.port;
	return group && !(who->place.flags & PORT_LEARNED) ? ASKED_PORT : ASKED_MAYBE;
}

static __noinline int flood_asked(struct __sk_buff *skb, struct packet *p)
{
	struct port_key port = p->place.port;

	return flood_port(skb, p, &port);
}

// What has been flooded from elsewhere, or has been kept from it, is at its end; but
// what came by the uplink the host may want as well.
static __always_inline int end_flood(struct __sk_buff *skb, struct packet *p)
{
	return p->flags & PACKET_UPLINK ? to_host(skb, p) : TC_ACT_STOLEN;
}

static long flood_member(__u32 slot, struct flooding *f)
{
	struct member_key key = { .network = f->network, .slot = slot };
	struct place *place = bpf_map_lookup_elem(&members, &key);
	struct packet *p = packet_in_flight();
	struct port_key port;

	if (!place || !p)
		return 0;
	f->cost++;
	if (place->kind == PLACE_LOCAL) {
		port = place->port;
		if (flood_port(f->skb, p, &port))
			f->cost += COPY;
		return 0;
	}
	if (!(p->flags & PACKET_LOCAL))
		return 0;
	f->cost += COPY;
	if (place->kind == PLACE_REMOTE) {
		if (set_tunnel(f->skb, p, &place->underlay) || clone(f->skb, cfg.overlay, 0))
			drop(p, DROP_ERROR);
	} else if (place->kind == PLACE_UPLINK && f->uplink) {
		if (clone(f->skb, f->uplink, f->uplink_vlan))
			drop(p, DROP_ERROR);
	}
	return 0;
}

SEC("tc")
int flood(struct __sk_buff *skb)
{
	struct packet *p = packet_in_flight();
	struct flood_account *account = NULL;
	struct flooding f = { .skb = skb };
	enum asked_of asked = ASKED_NONE;
	struct network *net;
	bool part = false;

	if (!p)
		return TC_ACT_SHOT;
	net = bpf_map_lookup_elem(&networks, &p->network);
	if (!net)
		return drop(p, DROP_NO_NETWORK);
	f.network = p->network;
	f.uplink = net->uplink;
	f.uplink_vlan = net->uplink_vlan;
	if (!(p->flags & PACKET_LOCAL))
		asked = find_asked(skb, p);
	if (asked == ASKED_PORT && net->flags & NETWORK_FLOOD_UNKNOWN)
		asked = ASKED_MAYBE;
	if (cfg.flood_copies && asked != ASKED_PORT)
		account = account_of_sender(p, &part);
	if (asked == ASKED_NONE && must_wait(account, p->now)) {
		if (!(p->flags & PACKET_UPLINK))
			return drop(p, DROP_FLOOD_RATE);
		count(p, 0, DROP_FLOOD_RATE, p->identity, 0);
		return to_host(skb, p);
	}
	// Senders without an identity leave half of the slots to those that have one.
	if (!(p->flags & PACKET_LOCAL))
		gather(p, others_of(p->network), p->identity != 0);
	if (asked == ASKED_PORT || (asked == ASKED_MAYBE && must_wait(account, p->now))) {
		flood_asked(skb, p);
		return end_flood(skb, p);
	}
	bpf_loop(net->members, flood_member, &f, 0);
	if (account)
		__sync_fetch_and_add(&account->paid_until, flood_price(f.cost, part));
	return end_flood(skb, p);
}
