// SPDX-License-Identifier: Apache-2.0
// Load and measure one path between two network namespaces.
//
//     load serve PORT                          until it is ended
//     load tcp_rr  IP PORT SECONDS             µs a round trip of one byte, both ends on one core
//     load udp_rr  IP PORT SECONDS             the same
//     load tcp_rr_two, udp_rr_two …            the same with the ends on two cores
//     load stream  IP PORT SECONDS             Gbit/s of one TCP connection, two cores
//     load packets IP PORT SECONDS             received UDP packets of 64 bytes a second, two cores
//     load connect IP PORT SECONDS             TCP connections a second, one byte each way, one core
//
// Cores are fixed because left alone a round trip takes three times as long when
// the scheduler happens to put the ends on two cores, one of which must be woken
// each time: that would drown what the path costs. On one core nothing is woken.
//
// Blocking calls throughout, a thread a connection: what is measured is the path,
// not an event loop. Ports: PORT echoes on core 1, PORT+1 swallows there, PORT+2
// … PORT+17 answer one byte and close (UDP PORT+2 tells what was swallowed),
// PORT+18 echoes on core 0. PORT is a multiple of 100. Clients are on core 0.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum {
	SWALLOW = 1,
	ANSWER = 2,
	ANSWERERS = 16,  // ports, so that a client does not run out of tuples
	ONE = ANSWER + ANSWERERS,
	CHUNK = 1 << 17,
	PAYLOAD = 64,
	BATCH = 32,
	MAX_TRIPS = 1 << 22,
};

// The same for all, whatever this machine's default is: one that paces what it
// sends by its own estimate of the path would be measured instead of the path.
#define CONGESTION "cubic"

static volatile uint64_t counted;

static void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void set(int fd, int level, int option, int value)
{
	setsockopt(fd, level, option, &value, sizeof(value));
}

static struct sockaddr_in6 address(const char *ip, int port)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	char mapped[64];

	snprintf(mapped, sizeof(mapped), strchr(ip, ':') ? "%s" : "::ffff:%s", ip);
	if (inet_pton(AF_INET6, mapped, &a.sin6_addr) != 1) {
		errno = EINVAL;
		die(ip);
	}
	return a;
}

static int opened(int type)
{
	int fd = socket(AF_INET6, type, 0);

	if (fd < 0)
		die("socket");
	set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (type == SOCK_STREAM) {
		set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
		if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, CONGESTION, strlen(CONGESTION)))
			die("congestion control " CONGESTION);
	}
	return fd;
}

static int bound(int type, int port)
{
	int fd = opened(type);
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

	if (bind(fd, (void *)&a, sizeof(a)))
		die("bind");
	if (type == SOCK_STREAM && listen(fd, 4096))
		die("listen");
	return fd;
}

static int reached(int type, const char *ip, int port)
{
	struct sockaddr_in6 a = address(ip, port);
	int fd = opened(type);

	if (connect(fd, (void *)&a, sizeof(a)))
		die("connect");
	return fd;
}

static void spawn(void *(*run)(void *), intptr_t what)
{
	pthread_t thread;
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if ((errno = pthread_create(&thread, &attr, run, (void *)what)))
		die("thread");
}

static void stay_on(int core)
{
	cpu_set_t cores;

	CPU_ZERO(&cores);
	CPU_SET(core < sysconf(_SC_NPROCESSORS_ONLN) ? core : 0, &cores);
	if (sched_setaffinity(0, sizeof(cores), &cores))
		die("affinity");
}

// Let no other program come between. Not for what keeps a core busy with
// packets for long: the kernel's own threads would not get to their work.
static void come_first(void)
{
	struct sched_param first = { .sched_priority = 1 };

	sched_setscheduler(0, SCHED_FIFO, &first);  // without the right to, as it is
}

static int port_of(int fd)
{
	struct sockaddr_in6 own;
	socklen_t size = sizeof(own);

	getsockname(fd, (void *)&own, &size);
	return ntohs(own.sin6_port);
}

// ---- The serving side

static void *echo_stream(void *what)
{
	int fd = (intptr_t)what;
	char byte[16];
	ssize_t n;

	stay_on(port_of(fd) % 100 == ONE ? 0 : 1);
	come_first();
	while ((n = read(fd, byte, sizeof(byte))) > 0)
		if (write(fd, byte, n) != n)
			break;
	close(fd);
	return NULL;
}

