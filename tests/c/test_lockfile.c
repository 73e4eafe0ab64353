/* SPDX-License-Identifier: Apache-2.0 */
/* sys/lockfile, sys/filelock, sys/lock and sys/backoff. */
#include "base/clock.h"
#include "base/failpoint.h"
#include "check.h"
#include "sys/filelock.h"
#include "sys/lockfile.h"
#include "sys/sys.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FOREIGN 12345 /* a uid that is not ours */

static char room[64];  /* a private directory in /tmp */
static char path[128]; /* a lock file in it */
static char other[128];

static bool is_root(void)
{
    return geteuid() == 0;
}

static void pause_ms(long ms)
{
    struct timespec span = {ms / 1000, ms % 1000 * 1000000};

    (void)nanosleep(&span, NULL);
}

static unsigned mode_of(const char *name)
{
    struct stat st;

    CHECK(lstat(name, &st) == 0);
    return st.st_mode & 07777;
}

/* How many descriptors this process has. */
static int descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    CHECK(dir != NULL);
    while (readdir(dir) != NULL)
        n++;
    (void)closedir(dir);
    return n;
}

static void make_file(const char *name, mode_t mode)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    CHECK(fd >= 0 && fchmod(fd, mode) == 0 && close(fd) == 0);
}

static struct lp_lock *create(void)
{
    struct lp_lock *lock = NULL;
    struct lp_error err;

    if (lp_lockfile_create(path, &lock, &err) != 0)
        (void)fprintf(stderr, "%s\n", err.message);
    CHECK(lock != NULL);
    return lock;
}

static struct lp_lock *reopen(void)
{
    struct lp_lock *lock = NULL;

    CHECK(lp_lockfile_open(path, &lock, NULL) == 0);
    return lock;
}

static void discard(struct lp_lock *lock)
{
    lp_lock_free(lock);
    CHECK(unlink(path) == 0);
}

/* --- opening -------------------------------------------------------------------- */

static void test_create_sets_the_mode(void)
{
    const mode_t masks[] = {0, 022, 0777};

    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
        mode_t old = umask(masks[i]);
        struct lp_lock *lock = create();

        (void)umask(old);
        CHECK(mode_of(path) == 0600);
        discard(lock);
    }
}

static void test_create_only_once(void)
{
    struct lp_lock *lock = create(), *second = NULL;
    struct lp_error err;

    CHECK(lp_lockfile_create(path, &second, &err) == LP_ESYSTEM && err.sys_errno == EEXIST);
    CHECK(second == NULL);
    discard(lock);
}

static void test_open_never_creates(void)
{
    struct lp_lock *lock = NULL;
    struct lp_error err;

    CHECK(lp_lockfile_open(path, &lock, NULL) == LP_EGONE && lock == NULL);
    CHECK(access(path, F_OK) < 0);
    CHECK(lp_lockfile_open("/no/such/place", &lock, NULL) == LP_EGONE);
    CHECK(lp_lockfile_create("/no/such/place", &lock, &err) == LP_ESYSTEM);
    CHECK(err.sys_errno == ENOENT);
    CHECK(lp_lockfile_open("relative", &lock, NULL) == LP_EINVALID);
    CHECK(lp_lockfile_open("/tmp/", &lock, NULL) == LP_EINVALID);
    CHECK(lp_lockfile_open("/tmp/..", &lock, NULL) == LP_EINVALID);
}

static void test_wide_ones_are_narrowed(void)
{
    struct lp_lock *lock;

    make_file(path, 0666);
    CHECK(chmod(room, 0755) == 0);
    lock = reopen();
    CHECK(mode_of(path) == 0600 && mode_of(room) == 0700);
    discard(lock);
}

static void test_what_is_no_file_is_refused(void)
{
    struct lp_lock *lock = NULL;

    make_file(other, 0600);
    CHECK(symlink(other, path) == 0);
    CHECK(lp_lockfile_open(path, &lock, NULL) == LP_EREFUSED);
    CHECK(lp_filelock_open(path, 0600, &lock, NULL) == LP_EREFUSED);
    CHECK(unlink(path) == 0 && unlink(other) == 0);
    CHECK(mkfifo(path, 0600) == 0);
    CHECK(lp_lockfile_open(path, &lock, NULL) == LP_EREFUSED);
    CHECK(lp_filelock_open(path, 0600, &lock, NULL) == LP_EREFUSED);
    CHECK(unlink(path) == 0 && mkdir(path, 0700) == 0);
    CHECK(lp_lockfile_open(path, &lock, NULL) == LP_EREFUSED);
    CHECK(lp_filelock_open(path, 0600, &lock, NULL) == LP_EREFUSED);
    CHECK(rmdir(path) == 0 && lock == NULL);
}

