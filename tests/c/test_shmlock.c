/* SPDX-License-Identifier: Apache-2.0 */
/* sys/shmlock. */
#include "base/clock.h"
#include "check.h"
#include "sys/shmlock.h"
#include "sys/sys.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOCKS 64
#define SIZE (56 + LOCKS / 32 * 1288) /* bytes of a segment, x86-64 */

static char room[64]; /* a private directory in /tmp */
static char path[128];

static int64_t in_ms(int64_t ms)
{
    return lp_now() + ms * LP_NS_PER_MS;
}

static struct lp_shm *open_segment(void)
{
    struct lp_shm *shm = NULL;
    struct lp_error err;

    if (lp_shm_open(path, LOCKS, &shm, &err) != 0)
        (void)fprintf(stderr, "%s\n", err.message);
    CHECK(shm != NULL);
    return shm;
}

static void discard(struct lp_shm *shm)
{
    lp_shm_free(shm);
    CHECK(unlink(path) == 0);
}

/* Waits as a caller does that has no signals to serve. */
static int lock(struct lp_shm *shm, uint32_t id, int64_t deadline)
{
    int code;

    do
        code = lp_shm_lock(shm, id, deadline, NULL);
    while (code == LP_EINTERRUPTED);
    return code;
}

/* The file's bytes, to look at or to change. */
static unsigned char *bytes(void)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    CHECK(fd >= 0 && map != MAP_FAILED && close(fd) == 0);
    return map;
}

static uint32_t word_at(const unsigned char *at)
{
    uint32_t word;

    memcpy(&word, at, sizeof word);
    return word;
}

/* --- the file ----------------------------------------------------------------------- */

static void test_the_layout_is_podmans(void)
{
    const mode_t old = umask(0777);
    struct lp_shm *shm = open_segment();
    unsigned char *map = bytes();
    struct stat st;
    uint32_t id;

    (void)umask(old);
    CHECK(stat(path, &st) == 0 && st.st_size == SIZE && (st.st_mode & 07777) == 0600);
    CHECK(word_at(map) == 0x87D1 && word_at(map + 48) == 2 && word_at(map + 52) == LOCKS);
    CHECK(word_at(map + 8 + 16) == 0x90);         /* robust and shared: the segment's mutex */
    CHECK(word_at(map + 56 + 8 + 16) == 0x90);    /* the first lock */
    CHECK(word_at(map + SIZE - 40 + 16) == 0x90); /* the last one */
    CHECK(lp_shm_allocate_given(shm, 33, LP_FOREVER, NULL) == 0);
    CHECK(word_at(map + 56) == 0 && word_at(map + 56 + 1288) == 2);
    CHECK(lp_shm_allocate(shm, LP_FOREVER, &id, NULL) == 0 && id == 0);
    CHECK(word_at(map + 56) == 1);
    CHECK(lp_shm_lock(shm, 1, 0, NULL) == 0);
    CHECK(word_at(map + 56 + 8 + 40) == (uint32_t)gettid());
    CHECK(lp_shm_unlock(shm, 1) == 0 && word_at(map + 56 + 8 + 40) == 0);
    CHECK(munmap(map, SIZE) == 0);
    discard(shm);
}

static void test_the_number_is_that_of_the_file(void)
{
    struct lp_shm *shm = open_segment(), *other = NULL;

    CHECK(lp_shm_open(path, 2048, &other, NULL) == 0 && lp_shm_limit(other) == LOCKS);
    lp_shm_free(other);
    CHECK(lp_shm_open(path, 33, &other, NULL) == 0 && lp_shm_limit(other) == 33);
    CHECK(lp_shm_allocate_given(other, 33, LP_FOREVER, NULL) == LP_EINVALID);
    lp_shm_free(other);
    discard(shm);
}

static void refuse(int expected)
{
    struct lp_shm *shm = NULL;
    struct lp_error err;

    CHECK(lp_shm_open(path, LOCKS, &shm, &err) == expected && shm == NULL);
    CHECK(err.code == expected && err.message[0] != '\0');
}

