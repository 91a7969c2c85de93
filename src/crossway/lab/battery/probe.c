// SPDX-License-Identifier: Apache-2.0
// The same hands in every body: opens sockets, sends and hears, as it is told.
//
// A line in is a command, a line out is its answer in JSON. It runs as long as
// its body does, so that a command costs no start, and is static, so that a
// container, a guest and a server can all run it. What is to be proved is not
// its business: it only says what it saw.
//
//     udp IP PORT [OPTION…]         a socket; IP may be *, PORT 0            {"fd", "port"}
//     tcp IP PORT                   one that listens
//     accept FD MS · connect SRC DST PORT MS                                 {"fd"}
//     raw PROTOCOL IP [OPTION…]     a socket of an IP protocol
//     packet DEVICE ETHERTYPE       frames of a device; 0x3 for all
//     send FD DATA [IP PORT]        DATA is hex, or @N for N bytes           {"sent"}
//     recv FD MS                    {"size", "data": the first bytes, "from", "port"}
//     error FD MS                   what ICMP said                           {"type", "code", "info", "by"}
//     close FD
//     pour FD N · drain FD N MS     N bytes into TCP, and out of it          {"bytes", "right"}
//     ping SRC DST COUNT MS [OPTION…]   {"sent", "got", "error"}
//     run COMMAND                   by a shell                               {"code", "said"}
//     watch ping DST EVERY_MS · watch tcp DST PORT EVERY_MS · serve PORT     {"job"}
//     end JOB                       what it saw
//
// Options: ttl=N  df=1 (never in fragments)  df=0 (in fragments, if need be)  dev=DEVICE  join=GROUP  broadcast=1

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORDS = 32, LINE = 65536, LARGE = 65536, SHOWN = 1600, LATE = 4000, JOBS = 64, CLIENTS = 128 };

union address {
	struct sockaddr any;
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;
};

static char *word[WORDS];
static int words;
static struct {
	pid_t pid;
	int pipe;
} jobs[JOBS];
static volatile sig_atomic_t ended;

static void answer(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vprintf(format, list);
	va_end(list);
	putchar('\n');
	fflush(stdout);
}

static void fault(void)
{
	answer("{\"error\":\"%s\"}", strerrorname_np(errno));
}

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1e3 + at.tv_nsec / 1e6;
}

static bool readable(int fd, double ms, short events)
{
	struct pollfd one = { .fd = fd, .events = events };
	double until = now() + ms;
	int got;

	do {
		double left = until - now();

		got = poll(&one, 1, left < 0 ? 0 : (int)(left + 0.999));
	} while (got < 0 && errno == EINTR);
	return got > 0;
}

static socklen_t size_of(const union address *a)
{
	return a->any.sa_family == AF_INET6 ? sizeof(a->in6) : sizeof(a->in4);
}

// An address in text, perhaps with %DEVICE; * is any of IPv6, which takes IPv4 as well.
static union address address(const char *text, int port)
{
	union address a = {};
	char copy[128], *scope;

	snprintf(copy, sizeof(copy), "%s", strcmp(text, "*") ? text : "::");
	scope = strchr(copy, '%');
	if (scope)
		*scope++ = 0;
	if (inet_pton(AF_INET, copy, &a.in4.sin_addr) == 1) {
		a.in4.sin_family = AF_INET;
		a.in4.sin_port = htons(port);
	} else if (inet_pton(AF_INET6, copy, &a.in6.sin6_addr) == 1) {
		a.in6.sin6_family = AF_INET6;
		a.in6.sin6_port = htons(port);
		a.in6.sin6_scope_id = scope ? if_nametoindex(scope) : 0;
	}
	return a;
}

static const char *text(const union address *a)
{
	static char said[INET6_ADDRSTRLEN];

	if (a->any.sa_family == AF_INET6)
		return inet_ntop(AF_INET6, &a->in6.sin6_addr, said, sizeof(said));
	return a->any.sa_family == AF_INET ? inet_ntop(AF_INET, &a->in4.sin_addr, said, sizeof(said)) : "";
}

