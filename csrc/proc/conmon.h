/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handshake with conmon, the monitor that holds a container's streams,
 * log and exit code.
 *
 *   lp_conmon_begin   spawns conmon and sees it into its cgroups; it loads, and
 *                     waits for a byte on its start pipe
 *   lp_conmon_go      writes the byte: what conmon and the runtime read is there
 *   lp_conmon_answer  reads the one line that conmon writes on its sync pipe
 *                     when the OCI runtime has created the container, or not
 *   lp_monitor_open   finds the monitor proper: conmon forks away from the
 *                     process that was spawned, so it is found by its pid file
 *   lp_conmon_end     releases what the handshake holds
 *
 * conmon finds the pipes by the environment: _OCI_SYNCPIPE=3 and
 * _OCI_STARTPIPE=4, which the caller puts into envp.
 *
 * Threads: one handshake belongs to one thread at a time.
 */
#ifndef LP_PROC_CONMON_H
#define LP_PROC_CONMON_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "proc/spawn.h"

enum {
    LP_EEOF = -202,      /* conmon closed its sync pipe without an answer */
    LP_ESTRANGER = -203, /* the pid file names a process that is not this monitor */
};

/* Longer answers are cut: the runtime's message inside is bounded anyway. */
#define LP_CONMON_ANSWER_MAX ((size_t)64 * 1024)

struct lp_conmon_request {
    struct lp_spawn spawn;      /* its fds must leave 3 and 4 free */
    const char *const *cgroups; /* directories, made here where they are missing */
    size_t cgroup_count;
};

struct lp_conmon {
    struct lp_process process; /* what was spawned: it ends when the monitor has forked */
    pid_t pid;                 /* its number, also where somebody took over the process */
    int sync_fd;
    int start_fds[2];      /* both ends of the start pipe, until conmon may go on */
    int procs_fd;          /* cgroup.procs of a version 1 cgroup that it is in, or -1 */
    int64_t started;       /* CLOCK_BOOTTIME in ns, before the spawn */
    struct lp_error moved; /* the first cgroup that could not be entered; code 0: all were */
    char *answer;          /* answer_length bytes, without the newline */
    size_t answer_length;
};

#define LP_CONMON_NONE                                                                             \
    ((struct lp_conmon){                                                                           \
        .process = LP_PROCESS_NONE, .sync_fd = -1, .start_fds = {-1, -1}, .procs_fd = -1})

/* Spawns conmon.  A cgroup that refuses is told in c->moved and is no failure:
 * the container's own limits do not depend on it.  Errors: as lp_spawn(); then
 * nothing is left.  Whoever does not let it go kills it: it takes the end of
 * its start pipe for the byte. */
int lp_conmon_begin(const struct lp_conmon_request *request, struct lp_conmon *c,
                    struct lp_error *err);

/* Lets conmon go on.  Takes as long as the kernel needs to move a process, some
 * milliseconds, which conmon uses. */
void lp_conmon_go(struct lp_conmon *c);

/* Waits for the answer: c->answer is then one line, not yet looked at.
 * Errors: LP_ETIMEOUT and LP_EINTERRUPTED (call again), LP_EEOF (c->answer has
 * what came without a newline), LP_ENOMEM. */
int lp_conmon_answer(struct lp_conmon *c, int64_t deadline, struct lp_error *err);

/* Opens the monitor that wrote `pid_file`.  It must have `id` as an argument
 * and must not have started before `not_before` (CLOCK_BOOTTIME in ns; 0: any
 * time), or the pid was recycled: LP_ESTRANGER.  *start_time is its start in
 * clock ticks since boot, which with the pid names it for ever. */
int lp_monitor_open(const char *pid_file, const char *id, int64_t not_before,
                    struct lp_process *monitor, uint64_t *start_time, struct lp_error *err);

void lp_conmon_end(struct lp_conmon *c);

#endif
