/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exit files and the ends of monitors: what is told, once, and what is in a
 * file that may hold anything.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "check.h"
#include "proc/exits.h"
#include "proc/spawn.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define PATH_SIZE 400

/* Two directories, since a file is renamed into the watched one as conmon does. */
struct fixture {
    char directory[32];
    char watched[48];
    char outside[48];
    struct lp_exits exits;
};

static int64_t after_ms(int64_t ms)
{
    return lp_now() + ms * LP_NS_PER_MS;
}

static int count_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 4096; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static struct fixture open_fixture(void)
{
    struct fixture f = {.directory = "/tmp/lp-exits-XXXXXX", .exits = LP_EXITS_NONE};

    CHECK(mkdtemp(f.directory) != NULL);
    (void)snprintf(f.watched, sizeof f.watched, "%s/exits", f.directory);
    (void)snprintf(f.outside, sizeof f.outside, "%s/other", f.directory);
    CHECK(mkdir(f.watched, 0700) == 0 && mkdir(f.outside, 0700) == 0);
    CHECK(lp_exits_open(f.watched, &f.exits, NULL) == LP_OK);
    return f;
}

static void close_fixture(struct fixture *f)
{
    lp_exits_close(&f->exits);
    CHECK(f->exits.epoll == -1 && f->exits.inotify == -1);
    lp_exits_close(&f->exits); /* twice is no harm */
    CHECK(rmdir(f->watched) == 0 && rmdir(f->outside) == 0 && rmdir(f->directory) == 0);
}

static void path_of(char path[PATH_SIZE], const char *directory, const char *name)
{
    CHECK(snprintf(path, PATH_SIZE, "%s/%s", directory, name) < PATH_SIZE);
}

static void write_file(const char *path, const void *data, size_t length)
{
    LP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    CHECK(fd >= 0 && write(fd, data, length) == (ssize_t)length);
}

/* Writes an exit file as conmon does: beside, then renamed. */
static void put(const struct fixture *f, const char *name, const char *text)
{
    char from[PATH_SIZE];
    char to[PATH_SIZE];

    path_of(from, f->outside, name);
    path_of(to, f->watched, name);
    write_file(from, text, strlen(text));
    CHECK(rename(from, to) == 0);
}

static void take_away(const struct fixture *f, const char *name)
{
    CHECK(lp_exits_remove(&f->exits, name, NULL) == LP_OK);
}

static struct lp_process spawn_sleeper(void)
{
    char *const argv[] = {(char[]){"/bin/sleep"}, (char[]){"1000"}, NULL};
    char *const envp[] = {NULL};
    struct lp_spawn request = {.path = argv[0], .argv = argv, .envp = envp};
    struct lp_process process;

    CHECK(lp_spawn(&request, &process, NULL) == LP_OK);
    return process;
}

static void kill_and_reap(struct lp_process *process)
{
    int code;

    CHECK(lp_process_signal(process, SIGKILL, NULL) == LP_OK);
    CHECK(lp_process_wait(process, after_ms(20000), &code, NULL) == LP_OK);
    lp_process_close(process);
}

static int wait_events(struct fixture *f, int64_t ms, struct lp_exit_event *events)
{
    int count = lp_exits_wait(&f->exits, ms == 0 ? 0 : after_ms(ms), events, NULL);

    CHECK(count == LP_ETIMEOUT || (count > 0 && count <= LP_EXITS_BATCH));
    return count;
}

/* --- opening ----------------------------------------------------------------------------- */

static void test_directories_that_cannot_be_watched(void)
{
    int before = count_descriptors();
    struct lp_exits exits = LP_EXITS_NONE;
    struct lp_error err;

    CHECK(lp_exits_open("/no/such/directory", &exits, &err) == LP_ESYSTEM);
    CHECK(err.sys_errno == ENOENT && strstr(err.message, "/no/such/directory") != NULL);
    CHECK(lp_exits_open("/dev/null", &exits, &err) == LP_ESYSTEM && err.sys_errno == ENOTDIR);
    CHECK(exits.epoll == -1 && count_descriptors() == before);
}

static void test_every_descriptor_is_close_on_exec(void)
{
    struct fixture f = open_fixture();
    const int fds[] = {f.exits.directory, f.exits.inotify, f.exits.wake, f.exits.epoll};

    for (size_t i = 0; i < COUNT(fds); i++)
        CHECK((fcntl(fds[i], F_GETFD) & FD_CLOEXEC) != 0);
    close_fixture(&f);
}

