/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spawning, waiting and signalling.  The children are the system's own small
 * programs, which tell what they were started with by /proc/self.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "check.h"
#include "proc/spawn.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define OUTPUT_MAX ((size_t)64 * 1024)

static char *const no_environment[] = {NULL};
static char *const true_argv[] = {(char[]){"true"}, NULL};

static struct lp_spawn command(char *const *argv)
{
    return (struct lp_spawn){.path = argv[0], .argv = argv, .envp = no_environment};
}

static struct lp_spawn true_command(void)
{
    struct lp_spawn request = command(true_argv);

    request.path = "/bin/true";
    return request;
}

/* A shell script as argv; the array is the caller's. */
static char *const *script(char *argv[4], const char *text)
{
    argv[0] = (char *)(uintptr_t) "/bin/sh";
    argv[1] = (char *)(uintptr_t) "-c";
    argv[2] = (char *)(uintptr_t)text;
    argv[3] = NULL;
    return argv;
}

static int64_t after_ms(int64_t ms)
{
    return lp_now() + ms * LP_NS_PER_MS;
}

static int wait_for(struct lp_process *process)
{
    struct lp_error err;
    int code = 1000;

    CHECK(lp_process_wait(process, after_ms(20000), &code, &err) == LP_OK);
    lp_process_close(process);
    return code;
}

static int run(const struct lp_spawn *request)
{
    struct lp_process process = LP_PROCESS_NONE;
    struct lp_error err;

    CHECK(lp_spawn(request, &process, &err) == LP_OK);
    return wait_for(&process);
}

static void read_all(int fd, char *text)
{
    size_t length = 0;

    for (;;) {
        ssize_t got = LP_RETRY(read(fd, text + length, OUTPUT_MAX - 1 - length));

        CHECK(got >= 0);
        if (got == 0)
            break;
        length += (size_t)got;
    }
    text[length] = '\0';
}

/* Runs a program to its end, its standard output to `text`, with `extra` mapped
 * beside it; its exit code. */
static int run_reading(struct lp_spawn request, const struct lp_fd_map *extra, size_t count,
                       char *text)
{
    struct lp_fd_map fds[16];
    struct lp_process process = LP_PROCESS_NONE;
    struct lp_error err;
    int ends[2];

    CHECK(count < COUNT(fds));
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    if (count > 0)
        memcpy(fds, extra, count * sizeof *fds);
    fds[count] = (struct lp_fd_map){.from = ends[1], .to = 1};
    request.fds = fds;
    request.fd_count = count + 1;
    CHECK(lp_spawn(&request, &process, &err) == LP_OK);
    (void)close(ends[1]);
    read_all(ends[0], text);
    (void)close(ends[0]);
    return wait_for(&process);
}

/* --- what must not be left ------------------------------------------------------ */

static int count_lines(const char *path)
{
    FILE *file = fopen(path, "re");
    int lines = 0;

    CHECK(file != NULL);
    for (int c = getc(file); c != EOF; c = getc(file))
        lines += c == '\n';
    (void)fclose(file);
    return lines;
}

