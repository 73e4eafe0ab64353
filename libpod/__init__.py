# SPDX-License-Identifier: Apache-2.0
"""A container runtime core: real OCI containers from Python, without a daemon."""

__version__ = "0.1.0"