static void spoil(size_t offset, unsigned char value)
{
    unsigned char *map = bytes();
    unsigned char before = map[offset];

    map[offset] = value;
    refuse(LP_EFOREIGN);
    map[offset] = before;
    CHECK(munmap(map, SIZE) == 0);
}

static void test_what_is_no_segment_is_refused(void)
{
    struct lp_shm *shm = open_segment();

    spoil(0, 0);     /* the magic number */
    spoil(48, 1);    /* bitmaps and locks that do not match */
    spoil(51, 0x80); /* more bitmaps than can be */
    CHECK(truncate(path, SIZE - 1) == 0);
    refuse(LP_EFOREIGN);
    CHECK(truncate(path, SIZE + 1288) == 0);
    refuse(LP_EFOREIGN);
    CHECK(truncate(path, 10) == 0);
    refuse(LP_EFOREIGN);
    CHECK(truncate(path, 0) == 0);
    refuse(LP_EFOREIGN);
    lp_shm_free(shm);
    CHECK(unlink(path) == 0 && symlink("/etc/passwd", path) == 0);
    refuse(LP_EREFUSED);
    CHECK(unlink(path) == 0 && mkdir(path, 0700) == 0);
    refuse(LP_EREFUSED);
    CHECK(rmdir(path) == 0 && mkfifo(path, 0600) == 0);
    refuse(LP_EREFUSED);
    CHECK(unlink(path) == 0);
}

static void test_wrong_arguments(void)
{
    struct lp_shm *shm = NULL;
    struct lp_error err;

    CHECK(lp_shm_open("relative", LOCKS, &shm, NULL) == LP_EINVALID);
    CHECK(lp_shm_open(path, 0, &shm, NULL) == LP_EINVALID);
    CHECK(lp_shm_open("/no/such/place", LOCKS, &shm, &err) == LP_ESYSTEM);
    CHECK(err.sys_errno == ENOENT && shm == NULL);
    shm = open_segment();
    CHECK(lp_shm_lock(shm, LOCKS, 0, NULL) == LP_EINVALID);
    CHECK(lp_shm_lock(shm, UINT32_MAX, 0, NULL) == LP_EINVALID);
    CHECK(lp_shm_release(shm, LOCKS, 0, NULL) == LP_EINVALID);
    CHECK(lp_shm_unlock(shm, LOCKS) == LP_ENOTHELD && lp_shm_holder(shm, LOCKS) == 0);
    discard(shm);
    lp_shm_free(NULL);
}

static void *open_at_once(void *start)
{
    (void)pthread_barrier_wait(start);
    return open_segment();
}

static void test_many_make_it_at_once(void)
{
    enum {
        THREADS = 8
    };
    pthread_barrier_t start;
    pthread_t threads[THREADS];
    struct lp_shm *made[THREADS];
    void *result;

    CHECK(pthread_barrier_init(&start, NULL, THREADS) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, open_at_once, &start) == 0);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], &result) == 0);
        made[i] = result;
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        uint32_t id;

        CHECK(lp_shm_allocate(made[i], LP_FOREVER, &id, NULL) == 0 && id == i);
    }
    for (int i = 1; i < THREADS; i++)
        lp_shm_free(made[i]);
    (void)pthread_barrier_destroy(&start);
    discard(made[0]);
}

/* --- allocation --------------------------------------------------------------------- */

