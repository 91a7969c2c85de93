// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Keys and values of every table: the one place where C and Python agree.
// Python reads these layouts from BTF; nothing is typed twice.
//
// Numbers are in host byte order unless their type says __be.
#pragma once
#include <linux/types.h>

// An address of either family; IPv4 stands as ::ffff:a.b.c.d.
struct addr {
	__be32 w[4];
};

// Which interface of this host a port is: the device, and the tag on it for a
// VLAN body (0 for veth and tap). Names a port in every table of this host.
struct port_key {
	__u32 ifindex;
	__u16 vlan;
	__u16 pad;
};

// What a port looks like on its host.
enum body {
	BODY_VETH = 1,  // deliver with redirect_peer
	BODY_TAP,       // deliver with redirect
	BODY_VLAN,      // tag, then redirect
};

enum port_flag {
	PORT_SECURED = 1,     // guard and firewall apply (port_security_enabled)
	PORT_DHCP = 2,        // the agent answers its DHCP
	PORT_ADVERTISED = 4,  // the agent answers its DHCPv6 and router solicitations
	PORT_PUBLISHED = 8,   // something of it is published at an address of the host
	PORT_NAMES = 16,      // the agent answers its DNS, asked of a router or of NO_ROUTER
	PORT_LIMITED = 32,    // it has rows in `rates`
	PORT_LEARNED = 64,    // of a row of `endpoints`: the port has been seen to have the address, which is nobody's fixed one
	PORT_MOVED = 128,     // of a PLACE_REMOTE: was here, or will be; what still or already comes goes on to it
};

// A port that lives on this host.
struct port {
	__u32 network;      // number of its network: the VNI
	__u32 identity;     // number of its set of security groups; 0: none
	__u8 mac[6];
	__u8 body;          // enum body
	__u8 flags;         // enum port_flag
	__u32 mtu;          // of its network
	struct addr ip[2];  // its first IPv4 and first IPv6 address: the guard's
	                    // short way; all-zero if none. `sources` has them all
};

// Which sources a secured port may use: its fixed addresses, its link-local
// address and its allowed address pairs. A row says yes; a longest-prefix match.
struct source_key {
	__u32 prefixlen;  // 128 bits of port and MAC, then those of the address
	struct port_key port;
	__u8 mac[6];
	__u16 pad;
	struct addr ip;
};

enum place_kind {
	PLACE_LOCAL = 1,  // a port of this host
	PLACE_REMOTE,     // a port of another host: send to its underlay address
	PLACE_ROUTER,     // an interface of a router
	PLACE_UPLINK,     // out to the provider network
};

// What stands in for a router where none is: it has addresses, so that its
// neighbours find it, and routes to nowhere.
enum { NO_ROUTER = 0 };

// Where a destination is.
struct place {
	__u8 kind;             // enum place_kind
	__u8 body;             // PLACE_LOCAL: enum body
	__u8 flags;            // enum port_flag; PLACE_REMOTE: PORT_MOVED and PORT_LEARNED alone
	__u8 pad;
	__u32 identity;        // of the port there
	__u32 router;          // PLACE_ROUTER: number of the router
	struct port_key port;  // PLACE_LOCAL
	struct addr underlay;  // PLACE_REMOTE
};

struct network {
	__u32 mtu;        // bytes of an IP packet
	__u32 members;    // rows 0 … members-1 of `members` are its flood list
	__u32 flags;      // enum network_flag
	__u32 uplink;     // ifindex of the provider device, or 0
	__u16 uplink_vlan;
	__u16 pad;
};

enum network_flag {
	NETWORK_FLOOD_UNKNOWN = 1,  // has address pairs or unsecured ports: unknown
	                            // destinations and neighbours are flooded
	NETWORK_PROVIDER = 2,       // unknown destinations go to the uplink
};

// One entry of a network's flood list: a port here or a host elsewhere.
struct member_key {
	__u32 network;
	__u32 slot;
};

struct mac_key {
	__u32 network;
	__u8 mac[6];
	__u16 pad;
};

struct endpoint_key {
	__u32 network;
	struct addr ip;
};

