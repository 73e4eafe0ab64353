# SPDX-License-Identifier: Apache-2.0
"""The store: an embedded key-value database in bbolt's file format.

    with kv.Database("state.db") as db:
        with db.begin(write=True) as tx:
            tx.create_bucket_if_not_exists(b"names")[b"web"] = b"0123"
        with db.begin() as tx:
            tx.bucket(b"names")[b"web"]

One writer, many readers; a reader sees one commit for its whole life.
"""

from libpod._kv import Bucket, Cursor, Database, Iterator, Transaction, View
from libpod.kv.errors import (
    AlreadyOpen,
    BucketExists,
    BucketNameRequired,
    BucketNotFound,
    ChecksumError,
    CommitInDoubt,
    CorruptDatabase,
    DatabaseBusy,
    DatabaseNotOpen,
    DatabaseReadOnly,
    DatabaseReplaced,
    IncompatibleValue,
    InvalidDatabase,
    KeyRequired,
    KeyTooLarge,
    MaxSizeReached,
    StoreError,
    TransactionClosed,
    TransactionNotWritable,
    ValueTooLarge,
    VersionMismatch,
    ViewUnavailable,
    WouldDeadlock,
    WritesRefused,
)

__all__ = [
    "AlreadyOpen",
    "Bucket",
    "BucketExists",
    "BucketNameRequired",
    "BucketNotFound",
    "ChecksumError",
    "CommitInDoubt",
    "CorruptDatabase",
    "Cursor",
    "Database",
    "DatabaseBusy",
    "DatabaseNotOpen",
    "DatabaseReadOnly",
    "DatabaseReplaced",
    "IncompatibleValue",
    "InvalidDatabase",
    "Iterator",
    "KeyRequired",
    "KeyTooLarge",
    "MaxSizeReached",
    "StoreError",
    "Transaction",
    "TransactionClosed",
    "TransactionNotWritable",
    "ValueTooLarge",
    "VersionMismatch",
    "View",
    "ViewUnavailable",
    "WouldDeadlock",
    "WritesRefused",
]
