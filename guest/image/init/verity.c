#define _GNU_SOURCE
#include "parma.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTORS_PER_BLOCK 8 /* 4096 / 512 */

/* One request to /dev/mapper/control: the header, one target and its parameters. */
struct request {
    struct dm_ioctl head;
    struct dm_target_spec target;
    char parameters[1024];
};

static void prepare(struct request *request, unsigned flags)
{
    memset(request, 0, sizeof *request);
    request->head.version[0] = DM_VERSION_MAJOR;
    request->head.data_size = sizeof *request;
    request->head.data_start = sizeof request->head;
    request->head.flags = flags;
    strcpy(request->head.name, "root");
}

void device_wait(const char *path)
{
    struct stat unused;
    for (int tries = 0; tries < 20000; tries++) {
        if (stat(path, &unused) == 0)
            return;
        usleep(500);
    }
    fail("no %s after ten seconds", path);
}

static int is_hex(const char *text, size_t length)
{
    return strlen(text) == length && strspn(text, "0123456789abcdef") == length;
}

const char *verity_open(const char *device, char *parameters)
{
    static struct request request;
    char *end;
    errno = 0;
    unsigned long blocks = strtoul(parameters, &end, 10);
    char *root = strtok(*end == ',' ? end + 1 : NULL, ",");
    char *salt = strtok(NULL, ",");
    if (errno || blocks == 0 || !root || !salt || !is_hex(root, 64) || !is_hex(salt, 64))
        fail("parma.verity is not BLOCKS,ROOT,SALT");

    int control = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
    if (control < 0)
        fail("cannot open /dev/mapper/control");
    prepare(&request, DM_READONLY_FLAG);
    if (ioctl(control, DM_DEV_CREATE, &request) != 0)
        fail("cannot create the root's mapping");
    prepare(&request, DM_READONLY_FLAG);
    request.head.target_count = 1;
    request.target.length = blocks * SECTORS_PER_BLOCK;
    strcpy(request.target.target_type, "verity");
    /* Constants but for size, root and salt. The tree follows the superblock, which follows the data. */
    snprintf(request.parameters, sizeof request.parameters, "1 %s %s 4096 4096 %lu %lu sha256 %s %s", device, device,
             blocks, blocks + 1, root, salt);
    if (ioctl(control, DM_TABLE_LOAD, &request) != 0)
        fail("the kernel refused the root's verity table");
    prepare(&request, 0); /* suspend without its flag: resume */
    if (ioctl(control, DM_DEV_SUSPEND, &request) != 0)
        fail("cannot start the root's mapping");
    close(control);
    return "/dev/dm-0"; /* the first mapping of this kernel */
}