static void *swallow_stream(void *what)
{
	int fd = (intptr_t)what;
	char *chunk = malloc(CHUNK);
	uint64_t bytes = 0;
	ssize_t n;

	stay_on(1);
	while ((n = read(fd, chunk, CHUNK)) > 0)
		bytes += n;
	if (write(fd, &bytes, sizeof(bytes)) < 0)
		perror("load: write");
	close(fd);
	free(chunk);
	return NULL;
}

static void *accept_streams(void *what)
{
	int fd = (intptr_t)what;

	for (;;) {
		int one = accept(fd, NULL, NULL);

		if (one < 0)
			continue;
		set(one, IPPROTO_TCP, TCP_NODELAY, 1);
		spawn(port_of(fd) % 100 == SWALLOW ? swallow_stream : echo_stream, one);
	}
}

static void *answer_streams(void *what)
{
	int fd = (intptr_t)what;

	stay_on(0);
	come_first();
	for (;;) {
		int one = accept(fd, NULL, NULL);
		char byte;

		if (one < 0)
			continue;
		if (read(one, &byte, 1) == 1 && write(one, &byte, 1) != 1)
			perror("load: write");
		close(one);
	}
}

static void *echo_packets(void *what)
{
	int fd = (intptr_t)what;
	char packet[2048];

	stay_on(port_of(fd) % 100 == ONE ? 0 : 1);
	come_first();
	for (;;) {
		struct sockaddr_in6 from;
		socklen_t size = sizeof(from);
		ssize_t n = recvfrom(fd, packet, sizeof(packet), 0, (void *)&from, &size);

		if (n > 0)
			sendto(fd, packet, n, 0, (void *)&from, size);
	}
}

static void *swallow_packets(void *what)
{
	int fd = (intptr_t)what;
	static char space[BATCH][2048];
	struct sockaddr_in6 from[BATCH];
	struct iovec parts[BATCH];
	struct mmsghdr packets[BATCH] = {};

	stay_on(1);
	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){ space[i], sizeof(space[i]) };
		packets[i].msg_hdr = (struct msghdr){ .msg_iov = &parts[i], .msg_iovlen = 1, .msg_name = &from[i] };
	}
	for (;;) {
		int n;

		for (int i = 0; i < BATCH; i++)
			packets[i].msg_hdr.msg_namelen = sizeof(from[i]);
		n = recvmmsg(fd, packets, BATCH, MSG_WAITFORONE, NULL);
		if (n > 0)
			__atomic_fetch_add(&counted, n, __ATOMIC_RELAXED);
		// A flow that is never answered stays new to connection tracking;
		// few are like that. So whoever says one byte gets one back.
		for (int i = 0; i < n; i++)
			if (packets[i].msg_len == 1)
				sendto(fd, space[i], 1, 0, (void *)&from[i], sizeof(from[i]));
	}
}

// Tell how many packets were swallowed up to now.
static void *tell_count(void *what)
{
	int fd = (intptr_t)what;
	char packet[16];

	for (;;) {
		struct sockaddr_in6 from;
		socklen_t size = sizeof(from);
		uint64_t n;

		if (recvfrom(fd, packet, sizeof(packet), 0, (void *)&from, &size) < 0)
			continue;
		n = __atomic_load_n(&counted, __ATOMIC_RELAXED);
		sendto(fd, &n, sizeof(n), 0, (void *)&from, size);
	}
}

static void serve(int port)
{
	int swallow = bound(SOCK_DGRAM, port + SWALLOW);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	set(swallow, SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24);
	spawn(accept_streams, bound(SOCK_STREAM, port));
	spawn(accept_streams, bound(SOCK_STREAM, port + SWALLOW));
	for (int i = 0; i < ANSWERERS; i++)
		spawn(answer_streams, bound(SOCK_STREAM, port + ANSWER + i));
	spawn(accept_streams, bound(SOCK_STREAM, port + ONE));
	spawn(echo_packets, bound(SOCK_DGRAM, port));
	spawn(echo_packets, bound(SOCK_DGRAM, port + ONE));
	spawn(swallow_packets, swallow);
	spawn(tell_count, bound(SOCK_DGRAM, port + ANSWER));
	printf("ready\n");
	fflush(stdout);
	for (;;)
		pause();
}

// ---- The measuring side

