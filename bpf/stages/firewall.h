// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What a secured port may send and get: flows first, then policy.
//
//     firewall ── flow known and current ──> pass        one lookup; two if it is borrowed
//        │  └─ flow of an older policy ──> judge ──> pass, or revoke it
//        └─ judge: port sets that hold it; anyone's, the remote identity's, its prefix's ──> pass, begin a flow
//              │                                                      (TCP: with a SYN)
//              └─ DROP_POLICY_OUT, DROP_POLICY_IN, DROP_NOT_IP, DROP_FRAGMENT
#pragma once
#include "../include/stage.h"

enum verdict {
	DENY,
	ALLOW,       // and let answers pass
	ALLOW_ONCE,  // rules of stateless groups alone
};

// What a remote may use of the port sets that hold a packet; *verdict* is what others have said of it.
static __always_inline enum verdict weigh(const struct port_set *set, const __u64 *allowed, enum verdict verdict)
{
	__u64 all = 0, stateful = 0;

#pragma unroll
	for (int i = 0; i < PORT_SET_WORDS; i++) {
		all |= set->all[i] & allowed[i];
		stateful |= set->stateful[i] & allowed[i];
	}
	return stateful ? ALLOW : all ? ALLOW_ONCE : verdict;
}

// Ask policy: enum verdict.
__noinline int judge(struct question *q)
{
	struct port_set_key ports = { .prefixlen = 80 };
	struct prefix_key prefix = { .prefixlen = 64 + 128 };
	struct policy_key key = {};
	enum verdict verdict;
	struct port_set *set;
	struct policy *row;
	struct prefix *class;

	if (!q)
		return DENY;
	ports.identity = q->identity;
	ports.way = q->way;
	ports.family = q->family;
	ports.proto = q->proto;
	ports.port = q->port;
	set = bpf_map_lookup_elem(&port_sets, &ports);
	if (!set)
		return DENY;
	if (set->stateful[0] & 1 << PORT_SET_ANYONE)
		return ALLOW;
	verdict = set->all[0] & 1 << PORT_SET_ANYONE_STATELESS ? ALLOW_ONCE : DENY;
	if (q->remote_identity) {
		key.identity = q->identity;
		key.remote = q->remote_identity;
		key.way = q->way;
		key.family = q->family;
		row = bpf_map_lookup_elem(&policies, &key);
		if (row)
			verdict = weigh(set, row->allowed, verdict);
		if (verdict == ALLOW)
			return ALLOW;
	}
	prefix.identity = q->identity;
	prefix.way = q->way;
	prefix.family = q->family;
	prefix.ip = q->remote;
	class = bpf_map_lookup_elem(&prefixes, &prefix);
	return class ? weigh(set, class->allowed, verdict) : verdict;
}

static __always_inline __u32 generation_of(__u32 identity)
{
	__u32 *generation = bpf_map_lookup_elem(&generations, &identity);

	return generation ? *generation : 0;
}

static __always_inline bool is_closing(__u32 flags)
{
	return flags & FLOW_RST || (flags & (FLOW_FIN_LOCAL | FLOW_FIN_REMOTE)) == (FLOW_FIN_LOCAL | FLOW_FIN_REMOTE);
}

static __always_inline bool is_alive(const struct flow *f, __u8 proto, __u64 now)
{
	__u32 idle;

	if (f->flags & FLOW_REVOKED)
		idle = cfg.flow_idle_udp;
	else if (!(f->flags & FLOW_REPLIED))
		idle = cfg.flow_idle_new;
	else if (proto != IPPROTO_TCP)
		idle = cfg.flow_idle_udp;
	else
		idle = cfg.flow_idle_tcp;
	if (proto == IPPROTO_TCP && is_closing(f->flags) && idle > cfg.flow_idle_end)
		idle = cfg.flow_idle_end;
	return passed_since(now, f->seen) <= idle * SECOND;
}

// Note where in its stream a port sends: a write every 64 KiB.
static __always_inline __u32 with_sequence(__u32 flags, const struct packet *p)
{
	return (flags & 0xffff) | FLOW_SEQUENCED | (__u32)bpf_ntohs(p->tcp_sequence) << SEQUENCE_SHIFT;
}