static int count_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 4096; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void check_no_child(void)
{
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

/* --- exit codes and failures ------------------------------------------------------ */

static void test_exit_codes(void)
{
    char *argv[4];
    struct lp_spawn request = true_command();

    CHECK(run(&request) == 0);
    request = command(script(argv, "exit 7"));
    CHECK(run(&request) == 7);
    request = command(script(argv, "kill -9 $$"));
    CHECK(run(&request) == -9);
    request = command(script(argv, "exit 255"));
    CHECK(run(&request) == 255);
    check_no_child();
}

static void check_refused(const struct lp_spawn *request, int error_number, const char *said)
{
    int before = count_descriptors();
    struct lp_process process = LP_PROCESS_NONE;
    struct lp_error err;

    CHECK(lp_spawn(request, &process, &err) == LP_ESPAWN);
    CHECK(err.code == LP_ESPAWN);
    CHECK(err.sys_errno == error_number);
    CHECK(strstr(err.message, said) != NULL);
    CHECK(strstr(err.message, request->path) != NULL);
    CHECK(process.pid == -1 && process.pidfd == -1);
    CHECK(lp_spawn(request, &process, NULL) == LP_ESPAWN);
    CHECK(count_descriptors() == before);
    check_no_child();
}

static void test_failed_exec_tells_its_errno(void)
{
    char path[] = "/tmp/lp-spawn-XXXXXX";
    LP_CLOSE int fd = mkstemp(path);
    char *const argv[] = {path, NULL};
    struct lp_spawn request = command(argv);

    CHECK(fd >= 0 && write(fd, "no program", 10) == 10);
    check_refused(&request, EACCES, "cannot execute");
    CHECK(fchmod(fd, 0755) == 0);
    lp_close_fd(&fd); /* a file that is open for writing is ETXTBSY */
    check_refused(&request, ENOEXEC, "cannot execute");
    CHECK(unlink(path) == 0);
    check_refused(&request, ENOENT, "cannot execute");
    request.path = "/";
    check_refused(&request, EACCES, "cannot execute");
    request.path = "/dev/null/x";
    check_refused(&request, ENOTDIR, "cannot execute");
    request.path = "true"; /* no search in PATH */
    check_refused(&request, ENOENT, "cannot execute");
}

static void test_arguments_that_are_too_long(void)
{
    size_t size = (size_t)1 << 20; /* the kernel takes 128 KiB in one string */
    LP_FREE char *word = malloc(size);
    struct lp_spawn request = true_command();

    CHECK(word != NULL);
    memset(word, 'x', size - 1);
    word[size - 1] = '\0';
    request.argv = (char *const[]){word, NULL};
    check_refused(&request, E2BIG, "cannot execute");
}

static void test_wrong_maps_are_refused(void)
{
    struct lp_spawn request = true_command();
    struct lp_process process = LP_PROCESS_NONE;
    struct lp_error err;

    request.fds = (const struct lp_fd_map[]){{.from = 0, .to = 5}, {.from = 1, .to = 5}};
    request.fd_count = 2;
    CHECK(lp_spawn(&request, &process, &err) == LP_EINVALID);
    CHECK(strstr(err.message, "mapped twice") != NULL);
    request.fds = (const struct lp_fd_map[]){{.from = -1, .to = 5}};
    request.fd_count = 1;
    CHECK(lp_spawn(&request, &process, &err) == LP_EINVALID);
    request.fds = (const struct lp_fd_map[]){{.from = 0, .to = -5}};
    CHECK(lp_spawn(&request, &process, &err) == LP_EINVALID);
    request.fd_count = (size_t)1 << 20; /* refused before anything of it is read */
    CHECK(lp_spawn(&request, &process, &err) == LP_EINVALID);
    request.fds = (const struct lp_fd_map[]){{.from = 999, .to = 5}};
    request.fd_count = 1;
    check_refused(&request, EBADF, "pass descriptors");
}

/* --- what the child gets ------------------------------------------------------------ */

static void test_working_directory(void)
{
    char *argv[4];
    char text[OUTPUT_MAX];
    struct lp_spawn request = command(script(argv, "pwd -P"));

    request.cwd = "/proc";
    CHECK(run_reading(request, NULL, 0, text) == 0);
    CHECK(strcmp(text, "/proc\n") == 0);
    request.cwd = "/no/such/directory";
    check_refused(&request, ENOENT, "working directory");
    request.cwd = "/dev/null";
    check_refused(&request, ENOTDIR, "working directory");
}

static void test_environment_is_exact(void)
{
    char text[OUTPUT_MAX];
    char *const argv[] = {(char[]){"/usr/bin/env"}, NULL};
    char *const envp[] = {(char[]){"A=1"}, (char[]){"B=two words"}, NULL};
    struct lp_spawn request = command(argv);

    CHECK(setenv("LP_OURS", "leaks", 1) == 0);
    CHECK(run_reading(request, NULL, 0, text) == 0);
    CHECK(strcmp(text, "") == 0);
    request.envp = envp;
    CHECK(run_reading(request, NULL, 0, text) == 0);
    CHECK(strcmp(text, "A=1\nB=two words\n") == 0);
    CHECK(unsetenv("LP_OURS") == 0);
}

/* A file with one letter in it, at the descriptor `fd`, or anywhere (-1). */
static int letter_at(int fd, char letter)
{
    int made = memfd_create("letter", 0);

    CHECK(made >= 0 && pwrite(made, &letter, 1, 0) == 1);
    if (fd >= 0 && fd != made) {
        CHECK(dup2(made, fd) == fd);
        (void)close(made);
        made = fd;
    }
    return made;
}

/* What the child reads from its descriptors 20, 21, 22 when they come from
 * `from`; the files hold the letters a, b, c at 20, 21, 22 of ours. */
static void check_letters(const struct lp_fd_map *fds, size_t count, const char *expected)
{
    char *argv[4];
    char text[OUTPUT_MAX];
    struct lp_spawn request =
        command(script(argv, "cat /proc/self/fd/20 /proc/self/fd/21 /proc/self/fd/22 2>/dev/null"));
    int files[3];

    for (int i = 0; i < 3; i++)
        files[i] = letter_at(20 + i, (char)('a' + i));
    (void)run_reading(request, fds, count, text);
    CHECK(strcmp(text, expected) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK(fcntl(files[i], F_GETFD) == 0); /* ours are open and as they were */
        (void)close(files[i]);
    }
}

static void test_descriptor_maps(void)
{
    check_letters((const struct lp_fd_map[]){{20, 20}, {21, 21}, {22, 22}}, 3, "abc");
    check_letters((const struct lp_fd_map[]){{20, 21}, {21, 20}, {22, 22}}, 3, "bac");
    check_letters((const struct lp_fd_map[]){{20, 21}, {21, 22}, {22, 20}}, 3, "cab");
    check_letters((const struct lp_fd_map[]){{22, 20}, {21, 22}, {20, 21}}, 3, "cab");
    check_letters((const struct lp_fd_map[]){{20, 20}, {20, 21}, {20, 22}}, 3, "aaa");
    check_letters((const struct lp_fd_map[]){{22, 21}}, 1, "c");
}

static void test_standard_descriptors(void)
{
    char *argv[4];
    char text[OUTPUT_MAX];
    struct lp_spawn request =
        command(script(argv, "readlink /proc/self/fd/0; readlink /proc/self/fd/2"));
    int ends[2];

    CHECK(run_reading(request, NULL, 0, text) == 0);
    CHECK(strcmp(text, "/dev/null\n/dev/null\n") == 0);
    /* Our own standard output and error, swapped. */
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    request = command(script(argv, "echo error >&2; echo output"));
    request.fds = (const struct lp_fd_map[]){{ends[1], 1}, {ends[1], 2}};
    request.fd_count = 2;
    CHECK(run(&request) == 0);
    (void)close(ends[1]);
    read_all(ends[0], text);
    CHECK(strcmp(text, "error\noutput\n") == 0);
    (void)close(ends[0]);
}

/* A daemon may have none of the three itself. */
static void test_without_standard_descriptors_of_our_own(void)
{
    char *argv[4];
    char text[OUTPUT_MAX];
    struct lp_spawn request =
        command(script(argv, "readlink /proc/self/fd/0; readlink /proc/self/fd/2"));
    int kept = fcntl(0, F_DUPFD_CLOEXEC, 100);

    CHECK(kept >= 100 && close(0) == 0);
    CHECK(run_reading(request, NULL, 0, text) == 0);
    CHECK(strcmp(text, "/dev/null\n/dev/null\n") == 0);
    CHECK(dup2(kept, 0) == 0 && close(kept) == 0);
}

static void check_only_these_descriptors(const struct lp_fd_map *fds, size_t count,
                                         const char *expected)
{
    char *argv[4];
    char text[OUTPUT_MAX];
    /* The shell's glob opens the directory itself; it is closed when the names are printed. */
    struct lp_spawn request = command(
        script(argv, "for f in /proc/self/fd/*; do [ -e $f ] && printf '%s ' ${f##*/}; done; :"));

    CHECK(run_reading(request, fds, count, text) == 0);
    CHECK(strcmp(text, expected) == 0);
}

static void test_no_other_descriptor_leaks(void)
{
    int open_fds[] = {letter_at(-1, 'x'),  letter_at(30, 'x'),  letter_at(31, 'x'),
                      letter_at(500, 'x'), letter_at(777, 'x'), letter_at(1000, 'x')};

    for (int slowly = 0; slowly < 2; slowly++) {
        lp_failpoint_set("spawn.close_range", slowly ? ENOSYS : 0, 0);
        check_only_these_descriptors(NULL, 0, "0 1 2 ");
        check_only_these_descriptors((const struct lp_fd_map[]){{30, 7}, {31, 40}, {777, 600}}, 3,
                                     "0 1 2 40 600 7 ");
    }
    lp_failpoint_set("spawn.close_range", 0, 0);
    for (size_t i = 0; i < COUNT(open_fds); i++)
        CHECK(close(open_fds[i]) == 0);
}

static void ignore_signal(int number)
{
    (void)number;
}

static void test_signals_are_reset(void)
{
    char *const argv[] = {(char[]){"/bin/cat"}, (char[]){"/proc/self/status"}, NULL};
    struct sigaction kept[65];
    struct sigaction now;
    char text[OUTPUT_MAX];
    sigset_t blocked;
    sigset_t before;
    sigset_t after;

    for (int number = 1; number <= SIGRTMAX; number++)
        (void)sigaction(number, NULL, &kept[number]);
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR && signal(SIGINT, SIG_IGN) != SIG_ERR);
    CHECK(signal(SIGTERM, ignore_signal) != SIG_ERR);
    CHECK(signal(SIGRTMIN, SIG_IGN) != SIG_ERR && signal(SIGRTMAX, ignore_signal) != SIG_ERR);
    CHECK(sigfillset(&blocked) == 0);
    CHECK(pthread_sigmask(SIG_BLOCK, &blocked, NULL) == 0);
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &before) == 0);

    CHECK(run_reading(command(argv), NULL, 0, text) == 0);
    CHECK(strstr(text, "SigBlk:\t0000000000000000") != NULL);
    CHECK(strstr(text, "SigIgn:\t0000000000000000") != NULL);
    CHECK(strstr(text, "SigCgt:\t0000000000000000") != NULL);

    /* Ours are as they were. */
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &after) == 0);
    for (int number = 1; number <= SIGRTMAX; number++)
        CHECK(sigismember(&before, number) == sigismember(&after, number));
    CHECK(sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_IGN);
    CHECK(sigaction(SIGRTMAX, NULL, &now) == 0 && now.sa_handler == ignore_signal);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &blocked, NULL) == 0);
    for (int number = 1; number <= SIGRTMAX; number++)
        (void)sigaction(number, &kept[number], NULL);
}

