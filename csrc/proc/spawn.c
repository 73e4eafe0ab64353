/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spawning: what parent and child may do, and when.
 *
 * Between clone() and exec the child runs in the parent's memory, on a stack
 * of its own, while the calling thread sleeps (CLONE_VFORK) and every other
 * thread goes on.  Hence:
 *
 *  1. All signals, the C library's own two included, are blocked in the
 *     calling thread from before clone() until after it: no handler of the
 *     parent ever runs in the child.  The child resets every disposition
 *     before it unblocks.
 *  2. The child makes system calls only: no allocation, no locks, no stdio.
 *     What it needs is prepared by the parent in `struct plan`.
 *  3. The child writes to nothing but its stack, plan->step, plan->error and
 *     the joins' errors; the parent reads these after clone() has returned,
 *     that is, after the child's exec or _exit.
 *  4. The descriptors are moved in two steps: first every source is duplicated
 *     above all targets, then each is put on its target.  No source can be
 *     overwritten by an earlier target.
 *  5. A child that failed is reaped here, so a failure leaves no zombie.
 */
#include "proc/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/failpoint.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#define SPAWN_STACK ((size_t)64 * 1024)
#define SPAWN_SIGSET_BYTES ((size_t)8) /* the kernel's sigset_t: 64 signals */
#define SPAWN_FDS_MAX ((size_t)4096)

enum step {
    STEP_NONE,
    STEP_SESSION,
    STEP_CWD,
    STEP_FDS,
    STEP_CLOSE,
    STEP_EXEC,
};

static const char *const step_names[] = {
    [STEP_NONE] = "start",
    [STEP_SESSION] = "make a session for",
    [STEP_CWD] = "enter the working directory of",
    [STEP_FDS] = "pass descriptors to",
    [STEP_CLOSE] = "close the descriptors of",
    [STEP_EXEC] = "execute",
};

struct plan {
    const struct lp_spawn *request;
    pid_t caller;
    struct lp_fd_map *moves; /* targets ascending; the child parks `from` here */
    size_t move_count;
    int closed_above; /* the highest target */
    enum step step;
    int error;
};

/* --- in the child: system calls only (invariant 2) ------------------------ */

static int child_reset_signals(void)
{
    static const unsigned char none[SPAWN_SIGSET_BYTES];
    /* The kernel's struct sigaction in any of its layouts: all zero is SIG_DFL.
     * The C library's function would refuse the two signals that it keeps for
     * itself, which whoever started us may have had ignored. */
    static const unsigned char by_default[64];

    for (int number = 1; number <= 64; number++)
        (void)syscall(SYS_rt_sigaction, number, by_default, NULL, SPAWN_SIGSET_BYTES);
    return (int)syscall(SYS_rt_sigprocmask, SIG_SETMASK, none, NULL, SPAWN_SIGSET_BYTES);
}

static int child_move_fds(struct plan *plan)
{
    int above = plan->closed_above + 1;
    int null_fd = -1;

    for (size_t i = 0; i < plan->move_count; i++) {
        int from = plan->moves[i].from;

        if (from < 0) { /* one of 0, 1, 2 that nobody mapped */
            if (null_fd < 0)
                null_fd = LP_RETRY(open("/dev/null", O_RDWR | O_CLOEXEC));
            if (null_fd < 0)
                return -1;
            from = null_fd;
        }
        plan->moves[i].from = fcntl(from, F_DUPFD_CLOEXEC, above);
        if (plan->moves[i].from < 0)
            return -1;
    }
    for (size_t i = 0; i < plan->move_count; i++)
        if (LP_RETRY(dup2(plan->moves[i].from, plan->moves[i].to)) < 0)
            return -1;
    return 0;
}

