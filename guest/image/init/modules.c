#define _GNU_SOURCE
#include "parma.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void load_one(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail("cannot open module %s", path);
    if (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST)
        fail("cannot load module %s", path);
    close(fd);
}

static void wait_for(int children)
{
    int status;
    while (children-- > 0) {
        if (wait(&status) < 0 || status != 0) {
            errno = 0;
            fail("a module of the initrd did not load (see above)");
        }
    }
}

/* The list has lines "level path" in ascending order; a module needs lower levels only. Most of a module's time is
 * one CPU's (relocation, signature), so each level is loaded by as many children as it has modules. */
void modules_load(const char *list)
{
    FILE *file = fopen(list, "re");
    char path[256];
    int level, current = -1, children = 0;
    if (!file)
        fail("cannot open %s", list);
    while (fscanf(file, "%d %255s", &level, path) == 2) {
        if (level != current) {
            wait_for(children);
            children = 0;
            current = level;
        }
        pid_t child = fork();
        if (child < 0)
            fail("cannot fork");
        if (child == 0) {
            load_one(path);
            _exit(0);
        }
        children++;
    }
    wait_for(children);
    fclose(file);
}
