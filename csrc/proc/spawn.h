/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a program and waiting for it, without a window for a race.
 *
 * The child is made by glibc's clone() with CLONE_PIDFD, CLONE_VM and
 * CLONE_VFORK on a stack of its own: its cost does not grow with the caller's
 * memory, a failed exec is reported with its errno, and the process is known
 * by a descriptor from its first moment on, so that no recycled pid is ever
 * waited for or signalled.  On a kernel without CLONE_PIDFD (before 5.2) the
 * descriptor comes from pidfd_open(), safe as long as the caller does not
 * reap; without that (before 5.3) `pidfd` is -1 and the pid alone is used.
 *
 * Threads: every function may be called from any thread at any time.
 */
#ifndef LP_PROC_SPAWN_H
#define LP_PROC_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

enum {
    LP_ESPAWN = -200,  /* the program could not be executed; sys_errno says why */
    LP_EREAPED = -201, /* somebody else in this process took the exit status */
};

enum {
    LP_SPAWN_SESSION = 1, /* the child leads a session of its own */
    LP_SPAWN_GROUP = 2,   /* the child leads a process group of its own */
    LP_SPAWN_BOUND = 4, /* the child is killed when the calling thread ends; its children are not */
};

struct lp_fd_map {
    int from; /* a descriptor of the caller; stays open there */
    int to;   /* its number in the child, there without close-on-exec */
};

/* A version 1 cgroup that the child enters by itself before it executes: a task
 * that moves itself goes at once, whoever moves another process waits for an RCU
 * grace period, 5 to 15 ms. */
struct lp_join {
    int tasks_fd; /* its "tasks" file, open for writing; -1: none */
    int error;    /* out: the errno of the child's attempt, or 0 */
};

/* What to start.  Everything is borrowed for the length of the call. */
struct lp_spawn {
    const char *path;  /* executed as it is: no search in PATH */
    char *const *argv; /* ends with NULL */
    char *const *envp; /* ends with NULL; the whole environment */
    const char *cwd;   /* NULL: the caller's */
    const struct lp_fd_map *fds;
    size_t fd_count;       /* 0, 1 and 2 are /dev/null unless mapped */
    unsigned flags;        /* LP_SPAWN_* */
    struct lp_join *joins; /* one that fails is told there and fails nothing */
    size_t join_count;
};

/* A process; owned by whoever holds it, released by lp_process_close(). */
struct lp_process {
    pid_t pid;
    int pidfd; /* close-on-exec, or -1 */
};

#define LP_PROCESS_NONE ((struct lp_process){.pid = -1, .pidfd = -1})

/* Starts a child.  It gets the named descriptors and no other, default signal
 * handlers and an empty signal mask.  On failure nothing is left: no process,
 * no zombie, no descriptor.  Errors: LP_ESPAWN (exec or a step just before it),
 * LP_ESYSTEM and LP_ENOMEM (the process could not be made), LP_EINVALID. */
int lp_spawn(const struct lp_spawn *request, struct lp_process *process, struct lp_error *err);

/* Waits until a child of the caller has ended and reaps it.  *code becomes its
 * exit code, or minus the signal that ended it.  Errors: LP_ETIMEOUT,
 * LP_EINTERRUPTED (neither changes anything), LP_EREAPED. */
int lp_process_wait(const struct lp_process *process, int64_t deadline, int *code,
                    struct lp_error *err);

/* Sends a signal through the pidfd, or to the pid where there is none.  The
 * error of a process that is gone, or was closed, is LP_ESYSTEM with ESRCH. */
int lp_process_signal(const struct lp_process *process, int signal_number, struct lp_error *err);

/* Opens a process that need not be our child; on a kernel without pidfds only
 * the number is kept.  The error of a process that is gone is LP_ESYSTEM with
 * ESRCH. */
int lp_process_open(pid_t pid, struct lp_process *process, struct lp_error *err);

/* Waits until a process, ours or not, has ended; does not reap it.  Errors:
 * LP_ETIMEOUT, LP_EINTERRUPTED. */
int lp_process_ended(const struct lp_process *process, int64_t deadline, struct lp_error *err);

/* Closes the descriptor; the process goes on.  What was closed can be neither
 * signalled nor waited for: its number may be another's by then. */
void lp_process_close(struct lp_process *process);

#endif