// Take note of a packet. Writes only what changes: the row is shared by CPUs.
static __always_inline void touch(struct flow *f, const struct packet *p, __u32 way, __u64 now)
{
	__u32 flags = f->flags, new = flags;

	if (!(flags & FLOW_OUT) != (way == WAY_IN))
		new |= FLOW_REPLIED;
	if (p->tcp_flags & (TCP_FIN | TCP_RST)) {
		if (p->tcp_flags & TCP_FIN)
			new |= way == WAY_OUT ? FLOW_FIN_LOCAL : FLOW_FIN_REMOTE;
		if (p->tcp_flags & TCP_RST)
			new |= FLOW_RST;
	}
	// Whom errors of strangers may be about.
	if (!f->remote_identity && way == WAY_OUT && p->proto == IPPROTO_TCP)
		new = with_sequence(new, p);
	if (new != flags)
		f->flags = new;
	if (passed_since(now, f->seen) > SECOND / 4)
		f->seen = now;
}

static __always_inline bool is_current(const struct flow *f, __u32 generation, __u32 identity, __u32 remote_identity)
{
	return f->generation == generation && f->identity == identity && f->remote_identity == remote_identity;
}

static __always_inline bool is_tracked(const struct packet *p)
{
	return (p->flags & (PACKET_TRACKED | PACKET_GROUP)) == PACKET_TRACKED;
}

// A flow that a SYN may begin anew.
static __always_inline bool is_ending(__u32 flags)
{
	return flags & FLOW_REVOKED || is_closing(flags);
}

// Stop a packet of a revoked flow. Who began it keeps it revoked by going on,
// and so do both sides of TCP, where an answer alone makes no sense; an answer
// of another protocol may begin a flow of its own once there has been silence.
static __always_inline int revoked(struct flow *f, const struct packet *p, __u32 way, __u64 now)
{
	bool began = !(f->flags & FLOW_OUT) == (way == WAY_IN);

	if ((began || p->proto == IPPROTO_TCP) && passed_since(now, f->seen) > SECOND / 4)
		f->seen = now;
	return f->flags & FLOW_OUT ? DROP_POLICY_OUT : DROP_POLICY_IN;
}

// Charge a port one row of a table that it shares with others; 0 if that is beyond
// its share.
__noinline int charge(__u64 port, __u32 of)
{
	struct share_key key = { .port = port_of(port), .of = of };
	struct share *share = bpf_map_lookup_elem(&shares, &key);
	__u64 *charged, until;

	if (!share)
		return 0;
	until = share->until;
	charged = bpf_map_lookup_elem(&charges, &key);
	if (!charged || *charged >= until)
		return 0;
	return __sync_fetch_and_add(charged, 1) < until;
}

// Find a flow, be it within its port's share or borrowed.
static __always_inline struct flow *look_up_flow(const struct flow_key *key)
{
	return bpf_map_lookup_elem(&flows_assured, key) ?: bpf_map_lookup_elem(&flows, key);
}

static __always_inline void forget_flow(const struct flow_key *key)
{
	bpf_map_delete_elem(&flows_assured, key);
	bpf_map_delete_elem(&flows, key);
}

// Static, as others that look up what they are given: before kernel 6.2 a function
// that is verified by itself may not.
//
// Write a new flow: in place of a former one within the share of its port, if there
// was one (`former`), else within the share, else borrowed; 0 or -errno.
static __noinline int begin_flow(struct flow_key *key, struct flow *row, __u32 former)
{
	if (!key || !row)
		return -1;
	if (former && !bpf_map_update_elem(&flows_assured, key, row, BPF_EXIST))
		return 0;
	if (charge(port_number(&key->port), SHARE_FLOWS) &&
	    !bpf_map_update_elem(&flows_assured, key, row, BPF_ANY)) {
		bpf_map_delete_elem(&flows, key);  // a former one must not come back
		return 0;
	}
	return bpf_map_update_elem(&flows, key, row, BPF_ANY);
}

// Bring a borrowed flow into its port's share, if there is room by now: whether it
// is there.
static __noinline int promote_flow(struct flow_key *key, struct flow *borrowed)
{
	struct flow row;

	if (!key || !borrowed || !charge(port_number(&key->port), SHARE_FLOWS))
		return 0;
	row = *borrowed;
	if (bpf_map_update_elem(&flows_assured, key, &row, BPF_NOEXIST))
		return 0;
	bpf_map_delete_elem(&flows, key);
	return 1;
}

// The packet that an ICMP error is about.
struct quoted {
	struct addr src;
	struct addr dst;
	__u32 ip;         // offset of its IP header
	__u32 l4;
	__be16 src_port;  // as in struct flow_key
	__be16 dst_port;
	__u8 proto;
	__u8 pad[3];
};