static void test_session_and_group(void)
{
    char *const argv[] = {(char[]){"/bin/cat"}, (char[]){"/proc/self/stat"}, NULL};
    static const unsigned flags[] = {0, LP_SPAWN_SESSION, LP_SPAWN_GROUP};
    char text[OUTPUT_MAX];

    for (size_t i = 0; i < COUNT(flags); i++) {
        struct lp_spawn request = command(argv);
        int pid;
        int group;
        int session;

        request.flags = flags[i];
        CHECK(run_reading(request, NULL, 0, text) == 0);
        CHECK(sscanf(text, "%d (cat) %*c %*d %d %d", &pid, &group, &session) == 3);
        CHECK(group == (flags[i] == 0 ? getpgrp() : pid));
        CHECK(session == (flags[i] == LP_SPAWN_SESSION ? pid : getsid(0)));
    }
}

/* What a caller leaves that ends at once, in `text`: the words of those that are still there
 * two tenths of a second after it. */
static void words_after_caller(unsigned flags, char *text)
{
    char *argv[4];
    struct lp_spawn request = command(
        script(argv, "(sleep 0.2; echo child) & echo; read line; sleep 0.2; echo itself; wait"));
    struct lp_fd_map fds[2];
    struct lp_process process = LP_PROCESS_NONE;
    struct lp_error err;
    int words[2];
    int go[2];
    pid_t caller;

    request.flags = flags;
    request.fds = fds;
    request.fd_count = COUNT(fds);
    CHECK(pipe2(words, O_CLOEXEC) == 0 && pipe2(go, O_CLOEXEC) == 0);
    fds[0] = (struct lp_fd_map){.from = go[0], .to = 0};
    fds[1] = (struct lp_fd_map){.from = words[1], .to = 1};
    caller = fork();
    CHECK(caller >= 0);
    if (caller == 0) /* until the first, empty, line */
        _exit(lp_spawn(&request, &process, &err) == LP_OK && read(words[0], text, 1) == 1 ? 0 : 1);
    CHECK(waitpid(caller, &(int){0}, 0) == caller);
    (void)close(go[0]);
    (void)close(go[1]);
    (void)close(words[1]);
    read_all(words[0], text);
    (void)close(words[0]);
}

