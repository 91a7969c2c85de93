// SPDX-License-Identifier: Apache-2.0
// A victim and a flooder on one host, for bench/neighbours.py.
//
//     neighbour serve PORT                               echo, until it is ended
//     neighbour ask IP PORT SECONDS CONNECTIONS          prints "open", waits for a line on stdin, then
//                                                        requests a second, p99 in µs, connections lost
//     neighbour flood KIND DEVICE SRC_MAC DST_MAC SRC_IP DST_IP SECONDS
//                                                        waits for a line on stdin, then frames sent
//
// Nothing here has a priority: victim and flooder share core 0 as the kernel's
// scheduler and the flooder's cgroup divide it.
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, FRAME = 128, FLOWS = 300000, PACKETS = 3, MAX_CONNECTIONS = 1024, MAX_TRIPS = 1 << 22 };

static void die(const char *what)
{
	fprintf(stderr, "neighbour: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void stay_on_core_0(void)
{
	cpu_set_t cores;

	CPU_ZERO(&cores);
	CPU_SET(0, &cores);
	if (sched_setaffinity(0, sizeof(cores), &cores))
		die("affinity");
}

static void wait_for_line(void)
{
	char line[16];

	if (!fgets(line, sizeof(line), stdin))
		exit(1);
}

// ---- The victim

static void serve(int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0), yes = 1;
	struct epoll_event event = { .events = EPOLLIN, .data.fd = listener }, events[64];

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(listener, (void *)&at, sizeof(at)) || listen(listener, 4096))
		die("listen");
	epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(poll, events, 64, -1);

		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			char bytes[64];
			ssize_t got;

			if (fd == listener) {
				event.data.fd = accept(listener, NULL, NULL);
				if (event.data.fd < 0)
					continue;
				setsockopt(event.data.fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
				epoll_ctl(poll, EPOLL_CTL_ADD, event.data.fd, &event);
				continue;
			}
			got = read(fd, bytes, sizeof(bytes));
			if (got <= 0 || write(fd, bytes, got) != got)
				close(fd);
		}
	}
}

