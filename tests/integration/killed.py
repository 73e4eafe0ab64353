# SPDX-License-Identifier: Apache-2.0
"""A program that is killed on its way: the life of a container, with every step
there is, that of one which is removed at its end, and of one that never runs.

    killed.py '{"options": {...}, "rootfs": DIR, "detach": false, "grace": 5}'

LIBPOD_FAILPOINT says where.  It ends with 0 where it is not killed.
"""

from __future__ import annotations

import json
import sys

from libpod import Runtime, Spec

NAME = "web"
RENAMED = "web-renamed"
ONCE = "once"
UNUSED = "unused"


def main() -> None:
    given = json.loads(sys.argv[1])
    detach = given["detach"]
    box = Spec(rootfs=given["rootfs"], stop_signal="KILL")
    with Runtime(**given["options"]) as runtime:
        # podman's form of /dev/shm: a mount on the host.
        container = runtime.create(box, ["sleep", "1000"], name=NAME, shm_private=False)
        layer = runtime.store.container(container.id).layer_id
        with open(f"{runtime.paths.graph_root}/overlay/{layer}/diff/kept", "w", encoding="ascii"):
            pass  # not empty: it is removed in more steps
        container.start(detach)
        container.rename(RENAMED)
        container.pause()
        container.unpause()
        container.stop(given["grace"])
        container.cleanup()
        container.remove()
        runtime.run(box, ["true"], name=ONCE)
        runtime.create(box, ["true"], name=UNUSED).remove()


if __name__ == "__main__":
    main()
