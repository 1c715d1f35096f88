#define _GNU_SOURCE
#include "parma.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int signal)
{
    (void)signal;
    _exit(0);
}

/* As the first process of a pid namespace: reaps what others leave behind, ends on SIGTERM or SIGINT. */
noreturn void pause_forever(void)
{
    struct sigaction action = {.sa_handler = leave};
    sigset_t child;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    for (;;) {
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        sigwaitinfo(&child, NULL);
    }
}