static int port_of(const union address *a)
{
	return ntohs(a->any.sa_family == AF_INET6 ? a->in6.sin6_port : a->in4.sin_port);
}

static const char *option(const char *name)
{
	size_t size = strlen(name);

	for (int i = 1; i < words; i++)
		if (!strncmp(word[i], name, size) && word[i][size] == '=')
			return word[i] + size + 1;
	return NULL;
}

// Set what the options say on a socket of a family; 0 or -1.
static int options(int fd, int family)
{
	const char *ttl = option("ttl"), *df = option("df"), *dev = option("dev"), *group = option("join");
	bool v6 = family == AF_INET6;
	int on = 1, hops = ttl ? atoi(ttl) : 0, bad = 0;
	int never = v6 ? IPV6_PMTUDISC_PROBE : IP_PMTUDISC_PROBE;
	int always = v6 ? IPV6_PMTUDISC_DONT : IP_PMTUDISC_DONT;

	setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_RECVERR : IP_RECVERR, &on, sizeof(on));
	if (ttl) {
		bad |= setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_UNICAST_HOPS : IP_TTL, &hops,
				  sizeof(hops));
		setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MULTICAST_HOPS : IP_MULTICAST_TTL, &hops,
			   sizeof(hops));
	}
	if (df)
		bad |= setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER,
				  atoi(df) ? &never : &always, sizeof(never));
	if (option("broadcast"))
		bad |= setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on));
	if (dev)
		bad |= setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, dev, strlen(dev));
	if (group) {
		struct group_req asked = { .gr_interface = dev ? if_nametoindex(dev) : 0 };
		union address a = address(group, 0);

		memcpy(&asked.gr_group, &a, sizeof(a));
		bad |= setsockopt(fd, a.any.sa_family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP, MCAST_JOIN_GROUP, &asked,
				  sizeof(asked));
	}
	return bad;
}

static void opened(int fd, const union address *at, bool listens)
{
	union address bound = {};
	socklen_t size = sizeof(bound);
	int on = 1;

	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (fd < 0 || options(fd, at->any.sa_family) || bind(fd, &at->any, size_of(at)) || (listens && listen(fd, 64)) ||
	    getsockname(fd, &bound.any, &size)) {
		fault();
		if (fd >= 0)
			close(fd);
		return;
	}
	answer("{\"fd\":%d,\"port\":%d}", fd, port_of(&bound));
}

static void open_packet(void)
{
	int kind = strtol(word[2], NULL, 0), fd = socket(AF_PACKET, SOCK_RAW, 0);
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(kind), .sll_ifindex = if_nametoindex(word[1]) };
	struct packet_mreq all = { .mr_ifindex = at.sll_ifindex, .mr_type = PACKET_MR_PROMISC };

	// What is for others is to be heard as well, if it comes this far.
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all))) {
		fault();
		if (fd >= 0)
			close(fd);
		return;
	}
	answer("{\"fd\":%d}", fd);
}

static void take(int fd, double ms)
{
	int one;

	if (!readable(fd, ms, POLLIN)) {
		answer("{\"error\":\"ETIMEDOUT\"}");
		return;
	}
	one = accept(fd, NULL, NULL);
	if (one < 0)
		fault();
	else
		answer("{\"fd\":%d}", one);
}

// Return a connected socket, or -1.
static int connected(const char *src, const char *dst, int port, double ms)
{
	union address to = address(dst, port);
	int fd = socket(to.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0), why = 0;
	socklen_t size = sizeof(why);

	if (fd < 0)
		return -1;
	if (strcmp(src, "*")) {
		union address from = address(src, 0);

		if (bind(fd, &from.any, size_of(&from)))
			goto bad;
	}
	if (connect(fd, &to.any, size_of(&to)) && errno != EINPROGRESS)
		goto bad;
	if (!readable(fd, ms, POLLOUT)) {
		errno = ETIMEDOUT;
		goto bad;
	}
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &size);
	if (why) {
		errno = why;
		goto bad;
	}
	fcntl(fd, F_SETFL, 0);
	return fd;
