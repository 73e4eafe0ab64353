# SPDX-License-Identifier: Apache-2.0
"""Figures: each against a peer, taken in turn with it in one run."""
