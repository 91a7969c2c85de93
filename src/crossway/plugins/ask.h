// SPDX-License-Identifier: Apache-2.0
// Ask this host's agent: what the small programs that runtimes start have in common.

#pragma once

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define RUN "/run/crossway"
#define SECONDS 60

struct text {
	char *at;
	size_t size, room;
};

static void add(struct text *text, const char *more, size_t size)
{
	if (text->size + size + 1 > text->room) {
		text->room = 2 * (text->size + size + 1);
		text->at = realloc(text->at, text->room);
		if (!text->at)
			abort();
	}
	memcpy(text->at + text->size, more, size);
	text->size += size;
	text->at[text->size] = 0;
}

static void add_text(struct text *text, const char *more)
{
	add(text, more, strlen(more));
}

static int read_all(int from, struct text *text)
{
	char part[1 << 16];
	ssize_t size;

	while ((size = read(from, part, sizeof(part))) > 0 || (size < 0 && errno == EINTR))
		add(text, part, size > 0 ? (size_t)size : 0);
	return size < 0 ? -errno : 0;
}

static int write_all(int to, const char *at, size_t size)
{
	while (size) {
		ssize_t done = write(to, at, size);

		if (done < 0 && errno != EINTR)
			return -errno;
		if (done > 0) {
			at += done;
			size -= (size_t)done;
		}
	}
	return 0;
}

// POST a call to a route of the agent that listens at a path; the whole answer, with its head.
static int ask(const char *path, const char *route, const struct text *call, struct text *answer)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = SECONDS};
	char head[128];
	int fault, connection;

	if (strlen(path) >= sizeof(to.sun_path))
		return -ENAMETOOLONG;
	strcpy(to.sun_path, path);
	// Who reads no more is told of as a fault, and does not end us.
	signal(SIGPIPE, SIG_IGN);
	connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connection < 0)
		return -errno;
	setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(connection, (struct sockaddr *)&to, sizeof(to)))
		return -errno;
	int size = snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n"
			    "Content-Length: %zu\r\n\r\n", route, call->size);
	if ((fault = write_all(connection, head, (size_t)size)) ||
	    (fault = write_all(connection, call->at, call->size)))
		return fault;
	return read_all(connection, answer);
}
