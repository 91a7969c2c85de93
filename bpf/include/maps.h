// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// All tables. A comment says who writes and who reads each one. All but
// the last ones are pinned by name and outlive agent and programs.
#pragma once
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "types.h"

#define TABLE(table, kind, k, v, rows, how) \
	struct { \
		__uint(type, BPF_MAP_TYPE_##kind); \
		__type(key, k); \
		__type(value, v); \
		__uint(max_entries, rows); \
		__uint(map_flags, how); \
	} table SEC(".maps")

// Agent writes; from_workload and the firewall read.
TABLE(ports, HASH, struct port_key, struct port, 65536, BPF_F_NO_PREALLOC);

// Agent writes; guard reads.
TABLE(sources, LPM_TRIE, struct source_key, __u32, 1048576, BPF_F_NO_PREALLOC);

// Network number -> network. Agent writes; route, flood and deliver read.
TABLE(networks, HASH, __u32, struct network, 131072, BPF_F_NO_PREALLOC);

// Agent writes; flood reads.
TABLE(members, HASH, struct member_key, struct place, 1048576, BPF_F_NO_PREALLOC);

// Agent writes; switching reads.
TABLE(macs, HASH, struct mac_key, struct place, 1048576, BPF_F_NO_PREALLOC);

// Agent writes; ARP, ND and route read.
TABLE(endpoints, HASH, struct endpoint_key, struct endpoint, 1048576, BPF_F_NO_PREALLOC);

// Agent writes; route reads.
TABLE(routes, LPM_TRIE, struct route_key, struct route, 1048576, BPF_F_NO_PREALLOC);

// Agent writes; route reads. Next hops of a prefix after the one in `routes`.
TABLE(next_hops, LPM_TRIE, struct next_hop_key, struct route, 65536, BPF_F_NO_PREALLOC);

// Agent writes; route reads.
TABLE(interfaces, HASH, struct interface_key, struct interface, 131072, BPF_F_NO_PREALLOC);

// Underlay address -> host. Agent writes; from_overlay and from_uplink read.
TABLE(hosts, HASH, struct addr, struct host, 65536, BPF_F_NO_PREALLOC);

// Agent writes; from_uplink reads. Gives the network's number.
TABLE(uplinks, HASH, struct uplink_key, __u32, 4096, BPF_F_NO_PREALLOC);

// Agent writes; publish reads.
TABLE(published, HASH, struct published_key, struct published, 65536, BPF_F_NO_PREALLOC);

// Agent writes; ARP and ND read.
TABLE(gateways, HASH, struct gateway_key, __u32, 65536, BPF_F_NO_PREALLOC);

// Agent writes; limit reads.
TABLE(rates, HASH, struct rate_key, struct rate, 131072, BPF_F_NO_PREALLOC);

// Agent writes; firewall reads.
TABLE(port_sets, LPM_TRIE, struct port_set_key, struct port_set, 1048576, BPF_F_NO_PREALLOC);

// Agent writes; firewall reads.
TABLE(policies, HASH, struct policy_key, struct policy, 1048576, BPF_F_NO_PREALLOC);

// Agent writes; firewall reads.
TABLE(prefixes, LPM_TRIE, struct prefix_key, struct prefix, 1048576, BPF_F_NO_PREALLOC);

// Identity -> how often its policy has changed. Agent writes, after `port_sets`,
// `policies` and `prefixes`; firewall reads: a flow judged by an older policy is judged anew.
TABLE(generations, ARRAY, __u32, __u32, 65536, 0);

// Flows within their port's share: none gives way to another port's. Firewall
// writes and reads; agent deletes the expired, and adds those of ports that move.
TABLE(flows_assured, HASH, struct flow_key, struct flow, 262144, 0);

// Flows beyond their port's share, which borrow what is free: the least recently
// used give way when it is full. Firewall writes and reads; agent deletes the
// expired, and adds those of ports that move.
TABLE(flows, LRU_HASH, struct flow_key, struct flow, 262144, 0);

// Clients of published ports, within the port's share. Publish writes; respond
// reads; agent deletes what has no flow any more.
TABLE(translations_assured, HASH, struct flow_key, struct translation, 65536, 0);

// Clients of published ports, beyond the port's share: the least recently used give
// way, and the client's next packet brings them back. Publish writes; respond
// reads; agent deletes what has no flow any more.
TABLE(translations, LRU_HASH, struct flow_key, struct translation, 131072, 0);

// Until which charge a port is within its share. Agent writes; charge() reads.
TABLE(shares, HASH, struct share_key, struct share, 262144, BPF_F_NO_PREALLOC);

// How many rows a port was ever charged. charge() writes; agent makes the row,
// reads it, and deletes it with the port.
TABLE(charges, HASH, struct share_key, __u64, 262144, BPF_F_NO_PREALLOC);

// Datagrams in fragments, each in a slot of its port's: the sender's, or of what comes
// from elsewhere the receiver's; what is for no port alone in one of its network's.
// Every stage that sees ports writes and reads; agent has the expired deleted.
TABLE(fragments, HASH, struct slot_key, struct fragment, 131072, BPF_F_NO_PREALLOC);

// Fragments that wait for their first one, each in a slot of that port's. hold writes;
// release reads and deletes; agent has the expired deleted.
TABLE(early_fragments, HASH, struct slot_key, struct early_fragment, 8192, BPF_F_NO_PREALLOC);

// drop() writes; agent reads, and deletes with the port.
TABLE(drops, HASH, struct drop_key, struct drop_record, 262144, BPF_F_NO_PREALLOC);

// ---- Of the programs alone: not pinned.

// ask writes; agent reads.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} questions SEC(".maps");

// Port -> what of it waits in `questions`. Ask writes and reads.
TABLE(waiting, LRU_HASH, struct port_key, struct in_flight, 16384, 0);

// A question on its way into the ring. Ask writes and reads.
TABLE(question, PERCPU_ARRAY, __u32, struct asked, 1, 0);

// Port -> how many questions it may still ask.
TABLE(patience, LRU_HASH, struct port_key, struct budget, 4096, 0);

// Port -> how many names it may still ask for.
TABLE(curiosity, LRU_HASH, struct port_key, struct budget, 4096, 0);

// learn writes; agent reads.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} sightings SEC(".maps");

// Port -> what of it waits in `sightings`. Learn writes and reads.
TABLE(sightings_waiting, LRU_HASH, struct port_key, struct in_flight, 4096, 0);

// Port -> how many more of its packets may tell the agent of an address.
TABLE(sighting_budgets, LRU_HASH, struct port_key, struct budget, 4096, 0);

// What routers did not find and look for. Learn writes and reads.
TABLE(sought, LRU_HASH, struct endpoint_key, struct search, 4096, 0);

// The packet in flight on this CPU. Hooks write; every stage reads.
TABLE(current, PERCPU_ARRAY, __u32, struct packet, 1, 0);

// When a packet to each 256th of the hosts last went the long way. Wrap writes
// and reads.
TABLE(refreshed, ARRAY, __u32, __u64, 256, 0);

// The way to a host of the underlay, one in each 256th. Wrap writes and reads.
TABLE(ways, PERCPU_ARRAY, __u32, struct underlay_way, 256, 0);

// By which links hosts of the underlay may come, one in each 256th. Unwrap and
// is_stray write and read.
TABLE(arrivals, PERCPU_ARRAY, __u32, struct arrival, 256, 0);

// Link -> how many more times all links of a route may be looked for. Unwrap,
// is_stray and publish write and read.
TABLE(searches, LRU_HASH, struct port_key, struct budget, 256, 0);

// What a packet is to be fragmented into. Split writes and reads.
TABLE(pieces, PERCPU_ARRAY, __u32, struct piece, 64, 0);

// A fragment on its way into its slot. hold writes and reads.
TABLE(holding, PERCPU_ARRAY, __u32, struct early_fragment, 1, 0);

// What of an expired fragment is counted. expire writes and reads.
TABLE(expired, PERCPU_ARRAY, __u32, struct packet, 1, 0);

// What is quoted in an ICMP answer, or the head of fragments, while the packet
// is rebuilt.
TABLE(scratch, PERCPU_ARRAY, __u32, struct quote, 1, 0);

// Port -> how many ICMP errors it may still cause.
TABLE(budgets, LRU_HASH, struct port_key, struct budget, 4096, 0);

// When, by bpf_ktime_get_ns, what has passed a limited port is paid for. Limit
// writes and reads.
TABLE(paid, LRU_HASH, struct rate_key, __s64, 131072, 0);

// The copies that a port has caused, or senders elsewhere on a network: each in the part
// that it is assured, and all of them together. Flood writes and reads.
TABLE(flooded, LRU_HASH, struct flood_key, struct flood_account, 65536, 0);
