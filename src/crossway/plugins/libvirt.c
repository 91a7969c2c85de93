// SPDX-License-Identifier: Apache-2.0
// libvirt's hook for QEMU: hands what libvirtd says of a domain to the agent, and its refusal back.
//
//     crossway-libvirt SOCKET required|optional DOMAIN OPERATION SUB-OPERATION EXTRA < domain.xml
//
// libvirtd waits for it at every turn of every domain, so it is a small static
// program, and a domain whose description does not speak of Crossway costs no
// more than its start. `crossway libvirt install` puts it in place.

#include <stdbool.h>

#include "ask.h"

#define NAMESPACE "urn:crossway:domain:1"

static bool one_of(const char *word, const char *const *words)
{
	while (*words && strcmp(word, *words))
		words++;
	return *words;
}

// What an error is about: the text of "message" in the agent's answer, as far as a log needs it.
static void tell(const char *domain, const char *body)
{
	const char *at = strstr(body, "\"message\":\"");

	fprintf(stderr, "crossway: domain %s: ", domain);
	for (at = at ? at + 11 : body; *at && *at != '"'; at++) {
		if (*at == '\\' && at[1])
			at++;
		fputc(*at, stderr);
	}
	fputc('\n', stderr);
}

int main(int count, char **words)
{
	static const char *const heard[] = {"prepare", "release", "migrate", "restore", "attach", "reconnect", NULL};
	// A domain that libvirtd finds running is ended if its hook fails, and what is over cannot be refused.
	static const char *const told[] = {"reconnect", "release", NULL};
	struct text xml = {0}, call = {0}, answer = {0};
	int fault;

	if (count < 7) {
		fprintf(stderr, "usage: %s SOCKET required|optional DOMAIN OPERATION SUB-OPERATION EXTRA\n", words[0]);
		return 2;
	}
	const char *socket = words[1], *domain = words[3], *operation = words[4];
	bool optional = !strcmp(words[2], "optional");

	add_text(&xml, "");
	add_text(&answer, "");
	if (!one_of(operation, heard))
		return 0;
	int refused = one_of(operation, told) ? 0 : 1;
	if ((fault = read_all(STDIN_FILENO, &xml))) {
		fprintf(stderr, "crossway: domain %s: cannot read its description: %s\n", domain, strerror(-fault));
		return refused;
	}
	if (!strstr(xml.at, NAMESPACE))
		return 0;
	for (int word = 3; word < 7; word++)
		add(&call, words[word], strlen(words[word]) + 1);
	add(&call, "", 1);
	add(&call, xml.at, xml.size);
	fault = ask(socket, "/v1/libvirt", &call, &answer);
	char *body = strstr(answer.at, "\r\n\r\n");
	if (fault || !body || strncmp(answer.at, "HTTP/1.1 ", 9)) {
		fprintf(stderr, "crossway: domain %s: the agent does not answer at %s: %s\n", domain, socket,
			fault ? strerror(-fault) : "it ended the connection");
		return optional ? 0 : refused;
	}
	if (!strncmp(answer.at + 9, "200", 3))
		return 0;
	tell(domain, body + 4);
	return refused;
}