// Who has an address in a network: what ARP and ND answer, what a router needs.
struct endpoint {
	struct place place;
	__u8 mac[6];
	__u16 pad;
};

struct route_key {
	__u32 prefixlen;  // 32 bits of router, then those of the address
	__u32 router;
	struct addr dst;
};

enum route_kind {
	ROUTE_CONNECTED = 1,  // the destination is on `network`
	ROUTE_VIA,            // the next hop is `via` on `network`
	ROUTE_SELF,           // the destination is an address of this router
	ROUTE_BLACKHOLE,
};

struct route {
	__u8 kind;       // enum route_kind
	__u8 pad[3];
	__u32 network;   // on which the packet leaves the router
	struct addr via;
	__u32 others;    // ROUTE_VIA: how many more next hops the prefix has, in `next_hops`
};

// One more next hop of a prefix.
struct next_hop_key {
	__u32 prefixlen;  // 64 bits of router and number, then those of the address
	__u32 router;
	__u32 number;     // from 1
	struct addr dst;
};

struct interface_key {
	__u32 network;
	__u32 router;
};

// A router's foot in a network.
struct interface {
	__u8 mac[6];
	__u16 pad;
	struct addr ip[2];  // its first IPv4 and IPv6 address there; all-zero if none
};

// An underlay address from which the overlay takes packets.
struct host {
	__u32 known;
};

struct uplink_key {
	__u32 ifindex;
	__u16 vlan;
	__u16 pad;
};

// ---- Published ports: of a port of this host, at addresses of the host itself.

struct published_key {
	struct addr ip;  // of the host
	__be16 port;
	__u8 proto;
	__u8 pad;
};

// Where what comes there goes.
struct published {
	struct place place;
	struct addr ip;       // of the port
	struct addr gateway;  // of the port, which is as what it sees the host's own loopback
	__be16 port;
	__u8 mac[6];
};

// A gateway of a port for which the host answers where no router does.
struct gateway_key {
	struct port_key port;
	struct addr ip;
};

// ---- Policy. Rules only allow; whatever one of them allows passes.
//
// A rule says what may pass, a *port set* (of a protocol, ports, ICMP types, and
// whether answers pass), and whose. Each port set of an identity, way and family
// has a number. `port_sets` says of a protocol and port which of them hold it,
// `policies` and `prefixes` say of a remote which of them it may use: what both
// say passes. So rows of ports and rows of remotes add; they do not multiply.

enum way {
	WAY_IN = 0,   // to the port
	WAY_OUT = 1,  // from the port
};

enum family {
	FAMILY_IPV4 = 0,
	FAMILY_IPV6 = 1,
};

enum port_set_number {
	PORT_SET_ANYONE = 0,            // what rules without a remote allow, all of them in one
	PORT_SET_ANYONE_STATELESS = 1,  // the same of stateless groups
};

// How many can be numbered, and how many words have a bit for each.
enum { PORT_SETS = 512, PORT_SET_WORDS = PORT_SETS / 64 };

// Longest match: a port set for any protocol ends before `proto`, one for any
// port before `port`; a range is several prefixes of the port. A row stands for
// all port sets that hold all of it. For ICMP `port` is type << 8 | code. `port`
// of IN and OUT alike is the destination's.
struct port_set_key {
	__u32 prefixlen;  // 56 up to `proto`, 64 with it, 65-80 with bits of the port
	__u32 identity;   // of the port whose policy this is
	__u8 pad;
	__u8 way;         // enum way
	__u8 family;      // enum family
	__u8 proto;
	__be16 port;
	__u16 pad_end;    // beyond every prefix
};

struct port_set {
	__u64 all[PORT_SET_WORDS];
	__u64 stateful[PORT_SET_WORDS];  // those of stateful groups: answers pass
};

// Which port sets the ports of another identity may use.
struct policy_key {
	__u32 identity;
	__u32 remote;  // identity of the other side
	__u8 way;      // enum way
	__u8 family;   // enum family
	__u16 pad;
};

struct policy {
	__u64 allowed[PORT_SET_WORDS];
};