static void test_a_bound_child_ends_with_its_caller(void)
{
    char text[OUTPUT_MAX];

    words_after_caller(0, text);
    CHECK(strstr(text, "child\n") != NULL && strstr(text, "itself\n") != NULL);
    words_after_caller(LP_SPAWN_BOUND, text);
    CHECK(strcmp(text, "child\n") == 0);
}

/* --- many, and at once --------------------------------------------------------------- */

static void test_a_thousand_spawns_leave_nothing(void)
{
    struct lp_spawn request = true_command();
    struct lp_spawn refused = true_command();
    int descriptors;
    int mappings;

    refused.path = "/no/such/program";
    CHECK(run(&request) == 0);
    descriptors = count_descriptors();
    mappings = count_lines("/proc/self/maps");
    for (int i = 0; i < 1000; i++) {
        struct lp_process none = LP_PROCESS_NONE;

        CHECK(run(&request) == 0);
        CHECK(lp_spawn(&refused, &none, NULL) == LP_ESPAWN);
    }
    CHECK(count_descriptors() == descriptors);
    CHECK(count_lines("/proc/self/maps") <= mappings + 8); /* the allocators' own */
    check_no_child();
}

#define THREADS 8
#define SPAWNS_PER_THREAD 40

/* Had a child of one thread inherited the pipe of another, the reader would
 * wait for that child, which sleeps longer than the test may take. */