struct dirent64_record { /* as getdents64() writes it */
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

static int child_parse_fd(const char *name)
{
    int fd = 0;

    if (*name < '0' || *name > '9')
        return -1;
    for (; *name >= '0' && *name <= '9'; name++)
        fd = fd * 10 + (*name - '0');
    return fd;
}

/* Without close_range (kernels before 5.9): by the list in /proc, or, where
 * that is not mounted, one by one up to the limit. */
static void child_close_slowly(int first, int last)
{
    _Alignas(struct dirent64_record) char buffer[2048];
    int dir = LP_RETRY(open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    struct rlimit limit;

    if (dir < 0) {
        int end = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < (1 << 20)
                      ? (int)limit.rlim_cur
                      : 1 << 20;

        for (int fd = first; fd <= last && fd < end; fd++)
            (void)close(fd);
        return;
    }
    for (;;) {
        long got = syscall(SYS_getdents64, dir, buffer, sizeof buffer);
        long at = 0;

        if (got <= 0)
            break;
        while (at < got) {
            const struct dirent64_record *record = (const void *)(buffer + at);
            int fd = child_parse_fd(record->name);

            if (fd >= first && fd <= last && fd != dir)
                (void)close(fd);
            at += record->length;
        }
    }
    (void)close(dir);
}

static void child_close_span(int first, int last)
{
    if (first > last)
        return;
    if (lp_failpoint("spawn.close_range") == 0 &&
        syscall(SYS_close_range, (unsigned)first, (unsigned)last, 0U) == 0)
        return;
    child_close_slowly(first, last);
}

static void child_close_others(const struct plan *plan)
{
    int next = 0;

    for (size_t i = 0; i < plan->move_count; i++) {
        child_close_span(next, plan->moves[i].to - 1);
        next = plan->moves[i].to + 1;
    }
    child_close_span(next, INT32_MAX);
}

static void child_join(const struct lp_spawn *request)
{
    for (size_t i = 0; i < request->join_count; i++) {
        struct lp_join *join = &request->joins[i];

        if (join->tasks_fd >= 0 && LP_RETRY(write(join->tasks_fd, "0", 1)) < 0)
            join->error = errno;
    }
}

/* The caller may have been killed before the child could ask to hear of it. */
static int child_bind(pid_t caller)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return -1;
    errno = ESRCH;
    return getppid() == caller ? 0 : -1;
}

static int child_prepare(struct plan *plan)
{
    const struct lp_spawn *request = plan->request;

    if ((request->flags & LP_SPAWN_BOUND) != 0 && child_bind(plan->caller) < 0)
        return -1;
    child_join(request);
    plan->step = STEP_SESSION;
    if ((request->flags & LP_SPAWN_SESSION) != 0 && setsid() < 0)
        return -1;
    if ((request->flags & LP_SPAWN_GROUP) != 0 && setpgid(0, 0) < 0)
        return -1;
    plan->step = STEP_CWD;
    if (request->cwd != NULL && chdir(request->cwd) < 0)
        return -1;
    plan->step = STEP_FDS;
    if (child_move_fds(plan) < 0)
        return -1;
    plan->step = STEP_CLOSE;
    child_close_others(plan);
    return child_reset_signals();
}

static int child_main(void *argument)
{
    struct plan *plan = argument;

    if (child_prepare(plan) == 0) {
        plan->step = STEP_EXEC;
        (void)execve(plan->request->path, plan->request->argv, plan->request->envp);
    }
    plan->error = errno;
    _exit(127);
}

static int pidfd_open_call(pid_t pid)
{
    errno = lp_failpoint("spawn.pidfd_open");
    if (errno != 0)
        return -1;
    return (int)syscall(SYS_pidfd_open, pid, 0U); /* close-on-exec by definition */
}

/* --- in the parent --------------------------------------------------------- */

static int compare_targets(const void *left, const void *right)
{
    const struct lp_fd_map *a = left;
    const struct lp_fd_map *b = right;

    return (a->to > b->to) - (a->to < b->to);
}

/* Invariant 4's table: the caller's map, completed by 0, 1 and 2. */
static int plan_moves(struct plan *plan, struct lp_error *err)
{
    const struct lp_spawn *request = plan->request;
    bool standard[3] = {false, false, false};
    size_t count = request->fd_count;

    if (count > SPAWN_FDS_MAX)
        return lp_fail(err, LP_EINVALID, "%zu descriptors for one program are too many", count);
    plan->moves = malloc((count + 3) * sizeof *plan->moves);
    if (plan->moves == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for a table of descriptors");
    for (size_t i = 0; i < count; i++) {
        if (request->fds[i].from < 0 || request->fds[i].to < 0)
            return lp_fail(err, LP_EINVALID, "a descriptor cannot be negative");
        if (request->fds[i].to < 3)
            standard[request->fds[i].to] = true;
        plan->moves[i] = request->fds[i];
    }
    for (int to = 0; to < 3; to++)
        if (!standard[to])
            plan->moves[count++] = (struct lp_fd_map){.from = -1, .to = to};
    qsort(plan->moves, count, sizeof *plan->moves, compare_targets);
    for (size_t i = 1; i < count; i++)
        if (plan->moves[i].to == plan->moves[i - 1].to)
            return lp_fail(err, LP_EINVALID, "descriptor %d is mapped twice", plan->moves[i].to);
    plan->move_count = count;
    plan->closed_above = plan->moves[count - 1].to;
    return LP_OK;
}

/* The clone itself, with a pidfd from the kernel where it can give one. */
static pid_t clone_child(struct plan *plan, char *stack_top, int *pidfd)
{
    int flags = CLONE_VM | CLONE_VFORK | SIGCHLD;
    pid_t pid;

    *pidfd = -1;
    errno = lp_failpoint("spawn.clone_pidfd");
    if (errno == 0) {
        pid = clone(child_main, stack_top, flags | CLONE_PIDFD, plan, pidfd);
        /* Kernels before 5.2 ignore the flag and leave *pidfd alone. */
        if (pid >= 0 || errno != EINVAL)
            return pid;
    }
    return clone(child_main, stack_top, flags, plan, NULL);
}

static pid_t clone_with_signals_blocked(struct plan *plan, char *stack_top, int *pidfd)
{
    unsigned char all[SPAWN_SIGSET_BYTES];
    unsigned char before[SPAWN_SIGSET_BYTES];
    pid_t pid;
    int saved;

    memset(all, 0xff, sizeof all);
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, all, before, SPAWN_SIGSET_BYTES);
    pid = clone_child(plan, stack_top, pidfd);
    saved = errno;
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, before, NULL, SPAWN_SIGSET_BYTES);
    errno = saved;
    return pid;
}