static void test_foreign_ones_are_refused(void)
{
    struct lp_lock *lock = NULL;

    CHECK(lp_lockfile_create("/tmp/sticky-is-for-all", &lock, NULL) == LP_EREFUSED);
    CHECK(mode_of("/tmp") == 01777);
    if (!is_root())
        return;
    make_file(path, 0600);
    CHECK(chown(path, FOREIGN, 0) == 0);
    CHECK(lp_lockfile_open(path, &lock, NULL) == LP_EREFUSED);
    CHECK(lp_filelock_open(path, 0600, &lock, NULL) == LP_EREFUSED);
    CHECK(chown(path, 0, 0) == 0 && chown(room, FOREIGN, 0) == 0);
    CHECK(lp_lockfile_open(path, &lock, NULL) == LP_EREFUSED);
    CHECK(lp_filelock_open(path, 0600, &lock, NULL) == LP_EREFUSED);
    CHECK(chown(room, 0, 0) == 0 && unlink(path) == 0);
    CHECK(lock == NULL);
}

static void test_record_file_is_made_as_asked(void)
{
    struct lp_lock *lock = NULL;
    mode_t old = umask(0777);

    CHECK(lp_filelock_open(path, 0644, &lock, NULL) == 0);
    (void)umask(old);
    CHECK(mode_of(path) == 0644);
    lp_lock_free(lock);
    CHECK(chmod(path, 0640) == 0);
    CHECK(lp_filelock_open(path, 0644, &lock, NULL) == 0);
    CHECK(mode_of(path) == 0640);
    discard(lock);
}

/* Every descriptor on the lock file closes on exec. */
static void test_close_on_exec(void)
{
    struct lp_lock *lock = create(), *record = NULL;
    char name[64], target[PATH_MAX];
    int found = 0;

    CHECK(lp_filelock_open(path, 0600, &record, NULL) == 0);
    for (int fd = 0; fd < 64; fd++) {
        ssize_t n;

        (void)snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        n = readlink(name, target, sizeof target - 1);
        if (n < 0)
            continue;
        target[n] = '\0';
        if (strcmp(target, path) == 0) {
            CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
            found++;
        }
    }
    CHECK(found == 2);
    lp_lock_free(record);
    discard(lock);
}

/* --- taking ------------------------------------------------------------------------ */

static void test_exclusive_and_shared(void)
{
    struct lp_lock *a = create(), *b = reopen();

    CHECK(lp_lock_take(a) == 0);
    CHECK(lp_lock_take(a) == LP_EHELD);
    CHECK(lp_lock_take(b) == LP_EBUSY);
    CHECK(lp_lock_try(b, 1, NULL) == LP_EBUSY);
    CHECK(lp_lock_unlock(b) == LP_ENOTHELD);
    CHECK(lp_lock_unlock(a) == 0);
    CHECK(lp_lock_unlock(a) == LP_ENOTHELD);
    CHECK(lp_lock_try(a, 1, NULL) == 0);
    CHECK(lp_lock_try(b, 1, NULL) == 0);
    CHECK(lp_lock_unlock(a) == 0 && lp_lock_take(a) == LP_EBUSY);
    lp_lock_free(b);
    CHECK(lp_lock_take(a) == 0);
    discard(a);
}

static void test_record_excludes_other_programs(void)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct lp_lock *a = NULL, *b = NULL;
    int fd;

    CHECK(lp_filelock_open(path, 0600, &a, NULL) == 0);
    CHECK(lp_filelock_open(path, 0600, &b, NULL) == 0);
    fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(lp_lock_take(a) == 0 && lp_lock_take(b) == LP_EBUSY);
    CHECK(fcntl(fd, F_SETLK, &whole) < 0 && (errno == EAGAIN || errno == EACCES));
    CHECK(lp_lock_unlock(a) == 0 && fcntl(fd, F_SETLK, &whole) == 0);
    CHECK(lp_lock_take(a) == LP_EBUSY && lp_lock_try(a, 1, NULL) == LP_EBUSY);
    (void)close(fd);
    CHECK(lp_lock_try(a, 1, NULL) == 0 && lp_lock_try(b, 1, NULL) == 0);
    lp_lock_free(b);
    discard(a);
}