static void test_allocation(void)
{
    struct lp_shm *shm = open_segment();
    uint32_t bitmap[LOCKS / 32];
    struct lp_error err;
    uint32_t id;

    for (uint32_t i = 0; i < LOCKS; i++)
        CHECK(lp_shm_allocate(shm, LP_FOREVER, &id, NULL) == 0 && id == i);
    CHECK(lp_shm_allocate(shm, LP_FOREVER, &id, &err) == LP_EFULL && strstr(err.message, "64"));
    CHECK(lp_shm_allocate_given(shm, 40, LP_FOREVER, NULL) == LP_ETAKEN);
    CHECK(lp_shm_release(shm, 40, LP_FOREVER, NULL) == 0);
    CHECK(lp_shm_release(shm, 40, LP_FOREVER, NULL) == 0);
    CHECK(lp_shm_release(shm, 31, LP_FOREVER, NULL) == 0);
    CHECK(lp_shm_allocated(shm, LP_FOREVER, bitmap, NULL) == 0);
    CHECK(bitmap[0] == 0x7fffffff && bitmap[1] == 0xfffffeff);
    CHECK(lp_shm_allocate_given(shm, 40, LP_FOREVER, NULL) == 0);
    CHECK(lp_shm_allocate(shm, LP_FOREVER, &id, NULL) == 0 && id == 31);
    CHECK(lp_shm_release_all(shm, LP_FOREVER, NULL) == 0);
    CHECK(lp_shm_allocated(shm, LP_FOREVER, bitmap, NULL) == 0 && bitmap[0] == 0 && bitmap[1] == 0);
    discard(shm);
}

static void test_bits_beyond_the_limit_are_left_alone(void)
{
    struct lp_shm *all = open_segment(), *some = NULL;
    uint32_t bitmap[2], id = 0;

    CHECK(lp_shm_open(path, 40, &some, NULL) == 0);
    CHECK(lp_shm_allocate_given(all, 63, LP_FOREVER, NULL) == 0);
    for (uint32_t i = 0; i < 40; i++)
        CHECK(lp_shm_allocate(some, LP_FOREVER, &id, NULL) == 0 && id == i);
    CHECK(lp_shm_allocate(some, LP_FOREVER, &id, NULL) == LP_EFULL);
    CHECK(lp_shm_allocated(some, LP_FOREVER, bitmap, NULL) == 0 && bitmap[1] == 0xff);
    CHECK(lp_shm_release_all(some, LP_FOREVER, NULL) == 0);
    CHECK(lp_shm_allocated(all, LP_FOREVER, bitmap, NULL) == 0 && bitmap[1] == 0x80000000);
    lp_shm_free(some);
    discard(all);
}

static void *allocate_many(void *shm)
{
    uint32_t id;

    for (int i = 0; i < 8; i++)
        CHECK(lp_shm_allocate(shm, LP_FOREVER, &id, NULL) == 0);
    return NULL;
}

static void test_threads_allocate_different_ones(void)
{
    struct lp_shm *shm = open_segment();
    pthread_t threads[8];
    uint32_t id;

    for (int i = 0; i < 8; i++)
        CHECK(pthread_create(&threads[i], NULL, allocate_many, shm) == 0);
    for (int i = 0; i < 8; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(lp_shm_allocate(shm, LP_FOREVER, &id, NULL) == LP_EFULL);
    discard(shm);
}

/* --- locking ------------------------------------------------------------------------ */

struct turns {
    struct lp_shm *shm;
    int inside;
    int taken;
};

static void *take_turns(void *argument)
{
    struct turns *turns = argument;

    for (int i = 0; i < 200; i++) {
        CHECK(lock(turns->shm, 5, LP_FOREVER) == 0);
        CHECK(turns->inside++ == 0);
        turns->taken++;
        turns->inside--;
        CHECK(lp_shm_unlock(turns->shm, 5) == 0);
    }
    return NULL;
}

static void test_threads_exclude_each_other(void)
{
    struct turns turns = {open_segment(), 0, 0};
    pthread_t threads[4];

    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, take_turns, &turns) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(turns.taken == 800);
    discard(turns.shm);
}

static void test_it_is_not_recursive(void)
{
    struct lp_shm *shm = open_segment(), *other = open_segment();

    CHECK(lp_shm_unlock(shm, 0) == LP_ENOTHELD);
    CHECK(lp_shm_lock(shm, 0, 0, NULL) == 0);
    CHECK(lp_shm_lock(shm, 0, LP_FOREVER, NULL) == LP_EHELD);
    CHECK(lp_shm_lock(other, 0, LP_FOREVER, NULL) == LP_EHELD); /* another mapping of it */
    CHECK(lp_shm_holder(other, 0) == gettid());
    CHECK(lp_shm_lock(shm, 1, 0, NULL) == 0); /* another lock */
    CHECK(lp_shm_unlock(shm, 1) == 0 && lp_shm_unlock(shm, 0) == 0);
    CHECK(lp_shm_unlock(shm, 0) == LP_ENOTHELD && lp_shm_holder(shm, 0) == 0);
    lp_shm_free(other);
    discard(shm);
}