static void reap_failed(pid_t pid)
{
    siginfo_t info;

    (void)LP_RETRY(waitid(P_PID, (id_t)pid, &info, WEXITED));
}

static int spawn_planned(struct plan *plan, struct lp_process *process, struct lp_error *err)
{
    struct lp_process started = LP_PROCESS_NONE;
    long page = sysconf(_SC_PAGESIZE);
    size_t guard = page > 0 ? (size_t)page : 4096;
    size_t size = SPAWN_STACK + guard;
    char *stack =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    int saved;

    if (stack == MAP_FAILED)
        return lp_fail_errno(err, "cannot map a stack to start %s", plan->request->path);
    (void)mprotect(stack, guard, PROT_NONE);
    started.pid = clone_with_signals_blocked(plan, stack + size, &started.pidfd);
    saved = errno;
    /* The child left its frames without a return; the next stack may lie here. */
    ASAN_UNPOISON_MEMORY_REGION(stack, size);
    (void)munmap(stack, size);
    errno = saved;
    if (started.pid < 0)
        return lp_fail_errno(err, "cannot make a process to start %s", plan->request->path);
    if (plan->error != 0) {
        reap_failed(started.pid);
        lp_process_close(&started);
        errno = plan->error;
        (void)lp_fail_errno(err, "cannot %s %s", step_names[plan->step], plan->request->path);
        if (err != NULL)
            err->code = LP_ESPAWN;
        return LP_ESPAWN;
    }
    if (started.pidfd < 0)
        started.pidfd = pidfd_open_call(started.pid);
    *process = started;
    return LP_OK;
}

int lp_spawn(const struct lp_spawn *request, struct lp_process *process, struct lp_error *err)
{
    struct plan plan = {.request = request, .caller = getpid()};
    int rc = plan_moves(&plan, err);

    if (rc == LP_OK)
        rc = spawn_planned(&plan, process, err);
    free(plan.moves);
    return rc;
}

void lp_process_close(struct lp_process *process)
{
    lp_close_fd(&process->pidfd);
    process->pid = -1;
}

int lp_process_signal(const struct lp_process *process, int signal_number, struct lp_error *err)
{
    int rc;

    if (process->pid <= 0) { /* kill(0) and kill(-1) are whole groups */
        errno = ESRCH;
        return lp_fail_errno(err, "cannot signal a process that was closed");
    }
    if (process->pidfd >= 0)
        rc = (int)syscall(SYS_pidfd_send_signal, process->pidfd, signal_number, NULL, 0U);
    else
        rc = kill(process->pid, signal_number);
    if (rc < 0)
        return lp_fail_errno(err, "cannot send signal %d to process %d", signal_number,
                             (int)process->pid);
    return LP_OK;
}

