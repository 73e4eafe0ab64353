/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of pairs, each with a number in front of it that leads to its block.
 *
 * Invariant: a block is referenced by each pair in it, and by `pairs` while the
 * next one is cut from it.
 */
#include "kv/pairs.h"

#include <stdlib.h>
#include <string.h>

#define PAIRS_BLOCK ((size_t)256 << 10)
#define PAIRS_SINGLE (PAIRS_BLOCK / 4) /* bytes before there are blocks; longer pairs have none */

/* A use of memory that was freed must not be hidden from the sanitizer. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PAIRS_POISON
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define PAIRS_POISON
#endif
#ifdef PAIRS_POISON
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#endif

struct lp_block {
    size_t used;  /* bytes, of the whole block */
    size_t users; /* pairs, and 1 for `pairs` */
};

struct pair_head {
    uint32_t at;   /* from the block's start to this */
    uint32_t size; /* of the pair */
};

static void block_release(struct lp_block *block)
{
    if (--block->users == 0) {
        ASAN_UNPOISON_MEMORY_REGION(block, PAIRS_BLOCK);
        free(block);
    }
}

static struct lp_block *block_new(void)
{
    struct lp_block *block = malloc(PAIRS_BLOCK);

    if (block == NULL)
        return NULL;
    *block = (struct lp_block){.used = sizeof *block, .users = 1};
    ASAN_POISON_MEMORY_REGION(block + 1, PAIRS_BLOCK - sizeof *block);
    return block;
}

/* `size` bytes of the current block, or of a new one. */
static uint8_t *pairs_cut(struct lp_pairs *pairs, size_t size)
{
    size_t whole = (sizeof(struct pair_head) + size + 7) & ~(size_t)7;
    struct lp_block *block = pairs->block;
    struct pair_head *head;

    if (block == NULL || PAIRS_BLOCK - block->used < whole) {
        block = block_new();
        if (block == NULL)
            return NULL;
        lp_pairs_end(pairs);
        pairs->block = block;
    }
    head = (struct pair_head *)((uint8_t *)block + block->used);
    ASAN_UNPOISON_MEMORY_REGION(head, sizeof *head + size);
    *head = (struct pair_head){.at = (uint32_t)block->used, .size = (uint32_t)size};
    block->used += whole;
    block->users++;
    return (uint8_t *)(head + 1);
}

uint8_t *lp_pair_copy(struct lp_pairs *pairs, struct lp_slice key, struct lp_slice value,
                      bool *in_block, struct lp_error *err)
{
    size_t size = key.size + value.size;
    uint8_t *pair;

    *in_block = pairs->bytes >= PAIRS_SINGLE && size < PAIRS_SINGLE;
    pair = *in_block ? pairs_cut(pairs, size) : malloc(size);
    if (pair == NULL) {
        (void)lp_fail(err, LP_ENOMEM, "no memory for %zu bytes", size);
        return NULL;
    }
    pairs->bytes += size;
    memcpy(pair, key.data, key.size);
    if (value.size > 0)
        memcpy(pair + key.size, value.data, value.size);
    return pair;
}

void lp_pair_free(const uint8_t *pair, bool in_block)
{
    struct pair_head *head = (struct pair_head *)(uintptr_t)pair - 1;
    struct lp_block *block;

    if (!in_block) {
        free((void *)(uintptr_t)pair);
        return;
    }
    block = (struct lp_block *)((uint8_t *)head - head->at);
    ASAN_POISON_MEMORY_REGION(head, sizeof *head + head->size);
    block_release(block);
}

void lp_pairs_end(struct lp_pairs *pairs)
{
    if (pairs->block != NULL)
        block_release(pairs->block);
    pairs->block = NULL;
}
