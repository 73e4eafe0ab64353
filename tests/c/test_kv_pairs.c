/* SPDX-License-Identifier: Apache-2.0 */
/* Memory for pairs: what is copied stays until it is freed, in any order. */
#include "check.h"
#include "kv/pairs.h"

#include <malloc.h>

#define PAIRS 4000U

struct pair {
    uint8_t *at;
    size_t key;
    size_t value;
    bool in_block;
};

static uint8_t text[200000];

static struct pair copy(struct lp_pairs *pairs, size_t key, size_t value)
{
    struct pair pair = {.key = key, .value = value};
    struct lp_error err;

    pair.at = lp_pair_copy(pairs, (struct lp_slice){text, key}, (struct lp_slice){text + 7, value},
                           &pair.in_block, &err);
    CHECK(pair.at != NULL);
    return pair;
}

static void check_and_free(struct pair *pair)
{
    CHECK(memcmp(pair->at, text, pair->key) == 0);
    CHECK(memcmp(pair->at + pair->key, text + 7, pair->value) == 0);
    lp_pair_free(pair->at, pair->in_block);
    pair->at = NULL;
}

static void test_pairs_stay_until_they_are_freed(void)
{
    static struct pair all[PAIRS];
    struct lp_pairs pairs = {0};
    unsigned in_blocks = 0;

    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)(i * 31 % 251);
    for (unsigned i = 0; i < PAIRS; i++) {
        all[i] = copy(&pairs, 1 + i % 97, i % 50 == 0 ? 100000 : i * 13 % 1500);
        in_blocks += all[i].in_block;
        if (i > 100 && i % 3 == 0)
            check_and_free(&all[i - 50]);
    }
    CHECK(in_blocks > PAIRS / 2 && in_blocks < PAIRS); /* not the first, not the long ones */
    lp_pairs_end(&pairs);
    for (unsigned i = 0; i < PAIRS; i++) {
        struct pair *pair = &all[i * 7 % PAIRS];

        if (pair->at != NULL)
            check_and_free(pair);
    }
}

/* A transaction that puts and deletes for long does not grow. */
static void test_freed_blocks_are_used_again(void)
{
    struct lp_pairs pairs = {0};
    struct pair window[64] = {0};
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;

    for (unsigned i = 0; i < 100000; i++) {
        struct pair *pair = &window[i % 64];

        if (pair->at != NULL)
            check_and_free(pair);
        *pair = copy(&pairs, 10, 1000);
    }
    CHECK(mallinfo2().uordblks + mallinfo2().hblkhd < before + (2U << 20));
    for (unsigned i = 0; i < 64; i++)
        check_and_free(&window[i]);
    lp_pairs_end(&pairs);
}

int main(void)
{
    CHECK_RUN(test_pairs_stay_until_they_are_freed);
    CHECK_RUN(test_freed_blocks_are_used_again);
    return 0;
}