bad:
	why = errno;
	close(fd);
	errno = why;
	return -1;
}

static uint8_t pattern(size_t at)
{
	return at * 131 + (at >> 8);
}

// Make what DATA says; return its size.
static size_t data_of(const char *data, uint8_t *into)
{
	size_t size = 0;

	if (*data == '@') {
		size = strtoul(data + 1, NULL, 10);
		for (size_t i = 0; i < size && i < LARGE; i++)
			into[i] = pattern(i);
		return size < LARGE ? size : LARGE;
	}
	for (; data[0] && data[1] && size < LARGE; data += 2)
		into[size++] = (uint8_t)strtoul((char[]){ data[0], data[1], 0 }, NULL, 16);
	return size;
}

static void say(void)
{
	static uint8_t data[LARGE];
	size_t size = data_of(word[2], data);
	int fd = atoi(word[1]);
	ssize_t sent;

	if (words > 4) {
		union address to = address(word[3], atoi(word[4]));
		union address own = {};
		socklen_t room = sizeof(own);

		// A socket of IPv6 speaks IPv4 by mapped addresses.
		getsockname(fd, &own.any, &room);
		if (own.any.sa_family == AF_INET6 && to.any.sa_family == AF_INET) {
			char mapped[64];

			snprintf(mapped, sizeof(mapped), "::ffff:%s", word[3]);
			to = address(mapped, atoi(word[4]));
		}
		sent = sendto(fd, data, size, 0, &to.any, size_of(&to));
	} else {
		sent = send(fd, data, size, MSG_NOSIGNAL);
	}
	if (sent < 0)
		fault();
	else
		answer("{\"sent\":%zd}", sent);
}

static void hear(int fd, double ms)
{
	static uint8_t data[LARGE];
	char shown[2 * SHOWN + 1];
	double until = now() + ms;
	union {
		union address ip;
		struct sockaddr_ll link;
	} from;
	socklen_t size;
	ssize_t got;

	do {
		size = sizeof(from);
		memset(&from, 0, sizeof(from));
		if (!readable(fd, until - now(), POLLIN)) {
			answer("{\"error\":\"ETIMEDOUT\"}");
			return;
		}
		got = recvfrom(fd, data, sizeof(data), MSG_DONTWAIT | MSG_TRUNC, (struct sockaddr *)&from, &size);
	} while (got >= 0 && from.ip.any.sa_family == AF_PACKET && from.link.sll_pkttype == PACKET_OUTGOING);
	if (got < 0) {
		fault();
		return;
	}
	for (ssize_t i = 0; i < got && i < SHOWN; i++)
		sprintf(shown + 2 * i, "%02x", data[i]);
	shown[2 * (got < SHOWN ? got : SHOWN)] = 0;
	for (ssize_t i = 0; i < got && i < LARGE; i++)
		if (data[i] != pattern(i)) {
			answer("{\"size\":%zd,\"data\":\"%s\",\"from\":\"%s\",\"port\":%d}", got, shown, text(&from.ip),
			       port_of(&from.ip));
			return;
		}
	answer("{\"size\":%zd,\"right\":true,\"data\":\"%s\",\"from\":\"%s\",\"port\":%d}", got, shown, text(&from.ip),
	       port_of(&from.ip));
}

