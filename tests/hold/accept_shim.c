/* Makes accept4(2) fail on the first socket that it is called for: HOLD_ERRNO, HOLD_TIMES times. Loaded into the server by
 * LD_PRELOAD. Says so on standard error, after the first and after the last time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int first = -1;
static int done;

static void say(const char *text)
{
	ssize_t ignored = write(2, text, strlen(text));
	(void)ignored;
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	static int (*next)(int, struct sockaddr *, socklen_t *, int);
	const char *number = getenv("HOLD_ERRNO"), *times = getenv("HOLD_TIMES");
	int none = -1;

	__atomic_compare_exchange_n(&first, &none, fd, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	if (number && times && fd == __atomic_load_n(&first, __ATOMIC_SEQ_CST)) {
		int count = __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
		if (count == 1)
			say("shim: first\n");
		if (count == atoi(times))
			say("shim: last\n");
		if (count <= atoi(times)) {
			errno = atoi(number);
			return -1;
		}
	}
	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "accept4");
	return next(fd, address, length, flags);
}
