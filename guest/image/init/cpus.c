/* Brings up the processors that `maxcpus=1` left out.
 *
 * The kernel patches its own code while it starts (static branches). Under QEMU's multi-threaded emulation a second
 * processor can run a stale translation of such a place, with the breakpoint still in it, and the kernel panics
 * ("Oops: int3") in about one boot of a hundred. So the stub image's kernel starts on one processor and gets the
 * others here, when that is over.
 */
#define _GNU_SOURCE
#include "parma.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define SYS "/sys"

void cpus_bring_up(void)
{
    mkdir(SYS, 0755);
    if (mount("sysfs", SYS, "sysfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, NULL) != 0)
        fail("cannot mount " SYS);
    for (int number = 1;; number++) {
        char path[64];
        snprintf(path, sizeof path, SYS "/devices/system/cpu/cpu%d/online", number);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
            break;
        if (write(fd, "1", 1) != 1)
            say("processor %d stays away", number);
        close(fd);
    }
    umount2(SYS, MNT_DETACH);
}
