/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest program that can be spawned; linked statically. */
int main(void)
{
    return 0;
}
