#define _GNU_SOURCE
#include "parma.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

static int console = 2;

void console_open(void)
{
    int fd = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0)
        console = fd;
}

static void print(const char *format, va_list arguments, const char *reason)
{
    struct timespec now;
    char line[512];
    clock_gettime(CLOCK_BOOTTIME, &now);
    int length = snprintf(line, sizeof line, "parma-init: %ld.%03ld ", (long)now.tv_sec, now.tv_nsec / 1000000);
    length += vsnprintf(line + length, sizeof line - 128 - length, format, arguments);
    if (length > (int)sizeof line - 128)
        length = sizeof line - 128;
    length += snprintf(line + length, sizeof line - length, "%s%s\n", reason ? ": " : "", reason ? reason : "");
    if (write(console, line, length) < 0)
        return; /* no console: nobody to tell */
}

void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print(format, arguments, NULL);
    va_end(arguments);
}

noreturn void fail(const char *format, ...)
{
    va_list arguments;
    int error = errno;
    va_start(arguments, format);
    print(format, arguments, error ? strerror(error) : "refused");
    va_end(arguments);
    if (getpid() != 1)
        _exit(1);
    say("powering off");
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}