static void test_deadline(void)
{
    struct lp_lock *a = create(), *b = reopen();
    int64_t start = lp_now();
    int64_t deadline = start + 30 * LP_NS_PER_MS;

    CHECK(lp_lock_take(a) == 0);
    CHECK(lp_lock_wait(b, 0, deadline, NULL) == LP_ETIMEOUT);
    CHECK(lp_now() >= deadline && lp_now() < start + 5 * LP_NS_PER_S);
    CHECK(lp_lock_wait(b, 0, start, NULL) == LP_ETIMEOUT);
    CHECK(lp_lock_unlock(a) == 0);
    CHECK(lp_lock_wait(b, 0, start, NULL) == 0); /* free: no deadline is too early */
    lp_lock_free(b);
    discard(a);
}

/* A signal that lands between two sleeps must not be lost until the deadline. */
static void test_waits_come_back_for_signals(void)
{
    struct lp_lock *a = create(), *b = reopen();
    int64_t start = lp_now();

    CHECK(lp_lock_take(a) == 0);
    CHECK(lp_lock_wait(b, 0, start + 60 * LP_NS_PER_S, NULL) == LP_EINTERRUPTED);
    CHECK(lp_now() - start >= 90 * LP_NS_PER_MS && lp_now() - start < 5 * LP_NS_PER_S);
    lp_lock_free(b);
    discard(a);
}

static volatile sig_atomic_t signals;

static void count_signal(int number)
{
    (void)number;
    signals++;
}

static void arm_timer(int ms)
{
    struct itimerval timer = {.it_value = {ms / 1000, ms % 1000 * 1000}};

    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

static void test_signals_interrupt(void)
{
    struct sigaction action = {.sa_handler = count_signal}, old;
    struct lp_lock *a = create(), *b = reopen(), *record = NULL, *second = NULL;
    int64_t start = lp_now();

    CHECK(lp_filelock_open(path, 0600, &record, NULL) == 0);
    CHECK(lp_filelock_open(path, 0600, &second, NULL) == 0);
    CHECK(sigaction(SIGALRM, &action, &old) == 0);
    CHECK(lp_lock_take(a) == 0 && lp_lock_take(record) == 0);
    arm_timer(20);
    CHECK(lp_lock_wait(b, 0, LP_FOREVER, NULL) == LP_EINTERRUPTED);
    arm_timer(20);
    CHECK(lp_lock_wait(second, 0, LP_FOREVER, NULL) == LP_EINTERRUPTED);
    arm_timer(20);
    CHECK(lp_lock_wait(b, 0, start + 60 * LP_NS_PER_S, NULL) == LP_EINTERRUPTED);
    pause_ms(1); /* ThreadSanitizer runs handlers late */
    CHECK(signals == 3 && lp_now() - start < 5 * LP_NS_PER_S);
    CHECK(sigaction(SIGALRM, &old, NULL) == 0);
    CHECK(lp_lock_unlock(a) == 0 && lp_lock_take(b) == 0); /* nothing was left behind */
    lp_lock_free(record);
    lp_lock_free(second);
    lp_lock_free(b);
    discard(a);
}

/* --- the file goes ---------------------------------------------------------------- */

/* Locks until the path need not be looked up any more. */
static struct lp_lock *create_settled(void)
{
    struct lp_lock *lock = create();

    pause_ms(15);
    for (int i = 0; i < 3; i++)
        CHECK(lp_lock_take(lock) == 0 && lp_lock_unlock(lock) == 0);
    return lock;
}

static void check_gone(struct lp_lock *lock)
{
    int64_t soon = lp_now() + 60 * LP_NS_PER_S;

    CHECK(lp_lock_take(lock) == LP_EGONE);
    CHECK(lp_lock_try(lock, 1, NULL) == LP_EGONE);
    CHECK(lp_lock_wait(lock, 0, soon, NULL) == LP_EGONE);
    CHECK(lp_lock_wait(lock, 0, LP_FOREVER, NULL) == LP_EGONE);
    CHECK(lp_lock_unlock(lock) == LP_ENOTHELD);
}

static void test_unlinked(void)
{
    struct lp_lock *lock = create_settled();

    CHECK(unlink(path) == 0);
    check_gone(lock);
    lp_lock_free(lock);
}

static void test_replaced(void)
{
    struct lp_lock *lock = create_settled();

    make_file(other, 0600);
    CHECK(rename(other, path) == 0);
    check_gone(lock);
    discard(lock);
}

static void test_renamed_away(void)
{
    struct lp_lock *lock = create_settled();

    CHECK(rename(path, other) == 0);
    check_gone(lock);
    make_file(path, 0600);
    check_gone(lock);
    CHECK(unlink(other) == 0);
    discard(lock);
}

static void test_unlinked_with_another_name(void)
{
    struct lp_lock *lock = create_settled();

    CHECK(link(path, other) == 0 && unlink(path) == 0);
    check_gone(lock);
    CHECK(unlink(other) == 0);
    lp_lock_free(lock);
}

/* The rename follows the creation within one tick of the file system's clock. */
static void test_renamed_at_once(void)
{
    for (int i = 0; i < 200; i++) {
        struct lp_lock *lock = create();

        CHECK(lp_lock_take(lock) == 0 && lp_lock_unlock(lock) == 0);
        CHECK(rename(path, other) == 0);
        CHECK(lp_lock_take(lock) == LP_EGONE);
        lp_lock_free(lock);
        CHECK(unlink(other) == 0);
    }
}

struct waiter {
    struct lp_lock *lock;
    int64_t deadline;
    int code;
};

static void *wait_for_lock(void *arg)
{
    struct waiter *waiter = arg;

    do
        waiter->code = lp_lock_wait(waiter->lock, 0, waiter->deadline, NULL);
    while (waiter->code == LP_EINTERRUPTED);
    if (waiter->code == 0)
        CHECK(lp_lock_unlock(waiter->lock) == 0);
    return NULL;
}

static void test_unlink_ends_all_waits(void)
{
    struct lp_lock *lock = create_settled();
    struct waiter waiters[] = {
        {reopen(), LP_FOREVER, 0},
        {reopen(), lp_now() + 60 * LP_NS_PER_S, 0},
        {lock, LP_FOREVER, 0},
        {lock, lp_now() + 60 * LP_NS_PER_S, 0},
    };
    pthread_t threads[4];

    CHECK(lp_lock_unlink(lock, NULL) == LP_ENOTHELD);
    CHECK(lp_lock_try(lock, 1, NULL) == 0);
    CHECK(lp_lock_unlink(lock, NULL) == LP_ENOTHELD); /* shared does not do */
    CHECK(lp_lock_unlock(lock) == 0 && lp_lock_take(lock) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, wait_for_lock, &waiters[i]) == 0);
    pause_ms(20);
    CHECK(lp_lock_unlink(lock, NULL) == 0 && access(path, F_OK) < 0);
    CHECK(lp_lock_unlink(lock, NULL) == LP_EGONE);
    CHECK(lp_lock_unlock(lock) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0 && waiters[i].code == LP_EGONE);
    lp_lock_free(waiters[0].lock);
    lp_lock_free(waiters[1].lock);
    lp_lock_free(lock);
}