// Which port sets an address may use: longest match, and a row stands for all
// rules whose prefix holds it.
struct prefix_key {
	__u32 prefixlen;  // 64 bits up to the address, then those of the address
	__u32 identity;
	__u8 way;         // enum way
	__u8 family;      // enum family: a wide prefix of IPv6 holds the mapped addresses, too
	__u16 pad;
	struct addr ip;
};

struct prefix {
	__u64 allowed[PORT_SET_WORDS];
};

// How fast a port may get, or send.
struct rate_key {
	struct port_key port;
	__u8 way;     // enum way
	__u8 pad[3];
};

struct rate {
	__u64 bits;   // a second
	__u64 burst;  // at once, after a while of silence: nanoseconds of that rate
};

// ---- State

// A connection, seen from the port that it belongs to: both directions have one key.
struct flow_key {
	struct port_key port;
	struct addr local;
	struct addr remote;
	__be16 local_port;   // ICMP echo: the identifier on the side that asks, 0 on
	__be16 remote_port;  // the other, so that both may ask under one identifier
	__u8 proto;
	__u8 pad[3];
};

enum flow_flag {
	FLOW_OUT = 1,        // the port began it
	FLOW_REPLIED = 2,    // the other side has answered
	FLOW_FIN_LOCAL = 4,
	FLOW_FIN_REMOTE = 8,
	FLOW_RST = 16,
	FLOW_REVOKED = 32,   // policy has changed and allows it no more; kept so that
	                     // the other side's packets do not begin it anew
	FLOW_PUBLISHED = 64, // began at a published port, which is all the permission that it needs
	FLOW_SEQUENCED = 128,  // the upper 16 bits say where in its stream of TCP the port last sent
	                       // to somebody outside: the upper ones of the sequence number
};

enum { SEQUENCE_SHIFT = 16 };

struct flow {
	__u64 seen;             // bpf_ktime_get_coarse_ns of the last packet
	__u32 generation;       // of the local identity's policy when judged
	__u32 identity;         // of the port when judged
	__u32 remote_identity;  // of the other side when judged
	__u32 flags;            // enum flow_flag
};

// Who a client of a published port is to the host, by the flow that the port sees.
struct translation {
	__u64 seen;          // bpf_ktime_get_coarse_ns of about the last packet
	struct addr client;
	struct addr host;    // to which the client speaks
	__u32 ifindex;       // of the device by which it came
	__be16 host_port;
	__u16 pad;
};

// A table that has rows within the shares of ports, and rows beyond them.
enum share_of {
	SHARE_FLOWS = 1,
	SHARE_TRANSLATIONS,
	SHARE_FRAGMENTS,
	SHARE_EARLY,
};

struct share_key {
	struct port_key port;
	__u32 of;  // enum share_of
};

// What a port may have of a table, whatever other ports do. It is charged each
// row that it adds. Rows that go give nothing back at once: the agent counts the
// rows that there are and sets `until` anew, so nothing can drift.
struct share {
	__u64 until;  // its charge up to which a row is within the share; of fragments, whose
	              // rows replace each other: how many slots it has, a power of two
};

enum { QUESTION_MAX = 1514 };

// What of a port's waits in the ring for the agent, in bytes: what was put there
// before a mark, and what after it. Once the agent has read up to the mark, what
// came after it is what waits, up to a new one.
struct in_flight {
	__u64 mark;
	__u64 before;
	__u64 after;
};

// A frame that a port sent and the agent is to answer, without VLAN tags. The
// ring has no more of it than its length.
struct asked {
	struct port_key port;
	__u32 length;
	__u8 frame[QUESTION_MAX];
	__u8 pad[2];
};

enum sighting_kind {
	SIGHTING_HELD = 1,  // a port says that it has an address
	SIGHTING_SOUGHT,    // a router looks for one; all-zero: for the gateways of the network
	SIGHTING_ANSWERED,  // a port answers a probe for one
	SIGHTING_WISHED,    // a port asks whether one is free that it may have (RFC 5227, RFC 4862)
};

// An address that is nobody's fixed one, as a packet of a port brought it up.
struct sighting {
	struct port_key port;
	__u32 network;
	struct addr ip;
	__u8 mac[6];   // of the port's packet
	__u8 kind;     // enum sighting_kind
	__u8 pad;
};

