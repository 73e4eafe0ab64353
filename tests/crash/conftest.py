# SPDX-License-Identifier: Apache-2.0
from tests.interop.conftest import oracle, oracle_binary

__all__ = ["oracle", "oracle_binary"]
