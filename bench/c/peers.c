/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor: the same work as the library's, bare and in C, as functions that
 * the benchmarks call in their own process, so that both sides have the same
 * memory, descriptors and moment.  Times are in ns per round.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static int64_t now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int child(void *path)
{
    char *const argv[] = {path, NULL};
    char *const envp[] = {NULL};

    (void)execve(path, argv, envp);
    _exit(127);
}

/* clone(VFORK|VM|PIDFD), exec, waitid: rounds times. */
int peer_spawn(char *path, int rounds, int64_t *ns)
{
    static char stack[65536];

    for (int i = 0; i < rounds; i++) {
        int64_t began = now();
        int pidfd = -1;
        siginfo_t info;
        pid_t pid = clone(child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD,
                          path, &pidfd);

        if (pid < 0 || waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0)
            return -1;
        (void)close(pidfd);
        ns[i] = now() - began;
    }
    return 0;
}

/* flock and unlock of an open file, `batch` times a round; ns of one pair. */
int peer_flock(const char *path, int rounds, int batch, int64_t *ns)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return -1;
    for (int i = 0; i < rounds; i++) {
        int64_t began = now();

        for (int j = 0; j < batch; j++)
            if (flock(fd, LOCK_EX) < 0 || flock(fd, LOCK_UN) < 0)
                return -1;
        ns[i] = (now() - began) / batch;
    }
    return close(fd);
}