// Since when a router has looked for an address, and when it last did.
struct search {
	__u64 began;
	__u64 last;
};

// Which datagram a fragment is of. Addresses and number are what its sender says;
// those of another sender that says the same are of another datagram.
struct fragment_key {
	__u32 network;
	__u32 id;
	struct addr src;
	struct addr dst;
	struct addr host;  // PACKET_OVERLAY: the underlay address of the host that it came from
	__u32 identity;    // of the sender
	__u16 origin;      // PACKET_LOCAL, PACKET_OVERLAY or PACKET_UPLINK
	__u8 proto;
	__u8 pad;
};

// One of the places that a port has for itself.
struct slot_key {
	struct port_key port;
	__u32 slot;
};

// The ports of a fragmented packet, told by its first fragment to the others.
struct fragment {
	struct fragment_key of;
	__be16 src_port;   // up to `end`: read and written as one word
	__be16 dst_port;
	__be16 rule_port;  // the port that policy asks for: dst_port, ICMP's type and code
	__u16 end;         // bytes of the datagram that the first one has; 0: it has not come yet
	__u64 seen;
	__u64 early;       // slots of `early_fragments` of those that came before the first one
};

enum { EARLY_MAX = 2048, EARLY_SLOTS = 64 };

// A fragment that came before the first one of its datagram, without VLAN tags.
struct early_fragment {
	struct port_key port;
	__u64 charge;  // its own number of the port's
	__u64 seen;
	struct fragment_key of;
	__u32 at;      // bytes of its datagram before it
	__u32 length;
	__u8 bytes[EARLY_MAX];
};

// Why a packet stopped. Each has a counter a port in `drops`.
enum drop {
	DROP_NONE = 0,
	DROP_SHORT,           // a header runs past the end of the packet
	DROP_MALFORMED,       // a header contradicts itself
	DROP_NO_PORT,         // the interface belongs to no port
	DROP_NOT_IP,          // neither IP nor ARP
	DROP_SPOOFED_MAC,     // the source MAC is not the port's
	DROP_SPOOFED_IPV4,    // the source IPv4 address is not the port's
	DROP_SPOOFED_IPV6,    // the source IPv6 address is not the port's
	DROP_SPOOFED_ARP,     // ARP claims an address that is not the port's
	DROP_SPOOFED_ND,      // neighbour discovery claims an address that is not the port's
	DROP_SPOOFED_VLAN,    // a VLAN tag from a port that has none
	DROP_ROGUE_DHCP,      // a DHCP server's answer from a port
	DROP_ROGUE_RA,        // a router advertisement or redirect from a port
	DROP_NO_NETWORK,      // the network is not known here
	DROP_NO_MAC,          // nobody on the network has the destination MAC
	DROP_NO_NEIGHBOUR,    // nobody on the network has the destination address
	DROP_NO_ROUTE,        // the router has no route to the destination
	DROP_TTL,             // hop limit reached
	DROP_TOO_MANY_ROUTERS,  // more than 8 routers in a row
	DROP_TOO_BIG,         // larger than the network's MTU
	DROP_FRAGMENT,        // a fragment whose first one did not come in time
	DROP_POLICY_OUT,      // no egress rule allows it
	DROP_POLICY_IN,       // no ingress rule allows it
	DROP_UNKNOWN_HOST,    // overlay packet from an address that is no known host's
	DROP_NO_TUNNEL,       // overlay packet without tunnel metadata
	DROP_ROUTER_SERVICE,  // sent to a router's own address, for nothing it serves
	DROP_LOOP,            // would go back to where it came from
	DROP_NO_UPLINK,       // the provider network is not on this host
	DROP_ERROR,           // a kernel helper failed
	DROP_NO_STAGE,        // a stage is missing from `stages`: a loading fault
	DROP_NO_SERVICE,      // asks for DHCP, a router advertisement or a name: too often, or faster than the agent answers
	DROP_RATE,            // faster than the port may send or get
	DROP_TAKEN,           // a client speaks to the same port from the same address and port another way: by another
	                      // published one, by its network, or by another link than the one that leads back
	DROP_UNTRACKED,       // passed all the same: the flow table refused its flow
	DROP_LINK_LOCAL,      // for neighbours alone: no router hands it on
	DROP_REVERSE_PATH,    // a router has no way back to its source by the network that it came from
	DROP_SPOOFED_CLIENT,  // who comes to a published port has an address of the port's own side, or a host's tunnel port
	DROP_PUNT_SHARE,      // asks for the same as NO_SERVICE, and its port's share of what may wait for the agent is full
	DROP_SPOOFED_HOST,    // what hosts say to each other, by a link by which the host that it names is not reached
	DROP_FLOOD_RATE,      // more copies for all of a network than a port may cause, or an outsider or another host
	DROP_MAX,
};

