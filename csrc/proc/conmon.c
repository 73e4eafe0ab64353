/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handshake, and what holds at each step:
 *
 *  1. Until the byte on the start pipe, conmon has done nothing but read its
 *     options: it is in its cgroups before it forks, so all that it starts is.
 *  2. Our copy of its end of the sync pipe is closed before we wait: an end of
 *     file there means that nobody is left who could answer.  It takes an end of
 *     file on the start pipe for the byte: that nobody may be left who would write
 *     one, what we spawned is killed when the thread that spawned it ends.  The
 *     monitor, its child, is not.
 *  3. The process that we spawned ends when the monitor has forked away and
 *     has written the pid file.  It may end before or after the answer; it is
 *     ours to reap, the monitor is not.
 *  4. A pid from a file is a rumour.  It becomes a process by a pidfd, and the
 *     checks are made after the pidfd is open: from then on the number cannot
 *     be given to anybody else without the pidfd telling.
 */
#include "proc/conmon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define CONMON_SYNC_FD 3
#define CONMON_START_FD 4

static int64_t boot_time_now(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * LP_NS_PER_S + now.tv_nsec;
}

/* --- cgroups ---------------------------------------------------------------- */

/* mkdir -p; only the last components are ever missing. */
static int make_cgroup(const char *directory)
{
    char path[4096];
    size_t length = strlen(directory);

    if (mkdir(directory, 0755) == 0 || errno == EEXIST)
        return 0;
    if (errno != ENOENT || length >= sizeof path)
        return -1;
    memcpy(path, directory, length + 1);
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            return -1;
        *slash = '/';
    }
    return mkdir(directory, 0755) == 0 || errno == EEXIST ? 0 : -1;
}