// Read what an ICMP error quotes; 0 if that cannot be told, or was not sent by
// whom the error goes to.
__noinline int read_quoted(struct __sk_buff *skb, struct packet *p, struct quoted *q)
{
	__be16 ports[4] = {};
	__u32 at;

	if (!p || !q)
		return 0;
	q->ip = at = p->l4 + 8;
	q->src_port = 0;
	q->dst_port = 0;
	if (p->family == FAMILY_IPV4) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
			return 0;
		if (ip.frag_off & bpf_htons(IP_OFFSET))
			return 0;
		addr_from_ipv4(&q->src, ip.saddr);
		addr_from_ipv4(&q->dst, ip.daddr);
		q->proto = ip.protocol;
		at += ip.ihl * 4;
	} else {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 6)
			return 0;
		__builtin_memcpy(&q->src, &ip.saddr, 16);
		__builtin_memcpy(&q->dst, &ip.daddr, 16);
		q->proto = ip.nexthdr;
		at += sizeof(ip);
#pragma unroll
		for (int i = 0; i < 4; i++) {
			if (!is_extension(q->proto))
				break;
			if (bpf_skb_load_bytes(skb, at, ports, 8))
				return 0;
			if (q->proto == PROTO_FRAGMENT && ports[1] & bpf_htons(0xfff8))
				return 0;
			at += q->proto == PROTO_FRAGMENT ? 8 :
			      q->proto == PROTO_AH ? (((__u8 *)ports)[1] + 2) * 4 : (((__u8 *)ports)[1] + 1) * 8;
			q->proto = *(__u8 *)ports;
		}
	}
	q->l4 = at;
	if (!addr_equal(&q->src, &p->dst))
		return 0;
	if (has_ports(q->proto)) {
		if (bpf_skb_load_bytes(skb, at, ports, 4))
			return 0;
		q->src_port = ports[0];
		q->dst_port = ports[1];
	} else if (q->proto == (p->family == FAMILY_IPV4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
		if (bpf_skb_load_bytes(skb, at, ports, 8))
			return 0;
		if (icmp_flags(p->family, *(__u8 *)ports) & PACKET_ECHO)
			q->src_port = ports[2];
		else if (icmp_flags(p->family, *(__u8 *)ports) & PACKET_REPLY)
			q->dst_port = ports[2];
		else
			return 0;
	}
	return 1;
}

// Name the flow of a quoted packet, as its port sees it: *way* is the error's.
static __always_inline void name_quoted(struct flow_key *key, const struct quoted *q, __u64 port, __u32 way)
{
	key->port = port_of(port);
	if (way == WAY_IN) {
		key->local = q->src;
		key->remote = q->dst;
		key->local_port = q->src_port;
		key->remote_port = q->dst_port;
	} else {
		key->local = q->dst;
		key->remote = q->src;
		key->local_port = q->dst_port;
		key->remote_port = q->src_port;
	}
	key->proto = q->proto;
	__builtin_memset(key->pad, 0, sizeof(key->pad));
}

// Return whether a quoted packet may be one that the port of its flow has sent a
// moment ago: of TCP it is not far from the last one, for all that is known of that.
static __always_inline bool is_in_window(struct __sk_buff *skb, const struct quoted *q, const struct flow *f)
{
	const __s16 window = 64;  // times 64 KiB, either way
	__be16 sequence;
	__s16 away;

	if (q->proto != IPPROTO_TCP || !(f->flags & FLOW_SEQUENCED))
		return true;
	if (bpf_skb_load_bytes(skb, q->l4 + 4, &sequence, 2))
		return false;
	away = bpf_ntohs(sequence) - (f->flags >> SEQUENCE_SHIFT);
	return away >= -window && away <= window;
}

// Return whether who sent an ICMP error to a port may know of its flow: the other
// end, known by its identity as well (or, for what the port itself sent, the kernel
// on its way); from outside, whoever is no port. What a router of ours says comes
// past the firewall.
static __always_inline bool may_tell(struct __sk_buff *skb, const struct packet *p, const struct quoted *q,
				     const struct flow *f)
{
	struct endpoint_key from = { .network = p->network, .ip = p->src };

	if (addr_equal(&p->src, &q->dst) &&
	    (p->identity == f->remote_identity || (p->identity && p->identity == f->identity)))
		return !(p->flags & PACKET_UPLINK) || is_in_window(skb, q, f);
	return p->flags & PACKET_UPLINK && !bpf_map_lookup_elem(&endpoints, &from) && is_in_window(skb, q, f);
}