static int by_size(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static void ask(const char *ip, int port, double seconds, int connections)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct timeval wait = { .tv_sec = 2 };
	float *trips = malloc(sizeof(*trips) * MAX_TRIPS);
	int fds[MAX_CONNECTIONS], lost = 0, yes = 1;
	double start, last, end;
	uint32_t n = 0;
	char byte = 7;

	if (connections < 1 || connections > MAX_CONNECTIONS || inet_pton(AF_INET, ip, &at.sin_addr) != 1) {
		errno = EINVAL;
		die("arguments");
	}
	for (int i = 0; i < connections; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
		setsockopt(fds[i], SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
		if (connect(fds[i], (void *)&at, sizeof(at)))
			die("connect");
		if (send(fds[i], &byte, 1, 0) != 1 || recv(fds[i], &byte, 1, 0) != 1)
			die("first request");
	}
	printf("open\n");
	fflush(stdout);
	wait_for_line();
	start = last = now();
	// Only the first sixteen connections are busy; the rest are idle ones, asked once at the end.
	do {
		int i = n % (connections < 16 ? connections : 16);

		if (fds[i] >= 0 && (send(fds[i], &byte, 1, 0) != 1 || recv(fds[i], &byte, 1, 0) != 1)) {
			close(fds[i]);
			fds[i] = -1;
			lost++;
		}
		end = now();
		trips[n++] = end - last;
		last = end;
	} while (end - start < seconds && n < MAX_TRIPS);
	seconds = end - start;
	for (int i = 16; i < connections; i++)
		if (send(fds[i], &byte, 1, 0) != 1 || recv(fds[i], &byte, 1, 0) != 1)
			lost++;
	qsort(trips, n, sizeof(*trips), by_size);
	printf("%.1f %.1f %d\n", n / seconds, trips[(uint32_t)(n * 0.99)] * 1e6, lost);
}

// ---- The flooder

struct frame {
	struct ether_header eth;
	struct {
		uint8_t version, tos;
		uint16_t length, id, offset;
		uint8_t ttl, proto;
		uint16_t sum;
		uint32_t src, dst;
	} __attribute__((packed)) ip;
	uint16_t src_port, dst_port;
	uint8_t rest[FRAME - 38];
} __attribute__((packed));

static uint16_t ip_sum(const void *head)
{
	const uint16_t *words = head;
	uint32_t sum = 0;

	for (int i = 0; i < 10; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

static void parse_mac(uint8_t *mac, const char *text)
{
	if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6) {
		errno = EINVAL;
		die(text);
	}
}

static void udp(struct frame *f, uint16_t src, uint16_t dst)
{
	uint16_t length = htons(sizeof(*f) - sizeof(f->eth) - sizeof(f->ip));

	f->ip.proto = IPPROTO_UDP;
	f->src_port = htons(src);
	f->dst_port = htons(dst);
	memcpy(f->rest, &length, 2);
	memset(f->rest + 2, 0, 2);
}

// One more frame of the flood: its bytes.
static void vary(struct frame *f, const char *kind, uint64_t n)
{
	uint32_t flow = n / PACKETS % FLOWS;

	f->ip.id = htons(n);
	f->ip.offset = 0;
	if (!strcmp(kind, "flows")) {
		udp(f, 1024 + flow % 60000, 10000 + flow / 60000);
	} else if (!strcmp(kind, "connections")) {
		f->ip.proto = IPPROTO_TCP;
		flow = n % FLOWS;
		f->src_port = htons(1024 + flow % 60000);
		f->dst_port = htons(80 + flow / 60000);
		memset(f->rest, 0, 16);
		f->rest[8] = 5 << 4;
		f->rest[9] = 2;  // SYN
	} else if (!strcmp(kind, "broadcasts")) {
		memset(f->eth.ether_dhost, 0xff, 6);
		f->ip.dst = 0xffffffff;
		udp(f, 5000, 5000);
	} else if (!strcmp(kind, "fragments")) {
		udp(f, 1024 + n % 60000, 9);
		f->ip.id = htons(n / 2);
		f->ip.offset = htons(n % 4 ? 0x2000 : 100);  // first ones, and others whose first never comes
	} else if (!strcmp(kind, "punts")) {
		memset(f->eth.ether_dhost, 0xff, 6);
		f->ip.src = 0;
		f->ip.dst = 0xffffffff;
		udp(f, 68, 67);
		memcpy(f->rest + 4, "\1\1\6\0", 4);
		memcpy(f->rest + 8, &n, 4);
	} else if (!strcmp(kind, "names")) {
		static const uint8_t head[12] = { 0, 0, 1, 0, 0, 1 };
		char label[16];

		udp(f, 1024 + n % 60000, 53);
		memset(f->rest + 4, 0, sizeof(f->rest) - 4);
		memcpy(f->rest + 4, head, 12);
		memcpy(f->rest + 4, &n, 2);
		f->rest[16] = 12;
		snprintf(label, sizeof(label), "n%011u", (uint32_t)n);
		memcpy(f->rest + 17, label, 12);
		memcpy(f->rest + 29, "\4test\0\0\1\0\1", 10);
	} else {
		errno = EINVAL;
		die(kind);
	}
	f->ip.sum = 0;
	f->ip.sum = ip_sum(&f->ip);
}

static void flood(char **argv)
{
	const char *kind = argv[0];
	struct frame frames[BATCH] = {};
	struct iovec parts[BATCH];
	struct mmsghdr batch[BATCH] = {};
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(argv[1]) };
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	double seconds = atof(argv[6]), end;
	uint64_t sent = 0, made = 0;

	if (fd < 0 || !at.sll_ifindex || bind(fd, (void *)&at, sizeof(at)))
		die("packet socket");
	for (int i = 0; i < BATCH; i++) {
		struct frame *f = &frames[i];

		parse_mac(f->eth.ether_shost, argv[2]);
		parse_mac(f->eth.ether_dhost, argv[3]);
		f->eth.ether_type = htons(ETHERTYPE_IP);
		f->ip.version = 0x45;
		f->ip.ttl = 64;
		f->ip.length = htons(sizeof(*f) - sizeof(f->eth));
		if (inet_pton(AF_INET, argv[4], &f->ip.src) != 1 || inet_pton(AF_INET, argv[5], &f->ip.dst) != 1)
			die("address");
		parts[i] = (struct iovec){ f, sizeof(*f) };
		batch[i].msg_hdr = (struct msghdr){ .msg_iov = &parts[i], .msg_iovlen = 1 };
	}
	wait_for_line();
	for (end = now() + seconds; now() < end;) {
		int n;

		for (int i = 0; i < BATCH; i++)
			vary(&frames[i], kind, made++);
		n = sendmmsg(fd, batch, BATCH, 0);
		if (n > 0)
			sent += n;
		else if (errno != ENOBUFS && errno != EAGAIN)
			die("sendmmsg");
	}
	printf("%lu\n", sent);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	stay_on_core_0();
	if (argc == 3 && !strcmp(what, "serve"))
		serve(atoi(argv[2]));
	else if (argc == 6 && !strcmp(what, "ask"))
		ask(argv[2], atoi(argv[3]), atof(argv[4]), atoi(argv[5]));
	else if (argc == 9 && !strcmp(what, "flood"))
		flood(argv + 2);
	else
		return 2;
	return 0;
}