static void *spawn_in_thread(void *argument)
{
    char word[32];
    char expected[40];
    char text[OUTPUT_MAX];
    char *const argv[] = {(char[]){"/bin/echo"}, word, NULL};

    for (int i = 0; i < SPAWNS_PER_THREAD; i++) {
        (void)snprintf(word, sizeof word, "%d-%d", *(int *)argument, i);
        (void)snprintf(expected, sizeof expected, "%s\n", word);
        CHECK(run_reading(command(argv), NULL, 0, text) == 0);
        CHECK(strcmp(text, expected) == 0);
    }
    return NULL;
}

static void test_threads_spawn_at_once(void)
{
    pthread_t threads[THREADS];
    int numbers[THREADS];
    char *argv[4];
    struct lp_process sleeper = LP_PROCESS_NONE;
    struct lp_spawn request = command(script(argv, "exec sleep 1000"));
    int before = count_descriptors();

    CHECK(lp_spawn(&request, &sleeper, NULL) == LP_OK);
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, spawn_in_thread, &numbers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(lp_process_signal(&sleeper, SIGKILL, NULL) == LP_OK);
    CHECK(wait_for(&sleeper) == -SIGKILL);
    CHECK(count_descriptors() == before);
    check_no_child();
}

static volatile sig_atomic_t handled;
static volatile sig_atomic_t handled_in_child;
static pid_t our_pid;

static void count_signal(int number)
{
    (void)number;
    handled = 1;
    if (getpid() != our_pid)
        handled_in_child = 1;
}