static void test_unlink_fails(void)
{
    struct lp_lock *lock = create();
    struct lp_error err;

    CHECK(lp_lock_take(lock) == 0);
    lp_failpoint_set("lock.unlink", EROFS, 0);
    CHECK(lp_lock_unlink(lock, &err) == LP_ESYSTEM && err.sys_errno == EROFS);
    lp_failpoint_set("lock.unlink", 0, 0);
    CHECK(lp_lock_unlock(lock) == 0 && lp_lock_take(lock) == 0);
    discard(lock);
}

/* --- threads and forks --------------------------------------------------------- */

#define ROUNDS 2000

struct counter {
    struct lp_lock *lock;
    int64_t deadline;
    long count; /* without atomics: the lock must do */
};

static void *count_up(void *arg)
{
    struct counter *counter = arg;
    int code;

    for (int i = 0; i < ROUNDS; i++) {
        do
            code = lp_lock_wait(counter->lock, i % 2, counter->deadline, NULL);
        while (code == LP_EINTERRUPTED);
        CHECK(code == 0);
        counter->count++;
        CHECK(lp_lock_unlock(counter->lock) == 0);
    }
    return NULL;
}

static void test_threads_take_turns(void)
{
    struct counter counter = {.lock = create(), .deadline = LP_FOREVER};
    pthread_t threads[4];

    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, count_up, &counter) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(counter.count == 4 * ROUNDS);
    discard(counter.lock);
}

static void test_close(void)
{
    struct lp_lock *lock = create(), *second = reopen();
    int before = descriptors();

    CHECK(lp_lock_take(lock) == 0);
    lp_lock_close(lock);
    lp_lock_close(lock);
    CHECK(descriptors() == before - 1);
    CHECK(lp_lock_take(lock) == LP_ECLOSED && lp_lock_unlock(lock) == LP_ECLOSED);
    CHECK(lp_lock_wait(lock, 0, LP_FOREVER, NULL) == LP_ECLOSED);
    CHECK(lp_lock_take(second) == 0);
    lp_lock_free(second);
    discard(lock);
}