static int open_in_cgroup(const char *directory, const char *name)
{
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/%s", directory, name);

    if (length < 0 || (size_t)length >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return LP_RETRY(open(path, O_WRONLY | O_CLOEXEC));
}

static int write_pid(int procs_fd, pid_t pid)
{
    char text[16];
    int length = snprintf(text, sizeof text, "%d", (int)pid);

    return LP_RETRY(write(procs_fd, text, (size_t)length)) == length ? 0 : -1;
}

/* Another runtime may remove the empty directory between our two steps; it
 * can do so only as often as it empties it, so a few rounds are enough. */
static int enter_cgroup(const char *directory, pid_t pid, struct lp_error *err)
{
    for (int round = 0; round < 8; round++) {
        LP_CLOSE int procs_fd = open_in_cgroup(directory, "cgroup.procs");

        if (procs_fd >= 0 && write_pid(procs_fd, pid) == 0)
            return LP_OK;
        if (errno != ENOENT && errno != ENODEV)
            break;
        if (make_cgroup(directory) < 0)
            break;
    }
    return lp_fail_errno(err, "cannot move conmon into the cgroup %s", directory);
}

/* Only version 1 has "tasks"; what cannot be opened is entered by us afterwards. */
static struct lp_join *open_joins(const struct lp_conmon_request *request)
{
    struct lp_join *joins = malloc((request->cgroup_count + 1) * sizeof *joins);

    for (size_t i = 0; joins != NULL && i < request->cgroup_count; i++) {
        int fd = open_in_cgroup(request->cgroups[i], "tasks");

        if (fd < 0 && errno == ENOENT && make_cgroup(request->cgroups[i]) == 0)
            fd = open_in_cgroup(request->cgroups[i], "tasks");
        joins[i] = (struct lp_join){.tasks_fd = fd};
    }
    return joins;
}

static void close_joins(struct lp_join *joins, size_t count)
{
    for (size_t i = 0; i < count; i++)
        lp_close_fd(&joins[i].tasks_fd);
    free(joins);
}

/* What conmon did not enter by itself; of what it did, the first is kept for
 * lp_conmon_go(). */
static void enter_others(const struct lp_conmon_request *request, const struct lp_join *joins,
                         struct lp_conmon *c)
{
    for (size_t i = 0; i < request->cgroup_count; i++) {
        struct lp_error failure;

        if (joins[i].tasks_fd >= 0 && joins[i].error == 0) {
            if (c->procs_fd < 0)
                c->procs_fd = open_in_cgroup(request->cgroups[i], "cgroup.procs");
            continue;
        }
        if (enter_cgroup(request->cgroups[i], c->process.pid, &failure) != LP_OK &&
            c->moved.code == LP_OK)
            c->moved = failure;
    }
}

/* --- spawn and start byte ----------------------------------------------------- */

static int spawn_with_pipes(const struct lp_conmon_request *request, struct lp_join *joins,
                            int sync_fd, int start_fd, struct lp_process *process,
                            struct lp_error *err)
{
    struct lp_spawn spawn = request->spawn;
    LP_FREE struct lp_fd_map *fds = malloc((spawn.fd_count + 2) * sizeof *fds);

    if (fds == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory to start %s", spawn.path);
    if (spawn.fd_count > 0)
        memcpy(fds, spawn.fds, spawn.fd_count * sizeof *fds);
    fds[spawn.fd_count] = (struct lp_fd_map){.from = sync_fd, .to = CONMON_SYNC_FD};
    fds[spawn.fd_count + 1] = (struct lp_fd_map){.from = start_fd, .to = CONMON_START_FD};
    spawn.fds = fds;
    spawn.fd_count += 2;
    spawn.flags |= LP_SPAWN_BOUND;
    spawn.joins = joins;
    spawn.join_count = request->cgroup_count;
    return lp_spawn(&spawn, process, err);
}

/* The kernel leaves a program where it was started and wakes its parent there, too: they
 * would take turns on one processor while another one idles, for the milliseconds in which
 * conmon loads.  Only where neither was bound to processors before, so that it is not after. */
static void move_away(pid_t pid)
{
    cpu_set_t others;
    cpu_set_t all;
    unsigned cpu;

    if (sched_getaffinity(0, sizeof others, &others) < 0 || getcpu(&cpu, NULL) < 0 ||
        CPU_COUNT(&others) < 2 || CPU_COUNT(&others) != sysconf(_SC_NPROCESSORS_ONLN))
        return;
    CPU_CLR(cpu, &others);
    memset(&all, 0xff, sizeof all);
    if (sched_setaffinity(pid, sizeof others, &others) == 0)
        (void)sched_setaffinity(pid, sizeof all, &all);
}

static int spawn_in_cgroups(const struct lp_conmon_request *request, int sync_write, int start_read,
                            struct lp_conmon *c, struct lp_error *err)
{
    struct lp_join *joins = open_joins(request);
    int rc;

    if (joins == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory to start %s", request->spawn.path);
    rc = spawn_with_pipes(request, joins, sync_write, start_read, &c->process, err);
    c->pid = c->process.pid;
    if (rc == LP_OK) {
        move_away(c->pid);
        enter_others(request, joins, c);
    }
    close_joins(joins, request->cgroup_count);
    return rc;
}

int lp_conmon_begin(const struct lp_conmon_request *request, struct lp_conmon *c,
                    struct lp_error *err)
{
    int sync[2];
    int rc;

    *c = LP_CONMON_NONE;
    if (pipe2(sync, O_CLOEXEC) < 0)
        return lp_fail_errno(err, "cannot make the sync pipe of conmon");
    LP_CLOSE int sync_write = sync[1];
    c->sync_fd = sync[0];
    if (pipe2(c->start_fds, O_CLOEXEC) < 0) {
        rc = lp_fail_errno(err, "cannot make the start pipe of conmon");
    } else {
        c->started = boot_time_now();
        rc = spawn_in_cgroups(request, sync_write, c->start_fds[0], c, err);
    }
    if (rc != LP_OK)
        lp_conmon_end(c);
    return rc;
}

static void close_start(struct lp_conmon *c)
{
    lp_close_fd(&c->start_fds[0]);
    lp_close_fd(&c->start_fds[1]);
}

/* Whoever moves another process than himself takes the kernel's lock of thread
 * groups, for which it waits an RCU grace period, 5 to 15 ms, unless somebody
 * had it a moment ago.  The OCI runtime will move the container in some
 * milliseconds: so that the grace period goes by until then, conmon is moved to
 * where it is. */
void lp_conmon_go(struct lp_conmon *c)
{
    /* A conmon that died already has closed the pipe; the end of file on the
     * other one will tell.  One byte fits an empty pipe, so this cannot block,
     * and our own read end, still open, keeps it from raising SIGPIPE. */
    (void)LP_RETRY(write(c->start_fds[1], "", 1));
    close_start(c);
    if (c->procs_fd >= 0)
        (void)write_pid(c->procs_fd, c->pid);
    lp_close_fd(&c->procs_fd);
}

/* --- the answer ---------------------------------------------------------------- */

static int await_readable(const struct lp_conmon *c, int64_t deadline, struct lp_error *err)
{
    struct pollfd poller = {.fd = c->sync_fd, .events = POLLIN};
    int ready = poll(&poller, 1, lp_poll_timeout(deadline));

    if (ready > 0)
        return LP_OK;
    if (ready == 0)
        return lp_fail(err, LP_ETIMEOUT, "conmon did not answer in time");
    if (errno == EINTR)
        return lp_fail(err, LP_EINTERRUPTED, "interrupted while waiting for conmon");
    return lp_fail_errno(err, "cannot wait for conmon");
}

int lp_conmon_answer(struct lp_conmon *c, int64_t deadline, struct lp_error *err)
{
    if (c->answer == NULL) {
        c->answer = malloc(LP_CONMON_ANSWER_MAX);
        if (c->answer == NULL)
            return lp_fail(err, LP_ENOMEM, "no memory for conmon's answer");
    }
    for (;;) {
        char *newline = memchr(c->answer, '\n', c->answer_length);
        size_t room = LP_CONMON_ANSWER_MAX - c->answer_length;
        ssize_t got;
        int rc;

        if (newline != NULL || room == 0) {
            if (newline != NULL)
                c->answer_length = (size_t)(newline - c->answer);
            return LP_OK;
        }
        rc = await_readable(c, deadline, err);
        if (rc != LP_OK)
            return rc;
        got = LP_RETRY(read(c->sync_fd, c->answer + c->answer_length, room));
        if (got < 0)
            return lp_fail_errno(err, "cannot read conmon's answer");
        if (got == 0)
            return lp_fail(err, LP_EEOF, "conmon ended before it answered");
        c->answer_length += (size_t)got;
    }
}

void lp_conmon_end(struct lp_conmon *c)
{
    lp_close_fd(&c->sync_fd);
    close_start(c);
    lp_close_fd(&c->procs_fd);
    lp_process_close(&c->process);
    free(c->answer);
    c->answer = NULL;
    c->answer_length = 0;
}

/* --- the monitor ----------------------------------------------------------------- */

/* Reads a small file whole; what does not fit is cut. */
static ssize_t read_small(const char *path, int flags, char *buffer, size_t size)
{
    LP_CLOSE int fd = LP_RETRY(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags));
    size_t length = 0;

    if (fd < 0)
        return -1;
    while (length < size - 1) {
        ssize_t got = LP_RETRY(read(fd, buffer + length, size - 1 - length));

        if (got < 0)
            return -1;
        if (got == 0)
            break;
        length += (size_t)got;
    }
    buffer[length] = '\0';
    return (ssize_t)length;
}

static pid_t parse_pid(const char *text)
{
    char *end;
    long pid = strtol(text, &end, 10);

    return end != text && (*end == '\0' || *end == '\n') && pid > 1 && pid <= INT32_MAX ? (pid_t)pid
                                                                                        : -1;
}

/* Field 22 of /proc/PID/stat; the name in field 2 may hold anything, so the
 * count begins behind its last parenthesis. */
static int read_start_time(pid_t pid, uint64_t *ticks)
{
    char path[64];
    char text[1024];
    char *field;

    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (read_small(path, 0, text, sizeof text) < 0)
        return -1;
    field = strrchr(text, ')');
    for (int number = 2; field != NULL && number < 22; number++)
        field = strchr(field + 1, ' ');
    if (field == NULL) {
        errno = EINVAL;
        return -1;
    }
    *ticks = strtoull(field, NULL, 10);
    return 0;
}

static bool command_line_has(pid_t pid, const char *argument)
{
    char path[64];
    LP_FREE char *text = malloc(LP_CONMON_ANSWER_MAX);
    ssize_t length;

    if (text == NULL)
        return false;
    (void)snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    length = read_small(path, 0, text, LP_CONMON_ANSWER_MAX);
    for (ssize_t at = 0; at < length; at += (ssize_t)strlen(text + at) + 1)
        if (strcmp(text + at, argument) == 0)
            return true;
    return false;
}

int lp_monitor_open(const char *pid_file, const char *id, int64_t not_before,
                    struct lp_process *monitor, uint64_t *start_time, struct lp_error *err)
{
    char text[32];
    long hertz = sysconf(_SC_CLK_TCK);
    struct lp_process found;
    pid_t pid;
    int rc;

    if (read_small(pid_file, O_NOFOLLOW, text, sizeof text) < 0)
        return lp_fail_errno(err, "cannot read conmon's pid file %s", pid_file);
    pid = parse_pid(text);
    if (pid < 0)
        return lp_fail(err, LP_ESTRANGER, "conmon's pid file %s has no pid in it", pid_file);
    rc = lp_process_open(pid, &found, err);
    if (rc != LP_OK)
        return rc;
    LP_CLOSE int pidfd = found.pidfd;
    if (read_start_time(pid, start_time) < 0)
        return lp_fail_errno(err, "cannot see the monitor, process %d", (int)pid);
    /* The start time is cut to a tick. */
    if (not_before > 0 && (int64_t)*start_time + 1 < not_before / (LP_NS_PER_S / hertz))
        return lp_fail(err, LP_ESTRANGER, "process %d is older than its container", (int)found.pid);
    if (!command_line_has(pid, id))
        return lp_fail(err, LP_ESTRANGER, "process %d is not the monitor of %s", (int)pid, id);
    *monitor = (struct lp_process){.pid = pid, .pidfd = lp_steal_fd(&pidfd)};
    return LP_OK;
}