// Return whether an ICMP error is about a packet of a flow of this port.
__noinline int is_related(struct __sk_buff *skb, struct packet *p, __u64 port, __u32 way, __u32 identity)
{
	struct quoted q = {};
	struct flow_key key;
	struct flow *f;

	if (!p || !read_quoted(skb, p, &q))
		return 0;
	name_quoted(&key, &q, port, way);
	f = look_up_flow(&key);
	return f && is_alive(f, q.proto, p->now) && !(f->flags & FLOW_REVOKED) && f->identity == identity &&
	       f->generation == generation_of(identity) && (way == WAY_OUT || may_tell(skb, p, &q, f));
}

// Name the flow of a packet, as its port sees it. In place: copies would stand on
// a stack of 512 bytes in all.
static __always_inline void name_flow(struct flow_key *key, const struct packet *p, __u64 port, __u32 way)
{
	key->port = port_of(port);
	if (way == WAY_OUT) {
		key->local = p->src;
		key->remote = p->dst;
		key->local_port = p->src_port;
		key->remote_port = p->dst_port;
	} else {
		key->local = p->dst;
		key->remote = p->src;
		key->local_port = p->dst_port;
		key->remote_port = p->src_port;
	}
	key->proto = p->proto;
	__builtin_memset(key->pad, 0, sizeof(key->pad));
}

