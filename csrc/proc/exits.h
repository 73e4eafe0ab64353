/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seeing containers end: one inotify on the directory of exit files and one
 * epoll for it and for every monitor's pidfd, for all containers of a process.
 *
 * conmon renames an exit file into the directory when it has drained the
 * container's streams; from then on the exit is final.  A monitor that ends
 * without one is told too, so that nobody waits for ever.
 *
 * Threads: wait in one thread; watch, wake and read from any.
 */
#ifndef LP_PROC_EXITS_H
#define LP_PROC_EXITS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    LP_ENOEXIT = -204,  /* there is no exit file (yet) */
    LP_EBADEXIT = -205, /* there is one, but it holds no exit code */
};

enum lp_exit_kind {
    LP_EXIT_FILE,    /* the exit file `name` appeared */
    LP_EXIT_MONITOR, /* the monitor watched as `token` ended; it is no longer watched */
    LP_EXIT_RESCAN,  /* events were lost, or the directory went: look at every container */
    LP_EXIT_WAKE,    /* lp_exits_wake() was called */
};

struct lp_exit_event {
    enum lp_exit_kind kind;
    uint64_t token;
    char name[256];
};

struct lp_exits {
    int directory; /* O_PATH, of the exit files */
    int inotify;
    int wake;
    int epoll; /* readable when there is something to wait for */
};

#define LP_EXITS_NONE ((struct lp_exits){.directory = -1, .inotify = -1, .wake = -1, .epoll = -1})

/* As many events as one wait can yield. */
#define LP_EXITS_BATCH 64

/* Begins to watch `path`, a directory.  Exit files that are there already are
 * not told: read them after this returned.  Errors: LP_ESYSTEM. */
int lp_exits_open(const char *path, struct lp_exits *exits, struct lp_error *err);

void lp_exits_close(struct lp_exits *exits);

/* Tells when the process behind `pidfd` ends, once.  The descriptor stays the
 * caller's and must be forgotten before it is closed. */
int lp_exits_watch(struct lp_exits *exits, int pidfd, uint64_t token, struct lp_error *err);

void lp_exits_forget(struct lp_exits *exits, int pidfd);

/* Makes the wait return.  Safe in a signal handler. */
void lp_exits_wake(struct lp_exits *exits);

/* Returns the number of events put into `events`, which has room for
 * LP_EXITS_BATCH, or LP_ETIMEOUT, LP_EINTERRUPTED, LP_ESYSTEM. */
int lp_exits_wait(struct lp_exits *exits, int64_t deadline, struct lp_exit_event *events,
                  struct lp_error *err);

/* Reads the exit file of a container: its code (0 to 255, or -1) and the time
 * at which it became final, in ns since the epoch.  Errors: LP_ENOEXIT,
 * LP_EBADEXIT, LP_ESYSTEM. */
int lp_exits_read(const struct lp_exits *exits, const char *id, int *code, int64_t *finished,
                  struct lp_error *err);

/* Removes the exit file of a container; it need not exist. */
int lp_exits_remove(const struct lp_exits *exits, const char *id, struct lp_error *err);

#endif