/* --- files ------------------------------------------------------------------------------- */

static void test_a_file_is_told_when_it_is_final(void)
{
    struct fixture f = open_fixture();
    struct lp_exit_event events[LP_EXITS_BATCH];
    char path[PATH_SIZE];

    CHECK(wait_events(&f, 0, events) == LP_ETIMEOUT);
    path_of(path, f.watched, "half-written");
    write_file(path, "1", 1); /* not renamed: not conmon's last word */
    CHECK(wait_events(&f, 50, events) == LP_ETIMEOUT);
    put(&f, "done", "0");
    CHECK(wait_events(&f, 20000, events) == 1);
    CHECK(events[0].kind == LP_EXIT_FILE && strcmp(events[0].name, "done") == 0);
    CHECK(wait_events(&f, 0, events) == LP_ETIMEOUT);
    take_away(&f, "done");
    take_away(&f, "half-written");
    CHECK(wait_events(&f, 0, events) == LP_ETIMEOUT); /* a removal is no exit */
    close_fixture(&f);
}

static void test_the_longest_name(void)
{
    struct fixture f = open_fixture();
    struct lp_exit_event events[LP_EXITS_BATCH];
    char name[256];

    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    put(&f, name, "0");
    put(&f, "short", "0");
    CHECK(wait_events(&f, 20000, events) >= 1);
    CHECK(events[0].kind == LP_EXIT_FILE && strcmp(events[0].name, name) == 0);
    take_away(&f, name);
    take_away(&f, "short");
    close_fixture(&f);
}

static void check_code(const struct fixture *f, const char *text, int expected)
{
    struct timespec now;
    int64_t finished = 0;
    int code = 1000;

    put(f, "id", text);
    CHECK(lp_exits_read(&f->exits, "id", &code, &finished, NULL) == LP_OK);
    CHECK(code == expected);
    CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0);
    CHECK(finished / LP_NS_PER_S >= now.tv_sec - 60 && finished / LP_NS_PER_S <= now.tv_sec + 1);
    take_away(f, "id");
}

static void test_exit_codes(void)
{
    struct fixture f = open_fixture();

    check_code(&f, "0", 0);
    check_code(&f, "7", 7);
    check_code(&f, "137", 137);
    check_code(&f, "255", 255);
    check_code(&f, "-1", -1);
    check_code(&f, "7\n", 7);
    close_fixture(&f);
}

static void check_garbage(const struct fixture *f, const char *data, size_t length)
{
    struct lp_error err;
    char path[PATH_SIZE];
    int64_t finished = 5;
    int code = 1000;

    path_of(path, f->watched, "id");
    write_file(path, data, length);
    CHECK(lp_exits_read(&f->exits, "id", &code, &finished, &err) == LP_EBADEXIT);
    CHECK(strstr(err.message, "id") != NULL);
    CHECK(code == 1000 && finished == 5);
    take_away(f, "id");
}

static void test_garbage_in_an_exit_file(void)
{
    static const char *const texts[] = {
        "",
        "\n",
        "zero",
        " ",
        "7 ",
        "7x",
        "7\n7",
        "-2",
        "-",
        "+",
        "--1",
        "256",
        "1e1",
        "0x10",
        "99999999999999999999999999999999",
        "0000000000000000007",
        "+7",
        " 7",
        "7\n\n",
    };
    struct fixture f = open_fixture();
    LP_FREE char *large = malloc((size_t)1 << 20);

    for (size_t i = 0; i < COUNT(texts); i++)
        check_garbage(&f, texts[i], strlen(texts[i]));
    check_garbage(&f, "7\0garbage", 9);
    check_garbage(&f, "\0", 1);
    CHECK(large != NULL);
    memset(large, '0', (size_t)1 << 20);
    check_garbage(&f, large, (size_t)1 << 20);
    close_fixture(&f);
}

static void check_no_file(const struct fixture *f)
{
    struct lp_error err;
    int64_t finished;
    int code;

    CHECK(lp_exits_read(&f->exits, "id", &code, &finished, &err) == LP_EBADEXIT);
    CHECK(strstr(err.message, "not a file") != NULL);
}