int lp_process_open(pid_t pid, struct lp_process *process, struct lp_error *err)
{
    int pidfd = pid > 0 ? pidfd_open_call(pid) : -1;

    if (pid <= 0)
        return lp_fail(err, LP_EINVALID, "%d is not the number of a process", (int)pid);
    if (pidfd < 0 && (errno != ENOSYS || (kill(pid, 0) < 0 && errno == ESRCH)))
        return lp_fail_errno(err, "cannot open process %d", (int)pid);
    *process = (struct lp_process){.pid = pid, .pidfd = pidfd};
    return LP_OK;
}

/* Without a pidfd, whether a process is gone or a zombie: a pidfd tells of both. */
static bool has_ended(pid_t pid)
{
    char text[256];
    char *state;
    ssize_t got;
    LP_CLOSE int fd = -1;

    if (kill(pid, 0) < 0 && errno == ESRCH)
        return true;
    (void)snprintf(text, sizeof text, "/proc/%d/stat", (int)pid);
    fd = LP_RETRY(open(text, O_RDONLY | O_CLOEXEC));
    got = fd < 0 ? -1 : LP_RETRY(read(fd, text, sizeof text - 1));
    if (got < 0)
        return false;
    text[got] = '\0';
    state = strrchr(text, ')'); /* behind the name, which may hold anything */
    return state != NULL && (strncmp(state, ") Z", 3) == 0 || strncmp(state, ") X", 3) == 0);
}

/* One sleep; whether the process has ended is for the caller to find out.
 * Without a pidfd the kernel offers no timed wait for one process. */
static int await_end(const struct lp_process *process, int64_t deadline, struct lp_error *err)
{
    struct pollfd poller = {.fd = process->pidfd, .events = POLLIN};
    int timeout = lp_poll_timeout(deadline);
    int ready = poll(&poller, 1, process->pidfd < 0 && timeout != 0 ? 1 : timeout);

    if (ready < 0 && errno == EINTR)
        return lp_fail(err, LP_EINTERRUPTED, "interrupted while waiting for process %d",
                       (int)process->pid);
    if (ready < 0)
        return lp_fail_errno(err, "cannot wait for process %d", (int)process->pid);
    return ready;
}

int lp_process_ended(const struct lp_process *process, int64_t deadline, struct lp_error *err)
{
    if (process->pid <= 0)
        return lp_fail(err, LP_EINVALID, "cannot wait for a process that was closed");
    for (;;) {
        int rc = await_end(process, deadline, err);

        if (rc < 0)
            return rc;
        if (rc > 0 || (process->pidfd < 0 && has_ended(process->pid)))
            return LP_OK;
        if (deadline != LP_FOREVER && lp_now() >= deadline)
            return lp_fail(err, LP_ETIMEOUT, "process %d did not end in time", (int)process->pid);
    }
}

int lp_process_wait(const struct lp_process *process, int64_t deadline, int *code,
                    struct lp_error *err)
{
    idtype_t by = process->pidfd >= 0 ? (idtype_t)P_PIDFD : P_PID;
    id_t which = process->pidfd >= 0 ? (id_t)process->pidfd : (id_t)process->pid;

    if (process->pid <= 0)
        return lp_fail(err, LP_EINVALID, "cannot wait for a process that was closed");
    for (;;) {
        siginfo_t info = {.si_pid = 0};
        int rc;

        if (LP_RETRY(waitid(by, which, &info, WEXITED | WNOHANG)) < 0) {
            if (errno == ECHILD)
                return lp_fail(err, LP_EREAPED,
                               "the exit status of process %d was taken by "
                               "another wait in this process",
                               (int)process->pid);
            return lp_fail_errno(err, "cannot wait for process %d", (int)process->pid);
        }
        if (info.si_pid != 0) {
            *code = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
            return LP_OK;
        }
        if (deadline != LP_FOREVER && lp_now() >= deadline)
            return lp_fail(err, LP_ETIMEOUT, "process %d did not end in time", (int)process->pid);
        rc = await_end(process, deadline, err);
        if (rc < 0)
            return rc;
    }
}