/* A child that holds lock 0, and says so. */
static pid_t start_holder(struct lp_shm *shm)
{
    int ready[2];
    char byte;
    pid_t child;

    CHECK(pipe2(ready, O_CLOEXEC) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(lock(shm, 0, LP_FOREVER) == 0 && write(ready[1], "x", 1) == 1);
        for (;;)
            (void)pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1 && close(ready[0]) == 0 && close(ready[1]) == 0);
    return child;
}

static void end_holder(pid_t child)
{
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
}

static void test_a_wait_ends_with_its_deadline(void)
{
    struct lp_shm *shm = open_segment();
    pid_t child = start_holder(shm);
    int64_t begun = lp_now();

    CHECK(lp_shm_lock(shm, 0, 0, NULL) == LP_ETIMEOUT);
    CHECK(lp_now() - begun < 5 * LP_NS_PER_S);
    CHECK(lp_shm_lock(shm, 0, LP_FOREVER, NULL) == LP_EINTERRUPTED);
    CHECK(lp_now() - begun >= 90 * LP_NS_PER_MS);
    begun = lp_now();
    CHECK(lock(shm, 0, in_ms(250)) == LP_ETIMEOUT);
    CHECK(lp_now() - begun >= 250 * LP_NS_PER_MS && lp_now() - begun < 5 * LP_NS_PER_S);
    CHECK(lp_shm_holder(shm, 0) == child);
    CHECK(lp_shm_unlock(shm, 0) == LP_ENOTHELD);
    end_holder(child);
    discard(shm);
}

static void test_the_lock_of_the_dead_is_free(void)
{
    struct lp_shm *shm = open_segment();

    for (int i = 0; i < 2; i++) {
        end_holder(start_holder(shm));
        CHECK(lp_shm_holder(shm, 0) == 0);
        CHECK(lp_shm_lock(shm, 0, 0, NULL) == 0);
        CHECK(lp_shm_unlock(shm, 0) == 0);
    }
    discard(shm);
}

static void *lock_and_end(void *shm)
{
    CHECK(lp_shm_lock(shm, 0, 0, NULL) == 0);
    return NULL;
}

static void test_a_thread_that_ends_leaves_it_free(void)
{
    struct lp_shm *shm = open_segment();
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, lock_and_end, shm) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(lock(shm, 0, in_ms(5000)) == 0 && lp_shm_unlock(shm, 0) == 0);
    discard(shm);
}

/* What only a program that gives a dead one's lock up can cause. */
static void test_a_lock_beyond_repair(void)
{
    struct lp_shm *shm = open_segment();
    unsigned char *map = bytes();
    pthread_mutex_t *mutex = (pthread_mutex_t *)(void *)(map + 56 + 8);

    end_holder(start_holder(shm));
    CHECK(pthread_mutex_lock(mutex) == EOWNERDEAD && pthread_mutex_unlock(mutex) == 0);
    CHECK(lp_shm_lock(shm, 0, LP_FOREVER, NULL) == LP_EBROKEN);
    CHECK(lp_shm_lock(shm, 1, LP_FOREVER, NULL) == 0 && lp_shm_unlock(shm, 1) == 0);
    CHECK(munmap(map, SIZE) == 0);
    discard(shm);
}

