/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The least that launches a container through conmon and an OCI runtime: no
 * library, no locks, no state, no attaching.  For each launch it makes a
 * bundle from a given config.json, starts conmon, reads its answer, starts,
 * waits for the exit file and deletes.  How it starts and deletes:
 *
 *   asking  the runtime is executed for both, as podman does
 *   direct  by the runtime's exec.fifo, and by removing its files and cgroups:
 *           the least known, and what the library does
 *
 *   driver asking|direct CONMON RUNTIME CONFIG WORK_DIR RUN_DIR CGROUP_PARENT COUNT
 *
 * prints the wall time of each launch, in ns, a line each.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *conmon_env[] = {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "_OCI_SYNCPIPE=3",
    "_OCI_STARTPIPE=4",
    NULL,
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* config.json with this launch's cgroup in the place of "@CGROUP@". */
static void write_bundle(const char *config, const char *cgroup, const char *directory)
{
    char path[PATH_MAX];
    const char *mark = strstr(config, "@CGROUP@");
    FILE *file;

    if (mkdir(directory, 0700) < 0)
        die(directory);
    (void)snprintf(path, sizeof path, "%s/config.json", directory);
    file = fopen(path, "we");
    if (file == NULL || mark == NULL)
        die(path);
    (void)fprintf(file, "%.*s%s%s", (int)(mark - config), config, cgroup,
                  mark + strlen("@CGROUP@"));
    if (fclose(file) != 0)
        die(path);
}

static void run(char *const argv[])
{
    pid_t pid;
    int status;

    if (posix_spawn(&pid, argv[0], NULL, NULL, argv, conmon_env) != 0)
        die(argv[0]);
    if (waitpid(pid, &status, 0) < 0 || status != 0)
        die(argv[0]);
}

static void start_conmon(char *const argv[])
{
    posix_spawn_file_actions_t actions;
    int sync[2];
    int start[2];
    char answer[4096];
    ssize_t got;
    pid_t pid;
    int status;

    if (pipe2(sync, O_CLOEXEC) < 0 || pipe2(start, O_CLOEXEC) < 0)
        die("pipe2");
    (void)posix_spawn_file_actions_init(&actions);
    /* Above 4 first, so that neither is overwritten by the other. */
    (void)posix_spawn_file_actions_adddup2(&actions, sync[1], 20);
    (void)posix_spawn_file_actions_adddup2(&actions, start[0], 21);
    (void)posix_spawn_file_actions_adddup2(&actions, 20, 3);
    (void)posix_spawn_file_actions_adddup2(&actions, 21, 4);
    (void)posix_spawn_file_actions_addclose(&actions, 20);
    (void)posix_spawn_file_actions_addclose(&actions, 21);
    if (posix_spawn(&pid, argv[0], &actions, NULL, argv, conmon_env) != 0)
        die(argv[0]);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(sync[1]);
    (void)close(start[0]);
    if (write(start[1], "", 1) != 1 || waitpid(pid, &status, 0) < 0)
        die("conmon");
    got = read(sync[0], answer, sizeof answer - 1);
    answer[got > 0 ? got : 0] = '\0';
    if (strstr(answer, "\"pid\": -1") != NULL || strstr(answer, "pid") == NULL) {
        (void)fprintf(stderr, "conmon answered: %s\n", answer);
        exit(1);
    }
    (void)close(sync[0]);
    (void)close(start[1]);
}

static void await_exit_file(int notify, const char *path)
{
    char events[4096];

    while (access(path, F_OK) < 0)
        if (read(notify, events, sizeof events) < 0)
            die("inotify");
}

/* crun waits for a byte to read, runc for somebody to write to. */
static void start_direct(const char *runtime, const char *state)
{
    char path[PATH_MAX];
    char byte = '0';
    bool writes = strcmp(strrchr(runtime, '/') + 1, "crun") == 0;
    int fd;

    (void)snprintf(path, sizeof path, "%.2000s/exec.fifo", state);
    fd = open(path, (writes ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
    if (fd < 0 || (writes ? write(fd, &byte, 1) : read(fd, &byte, 1)) != 1 || unlink(path) < 0)
        die(path);
    (void)close(fd);
}

static void delete_direct(const char *state, const char *cgroup)
{
    const char *base = "/sys/fs/cgroup";
    char path[PATH_MAX];
    DIR *directory = opendir(state);
    struct dirent *entry;

    if (directory == NULL)
        die(state);
    while ((entry = readdir(directory)) != NULL)
        if (entry->d_name[0] != '.')
            (void)unlinkat(dirfd(directory), entry->d_name, 0);
    (void)closedir(directory);
    if (rmdir(state) < 0)
        die(state);
    directory = opendir(base);
    if (directory == NULL)
        die(base);
    while ((entry = readdir(directory)) != NULL) {
        if (entry->d_type != DT_DIR || strcmp(entry->d_name, "..") == 0)
            continue;
        (void)snprintf(path, sizeof path, "%s/%s%.2000s", base, entry->d_name, cgroup);
        (void)rmdir(path);
    }
    (void)closedir(directory);
}

static void launch(char *argv[], const char *config, int notify, int number)
{
    bool direct = strcmp(argv[1], "direct") == 0;
    char *conmon = argv[2];
    char *runtime = argv[3];
    char id[65];
    char cgroup[PATH_MAX];
    char state[PATH_MAX];
    char bundle[PATH_MAX];
    char exits[PATH_MAX];
    char exit_file[PATH_MAX];
    char pid_file[PATH_MAX];
    char log_path[PATH_MAX];
    char root[PATH_MAX];

    (void)snprintf(id, sizeof id, "%048d%016x", number, (unsigned)getpid());
    (void)snprintf(cgroup, sizeof cgroup, "%s/%s", argv[7], id);
    (void)snprintf(bundle, sizeof bundle, "%s/%s", argv[5], id);
    (void)snprintf(exits, sizeof exits, "%s/exits", argv[6]);
    (void)snprintf(exit_file, sizeof exit_file, "%.2000s/%s", exits, id);
    (void)snprintf(pid_file, sizeof pid_file, "%.2000s/%s.pid", argv[6], id);
    (void)snprintf(log_path, sizeof log_path, "k8s-file:%.2000s/ctr.log", bundle);
    (void)snprintf(root, sizeof root, "%s/root", argv[6]);
    (void)snprintf(state, sizeof state, "%.2000s/%s", root, id);
    write_bundle(config, cgroup, bundle);
    start_conmon((char *[]){conmon,
                            "-c",
                            id,
                            "-u",
                            id,
                            "-r",
                            runtime,
                            "-b",
                            bundle,
                            "-p",
                            pid_file,
                            "-l",
                            log_path,
                            "--exit-dir",
                            exits,
                            "--socket-dir-path",
                            argv[5],
                            "--full-attach",
                            "--log-level",
                            "warning",
                            "--runtime-arg",
                            "--root",
                            "--runtime-arg",
                            root,
                            NULL});
    if (direct)
        start_direct(runtime, state);
    else
        run((char *[]){runtime, "--root", root, "start", id, NULL});
    await_exit_file(notify, exit_file);
    if (direct)
        delete_direct(state, cgroup);
    else
        run((char *[]){runtime, "--root", root, "delete", "--force", id, NULL});
}

static char *read_file(const char *path)
{
    static char text[1 << 20];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

    if (got < 0)
        die(path);
    (void)close(fd);
    text[got] = '\0';
    return text;
}

int main(int argc, char *argv[])
{
    char exits[PATH_MAX];
    char *config;
    int notify = inotify_init1(IN_CLOEXEC);

    if (argc != 9)
        return 2;
    config = read_file(argv[4]);
    (void)snprintf(exits, sizeof exits, "%s/exits", argv[6]);
    if (mkdir(exits, 0700) < 0 && errno != EEXIST)
        die(exits);
    if (notify < 0 || inotify_add_watch(notify, exits, IN_MOVED_TO) < 0)
        die(exits);
    for (int i = 0; i < atoi(argv[8]); i++) {
        int64_t began = now();

        launch(argv, config, notify, i);
        (void)printf("%lld\n", (long long)(now() - began));
    }
    return 0;
}
