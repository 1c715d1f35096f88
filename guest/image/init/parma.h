/* The parts of the guest's first program. Freestanding of everything but libc: no shell, no library. */
#ifndef PARMA_INIT_H
#define PARMA_INIT_H

#include <stdnoreturn.h>

/* console.c: what the host reads on the serial console. */
void console_open(void);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints what failed, with errno, and powers the machine off: there is nothing to fall back to. */
noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));


/* modules.c: loads the initrd's kernel modules, those of one level at the same time. */
void modules_load(const char *list);

/* verity.c: makes the read-only mapping that `parma.verity=BLOCKS,ROOT,SALT` describes; its node's path. */
const char *verity_open(const char *device, char *parameters);
/* Waits until the kernel has made a device node; fails after ten seconds. */
void device_wait(const char *path);

/* pause.c: the first process of a shared pid namespace. */
noreturn void pause_forever(void);

#endif