// A SYN begins a flow anew that has come to its end.
static __always_inline bool begins_anew(const struct flow *f, const struct packet *p)
{
	return is_ending(f->flags) && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

// Return whether a packet may begin a flow. Of TCP only a SYN does: whatever else
// is of a connection that is not known, or known no more. If the rules allow its
// own way it passes, but opens none for its answers: what policy has revoked stays
// so, though the row be lost.
static __always_inline bool may_begin(const struct packet *p)
{
	if (p->proto == IPPROTO_TCP)
		return (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
	return !(p->flags & PACKET_REPLY);
}

// What the table of assured flows alone does not settle.
__noinline int firewall_long(struct packet *p, __u64 port, __u32 way, __u32 identity, __u32 remote_identity)
{
	struct question q = { .identity = identity, .remote_identity = remote_identity };
	__u32 generation;
	struct flow *f = NULL;
	enum verdict verdict;
	struct flow_key key;
	bool tracked, former = false;
	__u64 now;

	if (!p)
		return DROP_ERROR;
	if (p->bad)
		return p->bad;
	if (!(p->flags & PACKET_IP))
		return p->eth_proto == ETH_P_ARP ? 0 : DROP_NOT_IP;
	if (p->flags & (PACKET_UNSEEN | PACKET_ND | PACKET_MLD)) {
		if (p->flags & PACKET_UNSEEN)
			return DROP_FRAGMENT;
		// What keeps neighbours and groups known is not the rules' business.
		if (p->flags & PACKET_ND || way == WAY_OUT || p->rule_port == bpf_htons(MLD_QUERY << 8))
			return 0;
	}
	now = p->now;
	generation = generation_of(identity);
	tracked = is_tracked(p);
	q.family = p->family;
	q.proto = p->proto;
	q.remote = way == WAY_OUT ? p->dst : p->src;
	if (tracked) {
		name_flow(&key, p, port, way);
		f = bpf_map_lookup_elem(&flows_assured, &key);
		former = !!f;
		if (!f) {
			f = bpf_map_lookup_elem(&flows, &key);
			// No more often than `seen` is written.
			if (f && is_alive(f, p->proto, now) && passed_since(now, f->seen) > SECOND / 4 && promote_flow(&key, f))
				f = bpf_map_lookup_elem(&flows_assured, &key);
		}
	}
	if (f && is_alive(f, p->proto, now) && !begins_anew(f, p)) {
		if (is_current(f, generation, identity, remote_identity)) {
			if (f->flags & FLOW_REVOKED)
				return revoked(f, p, way, now);
			touch(f, p, way, now);
			return 0;
		}
		// The policy has changed, or who the two are: may it still have begun?
		q.way = f->flags & FLOW_OUT ? WAY_OUT : WAY_IN;
		q.port = f->flags & FLOW_OUT ? key.remote_port : key.local_port;
		if (is_icmp(p))
			q.port = p->family == FAMILY_IPV4 ? bpf_htons(ICMP_ECHO << 8) : bpf_htons(ICMPV6_ECHO_REQUEST << 8);
		verdict = f->flags & FLOW_PUBLISHED && !remote_identity ? ALLOW : judge(&q);
		// Whoever finds it judged by this policy must find how.
		if (verdict == ALLOW)
			f->flags &= ~FLOW_REVOKED;
		else
			f->flags |= FLOW_REVOKED;
		barrier();
		f->identity = identity;
		f->remote_identity = remote_identity;
		f->generation = generation;
		if (verdict == ALLOW) {
			touch(f, p, way, now);
			return 0;
		}
		if (verdict == DENY)
			return revoked(f, p, way, now);
		forget_flow(&key);
	}
	q.way = way;
	q.port = p->rule_port;
	verdict = judge(&q);
	if (verdict == DENY)
		return way == WAY_OUT ? DROP_POLICY_OUT : DROP_POLICY_IN;
	if (verdict == ALLOW && tracked && may_begin(p)) {
		struct flow row = {
			.seen = now, .generation = generation, .identity = identity, .remote_identity = remote_identity,
			.flags = way == WAY_OUT ? FLOW_OUT : 0,
		};

		if (p->tcp_flags & TCP_FIN)
			row.flags |= way == WAY_OUT ? FLOW_FIN_LOCAL : FLOW_FIN_REMOTE;
		if (!remote_identity && way == WAY_OUT && p->proto == IPPROTO_TCP)
			row.flags = with_sequence(row.flags, p);
		if (begin_flow(&key, &row, former))
			count(p, port, DROP_UNTRACKED, identity, remote_identity);
	}
	return 0;
}

// Return whether a flow is there and did not begin at a published port: its packets
// are not translated.
static __always_inline bool is_unpublished(const struct flow_key *key, __u64 now)
{
	struct flow *f = look_up_flow(key);

	return f && !(f->flags & FLOW_PUBLISHED) && is_alive(f, key->proto, now);
}

// Let a packet in that has come to a published port, and its answers out,
// whatever policy says: publishing is the permission. 0, or why it cannot be: its
// flow is there already, and did not begin at a published port.
static __noinline int admit(struct packet *p, struct flow_key *key, __u32 identity)
{
	__u32 generation = generation_of(identity);
	struct flow *f;
	bool former;

	if (!p || !key)
		return DROP_ERROR;
	f = bpf_map_lookup_elem(&flows_assured, key);
	former = !!f;
	if (!f)
		f = bpf_map_lookup_elem(&flows, key);
	if (f && is_alive(f, p->proto, p->now) && !begins_anew(f, p)) {
		if (!(f->flags & FLOW_PUBLISHED))
			return DROP_TAKEN;
		if (p->tcp_flags & TCP_RST)
			return 0;
		if (f->flags & FLOW_REVOKED)
			f->flags &= ~FLOW_REVOKED;
		if (!is_current(f, generation, identity, 0)) {
			f->identity = identity;
			f->remote_identity = 0;
			f->generation = generation;
		}
		touch(f, p, WAY_IN, p->now);
	} else if (!(p->tcp_flags & TCP_RST)) {
		struct flow row = {
			.seen = p->now, .generation = generation, .identity = identity, .flags = FLOW_PUBLISHED,
		};

		if (p->tcp_flags & TCP_FIN)
			row.flags |= FLOW_FIN_REMOTE;
		if (begin_flow(key, &row, former))
			count(p, port_number(&key->port), DROP_UNTRACKED, identity, 0);
	}
	return 0;
}

// Judge a packet on its way out of or in to a secured port (`port_number`).
// Returns 0 or why it must not pass.
__noinline int firewall(struct packet *p, __u64 port, __u32 way, __u32 identity, __u32 remote_identity)
{
	struct flow_key key;
	struct flow *f;

	if (!p)
		return DROP_ERROR;
	if (is_tracked(p)) {
		name_flow(&key, p, port, way);
		f = bpf_map_lookup_elem(&flows_assured, &key);
		if (f && is_current(f, generation_of(identity), identity, remote_identity) &&
		    is_alive(f, p->proto, p->now) && !(f->flags & FLOW_REVOKED) && !begins_anew(f, p)) {
			touch(f, p, way, p->now);
			return 0;
		}
	}
	return firewall_long(p, port, way, identity, remote_identity);
}

// The firewall with what ICMP errors need of the packet.
static __always_inline enum drop pass_firewall(struct __sk_buff *skb, struct packet *p, __u64 port, __u32 way,
					       __u32 identity, __u32 remote_identity)
{
	if (p->flags & PACKET_ERROR && !p->bad && !(p->flags & PACKET_GROUP) &&
	    is_related(skb, p, port, way, identity))
		return 0;
	return firewall(p, port, way, identity, remote_identity);
}