static void test_what_is_no_file_is_not_read(void)
{
    struct fixture f = open_fixture();
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    LP_CLOSE int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char path[PATH_SIZE];
    char secret[PATH_SIZE];
    struct lp_error err;
    int64_t finished;
    int code;

    path_of(path, f.watched, "id");
    path_of(secret, f.outside, "secret");
    write_file(secret, "0", 1);
    CHECK(symlink(secret, path) == 0);
    check_no_file(&f);
    take_away(&f, "id"); /* the link, not what it points at */
    CHECK(unlink(secret) == 0);
    CHECK(symlink("nowhere", path) == 0);
    check_no_file(&f);
    take_away(&f, "id");
    CHECK(mkfifo(path, 0600) == 0); /* nobody writes: must not wait */
    check_no_file(&f);
    take_away(&f, "id");
    CHECK(strlen(path) < sizeof address.sun_path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    CHECK(bind(listener, (const struct sockaddr *)&address, sizeof address) == 0);
    check_no_file(&f);
    take_away(&f, "id");
    CHECK(mkdir(path, 0700) == 0);
    check_no_file(&f);
    CHECK(lp_exits_remove(&f.exits, "id", &err) == LP_ESYSTEM && err.sys_errno == EISDIR);
    CHECK(rmdir(path) == 0);
    CHECK(lp_exits_read(&f.exits, "id", &code, &finished, NULL) == LP_ENOEXIT);
    take_away(&f, "id"); /* it need not exist */
    close_fixture(&f);
}

/* --- many --------------------------------------------------------------------------------- */

static void test_every_one_of_many_files_is_told_once(void)
{
    struct fixture f = open_fixture();
    struct lp_exit_event events[LP_EXITS_BATCH];
    unsigned char told[2000] = {0};
    char name[80];
    int left = (int)COUNT(told);

    for (size_t i = 0; i < COUNT(told); i++) {
        (void)snprintf(name, sizeof name, "%0*zu", 1 + (int)(i % 64), i); /* of all lengths */
        put(&f, name, "0");
    }
    while (left > 0) {
        int count = wait_events(&f, 20000, events);

        CHECK(count > 0);
        for (int i = 0; i < count; i++) {
            unsigned long number = strtoul(events[i].name, NULL, 10);

            CHECK(events[i].kind == LP_EXIT_FILE && number < COUNT(told));
            CHECK(told[number]++ == 0);
            take_away(&f, events[i].name);
            left--;
        }
    }
    CHECK(wait_events(&f, 0, events) == LP_ETIMEOUT);
    close_fixture(&f);
}

static size_t queue_length(void)
{
    FILE *file = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
    size_t length = 0;

    CHECK(file != NULL && fscanf(file, "%zu", &length) == 1);
    (void)fclose(file);
    return length;
}

static void test_a_full_queue_asks_for_a_rescan(void)
{
    struct fixture f = open_fixture();
    struct lp_exit_event events[LP_EXITS_BATCH];
    size_t renames = queue_length() + 100;
    size_t names = 0;
    bool rescan = false;
    char paths[2][2][PATH_SIZE];
    int count;

    for (int i = 0; i < 2; i++) {
        path_of(paths[i][0], f.outside, i == 0 ? "a" : "b");
        path_of(paths[i][1], f.watched, i == 0 ? "a" : "b");
        write_file(paths[i][0], "0", 1);
    }
    for (size_t i = 0; i < renames; i++) { /* two in turn: equal neighbours become one event */
        CHECK(rename(paths[i % 2][0], paths[i % 2][1]) == 0);
        CHECK(link(paths[i % 2][1], paths[i % 2][0]) == 0);
        CHECK(unlink(paths[i % 2][1]) == 0);
    }
    while ((count = wait_events(&f, 0, events)) > 0)
        for (int i = 0; i < count; i++) {
            names += events[i].kind == LP_EXIT_FILE;
            rescan = rescan || events[i].kind == LP_EXIT_RESCAN;
        }
    CHECK(rescan && names > 0 && names < renames);
    put(&f, "later", "0"); /* and it goes on */
    CHECK(wait_events(&f, 20000, events) == 1 && events[0].kind == LP_EXIT_FILE);
    take_away(&f, "later");
    CHECK(unlink(paths[0][0]) == 0 && unlink(paths[1][0]) == 0);
    close_fixture(&f);
}

static void test_a_directory_that_went_asks_for_a_rescan(void)
{
    struct fixture f = open_fixture();
    struct lp_exit_event events[LP_EXITS_BATCH];
    char path[PATH_SIZE];

    path_of(path, f.outside, "moved");
    CHECK(rename(f.watched, path) == 0);
    CHECK(wait_events(&f, 20000, events) == 1 && events[0].kind == LP_EXIT_RESCAN);
    CHECK(rename(path, f.watched) == 0);
    close_fixture(&f);
}

static void test_a_directory_that_was_removed_has_no_files(void)
{
    struct fixture f = open_fixture();
    int64_t finished;
    int code;

    CHECK(rmdir(f.watched) == 0);
    CHECK(lp_exits_read(&f.exits, "id", &code, &finished, NULL) == LP_ENOEXIT);
    take_away(&f, "id");
    CHECK(mkdir(f.watched, 0700) == 0);
    close_fixture(&f);
}

/* --- monitors ------------------------------------------------------------------------------ */

static void test_the_end_of_a_monitor_is_told_once(void)
{
    struct fixture f = open_fixture();
    struct lp_exit_event events[LP_EXITS_BATCH];
    struct lp_process monitor = spawn_sleeper();
    struct lp_process other = spawn_sleeper();
    struct lp_error err;

    CHECK(lp_exits_watch(&f.exits, monitor.pidfd, 77, NULL) == LP_OK);
    CHECK(lp_exits_watch(&f.exits, monitor.pidfd, 78, &err) == LP_ESYSTEM);
    CHECK(err.sys_errno == EEXIST);
    CHECK(lp_exits_watch(&f.exits, other.pidfd, 79, NULL) == LP_OK);
    CHECK(wait_events(&f, 50, events) == LP_ETIMEOUT);
    CHECK(lp_process_signal(&monitor, SIGKILL, NULL) == LP_OK);
    CHECK(wait_events(&f, 20000, events) == 1);
    CHECK(events[0].kind == LP_EXIT_MONITOR && events[0].token == 77);
    CHECK(wait_events(&f, 50, events) == LP_ETIMEOUT); /* dead still, but told */
    lp_exits_forget(&f.exits, other.pidfd);
    lp_exits_forget(&f.exits, other.pidfd); /* twice is no harm */
    kill_and_reap(&other);
    CHECK(wait_events(&f, 50, events) == LP_ETIMEOUT);
    lp_exits_forget(&f.exits, monitor.pidfd);
    CHECK(lp_exits_watch(&f.exits, monitor.pidfd, 80, NULL) == LP_OK); /* one that has ended */
    CHECK(wait_events(&f, 20000, events) == 1 && events[0].token == 80);
    kill_and_reap(&monitor);
    CHECK(lp_exits_watch(&f.exits, -1, 81, &err) == LP_ESYSTEM && err.sys_errno == EBADF);
    close_fixture(&f);
}

/* More monitors and files at once than one batch can carry. */
static void test_everything_at_once(void)
{
    enum {
        MONITORS = 100,
        FILES = 100
    };
    struct fixture f = open_fixture();
    struct lp_exit_event events[LP_EXITS_BATCH];
    struct lp_process monitors[MONITORS];
    bool monitor_told[MONITORS] = {false};
    bool file_told[FILES] = {false};
    bool woken = false;
    char name[16];
    int left = MONITORS + FILES;

    for (unsigned i = 0; i < MONITORS; i++) {
        monitors[i] = spawn_sleeper();
        CHECK(lp_exits_watch(&f.exits, monitors[i].pidfd, i, NULL) == LP_OK);
    }
    for (unsigned i = 0; i < FILES; i++) {
        (void)snprintf(name, sizeof name, "%u", i);
        put(&f, name, "0");
    }
    for (unsigned i = 0; i < MONITORS; i++)
        CHECK(lp_process_signal(&monitors[i], SIGKILL, NULL) == LP_OK);
    for (unsigned i = 0; i < MONITORS; i++)
        CHECK(lp_process_ended(&monitors[i], after_ms(20000), NULL) == LP_OK);
    lp_exits_wake(&f.exits);
    while (left > 0) {
        int count = wait_events(&f, 20000, events);

        CHECK(count > 0);
        for (int i = 0; i < count; i++) {
            bool *told = &woken;

            CHECK(events[i].kind != LP_EXIT_RESCAN);
            if (events[i].kind == LP_EXIT_MONITOR)
                told = &monitor_told[events[i].token];
            else if (events[i].kind == LP_EXIT_FILE)
                told = &file_told[strtoul(events[i].name, NULL, 10)];
            CHECK(!*told);
            *told = true;
            left -= told != &woken;
        }
    }
    CHECK(woken);
    for (unsigned i = 0; i < MONITORS; i++)
        kill_and_reap(&monitors[i]);
    for (unsigned i = 0; i < FILES; i++) {
        (void)snprintf(name, sizeof name, "%u", i);
        take_away(&f, name);
    }
    close_fixture(&f);
}

/* --- waiting ------------------------------------------------------------------------------- */

static void test_deadlines(void)
{
    struct fixture f = open_fixture();
    struct lp_exit_event events[LP_EXITS_BATCH];
    int64_t deadline = after_ms(50);

    CHECK(lp_exits_wait(&f.exits, deadline, events, NULL) == LP_ETIMEOUT);
    CHECK(lp_now() >= deadline && lp_now() < deadline + 5000 * LP_NS_PER_MS);
    CHECK(lp_exits_wait(&f.exits, deadline, events, NULL) == LP_ETIMEOUT);
    close_fixture(&f);
}

static struct lp_exits *woken_by_signal;

static void on_signal(int number)
{
    (void)number;
    if (woken_by_signal != NULL)
        lp_exits_wake(woken_by_signal);
}

static void test_signals(void)
{
    struct fixture f = open_fixture();
    struct lp_exit_event events[LP_EXITS_BATCH];
    struct itimerval soon = {.it_value.tv_usec = 30000};
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART */

    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    CHECK(lp_exits_wait(&f.exits, after_ms(20000), events, NULL) == LP_EINTERRUPTED);
    woken_by_signal = &f.exits;
    CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    CHECK(lp_exits_wait(&f.exits, after_ms(20000), events, NULL) == LP_EINTERRUPTED);
    CHECK(wait_events(&f, 20000, events) == 1 && events[0].kind == LP_EXIT_WAKE);
    CHECK(signal(SIGALRM, SIG_DFL) != SIG_ERR);
    woken_by_signal = NULL;
    close_fixture(&f);
}

static void *wake_thrice(void *exits)
{
    for (int i = 0; i < 3; i++)
        lp_exits_wake(exits);
    return NULL;
}

static void test_waking_from_another_thread(void)
{
    struct fixture f = open_fixture();
    struct lp_exit_event events[LP_EXITS_BATCH];
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, wake_thrice, &f.exits) == 0);
    CHECK(lp_exits_wait(&f.exits, LP_FOREVER, events, NULL) == 1);
    CHECK(events[0].kind == LP_EXIT_WAKE);
    CHECK(pthread_join(thread, NULL) == 0);
    (void)wait_events(&f, 0, events);
    CHECK(wait_events(&f, 0, events) == LP_ETIMEOUT); /* wakes do not pile up */
    close_fixture(&f);
}

int main(void)
{
    int before = count_descriptors();

    CHECK_RUN(test_directories_that_cannot_be_watched);
    CHECK_RUN(test_every_descriptor_is_close_on_exec);
    CHECK_RUN(test_a_file_is_told_when_it_is_final);
    CHECK_RUN(test_the_longest_name);
    CHECK_RUN(test_exit_codes);
    CHECK_RUN(test_garbage_in_an_exit_file);
    CHECK_RUN(test_what_is_no_file_is_not_read);
    CHECK_RUN(test_every_one_of_many_files_is_told_once);
    CHECK_RUN(test_a_full_queue_asks_for_a_rescan);
    CHECK_RUN(test_a_directory_that_went_asks_for_a_rescan);
    CHECK_RUN(test_a_directory_that_was_removed_has_no_files);
    CHECK_RUN(test_the_end_of_a_monitor_is_told_once);
    CHECK_RUN(test_everything_at_once);
    CHECK_RUN(test_deadlines);
    CHECK_RUN(test_signals);
    CHECK_RUN(test_waking_from_another_thread);
    CHECK(count_descriptors() == before);
    return 0;
}
