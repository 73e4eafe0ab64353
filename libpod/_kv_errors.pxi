# SPDX-License-Identifier: Apache-2.0
# Part of _kv.pyx: from the engine's codes to exceptions.

cdef dict ERROR_NAMES = {
    LP_KV_EINVALID: "InvalidDatabase",
    LP_KV_EVERSION: "VersionMismatch",
    LP_KV_ECHECKSUM: "ChecksumError",
    LP_KV_ECORRUPT: "CorruptDatabase",
    LP_KV_EREPLACED: "DatabaseReplaced",
    LP_KV_EREADONLY: "DatabaseReadOnly",
    LP_KV_ENOTWRITABLE: "TransactionNotWritable",
    LP_KV_ENOBUCKET: "BucketNotFound",
    LP_KV_EEXISTS: "BucketExists",
    LP_KV_ENAME: "BucketNameRequired",
    LP_KV_EKEY: "KeyRequired",
    LP_KV_EKEYSIZE: "KeyTooLarge",
    LP_KV_EVALUESIZE: "ValueTooLarge",
    LP_KV_EINCOMPATIBLE: "IncompatibleValue",
    LP_KV_EMAXSIZE: "MaxSizeReached",
    LP_KV_EINDOUBT: "CommitInDoubt",
    LP_KV_EREFUSED: "WritesRefused",
    LP_KV_EDEADLOCK: "WouldDeadlock",
    LP_KV_EBUSY: "DatabaseBusy",
    LP_KV_ESAMEFILE: "AlreadyOpen",
}


cdef object make_error(int code, lp_error *err, str path, uint64_t page, int holder):
    from libpod import errors as common
    from libpod.kv import errors

    reason = err.message[:512].split(b"\0", 1)[0].decode("utf-8", "replace")
    text = f"{path}: {reason}"
    if code == LP_ENOMEM:
        return MemoryError(text)
    if code == LP_ETIMEOUT:
        return common.LockTimeout(text, holder=holder if holder > 0 else None)
    if code == LP_EINVALID:
        return common.InvalidArgument(text)
    if code == LP_KV_EFORK:
        return common.UsedAfterFork(text)
    if code == LP_ESYSTEM:
        return common.SystemCallError(text, errno=err.sys_errno)
    cls = getattr(errors, ERROR_NAMES[code])
    if code == LP_KV_EINDOUBT:
        return cls(text, errno=err.sys_errno, path=path,
                   remedy="open the database again and look whether it is there")
    if code in (LP_KV_EINVALID, LP_KV_EVERSION, LP_KV_ECHECKSUM):
        return cls(text, path=path, page=0, reason=reason)
    if code == LP_KV_ECORRUPT:
        if page == LP_KV_NO_PAGE:
            return cls(text, path=path, reason=reason)
        return cls(f"{path}: page {page}: {reason}", path=path, page=page, reason=reason)
    return cls(text, path=path)


cdef object raise_error(int code, lp_error *err, str path, uint64_t page=UINT64_MAX,
                        int holder=0):
    if code == LP_EINTERRUPTED:
        PyErr_CheckSignals()  # the handler has raised already where it meant to
        raise KeyboardInterrupt
    raise make_error(code, err, path, page, holder)


cdef int poll_signals(void *context) noexcept nogil:
    with gil:
        try:
            PyErr_CheckSignals()
            return 0
        except BaseException as error:
            (<list>context).append(error)
            return 1
