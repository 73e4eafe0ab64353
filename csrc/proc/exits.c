/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exit watching.
 *
 *  1. The watch is set before anybody reads an exit file, so a file appears
 *     either in that reading or in an event, never in neither.
 *  2. A full kernel queue loses names, not the fact: LP_EXIT_RESCAN.
 *  3. A monitor is watched with EPOLLONESHOT: a dead one is told once and does
 *     not keep the epoll ready.
 *  4. One read of inotify is never larger than what one batch of events can
 *     carry, so no event is kept between two waits.
 *  5. An exit file is written by conmon, but lies in a directory that others
 *     may have been given: it is opened without following links or blocking,
 *     must be regular, and its size and content are checked.
 */
#include "proc/exits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* epoll tokens of our own descriptors; containers count upwards from 0 */
#define TOKEN_INOTIFY UINT64_MAX
#define TOKEN_WAKE (UINT64_MAX - 1)

/* The names of up to LP_EXITS_BATCH / 2 files; the other half of a batch is
 * for monitors and the rest. */
#define EXITS_MONITORS (LP_EXITS_BATCH / 2)
#define EXITS_BUFFER ((LP_EXITS_BATCH / 2) * sizeof(struct inotify_event))

static int add_to_epoll(int epoll, int fd, uint32_t how, uint64_t token)
{
    struct epoll_event event = {.events = EPOLLIN | how, .data.u64 = token};

    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

int lp_exits_open(const char *path, struct lp_exits *exits, struct lp_error *err)
{
    LP_CLOSE int directory = LP_RETRY(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
    LP_CLOSE int inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    LP_CLOSE int wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    LP_CLOSE int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (directory < 0 || inotify < 0 || wake < 0 || epoll < 0)
        return lp_fail_errno(err, "cannot prepare to watch the exit directory %s", path);
    if (inotify_add_watch(inotify, path, IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR) <
        0)
        return lp_fail_errno(err, "cannot watch the exit directory %s", path);
    if (add_to_epoll(epoll, inotify, 0, TOKEN_INOTIFY) < 0 ||
        add_to_epoll(epoll, wake, 0, TOKEN_WAKE) < 0)
        return lp_fail_errno(err, "cannot wait for the exit directory %s", path);
    *exits = (struct lp_exits){.directory = lp_steal_fd(&directory),
                               .inotify = lp_steal_fd(&inotify),
                               .wake = lp_steal_fd(&wake),
                               .epoll = lp_steal_fd(&epoll)};
    return LP_OK;
}

void lp_exits_close(struct lp_exits *exits)
{
    lp_close_fd(&exits->epoll);
    lp_close_fd(&exits->wake);
    lp_close_fd(&exits->inotify);
    lp_close_fd(&exits->directory);
}

int lp_exits_watch(struct lp_exits *exits, int pidfd, uint64_t token, struct lp_error *err)
{
    if (add_to_epoll(exits->epoll, pidfd, EPOLLONESHOT, token) < 0)
        return lp_fail_errno(err, "cannot watch a monitor");
    return LP_OK;
}

void lp_exits_forget(struct lp_exits *exits, int pidfd)
{
    (void)epoll_ctl(exits->epoll, EPOLL_CTL_DEL, pidfd, NULL);
}

void lp_exits_wake(struct lp_exits *exits)
{
    uint64_t one = 1;
    int saved = errno;

    (void)LP_RETRY(write(exits->wake, &one, sizeof one)); /* full means woken already */
    errno = saved;
}

static int told(struct lp_exit_event *events, int count, enum lp_exit_kind kind, uint64_t token)
{
    events[count].kind = kind;
    events[count].token = token;
    events[count].name[0] = '\0';
    return count + 1;
}

static int read_names(const struct lp_exits *exits, struct lp_exit_event *events, int count)
{
    /* Room for one event with the longest name, and no more than the batch. */
    _Alignas(struct inotify_event) char buffer[EXITS_BUFFER + 256];
    ssize_t got = LP_RETRY(read(exits->inotify, buffer, sizeof buffer));
    bool lost = false;

    for (ssize_t at = 0; at < got;) {
        const struct inotify_event *event = (const void *)(buffer + at);

        at += (ssize_t)(sizeof *event + event->len);
        if ((event->mask & IN_MOVED_TO) != 0 && event->len > 0 && count < LP_EXITS_BATCH - 1) {
            size_t length = strnlen(event->name, sizeof events->name - 1);

            memcpy(events[count].name, event->name, length);
            events[count].name[length] = '\0';
            events[count].kind = LP_EXIT_FILE;
            events[count].token = 0;
            count++;
        } else {
            lost = true;
        }
    }
    return lost ? told(events, count, LP_EXIT_RESCAN, 0) : count;
}

int lp_exits_wait(struct lp_exits *exits, int64_t deadline, struct lp_exit_event *events,
                  struct lp_error *err)
{
    struct epoll_event ready[EXITS_MONITORS];
    int count = 0;
    int got = epoll_wait(exits->epoll, ready, EXITS_MONITORS, lp_poll_timeout(deadline));
    bool names = false;

    if (got < 0 && errno == EINTR)
        return lp_fail(err, LP_EINTERRUPTED, "interrupted while waiting for containers");
    if (got < 0)
        return lp_fail_errno(err, "cannot wait for containers");
    if (got == 0)
        return lp_fail(err, LP_ETIMEOUT, "no container ended in time");
    for (int i = 0; i < got; i++) {
        uint64_t drained;

        if (ready[i].data.u64 == TOKEN_INOTIFY) {
            names = true;
        } else if (ready[i].data.u64 == TOKEN_WAKE) {
            (void)LP_RETRY(read(exits->wake, &drained, sizeof drained));
            count = told(events, count, LP_EXIT_WAKE, 0);
        } else {
            count = told(events, count, LP_EXIT_MONITOR, ready[i].data.u64);
        }
    }
    return names ? read_names(exits, events, count) : count;
}

/* A decimal number and at most a newline, which conmon does not write. */
static int parse_code(const char *text, size_t length, int *code)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (end == text || strchr("-0123456789", text[0]) == NULL || value < -1 || value > 255)
        return -1;
    if (*end == '\n')
        end++;
    if (end != text + length)
        return -1;
    *code = (int)value;
    return 0;
}

int lp_exits_read(const struct lp_exits *exits, const char *id, int *code, int64_t *finished,
                  struct lp_error *err)
{
    char text[16];
    struct stat st;
    ssize_t got;
    LP_CLOSE int fd = LP_RETRY(
        openat(exits->directory, id, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));

    if (fd < 0 && errno == ENOENT)
        return lp_fail(err, LP_ENOEXIT, "container %s has no exit file", id);
    if (fd < 0 && (errno == ELOOP || errno == ENXIO))
        return lp_fail(err, LP_EBADEXIT, "the exit file of container %s is not a file", id);
    if (fd < 0 || fstat(fd, &st) < 0)
        return lp_fail_errno(err, "cannot open the exit file of container %s", id);
    if (!S_ISREG(st.st_mode))
        return lp_fail(err, LP_EBADEXIT, "the exit file of container %s is not a file", id);
    got = LP_RETRY(read(fd, text, sizeof text - 1));
    if (got < 0)
        return lp_fail_errno(err, "cannot read the exit file of container %s", id);
    text[got] = '\0';
    if (got == sizeof text - 1 || parse_code(text, (size_t)got, code) < 0)
        return lp_fail(err, LP_EBADEXIT, "the exit file of container %s holds no exit code", id);
    *finished = (int64_t)st.st_ctim.tv_sec * LP_NS_PER_S + st.st_ctim.tv_nsec;
    return LP_OK;
}

int lp_exits_remove(const struct lp_exits *exits, const char *id, struct lp_error *err)
{
    if (unlinkat(exits->directory, id, 0) < 0 && errno != ENOENT)
        return lp_fail_errno(err, "cannot remove the exit file of container %s", id);
    return LP_OK;
}