static void *send_signals(void *stop)
{
    while (!__atomic_load_n((bool *)stop, __ATOMIC_RELAXED)) {
        (void)kill(0, SIGWINCH); /* the whole group: the children too */
        (void)usleep(50);
    }
    return NULL;
}

static void test_no_handler_of_ours_runs_in_a_child(void)
{
    struct sigaction action = {.sa_handler = count_signal};
    struct lp_spawn request = true_command();
    bool stop = false;
    pthread_t sender;

    our_pid = getpid();
    CHECK(sigaction(SIGWINCH, &action, NULL) == 0);
    CHECK(pthread_create(&sender, NULL, send_signals, &stop) == 0);
    for (int i = 0; i < 200; i++) {
        struct lp_process process = LP_PROCESS_NONE;
        struct lp_error err;
        int code = 1000;
        int rc;

        CHECK(lp_spawn(&request, &process, &err) == LP_OK);
        do
            rc = lp_process_wait(&process, LP_FOREVER, &code, &err);
        while (rc == LP_EINTERRUPTED);
        CHECK(rc == LP_OK && code == 0);
        lp_process_close(&process);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    CHECK(pthread_join(sender, NULL) == 0);
    CHECK(signal(SIGWINCH, SIG_DFL) != SIG_ERR);
    CHECK(handled && !handled_in_child);
}

/* --- waiting and signalling ----------------------------------------------------------- */

/* With the program behind a process of ours: deadlines, EINTR, signals, the end. */
static void check_waiting(void)
{
    char *argv[4];
    struct lp_spawn request = command(script(argv, "exec sleep 1000"));
    struct lp_process process = LP_PROCESS_NONE;
    /* Again and again: the first may come before the wait. */
    struct itimerval soon = {.it_value.tv_usec = 30000, .it_interval.tv_usec = 30000};
    struct itimerval never = {0};
    struct sigaction action = {.sa_handler = ignore_signal}; /* no SA_RESTART */
    struct lp_error err;
    int64_t began;
    int code = 1000;

    CHECK(lp_spawn(&request, &process, &err) == LP_OK);
    CHECK(lp_process_wait(&process, 0, &code, &err) == LP_ETIMEOUT);
    CHECK(lp_process_ended(&process, 0, &err) == LP_ETIMEOUT);
    began = lp_now();
    CHECK(lp_process_wait(&process, began + 50 * LP_NS_PER_MS, &code, &err) == LP_ETIMEOUT);
    CHECK(lp_now() >= began + 50 * LP_NS_PER_MS && lp_now() < began + 5000 * LP_NS_PER_MS);
    began = lp_now();
    CHECK(lp_process_ended(&process, began + 50 * LP_NS_PER_MS, &err) == LP_ETIMEOUT);
    CHECK(lp_now() >= began + 50 * LP_NS_PER_MS && lp_now() < began + 5000 * LP_NS_PER_MS);

    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    CHECK(lp_process_wait(&process, after_ms(20000), &code, &err) == LP_EINTERRUPTED);
    CHECK(lp_process_ended(&process, after_ms(20000), &err) == LP_EINTERRUPTED);
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(signal(SIGALRM, SIG_DFL) != SIG_ERR);
    CHECK(code == 1000);

    CHECK(lp_process_signal(&process, SIGTERM, &err) == LP_OK);
    CHECK(lp_process_wait(&process, after_ms(20000), &code, &err) == LP_OK);
    CHECK(code == -SIGTERM);
    CHECK(lp_process_wait(&process, after_ms(1000), &code, &err) == LP_EREAPED);
    CHECK(lp_process_signal(&process, SIGTERM, &err) == LP_ESYSTEM && err.sys_errno == ESRCH);
    lp_process_close(&process);
    CHECK(process.pidfd == -1);
    lp_process_close(&process); /* twice is no harm */
}

static void test_waiting(void)
{
    check_waiting();
}

static void test_ended_does_not_reap(void)
{
    struct lp_spawn request = true_command();
    struct lp_process process = LP_PROCESS_NONE;

    CHECK(lp_spawn(&request, &process, NULL) == LP_OK);
    CHECK(process.pidfd >= 0);
    CHECK((fcntl(process.pidfd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(lp_process_ended(&process, after_ms(20000), NULL) == LP_OK);
    CHECK(lp_process_ended(&process, after_ms(20000), NULL) == LP_OK);
    CHECK(wait_for(&process) == 0);
}

static void test_a_status_that_somebody_else_took(void)
{
    struct lp_spawn request = true_command();
    struct lp_process process = LP_PROCESS_NONE;
    struct lp_error err;
    int code = 1000;

    CHECK(lp_spawn(&request, &process, &err) == LP_OK);
    CHECK(waitpid(-1, NULL, 0) == process.pid);
    CHECK(lp_process_wait(&process, after_ms(20000), &code, &err) == LP_EREAPED);
    CHECK(code == 1000);
    lp_process_close(&process);
}

static void test_opening_a_process(void)
{
    char *argv[4];
    struct lp_spawn request = command(script(argv, "exec sleep 1000"));
    struct lp_process child = LP_PROCESS_NONE;
    struct lp_process opened = LP_PROCESS_NONE;
    struct lp_error err;
    pid_t pid;

    CHECK(lp_spawn(&request, &child, &err) == LP_OK);
    CHECK(lp_process_open(child.pid, &opened, &err) == LP_OK);
    CHECK(opened.pid == child.pid);
    CHECK(lp_process_ended(&opened, 0, &err) == LP_ETIMEOUT);
    CHECK(lp_process_signal(&opened, SIGKILL, &err) == LP_OK);
    CHECK(lp_process_ended(&opened, after_ms(20000), &err) == LP_OK);
    lp_process_close(&opened);
    pid = child.pid;
    CHECK(wait_for(&child) == -SIGKILL);
    CHECK(lp_process_open(pid, &opened, &err) == LP_ESYSTEM && err.sys_errno == ESRCH);
    CHECK(lp_process_open(0, &opened, &err) == LP_EINVALID);
    CHECK(lp_process_open(-1, &opened, &err) == LP_EINVALID);
    opened = LP_PROCESS_NONE; /* kill(-1) would be everybody */
    CHECK(lp_process_signal(&opened, SIGKILL, &err) == LP_ESYSTEM && err.sys_errno == ESRCH);
}

static void test_a_closed_process_is_left_alone(void)
{
    char *argv[4];
    struct lp_spawn request = command(script(argv, "exec sleep 1000"));
    struct lp_process child = LP_PROCESS_NONE;
    struct lp_process opened = LP_PROCESS_NONE;
    struct lp_error err;
    int code = 1000;

    CHECK(lp_spawn(&request, &child, &err) == LP_OK);
    CHECK(lp_process_open(child.pid, &opened, &err) == LP_OK);
    lp_process_close(&opened);
    CHECK(lp_process_signal(&opened, SIGKILL, &err) == LP_ESYSTEM && err.sys_errno == ESRCH);
    CHECK(lp_process_ended(&opened, LP_FOREVER, &err) == LP_EINVALID);
    CHECK(lp_process_wait(&opened, LP_FOREVER, &code, &err) == LP_EINVALID);
    CHECK(lp_process_ended(&child, after_ms(50), &err) == LP_ETIMEOUT);
    CHECK(lp_process_signal(&child, SIGKILL, &err) == LP_OK);
    CHECK(wait_for(&child) == -SIGKILL);
}

/* --- kernels that lack a call, and a table that is full -------------------------------- */

static void test_pidfd_from_a_second_call(void)
{
    struct lp_spawn request = true_command();
    struct lp_process process = LP_PROCESS_NONE;

    lp_failpoint_set("spawn.clone_pidfd", EINVAL, 0);
    CHECK(lp_spawn(&request, &process, NULL) == LP_OK);
    CHECK(process.pidfd >= 0);
    CHECK((fcntl(process.pidfd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(wait_for(&process) == 0);
    check_waiting();
    lp_failpoint_set("spawn.clone_pidfd", 0, 0);
}

static void test_without_pidfds(void)
{
    char *argv[4];
    struct lp_spawn request = command(script(argv, "exec sleep 1000"));
    struct lp_process child = LP_PROCESS_NONE;
    struct lp_process opened = LP_PROCESS_NONE;
    struct lp_error err;

    lp_failpoint_set("spawn.clone_pidfd", EINVAL, 0);
    lp_failpoint_set("spawn.pidfd_open", ENOSYS, 0);
    check_waiting();
    test_exit_codes();
    test_a_status_that_somebody_else_took();

    CHECK(lp_spawn(&request, &child, &err) == LP_OK);
    CHECK(child.pidfd == -1);
    CHECK(lp_process_open(child.pid, &opened, &err) == LP_OK);
    CHECK(opened.pidfd == -1);
    CHECK(lp_process_ended(&opened, after_ms(20), &err) == LP_ETIMEOUT);
    CHECK(lp_process_signal(&opened, SIGKILL, &err) == LP_OK);
    CHECK(lp_process_ended(&opened, after_ms(20000), &err) == LP_OK); /* a zombie has */
    CHECK(wait_for(&child) == -SIGKILL);
    CHECK(lp_process_ended(&opened, after_ms(20000), &err) == LP_OK);
    CHECK(lp_process_open(opened.pid, &opened, &err) == LP_ESYSTEM && err.sys_errno == ESRCH);
    lp_failpoint_set("spawn.clone_pidfd", 0, 0);
    lp_failpoint_set("spawn.pidfd_open", 0, 0);
}

static void test_full_descriptor_table(void)
{
    struct lp_spawn request = true_command();
    struct rlimit kept;
    int lowest_free = dup(0);

    CHECK(lowest_free >= 0 && close(lowest_free) == 0);
    CHECK(getrlimit(RLIMIT_NOFILE, &kept) == 0);
    /* Not even a pidfd fits, then a pidfd but not the child's copies. */
    for (int room = 0; room < 2; room++) {
        struct rlimit low = {.rlim_cur = (rlim_t)(lowest_free + room), .rlim_max = kept.rlim_max};
        struct lp_process process = LP_PROCESS_NONE;
        struct lp_error err;
        int rc;

        CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
        rc = lp_spawn(&request, &process, &err);
        CHECK(setrlimit(RLIMIT_NOFILE, &kept) == 0);
        CHECK(rc == (room == 0 ? LP_ESYSTEM : LP_ESPAWN));
        CHECK(err.sys_errno == EMFILE);
        CHECK(dup(0) == lowest_free && close(lowest_free) == 0);
        check_no_child();
    }
    CHECK(run(&request) == 0);
}

int main(void)
{
    CHECK(setpgid(0, 0) == 0 || errno == EPERM); /* for the signals to a whole group */
    CHECK_RUN(test_exit_codes);
    CHECK_RUN(test_failed_exec_tells_its_errno);
    CHECK_RUN(test_arguments_that_are_too_long);
    CHECK_RUN(test_wrong_maps_are_refused);
    CHECK_RUN(test_working_directory);
    CHECK_RUN(test_environment_is_exact);
    CHECK_RUN(test_descriptor_maps);
    CHECK_RUN(test_standard_descriptors);
    CHECK_RUN(test_without_standard_descriptors_of_our_own);
    CHECK_RUN(test_no_other_descriptor_leaks);
    CHECK_RUN(test_signals_are_reset);
    CHECK_RUN(test_session_and_group);
    CHECK_RUN(test_a_bound_child_ends_with_its_caller);
    CHECK_RUN(test_a_thousand_spawns_leave_nothing);
    CHECK_RUN(test_threads_spawn_at_once);
    CHECK_RUN(test_no_handler_of_ours_runs_in_a_child);
    CHECK_RUN(test_waiting);
    CHECK_RUN(test_ended_does_not_reap);
    CHECK_RUN(test_a_status_that_somebody_else_took);
    CHECK_RUN(test_opening_a_process);
    CHECK_RUN(test_a_closed_process_is_left_alone);
    CHECK_RUN(test_pidfd_from_a_second_call);
    CHECK_RUN(test_without_pidfds);
    CHECK_RUN(test_full_descriptor_table);
    return 0;
}