struct drop_key {
	struct port_key port;  // the port that sent it or was to get it; 0: none known
	__u32 why;             // enum drop
};

// How many, and what the last one was.
struct drop_record {
	__u64 packets;
	__u64 seen;             // bpf_ktime_get_coarse_ns
	struct addr src;
	struct addr dst;
	__u32 network;
	__u32 identity;         // of the port
	__u32 remote_identity;
	__be16 src_port;        // ICMP: type << 8 | code
	__be16 dst_port;
	__u16 eth_proto;
	__u8 proto;
	__u8 pad[5];
};

// ---- The packet in flight, and what its stages ask of each other.

enum packet_flag {
	PACKET_IP = 1,           // IPv4 or IPv6
	PACKET_GROUP = 2,        // to a multicast or broadcast address, by MAC or by IP
	PACKET_FRAGMENT = 4,     // part of a larger packet
	PACKET_LATER = 8,        // a fragment that is not the first one
	PACKET_UNSEEN = 16,      // a fragment whose first one was not seen
	PACKET_TRACKED = 32,     // may belong to a flow
	PACKET_ERROR = 64,       // an ICMP error
	PACKET_REPLY = 128,      // an ICMP echo reply: never begins a flow
	PACKET_ECHO = 256,       // an ICMP echo request
	PACKET_ND = 512,         // a neighbour solicitation or advertisement, and nothing but that
	PACKET_MLD = 1024,       // a listener query or report, and nothing but that
	PACKET_SECURED = 2048,   // from a secured port of this host
	PACKET_LOCAL = 4096,     // from a port of this host
	PACKET_OVERLAY = 8192,   // from another host
	PACKET_UPLINK = 16384,   // from the provider network
	PACKET_WHOLE = 32768,    // a router may not fragment it
	PACKET_RELAYED = 65536,  // by a host that its destination has left; nobody sends it on once more
	PACKET_SPLIT = 131072,   // larger than a network that it is routed into, but may be fragmented
	PACKET_OWN = 262144,     // from a secured port, as its first address: the guard has seen to that
	PACKET_EARLY = 524288,   // a first fragment for which others wait
};

// Zeroed by nobody: hook and parse() set what the stages read. One per CPU.
struct packet {
	__u64 now;             // bpf_ktime_get_coarse_ns
	// Whence.
	struct port_key port;  // that sent it; all-zero if none of this host
	__u32 network;         // on which it is now
	__u32 identity;        // of the sender
	__u8 body;             // enum body of `port`
	__u8 pad[3];
	// What.
	__u32 flags;           // enum packet_flag
	enum drop bad;         // what is wrong with its headers
	__u32 l4;              // offset of the transport header
	__u32 head;            // bytes of IP and transport header
	__u32 size;            // bytes of the IP packet, or of each that GSO makes of it
	__u64 early;           // PACKET_EARLY: as in struct fragment
	__u32 fragment_id;
	__u32 fragment_at;     // bytes of its datagram before it
	__u32 fragment_end;    // and with it
	__u16 tag;             // VLAN that it came with from the uplink
	__u16 eth_proto;
	__u8 family;           // enum family
	__u8 proto;
	__u8 tcp_flags;
	__u8 ttl;              // or hop limit, as it came
	__be16 src_port;       // as in struct flow_key
	__be16 dst_port;
	__be16 rule_port;      // as in struct fragment
	__be16 tcp_sequence;   // the upper half
	__u8 dst_mac[6];
	__u8 src_mac[6];
	struct addr src;
	struct addr dst;
	struct addr host;      // PACKET_OVERLAY: that sent it, by its underlay address
	// Whither.
	struct place place;
	__u8 next_mac[6];      // behind routers
	__u16 hops;            // routers passed
	__u32 router;          // the last of them
	__u32 entry;           // the network by which it came into that one
	__u32 exit;            // the network by which it leaves it
	__u32 fit;             // PACKET_SPLIT: the smallest MTU on its way
	struct endpoint_key sought;  // what the last router did not find; network 0: nothing
	// What became of it, for answers and tests.
	__u32 answer;          // ICMP to answer with: type << 8 | code
	__u32 answer_mtu;
	__u32 out;             // ifindex of the last redirect
	enum drop why;         // of the last drop
};