static void test_the_table_of_the_dead_is_free(void)
{
    struct lp_shm *shm = open_segment();
    unsigned char *map = bytes();
    pthread_mutex_t *table = (pthread_mutex_t *)(void *)(map + 8);
    uint32_t id;
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0)
        _exit(pthread_mutex_lock(table));
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(lp_shm_allocate(shm, LP_FOREVER, &id, NULL) == 0 && id == 0);
    CHECK(pthread_mutex_lock(table) == 0); /* as a stopped program would hold it */
    CHECK(lp_shm_allocate(shm, in_ms(10), &id, NULL) == LP_ETIMEOUT);
    CHECK(pthread_mutex_unlock(table) == 0 && munmap(map, SIZE) == 0);
    discard(shm);
}

/* --- the end -------------------------------------------------------------------------- */

static void test_a_removed_segment_is_gone(void)
{
    struct lp_shm *shm = open_segment(), *again;

    CHECK(lp_shm_lock(shm, 0, 0, NULL) == 0);
    CHECK(unlink(path) == 0);
    CHECK(lp_shm_unlock(shm, 0) == 0);
    CHECK(lp_shm_lock(shm, 0, 0, NULL) == LP_EGONE && lp_shm_holder(shm, 0) == 0);
    again = open_segment();
    CHECK(lp_shm_lock(again, 0, 0, NULL) == 0 && lp_shm_unlock(again, 0) == 0);
    lp_shm_free(shm);
    discard(again);
}

static void test_close(void)
{
    struct lp_shm *shm = open_segment();
    uint32_t id;

    CHECK(lp_shm_lock(shm, 0, 0, NULL) == 0 && lp_shm_lock(shm, 1, 0, NULL) == 0);
    lp_shm_close(shm);
    lp_shm_close(shm);
    CHECK(lp_shm_lock(shm, 2, 0, NULL) == LP_ECLOSED);
    CHECK(lp_shm_allocate(shm, LP_FOREVER, &id, NULL) == LP_ECLOSED);
    CHECK(lp_shm_unlock(shm, 0) == 0 && lp_shm_unlock(shm, 0) == LP_ENOTHELD);
    CHECK(lp_shm_unlock(shm, 1) == 0 && lp_shm_unlock(shm, 1) == LP_ENOTHELD);
    CHECK(lp_shm_holder(shm, 0) == 0);
    discard(shm);
}

static void test_freeing_what_is_held(void)
{
    struct lp_shm *shm = open_segment(), *other = open_segment();

    CHECK(lp_shm_lock(shm, 0, 0, NULL) == 0);
    lp_shm_free(shm); /* the mapping stays: this thread's list leads through it */
    CHECK(lp_shm_lock(other, 1, 0, NULL) == 0 && lp_shm_unlock(other, 1) == 0);
    CHECK(lp_shm_unlock(other, 0) == 0);
    discard(other);
}

int main(void)
{
    (void)snprintf(room, sizeof room, "/tmp/lp-shmlock-XXXXXX");
    CHECK(mkdtemp(room) != NULL);
    (void)snprintf(path, sizeof path, "%s/segment", room);
    CHECK_RUN(test_the_layout_is_podmans);
    CHECK_RUN(test_the_number_is_that_of_the_file);
    CHECK_RUN(test_what_is_no_segment_is_refused);
    CHECK_RUN(test_wrong_arguments);
    CHECK_RUN(test_many_make_it_at_once);
    CHECK_RUN(test_allocation);
    CHECK_RUN(test_bits_beyond_the_limit_are_left_alone);
    CHECK_RUN(test_threads_allocate_different_ones);
    CHECK_RUN(test_threads_exclude_each_other);
    CHECK_RUN(test_it_is_not_recursive);
    CHECK_RUN(test_a_wait_ends_with_its_deadline);
    CHECK_RUN(test_the_lock_of_the_dead_is_free);
    CHECK_RUN(test_a_thread_that_ends_leaves_it_free);
    CHECK_RUN(test_a_lock_beyond_repair);
    CHECK_RUN(test_the_table_of_the_dead_is_free);
    CHECK_RUN(test_a_removed_segment_is_gone);
    CHECK_RUN(test_close);
    CHECK_RUN(test_freeing_what_is_held);
    CHECK(rmdir(room) == 0);
    return 0;
}
