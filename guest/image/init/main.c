/* The utility VM's first program: from the initrd to the agent.
 *
 * Loads the modules that lead to the root, opens the root under dm-verity with the hash on the measured command
 * line, mounts it, and becomes the agent. Called as `pause` it is the first process of a shared pid namespace.
 */
#define _GNU_SOURCE
#include "parma.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOT_DEVICE "/dev/vda"
#define NEW_ROOT "/root"

static void mount_or_fail(const char *what, const char *where, const char *type, unsigned long flags, const char *data)
{
    if (mount(what, where, type, flags, data) != 0)
        fail("cannot mount %s on %s", what, where);
}

/* The value of NAME=VALUE on the kernel's command line, or NULL. The buffer is this function's own. */
static char *command_line(const char *name)
{
    static char line[4096];
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
    if (length < 0)
        fail("cannot read the command line");
    close(fd);
    line[length] = 0;
    for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
        if (strncmp(word, name, strlen(name)) == 0 && word[strlen(name)] == '=')
            return word + strlen(name) + 1;
    errno = 0;
    fail("no %s on the kernel's command line", name);
}

static void open_root(void)
{
    device_wait(ROOT_DEVICE);
    const char *mapped = verity_open(ROOT_DEVICE, command_line("parma.verity"));
    device_wait(mapped);
    mkdir(NEW_ROOT, 0755);
    mount_or_fail(mapped, NEW_ROOT, "erofs", MS_RDONLY | MS_NODEV, NULL);
}

static void enter_root(void)
{
    mount_or_fail("/dev", NEW_ROOT "/dev", NULL, MS_MOVE, NULL);
    mount_or_fail("/proc", NEW_ROOT "/proc", NULL, MS_MOVE, NULL);
    if (chdir(NEW_ROOT) != 0)
        fail("cannot enter the root");
    mount_or_fail(".", "/", NULL, MS_MOVE, NULL);
    if (chroot(".") != 0 || chdir("/") != 0)
        fail("cannot enter the root");
    mount_or_fail("sysfs", "/sys", "sysfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, NULL);
    mount_or_fail("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NODEV | MS_NOSUID | MS_NOEXEC, "nsdelegate");
    mount_or_fail("tmpfs", "/run", "tmpfs", MS_NODEV | MS_NOSUID, "mode=0755");
    mount_or_fail("tmpfs", "/tmp", "tmpfs", MS_NODEV | MS_NOSUID, "mode=1777");
}

/* A child that pulls the files the agent imports through verity while the interpreter starts. The agent reaps it. */
static void prefetch(const char *list)
{
    char path[256];
    if (fork() != 0)
        return;
    FILE *file = fopen(list, "re");
    while (file && fscanf(file, "%255s", path) == 1) {
        struct stat about;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && fstat(fd, &about) == 0)
            readahead(fd, 0, about.st_size);
        close(fd);
    }
    _exit(0);
}

static noreturn void become_agent(void)
{
    char *const arguments[] = {"/usr/bin/python3", "-I", "-S", "/usr/lib/parma/agent.py", NULL};
    char *const environment[] = {"PATH=/usr/sbin:/usr/bin", "HOME=/root", "LANG=C.UTF-8", NULL};
    int nothing = open("/dev/null", O_RDWR), console = open("/dev/console", O_WRONLY | O_NOCTTY);
    dup2(nothing, 0);
    dup2(console >= 0 ? console : nothing, 1);
    dup2(console >= 0 ? console : nothing, 2);
    for (int fd = 3; fd < 16; fd++)
        close(fd);
    execve(arguments[0], arguments, environment);
    fail("cannot start the agent");
}

int main(int count, char **arguments)
{
    const char *name = count > 0 ? strrchr(arguments[0], '/') : NULL;
    name = name ? name + 1 : count > 0 ? arguments[0] : "";
    if (strcmp(name, "pause") == 0)
        pause_forever();
    if (getpid() != 1)
        return 1;
    umask(022);
    mkdir("/proc", 0755);
    mkdir("/dev", 0755);
    mount_or_fail("proc", "/proc", "proc", MS_NODEV | MS_NOSUID | MS_NOEXEC, NULL);
    if (mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755") != 0 && errno != EBUSY)
        fail("cannot mount /dev");
    console_open();
    say("init");
    modules_load("/modules/list");
    open_root();
    say("root is open");
    enter_root();
    prefetch("/etc/prefetch");
    say("starting the agent");
    become_agent();
}