// Take one error off a socket's queue: true, and told as JSON, if there was one.
static bool told_error(int fd, char *into, size_t room)
{
	uint8_t control[512], payload[64];
	union address to;
	struct iovec part = { payload, sizeof(payload) };
	struct msghdr message = { .msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = &part, .msg_iovlen = 1,
				  .msg_control = control, .msg_controllen = sizeof(control) };

	if (recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
		return false;
	for (struct cmsghdr *one = CMSG_FIRSTHDR(&message); one; one = CMSG_NXTHDR(&message, one)) {
		struct sock_extended_err *e = (void *)CMSG_DATA(one);

		if (!(one->cmsg_level == IPPROTO_IP && one->cmsg_type == IP_RECVERR) &&
		    !(one->cmsg_level == IPPROTO_IPV6 && one->cmsg_type == IPV6_RECVERR))
			continue;
		snprintf(into, room, "{\"local\":%s,\"type\":%d,\"code\":%d,\"info\":%u,\"by\":\"%s\",\"errno\":\"%s\"}",
			 e->ee_origin == SO_EE_ORIGIN_LOCAL ? "true" : "false", e->ee_type, e->ee_code, e->ee_info,
			 text((union address *)SO_EE_OFFENDER(e)), strerrorname_np(e->ee_errno));
		return true;
	}
	return false;
}

static void hear_error(int fd, double ms)
{
	char told[256];

	// An error is told without being asked for.
	if (readable(fd, ms, 0) && told_error(fd, told, sizeof(told)))
		answer("%s", told);
	else
		answer("{\"error\":\"ETIMEDOUT\"}");
}

static bool started(pid_t *pid, int *out)
{
	int pipes[2];

	if (pipe(pipes))
		return false;
	*pid = fork();
	if (*pid < 0)
		return false;
	if (!*pid) {
		// Else it would read the next command.
		int none = open("/dev/null", O_RDWR);

		dup2(none, 0);
		dup2(pipes[1], 1);
		close(pipes[0]);
		return true;
	}
	close(pipes[1]);
	*out = pipes[0];
	return true;
}

static void pour(int fd, size_t size)
{
	pid_t pid;
	int out;

	if (!started(&pid, &out)) {
		fault();
		return;
	}
	if (!pid) {
		static uint8_t data[LARGE];
		size_t at = 0;

		while (at < size) {
			size_t part = size - at < LARGE ? size - at : LARGE;
			ssize_t sent;

			for (size_t i = 0; i < part; i++)
				data[i] = pattern(at + i);
			sent = send(fd, data, part, MSG_NOSIGNAL);
			if (sent <= 0)
				break;
			at += sent;
		}
		shutdown(fd, SHUT_WR);
		_exit(0);
	}
	close(out);
	answer("{}");
}

static void drain(int fd, size_t size, double ms)
{
	static uint8_t data[LARGE];
	double until = now() + ms;
	bool right = true;
	size_t at = 0;

	while (at < size && readable(fd, until - now(), POLLIN)) {
		ssize_t got = recv(fd, data, sizeof(data), MSG_DONTWAIT);

		if (got <= 0)
			break;
		for (ssize_t i = 0; i < got; i++)
			right &= data[i] == pattern(at + i);
		at += got;
	}
	answer("{\"bytes\":%zu,\"right\":%s}", at, right ? "true" : "false");
}

static uint16_t checksum(const uint8_t *data, size_t size)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < size; i++)
		sum += i & 1 ? data[i] : data[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

// Ask for an echo (RFC 792, RFC 4443) with a number; 0 or -1.
static int ask_echo(int fd, const union address *to, uint16_t id, uint32_t number, size_t size)
{
	static uint8_t data[LARGE];
	bool v6 = to->any.sa_family == AF_INET6;
	uint16_t sum;

	for (size_t i = 12; i < size; i++)
		data[i] = pattern(i);
	data[0] = v6 ? 128 : 8;
	memset(data + 1, 0, 3);
	memcpy(data + 4, &id, 2);
	memset(data + 6, 0, 2);
	memcpy(data + 8, &number, 4);
	sum = htons(checksum(data, size));
	if (!v6)
		memcpy(data + 2, &sum, 2);
	return sendto(fd, data, size, 0, &to->any, size_of(to)) < 0 ? -1 : 0;
}

// Hear the number of an echo; -1 if there is none of ours.
static int64_t heard_echo(int fd, bool v6, uint16_t id)
{
	static uint8_t data[LARGE];
	ssize_t got = recv(fd, data, sizeof(data), MSG_DONTWAIT);
	size_t head = v6 || got < 20 ? 0 : (data[0] & 15) * 4;
	uint32_t number;

	if (got < (ssize_t)head + 12 || data[head] != (v6 ? 129 : 0) || memcmp(data + head + 4, &id, 2))
		return -1;
	memcpy(&number, data + head + 8, 4);
	return number;
}

static int echo_socket(const char *src, const union address *to)
{
	bool v6 = to->any.sa_family == AF_INET6;
	int fd = socket(to->any.sa_family, SOCK_RAW, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP), room = 8 << 20;

	if (fd < 0 || options(fd, to->any.sa_family))
		return -1;
	if (strcmp(src, "*")) {
		union address from = address(src, 0);

		if (bind(fd, &from.any, size_of(&from)))
			return -1;
	}
	// Others' answers are not for it, and its own must find room on however busy a machine.
	if (connect(fd, &to->any, size_of(to)))
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	return fd;
}

static void ping(void)
{
	union address to = address(word[2], 0);
	bool v6 = to.any.sa_family == AF_INET6;
	int count = atoi(word[3]), wait_ms = atoi(word[4]), sent = 0, got = 0;
	const char *asked = option("size");
	size_t size = asked ? strtoul(asked, NULL, 10) : 64;
	static uint16_t id;
	int fd = echo_socket(word[1], &to);
	char error[256] = "null";

	if (!id)
		id = getpid();
	id++;
	if (fd < 0) {
		fault();
		return;
	}
	for (int number = 0; number < count; number++) {
		double until = now() + wait_ms;

		sent++;
		if (ask_echo(fd, &to, id, number, size) && errno == EMSGSIZE) {
			snprintf(error, sizeof(error), "{\"local\":true,\"errno\":\"EMSGSIZE\"}");
			break;
		}
		while (now() < until && readable(fd, until - now(), POLLIN)) {
			if (told_error(fd, error, sizeof(error)))
				break;
			if (heard_echo(fd, v6, id) == number) {
				got++;
				break;
			}
		}
	}
	close(fd);
	answer("{\"sent\":%d,\"got\":%d,\"error\":%s}", sent, got, error);
}

static void run(const char *command)
{
	FILE *from = popen(command, "r");
	size_t size = 0;
	int code, c;

	if (!from) {
		fault();
		return;
	}
	printf("{\"said\":\"");
	while ((c = fgetc(from)) != EOF)
		if (size++ < 8192)
			printf(c == '"' || c == '\\' ? "\\%c" : c == '\n' ? "\\n" : c < ' ' ? " " : "%c", c);
	code = pclose(from);
	answer("\",\"code\":%d}", WIFEXITED(code) ? WEXITSTATUS(code) : 128);
}

static void stop(int number)
{
	(void)number;
	ended = 1;
}

// Ask for echoes at a pace until the end; tell of the longest time without an answer.
static void watch_ping(const char *dst, int every)
{
	union address to = address(dst, 0);
	bool v6 = to.any.sa_family == AF_INET6;
	int fd = echo_socket("*", &to);
	uint16_t id = getpid();
	double begun = now(), last = begun, gap = 0;
	uint32_t sent = 0, got = 0;
	char none[256];

	while (!ended || now() < last + LATE) {
		double due = begun + (double)sent * every;

		// The last answers may be on their way when it ends.
		if (ended && (got == sent || now() > last + LATE))
			break;
		if (!ended && now() >= due) {
			ask_echo(fd, &to, id, sent++, 64);
			continue;
		}
		if (readable(fd, ended ? 50 : due - now(), POLLIN)) {
			if (heard_echo(fd, v6, id) >= 0) {
				got++;
				gap = now() - last > gap ? now() - last : gap;
				last = now();
			} else {
				told_error(fd, none, sizeof(none));
			}
		}
	}
	answer("{\"sent\":%u,\"got\":%u,\"gap_ms\":%.1f}", sent, got, gap);
	_exit(0);
}

// Keep a connection busy with numbers until the end.
static void watch_tcp(const char *dst, int port, int every)
{
	int fd = connected("*", dst, port, 10000);
	const char *why = fd < 0 ? strerrorname_np(errno) : NULL;
	unsigned exchanges = 0;
	double slowest = 0;
	uint64_t back;

	while (!ended && !why) {
		double begun = now();
		uint64_t number = exchanges;

		if (send(fd, &number, 8, MSG_NOSIGNAL) != 8) {
			why = strerrorname_np(errno);
			break;
		}
		if (!readable(fd, 20000, POLLIN))
			why = "ETIMEDOUT";
		else if (recv(fd, &back, 8, 0) != 8 || back != number)
			why = "ECONNRESET";
		else
			exchanges++;
		slowest = now() - begun > slowest ? now() - begun : slowest;
		for (double until = begun + every; !ended && now() < until;)
			usleep(1000);
	}
	answer("{\"exchanges\":%u,\"slowest_ms\":%.1f,\"why\":%s%s%s}", exchanges, slowest, why ? "\"" : "",
	       why ? why : "null", why ? "\"" : "");
	_exit(0);
}

// Send back what comes over any connection, until the end.
static void serve(int port)
{
	struct pollfd all[CLIENTS] = { { .fd = socket(AF_INET6, SOCK_STREAM, 0), .events = POLLIN } };
	union address at = address("*", port);
	uint8_t data[4096];
	int count = 1, on = 1;

	setsockopt(all[0].fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(all[0].fd, &at.any, size_of(&at)) || listen(all[0].fd, 64))
		ended = 1;
	while (!ended) {
		if (poll(all, count, 1000) <= 0)
			continue;
		for (int i = count - 1; i > 0; i--) {
			ssize_t got;

			if (!all[i].revents)
				continue;
			got = recv(all[i].fd, data, sizeof(data), MSG_DONTWAIT);
			if (got > 0 && send(all[i].fd, data, got, MSG_NOSIGNAL) == got)
				continue;
			close(all[i].fd);
			all[i] = all[--count];
		}
		if (all[0].revents && count < CLIENTS) {
			int fd = accept(all[0].fd, NULL, NULL);

			if (fd >= 0)
				all[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
		}
	}
	answer("{}");
	_exit(0);
}

static void start_job(void)
{
	struct sigaction how = { .sa_handler = stop };
	pid_t pid;
	int slot = 0, out;

	while (slot < JOBS && jobs[slot].pid)
		slot++;
	if (slot == JOBS || !started(&pid, &out)) {
		fault();
		return;
	}
	if (!pid) {
		sigaction(SIGTERM, &how, NULL);
		if (!strcmp(word[0], "serve"))
			serve(atoi(word[1]));
		if (!strcmp(word[1], "tcp"))
			watch_tcp(word[2], atoi(word[3]), atoi(word[4]));
		watch_ping(word[2], atoi(word[3]));
	}
	jobs[slot].pid = pid;
	jobs[slot].pipe = out;
	answer("{\"job\":%d}", slot);
}

static void end_job(int slot)
{
	char told[512] = "{}";
	ssize_t got;

	if (slot < 0 || slot >= JOBS || !jobs[slot].pid) {
		answer("{\"error\":\"ESRCH\"}");
		return;
	}
	if (jobs[slot].pid > 0)
		kill(jobs[slot].pid, SIGTERM);
	got = read(jobs[slot].pipe, told, sizeof(told) - 1);
	if (got > 0)
		told[got - 1] = 0;
	close(jobs[slot].pipe);
	if (jobs[slot].pid > 0)
		waitpid(jobs[slot].pid, NULL, 0);
	jobs[slot].pid = 0;
	answer("%s", got > 0 ? told : "{\"error\":\"ECHILD\"}");
}

static void obey(const char *rest)
{
	struct {
		const char *name;
		int words;
	} known[] = { { "udp", 3 }, { "tcp", 3 }, { "accept", 3 }, { "connect", 5 }, { "raw", 3 }, { "packet", 3 },
		      { "send", 3 }, { "recv", 3 }, { "error", 3 }, { "close", 2 }, { "pour", 3 }, { "drain", 4 },
		      { "ping", 5 }, { "run", 2 }, { "watch", 4 }, { "serve", 2 }, { "end", 2 } };
	const char *name = word[0];
	union address at;
	int fd;

	for (size_t i = 0;; i++) {
		if (i == sizeof(known) / sizeof(*known)) {
			answer("{\"error\":\"EINVAL\"}");
			return;
		}
		if (!strcmp(name, known[i].name) && words >= known[i].words)
			break;
	}
	if (!strcmp(name, "udp") || !strcmp(name, "tcp")) {
		bool listens = *name == 't';

		at = address(word[1], atoi(word[2]));
		opened(socket(at.any.sa_family, listens ? SOCK_STREAM : SOCK_DGRAM, 0), &at, listens);
	} else if (!strcmp(name, "raw")) {
		at = address(word[2], 0);
		opened(socket(at.any.sa_family, SOCK_RAW, atoi(word[1])), &at, false);
	} else if (!strcmp(name, "packet")) {
		open_packet();
	} else if (!strcmp(name, "accept")) {
		take(atoi(word[1]), atoi(word[2]));
	} else if (!strcmp(name, "connect")) {
		fd = connected(word[1], word[2], atoi(word[3]), atoi(word[4]));
		if (fd < 0)
			fault();
		else
			answer("{\"fd\":%d}", fd);
	} else if (!strcmp(name, "send")) {
		say();
	} else if (!strcmp(name, "recv")) {
		hear(atoi(word[1]), atoi(word[2]));
	} else if (!strcmp(name, "error")) {
		hear_error(atoi(word[1]), atoi(word[2]));
	} else if (!strcmp(name, "close")) {
		close(atoi(word[1]));
		answer("{}");
	} else if (!strcmp(name, "pour")) {
		pour(atoi(word[1]), strtoul(word[2], NULL, 10));
	} else if (!strcmp(name, "drain")) {
		drain(atoi(word[1]), strtoul(word[2], NULL, 10), atoi(word[3]));
	} else if (!strcmp(name, "ping")) {
		ping();
	} else if (!strcmp(name, "run")) {
		run(rest);
	} else if (!strcmp(name, "end")) {
		end_job(atoi(word[1]));
	} else {
		start_job();
	}
}

// Take leave of children that have ended: their numbers may become others'.
static void reap(void)
{
	pid_t gone;

	while ((gone = waitpid(-1, NULL, WNOHANG)) > 0)
		for (int slot = 0; slot < JOBS; slot++)
			if (jobs[slot].pid == gone)
				jobs[slot].pid = -1;
}

// A guest that moves loses who speaks to it for a while, and stays: *lasting*.
static bool next_line(char *line, bool lasting)
{
	while (!fgets(line, LINE, stdin)) {
		if (!lasting)
			return false;
		clearerr(stdin);
		usleep(20000);
	}
	return true;
}

int main(int argc, char **argv)
{
	static char line[LINE], whole[LINE];
	bool lasting = argc > 1 && !strcmp(argv[1], "--lasting");

	signal(SIGPIPE, SIG_IGN);
	while (next_line(line, lasting)) {
		line[strcspn(line, "\r\n")] = 0;
		strcpy(whole, line);
		words = 0;
		for (char *at = strtok(line, " "); at && words < WORDS; at = strtok(NULL, " "))
			word[words++] = at;
		if (words)
			obey(whole + (strchr(whole, ' ') ? strcspn(whole, " ") + 1 : 0));
		reap();
	}
	return 0;
}
