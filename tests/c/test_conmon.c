/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handshake with conmon.  A shell plays conmon here, since the real one
 * cannot be made to answer late, in pieces, wrongly or not at all: descriptor 3
 * is the sync pipe, 4 the start pipe.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "check.h"
#include "proc/conmon.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define AWAIT_START "dd bs=1 count=1 of=/dev/null <&4 2>/dev/null; "
#define ID "0123456789abcdef"

static char *const environment[] = {(char[]){"PATH=/usr/bin:/bin"}, NULL};

static int64_t after_ms(int64_t ms)
{
    return lp_now() + ms * LP_NS_PER_MS;
}

static int64_t boot_time(void)
{
    struct timespec now;

    CHECK(clock_gettime(CLOCK_BOOTTIME, &now) == 0);
    return (int64_t)now.tv_sec * LP_NS_PER_S + now.tv_nsec;
}

static int count_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 4096; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* Begins a handshake with a conmon that does what `text` says; $1 is `argument`. */
static struct lp_conmon begin(const char *text, const char *argument, const char *const *cgroups,
                              size_t cgroup_count)
{
    char *const argv[] = {(char[]){"/bin/sh"},         (char[]){"-c"},
                          (char *)(uintptr_t)text,     (char[]){"conmon"},
                          (char *)(uintptr_t)argument, NULL};
    struct lp_conmon_request request = {
        .spawn = {.path = argv[0], .argv = argv, .envp = environment, .flags = LP_SPAWN_SESSION},
        .cgroups = cgroups,
        .cgroup_count = cgroup_count};
    struct lp_conmon c;
    struct lp_error err;

    CHECK(lp_conmon_begin(&request, &c, &err) == LP_OK);
    CHECK(c.sync_fd >= 0 && (fcntl(c.sync_fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(c.process.pid > 0);
    lp_conmon_go(&c);
    CHECK(c.start_fds[0] == -1 && c.start_fds[1] == -1 && c.procs_fd == -1);
    return c;
}

/* Ends a handshake; the exit code of what was spawned. */
static int end(struct lp_conmon *c)
{
    int code = 1000;

    CHECK(lp_process_wait(&c->process, after_ms(20000), &code, NULL) == LP_OK);
    lp_conmon_end(c);
    CHECK(c->sync_fd == -1 && c->answer == NULL && c->process.pidfd == -1);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    return code;
}

static void check_answer(const struct lp_conmon *c, const char *expected)
{
    CHECK(c->answer_length == strlen(expected));
    CHECK(memcmp(c->answer, expected, c->answer_length) == 0);
}

static char *make_directory(char *pattern)
{
    CHECK(mkdtemp(pattern) == pattern);
    return pattern;
}

static void write_file(const char *path, const char *text)
{
    LP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    CHECK(fd >= 0);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

/* --- the answer ---------------------------------------------------------------------- */

static void test_an_answer(void)
{
    int before = count_descriptors();
    struct lp_conmon c = begin(AWAIT_START "echo '{\"pid\": 42}' >&3", "", NULL, 0);
    struct lp_error err;

    CHECK(c.moved.code == LP_OK);
    CHECK(c.started > 0 && c.started <= boot_time());
    CHECK(lp_conmon_answer(&c, after_ms(20000), &err) == LP_OK);
    check_answer(&c, "{\"pid\": 42}");
    CHECK(end(&c) == 0);
    CHECK(count_descriptors() == before);
}

static void test_an_answer_in_pieces(void)
{
    struct lp_conmon c = begin(AWAIT_START "printf '{\"pid\"' >&3; sleep 0.1; "
                                           "printf ': 7}\\nsecond line' >&3",
                               "", NULL, 0);

    CHECK(lp_conmon_answer(&c, after_ms(20000), NULL) == LP_OK);
    check_answer(&c, "{\"pid\": 7}");
    CHECK(end(&c) == 0);
}

static void test_an_answer_that_is_late(void)
{
    struct lp_conmon c = begin(AWAIT_START "sleep 0.3; echo late >&3", "", NULL, 0);
    struct lp_error err;
    int64_t deadline = after_ms(50);

    CHECK(lp_conmon_answer(&c, 0, &err) == LP_ETIMEOUT);
    CHECK(lp_conmon_answer(&c, deadline, &err) == LP_ETIMEOUT);
    CHECK(lp_now() >= deadline);
    CHECK(lp_conmon_answer(&c, after_ms(20000), &err) == LP_OK);
    check_answer(&c, "late");
    CHECK(end(&c) == 0);
}

static void on_alarm(int number)
{
    (void)number;
}

static void test_a_signal_ends_the_waiting_only(void)
{
    struct lp_conmon c = begin(AWAIT_START "sleep 0.5; echo here >&3", "", NULL, 0);
    struct itimerval soon = {.it_value.tv_usec = 30000};
    struct sigaction action = {.sa_handler = on_alarm}; /* no SA_RESTART */

    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    CHECK(lp_conmon_answer(&c, after_ms(20000), NULL) == LP_EINTERRUPTED);
    CHECK(lp_conmon_answer(&c, after_ms(20000), NULL) == LP_OK);
    check_answer(&c, "here");
    CHECK(end(&c) == 0);
    CHECK(signal(SIGALRM, SIG_DFL) != SIG_ERR);
}

static void test_no_answer(void)
{
    struct lp_error err;
    struct lp_conmon c = begin("exit 3", "", NULL, 0); /* before the start byte: no SIGPIPE */

    CHECK(lp_conmon_answer(&c, after_ms(20000), &err) == LP_EEOF);
    CHECK(err.code == LP_EEOF && c.answer_length == 0);
    CHECK(end(&c) == 3);

    c = begin(AWAIT_START "printf half >&3; kill -9 $$", "", NULL, 0);
    CHECK(lp_conmon_answer(&c, after_ms(20000), &err) == LP_EEOF);
    check_answer(&c, "half");
    CHECK(end(&c) == -SIGKILL);
}

/* The monitor forks away: the end of what was spawned is not the end of the pipe. */
static void test_the_answer_of_a_child(void)
{
    struct lp_conmon c =
        begin(AWAIT_START "(sleep 0.2; echo from a child >&3) & exit 0", "", NULL, 0);

    CHECK(lp_process_ended(&c.process, after_ms(20000), NULL) == LP_OK);
    CHECK(lp_conmon_answer(&c, after_ms(20000), NULL) == LP_OK);
    check_answer(&c, "from a child");
    CHECK(end(&c) == 0);
}

static void test_an_answer_without_end(void)
{
    struct lp_conmon c =
        begin(AWAIT_START "exec head -c 1000000 /dev/zero >&3 2>/dev/null", "", NULL, 0);

    CHECK(lp_conmon_answer(&c, after_ms(20000), NULL) == LP_OK);
    CHECK(c.answer_length == LP_CONMON_ANSWER_MAX);
    for (size_t i = 0; i < c.answer_length; i++)
        CHECK(c.answer[i] == '\0');
    lp_close_fd(&c.sync_fd); /* it has more to say */
    CHECK(end(&c) != 0);
}

/* --- the start ----------------------------------------------------------------------- */

static void test_the_start_byte_comes_after_the_cgroup(void)
{
    char pattern[] = "/tmp/lp-conmon-XXXXXX";
    char *directory = make_directory(pattern);
    const char *const cgroups[] = {directory};
    char path[64];
    char expected[32];
    struct lp_conmon c;

    (void)snprintf(path, sizeof path, "%s/cgroup.procs", directory);
    write_file(path, "");
    c = begin(AWAIT_START "echo $(cat $1/cgroup.procs) $$ >&3", directory, cgroups, 1);
    CHECK(c.moved.code == LP_OK);
    CHECK(lp_conmon_answer(&c, after_ms(20000), NULL) == LP_OK);
    (void)snprintf(expected, sizeof expected, "%d %d", c.process.pid, c.process.pid);
    check_answer(&c, expected);
    CHECK(end(&c) == 0);
    CHECK(unlink(path) == 0 && rmdir(directory) == 0);
}

static cpu_set_t processors_of_conmon(void)
{
    struct lp_conmon c = begin(AWAIT_START "echo go >&3; kill -STOP $$", "", NULL, 0);
    cpu_set_t found;
    int status;

    CHECK(lp_conmon_answer(&c, after_ms(20000), NULL) == LP_OK);
    CHECK(waitpid(c.process.pid, &status, WUNTRACED) == c.process.pid && WIFSTOPPED(status));
    CHECK(sched_getaffinity(c.process.pid, sizeof found, &found) == 0);
    CHECK(kill(c.process.pid, SIGKILL) == 0 && end(&c) == -SIGKILL);
    return found;
}

/* Where it starts is ours to choose, where it may go on is not. */
static void test_conmon_is_bound_to_processors_as_its_caller_is(void)
{
    cpu_set_t before;
    cpu_set_t one;
    cpu_set_t found = processors_of_conmon();

    CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
    CHECK(CPU_EQUAL(&found, &before));
    CPU_ZERO(&one);
    for (size_t cpu = 0; CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before))
            CPU_SET(cpu, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    found = processors_of_conmon();
    CHECK(CPU_EQUAL(&found, &one));
    CHECK(sched_setaffinity(0, sizeof before, &before) == 0);
}

/* Version 1 has "tasks" too, which a task of its own may write without a wait. */
static void test_a_version_1_cgroup_is_entered_from_inside(void)
{
    char pattern[] = "/tmp/lp-conmon-XXXXXX";
    char *directory = make_directory(pattern);
    const char *const cgroups[] = {directory};
    char procs[64];
    char tasks[64];
    struct lp_conmon c;

    (void)snprintf(procs, sizeof procs, "%s/cgroup.procs", directory);
    (void)snprintf(tasks, sizeof tasks, "%s/tasks", directory);
    write_file(procs, "");
    write_file(tasks, "");
    c = begin(AWAIT_START "cat $1/tasks >&3; echo >&3", directory, cgroups, 1);
    CHECK(c.moved.code == LP_OK);
    CHECK(lp_conmon_answer(&c, after_ms(20000), NULL) == LP_OK);
    check_answer(&c, "0");
    CHECK(end(&c) == 0);

    CHECK(unlink(tasks) == 0 && symlink("/dev/full", tasks) == 0); /* refused from inside */
    c = begin(AWAIT_START "[ $(cat $1/cgroup.procs) = $$ ] && echo moved >&3", directory, cgroups,
              1);
    CHECK(c.moved.code == LP_OK);
    CHECK(lp_conmon_answer(&c, after_ms(20000), NULL) == LP_OK);
    check_answer(&c, "moved");
    CHECK(end(&c) == 0);
    CHECK(unlink(procs) == 0 && unlink(tasks) == 0 && rmdir(directory) == 0);
}

/* The directory is made; a file system that is not a cgroup's has no file in it then. */
static void test_a_cgroup_that_refuses_is_told(void)
{
    char pattern[] = "/tmp/lp-conmon-XXXXXX";
    char *directory = make_directory(pattern);
    char deep[96];
    char parent[96];
    char path[8192];
    const char *const cgroups[] = {deep, "/dev/null", path};
    struct lp_conmon c;

    (void)snprintf(parent, sizeof parent, "%s/a", directory);
    (void)snprintf(deep, sizeof deep, "%s/a/b", directory);
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    for (size_t i = 0; i < COUNT(cgroups); i++) {
        c = begin(AWAIT_START "echo on we go >&3", "", cgroups + i, 1);
        CHECK(c.moved.code == LP_ESYSTEM);
        CHECK(strstr(c.moved.message, i < 2 ? cgroups[i] : "xxxx") != NULL);
        CHECK(lp_conmon_answer(&c, after_ms(20000), NULL) == LP_OK);
        check_answer(&c, "on we go");
        CHECK(end(&c) == 0);
    }
    c = begin(AWAIT_START "echo on we go >&3", "", cgroups, COUNT(cgroups));
    CHECK(strstr(c.moved.message, deep) != NULL); /* the first of three failures */
    CHECK(lp_conmon_answer(&c, after_ms(20000), NULL) == LP_OK);
    CHECK(end(&c) == 0);
    CHECK(rmdir(deep) == 0 && rmdir(parent) == 0 && rmdir(directory) == 0);
}

static void test_only_the_pipes_and_what_was_asked_for(void)
{
    struct lp_conmon c =
        begin(AWAIT_START
              "for f in /proc/self/fd/*; do [ -e $f ] && l=\"$l ${f##*/}\"; done; echo $l >&3",
              "", NULL, 0);

    CHECK(lp_conmon_answer(&c, after_ms(20000), NULL) == LP_OK);
    check_answer(&c, "0 1 2 3 4");
    CHECK(end(&c) == 0);
}

static void test_a_conmon_that_cannot_be_started(void)
{
    char *const argv[] = {(char[]){"/no/such/conmon"}, NULL};
    struct lp_conmon_request request = {
        .spawn = {.path = argv[0], .argv = argv, .envp = environment}};
    int before = count_descriptors();
    struct lp_conmon c;
    struct lp_error err;

    CHECK(lp_conmon_begin(&request, &c, &err) == LP_ESPAWN);
    CHECK(err.sys_errno == ENOENT && strstr(err.message, argv[0]) != NULL);
    CHECK(c.sync_fd == -1 && c.process.pid == -1);
    lp_conmon_end(&c);
    CHECK(count_descriptors() == before);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

/* --- the monitor ---------------------------------------------------------------------- */

struct fixture {
    char directory[32];
    char pid_file[64];
    struct lp_process monitor;
    int64_t before; /* the monitor is not older than this */
};

/* A process with ID on its command line, and a directory for its pid file. */
static struct fixture make_monitor(void)
{
    char program[64];
    char *const argv[] = {program, (char[]){"-c"}, (char[]){"echo; while :; do sleep 1000; done"},
                          (char[]){ID}, NULL};
    struct fixture f = {.directory = "/tmp/lp-conmon-XXXXXX", .before = boot_time()};
    struct lp_fd_map output = {.to = 1};
    struct lp_spawn request = {.path = program,
                               .argv = argv,
                               .envp = environment,
                               .fds = &output,
                               .fd_count = 1,
                               .flags = LP_SPAWN_GROUP};
    int ends[2];

    (void)make_directory(f.directory);
    (void)snprintf(f.pid_file, sizeof f.pid_file, "%s/pid", f.directory);
    /* Its name makes /proc/PID/stat as hard to read as can be. */
    (void)snprintf(program, sizeof program, "%s/x) S 1 2 (3", f.directory);
    CHECK(symlink("/bin/sh", program) == 0);
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    output.from = ends[1];
    CHECK(lp_spawn(&request, &f.monitor, NULL) == LP_OK);
    CHECK(unlink(program) == 0);
    /* The kernel lets us go on a moment before it shows the new command line. */
    CHECK(read(ends[0], &(char){0}, 1) == 1);
    (void)close(ends[0]);
    (void)close(ends[1]);
    return f;
}

static void kill_monitor(struct fixture *f)
{
    int code;

    CHECK(kill(-f->monitor.pid, SIGKILL) == 0);
    CHECK(lp_process_wait(&f->monitor, after_ms(20000), &code, NULL) == LP_OK);
}

static void end_monitor(struct fixture *f)
{
    lp_process_close(&f->monitor);
    (void)unlink(f->pid_file);
    CHECK(rmdir(f->directory) == 0);
}

static void write_pid(const struct fixture *f, const char *format)
{
    char text[64];

    (void)snprintf(text, sizeof text, format, f->monitor.pid);
    write_file(f->pid_file, text);
}

static int open_monitor(const struct fixture *f, const char *id, int64_t not_before,
                        struct lp_error *err)
{
    struct lp_process opened = LP_PROCESS_NONE;
    uint64_t start_time = 0;
    int rc = lp_monitor_open(f->pid_file, id, not_before, &opened, &start_time, err);

    CHECK(rc == LP_OK ? opened.pid == f->monitor.pid : opened.pidfd == -1);
    if (rc == LP_OK) {
        int64_t tick = LP_NS_PER_S / sysconf(_SC_CLK_TCK);
        int64_t started = (int64_t)start_time * tick;

        CHECK(started >= f->before - tick && started <= boot_time());
    }
    lp_process_close(&opened);
    return rc;
}

static void test_the_monitor_is_found(void)
{
    struct fixture f = make_monitor();
    int before = count_descriptors();
    struct lp_error err;

    write_pid(&f, "%d");
    CHECK(open_monitor(&f, ID, 0, &err) == LP_OK);
    CHECK(open_monitor(&f, ID, f.before, &err) == LP_OK);
    write_pid(&f, "%d\n");
    CHECK(open_monitor(&f, ID, f.before, &err) == LP_OK);
    CHECK(count_descriptors() == before);
    kill_monitor(&f);
    end_monitor(&f);
}

static void test_a_stranger_is_not_taken_for_the_monitor(void)
{
    static const char *const texts[] = {
        "",    "\n",          "pid",
        "%dx", "0",           "1",
        "-5",  "99999999999", "99999999999999999999999999999999999999"};
    struct fixture f = make_monitor();
    int before = count_descriptors();
    struct lp_error err;

    write_pid(&f, "%d");
    CHECK(open_monitor(&f, "another", 0, &err) == LP_ESTRANGER);
    CHECK(open_monitor(&f, ID "0", 0, &err) == LP_ESTRANGER); /* whole words only */
    CHECK(open_monitor(&f, "", 0, &err) == LP_ESTRANGER);
    CHECK(open_monitor(&f, ID, boot_time() + 10 * LP_NS_PER_S, &err) == LP_ESTRANGER);
    for (size_t i = 0; i < COUNT(texts); i++) {
        if (strchr(texts[i], '%') != NULL)
            write_pid(&f, "%dx");
        else
            write_file(f.pid_file, texts[i]);
        CHECK(open_monitor(&f, ID, 0, &err) == LP_ESTRANGER);
        CHECK(strstr(err.message, f.pid_file) != NULL);
    }
    CHECK(count_descriptors() == before);
    kill_monitor(&f);
    end_monitor(&f);
}

static void test_pid_files_that_are_none(void)
{
    struct fixture f = make_monitor();
    struct lp_error err;

    CHECK(open_monitor(&f, ID, 0, &err) == LP_ESYSTEM && err.sys_errno == ENOENT);
    CHECK(symlink("/proc/self/stat", f.pid_file) == 0);
    CHECK(open_monitor(&f, ID, 0, &err) == LP_ESYSTEM && err.sys_errno == ELOOP);
    CHECK(unlink(f.pid_file) == 0 && mkfifo(f.pid_file, 0600) == 0);
    CHECK(open_monitor(&f, ID, 0, &err) == LP_ESTRANGER); /* and does not wait for a writer */
    CHECK(unlink(f.pid_file) == 0 && mkdir(f.pid_file, 0700) == 0);
    CHECK(open_monitor(&f, ID, 0, &err) == LP_ESYSTEM && err.sys_errno == EISDIR);
    CHECK(rmdir(f.pid_file) == 0);
    kill_monitor(&f);
    end_monitor(&f);
}

static void test_a_monitor_that_is_gone(void)
{
    struct fixture f = make_monitor();
    struct lp_error err;

    write_pid(&f, "%d");
    CHECK(kill(-f.monitor.pid, SIGKILL) == 0);
    CHECK(lp_process_ended(&f.monitor, after_ms(20000), NULL) == LP_OK);
    CHECK(open_monitor(&f, ID, 0, &err) == LP_ESTRANGER); /* a zombie has no command line */
    CHECK(lp_process_wait(&f.monitor, after_ms(20000), &(int){0}, NULL) == LP_OK);
    CHECK(open_monitor(&f, ID, 0, &err) == LP_ESYSTEM && err.sys_errno == ESRCH);
    end_monitor(&f);
}

int main(void)
{
    CHECK_RUN(test_an_answer);
    CHECK_RUN(test_an_answer_in_pieces);
    CHECK_RUN(test_an_answer_that_is_late);
    CHECK_RUN(test_a_signal_ends_the_waiting_only);
    CHECK_RUN(test_no_answer);
    CHECK_RUN(test_the_answer_of_a_child);
    CHECK_RUN(test_an_answer_without_end);
    CHECK_RUN(test_the_start_byte_comes_after_the_cgroup);
    CHECK_RUN(test_conmon_is_bound_to_processors_as_its_caller_is);
    CHECK_RUN(test_a_version_1_cgroup_is_entered_from_inside);
    CHECK_RUN(test_a_cgroup_that_refuses_is_told);
    CHECK_RUN(test_only_the_pipes_and_what_was_asked_for);
    CHECK_RUN(test_a_conmon_that_cannot_be_started);
    CHECK_RUN(test_the_monitor_is_found);
    CHECK_RUN(test_a_stranger_is_not_taken_for_the_monitor);
    CHECK_RUN(test_pid_files_that_are_none);
    CHECK_RUN(test_a_monitor_that_is_gone);
    return 0;
}
