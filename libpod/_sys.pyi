# SPDX-License-Identifier: Apache-2.0
# The C functions are described in the headers of csrc/sys.
from typing import Any, TypeAlias

_Error: TypeAlias = Any  # struct lp_error *, or ffi.NULL
_Out: TypeAlias = Any  # where a result goes: int *

class _Lib:
    LP_EREFUSED: int
    def lp_rundir_open(self, path: bytes, dirfd: _Out, err: _Error, /) -> int: ...
    def lp_rundir_make(self, path: bytes, mode: int, dirfd: _Out, err: _Error, /) -> int: ...
    def lp_rundir_make_private(
        self, path: bytes, mode: int, dirfd: _Out, err: _Error, /
    ) -> int: ...

lib: _Lib
ffi: Any  # _cffi_backend.FFI
