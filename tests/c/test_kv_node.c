/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes: joining them, whichever is empty. */
#include "check.h"
#include "kv/node.h"

static const char *const KEYS[] = {"a", "b", "c", "d"};

/* A leaf with the keys from `first` to before `end`. */
static struct lp_node *make_leaf(unsigned first, unsigned end)
{
    struct lp_error err;
    struct lp_node *node = lp_node_new(true, &err);

    CHECK(node != NULL);
    for (unsigned i = first; i < end; i++) {
        struct lp_inode inode = {.key = (const uint8_t *)KEYS[i], .key_size = 1};

        CHECK(lp_node_insert(node, i - first, inode, &err) == LP_OK);
    }
    return node;
}

static void join(unsigned left_count, unsigned right_count)
{
    struct lp_node *left = make_leaf(0, left_count);
    struct lp_node *right = make_leaf(left_count, left_count + right_count);
    struct lp_error err;

    CHECK(lp_node_join(left, right, &err) == LP_OK);
    CHECK(left->count == left_count + right_count);
    CHECK(right->count == 0);
    for (unsigned i = 0; i < left->count; i++)
        CHECK(left->inodes[i].key == (const uint8_t *)KEYS[i]);
    CHECK(left->scattered == (right_count > 0)); /* nothing came: still filled in order */
    lp_node_free(left);
    lp_node_free(right);
}

static void test_join(void)
{
    join(2, 2);
    join(2, 0);
    join(0, 2);
    join(0, 0); /* neither has an array */
}

int main(void)
{
    CHECK_RUN(test_join);
    return 0;
}