static void *close_lock(void *lock)
{
    lp_lock_close(lock);
    return NULL;
}

/* The descriptor stays while a thread holds the lock or waits for it. */
static void test_close_under_another_thread(void)
{
    struct lp_lock *holder = create(), *lock = reopen();
    struct waiter waiter = {lock, LP_FOREVER, 0};
    int before = descriptors();
    pthread_t thread, closer;

    CHECK(lp_lock_take(holder) == 0);
    CHECK(pthread_create(&thread, NULL, wait_for_lock, &waiter) == 0);
    pause_ms(20);
    lp_lock_close(lock);
    CHECK(descriptors() == before);
    CHECK(lp_lock_unlock(holder) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(waiter.code == 0 && descriptors() == before - 1); /* it held and gave back */
    CHECK(lp_lock_take(holder) == 0);
    CHECK(pthread_create(&closer, NULL, close_lock, holder) == 0);
    CHECK(pthread_join(closer, NULL) == 0 && descriptors() == before - 1);
    CHECK(lp_lock_unlock(holder) == 0 && descriptors() == before - 2);
    CHECK(lp_lock_take(holder) == LP_ECLOSED);
    lp_lock_free(lock);
    discard(holder);
}

static void test_forked_child_lets_go(void)
{
    struct lp_lock *lock = create(), *second = reopen();
    int status;
    pid_t child;

    CHECK(lp_lock_take(lock) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int before = descriptors();

        lp_lock_abandon(lock);
        CHECK(descriptors() == before - 1);
        CHECK(lp_lock_unlock(lock) == LP_ECLOSED && lp_lock_take(lock) == LP_ECLOSED);
        lp_lock_close(lock);
        CHECK(lp_lock_take(second) == LP_EBUSY); /* the parent still has it */
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(lp_lock_take(second) == LP_EBUSY);
    CHECK(lp_lock_unlock(lock) == 0 && lp_lock_take(second) == 0);
    lp_lock_free(second);
    discard(lock);
}

static void test_death_frees(void)
{
    struct lp_lock *lock = create();
    int ready[2], status;
    char byte = 0;
    pid_t child;

    CHECK(pipe2(ready, O_CLOEXEC) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        lp_lock_abandon(lock);
        CHECK(lp_lock_take(reopen()) == 0 && write(ready[1], &byte, 1) == 1);
        for (;;)
            (void)pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    CHECK(lp_lock_take(lock) == LP_EBUSY);
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
    CHECK(lp_lock_take(lock) == 0);
    CHECK(close(ready[0]) == 0 && close(ready[1]) == 0);
    discard(lock);
}

/* --- */

static void test_opening(void)
{
    CHECK_RUN(test_create_sets_the_mode);
    CHECK_RUN(test_create_only_once);
    CHECK_RUN(test_open_never_creates);
    CHECK_RUN(test_wide_ones_are_narrowed);
    CHECK_RUN(test_what_is_no_file_is_refused);
    CHECK_RUN(test_foreign_ones_are_refused);
    CHECK_RUN(test_record_file_is_made_as_asked);
    CHECK_RUN(test_close_on_exec);
}

int main(void)
{
    int before = descriptors();

    (void)strcpy(room, "/tmp/test_lockfile.XXXXXX");
    CHECK(mkdtemp(room) != NULL);
    (void)snprintf(path, sizeof path, "%s/lock", room);
    (void)snprintf(other, sizeof other, "%s/other", room);
    test_opening();
    lp_failpoint_set("path.openat2", ENOSYS, 0);
    test_opening();
    lp_failpoint_set("path.openat2", 0, 0);
    CHECK_RUN(test_exclusive_and_shared);
    CHECK_RUN(test_record_excludes_other_programs);
    CHECK_RUN(test_deadline);
    CHECK_RUN(test_waits_come_back_for_signals);
    CHECK_RUN(test_signals_interrupt);
    CHECK_RUN(test_unlinked);
    CHECK_RUN(test_replaced);
    CHECK_RUN(test_renamed_away);
    CHECK_RUN(test_unlinked_with_another_name);
    CHECK_RUN(test_renamed_at_once);
    CHECK_RUN(test_unlink_ends_all_waits);
    CHECK_RUN(test_unlink_fails);
    CHECK_RUN(test_threads_take_turns);
    CHECK_RUN(test_close);
    CHECK_RUN(test_close_under_another_thread);
    CHECK_RUN(test_forked_child_lets_go);
    CHECK_RUN(test_death_frees);
    CHECK(rmdir(room) == 0);
    CHECK(descriptors() == before);
    return 0;
}