// How a host of the underlay was reached a moment ago.
struct underlay_way {
	__u64 until;     // bpf_ktime_get_coarse_ns: then the kernel is asked again
	__be32 host;     // IPv4 address
	__u32 ifindex;
	__u32 mtu;
	__u8 macs[12];   // the neighbour's, and the device's own
};

// Whether a host of the underlay is reached by a link, as it was a moment ago.
struct arrival {
	__u64 until;        // bpf_ktime_get_coarse_ns: then the kernel is asked again
	struct addr host;
	__u32 ifindex;
	__u32 good;         // 0: it is not; else 1 + the number of the try that found it
};

// What policy is asked.
struct question {
	struct addr remote;
	__u32 identity;
	__u32 remote_identity;
	__be16 port;
	__u8 way;     // enum way
	__u8 family;  // enum family
	__u8 proto;
	__u8 pad[3];
};

// Who has copies made for all of a network, and pays for them from one account.
enum flood_senders {
	SENDER_PORT = 0,  // a port of this host
	SENDERS_HOSTS,    // other hosts of the overlay, which have charged their own ports
	SENDERS_OUTSIDE,  // on the wire of a provider network
};

struct flood_key {
	__u32 number;   // ifindex of the port, or number of the network
	__u16 part;     // VLAN of the port; of senders elsewhere: 0 for all, or that of some by a hash
	__u16 senders;  // enum flood_senders
};

// Until when the copies that a sender has caused are paid for.
struct flood_account {
	__s64 paid_until;  // bpf_ktime_get_coarse_ns; in the future: it must wait
	__u64 seen;        // of one on a provider network: when it was last heard
	__u8 mac[6];       // and who it is
	__u16 pad;
};

// Answers that a port may still cause.
struct budget {
	__u64 seen;
	__u64 nanoseconds;
};

enum { PIECE_MAX = 2048 };

// The payload of one fragment while the packet is rebuilt; zeros behind its end.
struct piece {
	__u8 bytes[PIECE_MAX + 8];
};

// The beginning of a packet, as an ICMP error quotes it; zeros behind its end.
struct quote {
	__u8 bytes[256];
};

// ---- Stages: the slots of the tail calls.

// Each is a program with its own verifier budget.
enum stage {
	ANSWER,  // ARP and neighbour solicitations
	FLOOD,   // groups and unknown destinations
	ROUTE,   // what is sent to a router's MAC
	SPLIT,   // what is too large for a network that it is routed into
	REPORT,  // ICMP errors to the sender
	ASK,     // what the agent answers
	PORT,    // a tagged frame of a bare-metal server's, from the device of a provider network
	PUBLISH,        // what may be for a published port, else for the host itself
	PUBLISH_ERROR,  // an ICMP error that may be about what one has answered
	RESPOND,        // what a port answers to a client of a published port
	RESPOND_ERROR,  // its ICMP error about what the client has sent
	HOLD,           // a fragment whose first one has not come yet
	RELEASE,        // a first fragment for which others wait
	STAGE_MAX,
};

// Takes no room, but brings every enum into BTF, where Python reads them.
union enums {
	enum body body;
	enum port_flag port;
	enum place_kind place;
	enum network_flag network;
	enum route_kind route;
	enum way way;
	enum port_set_number port_set;
	enum family family;
	enum flow_flag flow;
	enum share_of share;
	enum drop drop;
	enum sighting_kind sighting;
	enum stage stage;
};
