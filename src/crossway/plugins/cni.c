// SPDX-License-Identifier: Apache-2.0
// The CNI executable: hands what the runtime says to the agent, and the agent's answer back.
//
// A runtime waits for it at every start of a pod, so it is a small static
// program: an interpreter took 15 ms to start, this takes less than one. It
// understands no more of the configuration than it must: all else is the
// agent's. Installed as `crossway-cni`.

#include <stdbool.h>

#include "ask.h"

#define NEWEST "1.1.0"
#define SUPPORTED "\"0.4.0\",\"1.0.0\",\"1.1.0\""

// Codes of the specification.
enum { DECODE = 6, CONFIG = 7, AGAIN = 11, UNAVAILABLE = 50 };

extern char **environ;

// As the inside of a JSON string. What is no ASCII is handed on as it is.
static void add_quoted(struct text *text, const char *more)
{
	char code[8];

	for (; *more; more++) {
		if (*more == '"' || *more == '\\')
			add(text, "\\", 1);
		if ((unsigned char)*more < ' ')
			add(text, code, (size_t)snprintf(code, sizeof(code), "\\u%04x", *more));
		else
			add(text, more, 1);
	}
}

// The end of the string that begins at the quotation mark *at*: its other quotation mark, or NULL.
static const char *string_end(const char *at)
{
	for (at++; *at; at++) {
		if (*at == '"')
			return at;
		if (*at == '\\' && !*++at)
			return NULL;
	}
	return NULL;
}

// What stands between quotation marks, its escapes resolved.
static void add_unquoted(struct text *text, const char *at, const char *end)
{
	static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
	unsigned int code;

	for (; at < end; at++) {
		const char *name = at[0] == '\\' ? strchr(names, at[1]) : NULL;

		if (name) {
			add(text, &meant[name - names], 1);
			at++;
		} else if (at[0] == '\\' && end - at >= 6 && sscanf(at, "\\u%4x", &code) == 1) {
			if (code >= 0x800)
				add(text, (char[]){(char)(0xe0 | code >> 12), (char)(0x80 | (code >> 6 & 63))}, 2);
			else if (code >= 0x80)
				add(text, (char[]){(char)(0xc0 | code >> 6)}, 1);
			add(text, (char[]){(char)(code >= 0x80 ? 0x80 | (code & 63) : code)}, 1);
			at += 5;
		} else {
			add(text, at, 1);
		}
	}
}

// The text of a key of the outermost object; false if that has none, or it is no text.
static bool find(const char *json, const char *key, struct text *found)
{
	size_t length = strlen(key);
	int depth = 0;

	for (const char *at = json, *end; *at; at++) {
		if (*at == '{' || *at == '[')
			depth++;
		if (*at == '}' || *at == ']')
			depth--;
		if (*at != '"')
			continue;
		if (!(end = string_end(at)))
			return false;
		bool named = depth == 1 && (size_t)(end - at - 1) == length && !memcmp(at + 1, key, length);
		const char *next = end + 1 + strspn(end + 1, " \t\r\n");
		at = end;
		if (!named || *next != ':')
			continue;
		next++;
		next += strspn(next, " \t\r\n");
		if (*next != '"' || !(end = string_end(next)))
			return false;
		found->size = 0;
		add(found, "", 0);
		add_unquoted(found, next + 1, end);
		return true;
	}
	return false;
}

static bool is_object(const char *json)
{
	const char *end = json + strlen(json);

	json += strspn(json, " \t\r\n");
	while (end > json && strchr(" \t\r\n", end[-1]))
		end--;
	return end - json >= 2 && *json == '{' && end[-1] == '}';
}

// The answer to VERSION and the faults are of the version that the configuration says.
static void add_version(struct text *out, const char *conf)
{
	struct text version = {0};

	add_text(out, "\"cniVersion\":\"");
	add_quoted(out, find(conf, "cniVersion", &version) ? version.at : NEWEST);
	add_text(out, "\"");
}

static int fail(const char *conf, int code, const char *message, const char *about, const char *details)
{
	struct text out = {0};
	char number[32];

	snprintf(number, sizeof(number), "{\"code\":%d,\"msg\":\"", code);
	add_text(&out, number);
	add_quoted(&out, message);
	add_quoted(&out, about);
	add_text(&out, "\",\"details\":\"");
	add_quoted(&out, details);
	add_text(&out, "\",");
	add_version(&out, conf);
	add_text(&out, "}\n");
	write_all(STDOUT_FILENO, out.at, out.size);
	return 1;
}

// What VERSION is answered, for which no agent is needed.
static int versions(const char *conf)
{
	struct text out = {0};

	if (*conf && !is_object(conf))
		return fail("", DECODE, "cannot decode the configuration", "", "it is no object");
	add_text(&out, "{");
	add_version(&out, conf);
	add_text(&out, ",\"supportedVersions\":[" SUPPORTED "]}\n");
	return write_all(STDOUT_FILENO, out.at, out.size) ? 1 : 0;
}

// The variables of the call, a zero byte after each, one more, and the configuration.
static void add_call(struct text *call, const struct text *conf)
{
	char here[4096];

	for (char **variable = environ; *variable; variable++) {
		const char *value = *variable;

		if (strncmp(value, "CNI_", 4))
			continue;
		if (!strncmp(value, "CNI_NETNS=", 10) && value[10] && value[10] != '/' && getcwd(here, sizeof(here))) {
			// Relative to where the runtime stands, which the agent does not know.
			add(call, value, 10);
			add_text(call, here);
			add_text(call, "/");
			value += 10;
		}
		add(call, value, strlen(value) + 1);
	}
	add(call, "", 1);
	add(call, conf->at, conf->size);
}

int main(void)
{
	const char *command = getenv("CNI_COMMAND"), *run = getenv("CROSSWAY_RUN");
	struct text conf = {0}, path = {0}, call = {0}, answer = {0};
	int fault;

	add_text(&conf, "");
	add_text(&answer, "");
	if ((fault = read_all(STDIN_FILENO, &conf)))
		return fail("", DECODE, "cannot read the configuration", "", strerror(-fault));
	if (command && !strcmp(command, "VERSION"))
		return versions(conf.at);
	if (!find(conf.at, "agent", &path) || !path.size) {
		path.size = 0;
		add_text(&path, run && *run ? run : RUN);
		add_text(&path, "/agent.sock");
	}
	// Of STATUS and of the rest: not available, and try again later.
	int code = command && !strcmp(command, "STATUS") ? UNAVAILABLE : AGAIN;
	add_call(&call, &conf);
	if ((fault = ask(path.at, "/v1/cni", &call, &answer)))
		return fail(conf.at, code, "the agent does not answer at ", path.at, strerror(-fault));
	char *body = strstr(answer.at, "\r\n\r\n");
	if (!body || strncmp(answer.at, "HTTP/1.1 ", 9))
		return fail(conf.at, code, "the agent does not answer at ", path.at, "it ended the connection");
	body += 4;
	if (!strncmp(answer.at + 9, "413", 3)) // another time it would be as large
		return fail(conf.at, CONFIG, "the configuration is too large: ", body, "");
	if (strncmp(answer.at + 9, "200", 3))
		return fail(conf.at, AGAIN, "the agent answered: ", body, "");
	if (!strcmp(body, "null")) // nothing to say
		return 0;
	add(&answer, "\n", 1);
	body = strstr(answer.at, "\r\n\r\n") + 4;
	if (write_all(STDOUT_FILENO, body, strlen(body)))
		return 1;
	return strncmp(body, "{\"code\":", 8) ? 0 : 1;
}