static int by_size(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

// Give up on an answer after so many milliseconds.
static void patient(int fd, int milliseconds)
{
	struct timeval wait = { .tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000 };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
}

// A round trip; -1 if the answer did not come in time.
static int trip(int fd, char *byte)
{
	if (send(fd, byte, 1, 0) != 1)
		return -1;
	return recv(fd, byte, 1, 0) == 1 ? 0 : -1;
}

// The median, which one interruption does not move.
static double round_trips(int type, const char *ip, int port, double seconds)
{
	int fd = reached(type, ip, port);
	float *trips = malloc(sizeof(*trips) * MAX_TRIPS);
	double start, last, end;
	uint32_t n = 0;
	char byte = 7;

	come_first();
	patient(fd, 1000);
	for (int i = 0; i < 200; i++)
		if (trip(fd, &byte) && type == SOCK_STREAM)
			die("no answer");
	start = last = now();
	do {
		if (trip(fd, &byte))
			die("no answer");
		end = now();
		trips[n++] = end - last;
		last = end;
	} while (end - start < seconds && n < MAX_TRIPS);
	qsort(trips, n, sizeof(*trips), by_size);
	return trips[n / 2] * 1e6;
}

static double stream(const char *ip, int port, double seconds)
{
	int fd = reached(SOCK_STREAM, ip, port + SWALLOW);
	char *chunk = calloc(1, CHUNK);
	double start = now(), end;
	uint64_t bytes;

	do {
		for (int i = 0; i < 8; i++)
			if (send(fd, chunk, CHUNK, 0) < 0)
				die("send");
		end = now();
	} while (end - start < seconds);
	shutdown(fd, SHUT_WR);
	if (recv(fd, &bytes, sizeof(bytes), MSG_WAITALL) != sizeof(bytes))
		die("no count of bytes");
	return bytes * 8 / (now() - start) / 1e9;
}

static uint64_t ask_count(int fd)
{
	uint64_t n;

	patient(fd, 200);
	for (int i = 0; i < 25; i++)
		if (send(fd, "?", 1, 0) == 1 && recv(fd, &n, sizeof(n), 0) == sizeof(n))
			return n;
	die("no count of packets");
	return 0;
}

static double packets(const char *ip, int port, double seconds)
{
	int fd = reached(SOCK_DGRAM, ip, port + SWALLOW), ask = reached(SOCK_DGRAM, ip, port + ANSWER);
	static char payload[PAYLOAD];
	struct iovec part = { payload, sizeof(payload) };
	struct mmsghdr batch[BATCH] = {};
	double start, end;
	uint64_t before, after;

	for (int i = 0; i < BATCH; i++)
		batch[i].msg_hdr = (struct msghdr){ .msg_iov = &part, .msg_iovlen = 1 };
	patient(fd, 200);
	for (int i = 0; trip(fd, payload); i++)
		if (i == 25)
			die("no answer");
	before = ask_count(ask);
	start = now();
	do {
		for (int i = 0; i < 16; i++)
			if (sendmmsg(fd, batch, BATCH, 0) < 0 && errno != ENOBUFS)
				die("sendmmsg");
		end = now();
	} while (end - start < seconds);
	after = ask_count(ask);
	return (after - before) / (end - start);
}

static double connections(const char *ip, int port, double seconds)
{
	double start = now(), end;
	uint64_t n = 0;
	char byte = 7;

	come_first();
	do {
		int fd = reached(SOCK_STREAM, ip, port + ANSWER + n % ANSWERERS);

		if (trip(fd, &byte))
			die("no answer");
		close(fd);
		n++;
		end = now();
	} while (end - start < seconds);
	return n / (end - start);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	double seconds = argc > 4 ? atof(argv[4]) : 0, result;
	int port;

	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && !strcmp(what, "serve"))
		serve(atoi(argv[2]));
	if (argc != 5) {
		fprintf(stderr, "usage: load serve PORT | load WHAT IP PORT SECONDS\n");
		return 2;
	}
	port = atoi(argv[3]);
	stay_on(0);
	if (!strcmp(what, "tcp_rr"))
		result = round_trips(SOCK_STREAM, argv[2], port + ONE, seconds);
	else if (!strcmp(what, "udp_rr"))
		result = round_trips(SOCK_DGRAM, argv[2], port + ONE, seconds);
	else if (!strcmp(what, "tcp_rr_two"))
		result = round_trips(SOCK_STREAM, argv[2], port, seconds);
	else if (!strcmp(what, "udp_rr_two"))
		result = round_trips(SOCK_DGRAM, argv[2], port, seconds);
	else if (!strcmp(what, "stream"))
		result = stream(argv[2], port, seconds);
	else if (!strcmp(what, "packets"))
		result = packets(argv[2], port, seconds);
	else if (!strcmp(what, "connect"))
		result = connections(argv[2], port, seconds);
	else
		return 2;
	printf("%.6g\n", result);
	return 0;
}
