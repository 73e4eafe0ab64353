# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, binding=True
"""Processes: spawning, the handshake with conmon, exits.  Converts and raises; no policy.

Waits release the GIL and serve signals: a handler that raises (Ctrl-C) ends
the wait.  Objects refuse to work in a forked child.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport ECHILD, ENOENT, ESRCH
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc
from posix.types cimport pid_t
from posix.unistd cimport getpid

from libpod import errors

cdef extern from "base/error.h":
    cdef struct lp_error:
        int code
        int sys_errno
        char message[512]
    enum:
        LP_ENOMEM
        LP_EINVALID
        LP_ETIMEOUT
        LP_EINTERRUPTED

cdef extern from "base/clock.h":
    int64_t LP_FOREVER
    int64_t LP_NS_PER_S
    int64_t lp_now() noexcept nogil

cdef extern from "proc/spawn.h":
    enum:
        LP_ESPAWN
        LP_EREAPED
        LP_SPAWN_SESSION
        LP_SPAWN_GROUP
    cdef struct lp_fd_map:
        int from_ "from"
        int to
    cdef struct lp_spawn_request "lp_spawn":
        const char *path
        char **argv
        char **envp
        const char *cwd
        const lp_fd_map *fds
        size_t fd_count
        unsigned flags
    cdef struct lp_process:
        pid_t pid
        int pidfd
    lp_process LP_PROCESS_NONE
    int lp_spawn(const lp_spawn_request *, lp_process *, lp_error *) noexcept nogil
    int lp_process_wait(const lp_process *, int64_t, int *, lp_error *) noexcept nogil
    int lp_process_signal(const lp_process *, int, lp_error *) noexcept nogil
    int lp_process_open(pid_t, lp_process *, lp_error *) noexcept nogil
    int lp_process_ended(const lp_process *, int64_t, lp_error *) noexcept nogil
    void lp_process_close(lp_process *) noexcept nogil

cdef extern from "proc/conmon.h":
    enum:
        LP_EEOF
        LP_ESTRANGER
    cdef struct lp_conmon_request:
        lp_spawn_request spawn
        const char **cgroups
        size_t cgroup_count
    cdef struct lp_conmon:
        lp_process process
        int sync_fd
        int64_t started
        lp_error moved
        char *answer
        size_t answer_length
    lp_conmon LP_CONMON_NONE
    int lp_conmon_begin(const lp_conmon_request *, lp_conmon *, lp_error *) noexcept nogil
    void lp_conmon_go(lp_conmon *) noexcept nogil
    int lp_conmon_answer(lp_conmon *, int64_t, lp_error *) noexcept nogil
    int lp_monitor_open(const char *, const char *, int64_t, lp_process *, uint64_t *,
                        lp_error *) noexcept nogil
    void lp_conmon_end(lp_conmon *) noexcept nogil

cdef extern from "proc/exits.h":
    enum:
        LP_ENOEXIT
        LP_EBADEXIT
        LP_EXITS_BATCH
    cdef enum lp_exit_kind:
        LP_EXIT_FILE
        LP_EXIT_MONITOR
        LP_EXIT_RESCAN
        LP_EXIT_WAKE
    cdef struct lp_exit_event:
        lp_exit_kind kind
        uint64_t token
        char name[256]
    cdef struct lp_exits:
        int directory
        int inotify
        int wake
        int epoll
    lp_exits LP_EXITS_NONE
    int lp_exits_open(const char *, lp_exits *, lp_error *) noexcept nogil
    void lp_exits_close(lp_exits *) noexcept nogil
    int lp_exits_watch(lp_exits *, int, uint64_t, lp_error *) noexcept nogil
    void lp_exits_forget(lp_exits *, int) noexcept nogil
    void lp_exits_wake(lp_exits *) noexcept nogil
    int lp_exits_wait(lp_exits *, int64_t, lp_exit_event *, lp_error *) noexcept nogil
    int lp_exits_read(const lp_exits *, const char *, int *, int64_t *, lp_error *) noexcept nogil
    int lp_exits_remove(const lp_exits *, const char *, lp_error *) noexcept nogil


cdef object error_of(lp_error *err):
    """The exception for a failed call; the caller raises it."""
    message = err.message.decode("utf-8", "replace")
    if err.code == LP_EINVALID:
        return errors.InvalidArgument(message)
    if err.code == LP_ENOMEM:
        return MemoryError(message)
    if err.code == LP_ETIMEOUT:
        return errors.WaitTimeout(message)
    if err.code == LP_ESPAWN:
        return errors.SpawnFailed(message, err.sys_errno)
    if err.code == LP_EREAPED:
        return errors.SystemCallError(message, ECHILD)
    if err.code == LP_EEOF:
        return errors.ConmonFailed(message)
    return errors.SystemCallError(message, err.sys_errno)


cdef int64_t deadline_of(object timeout) except? -1:
    """None, or seconds from now."""
    if timeout is None:
        return LP_FOREVER
    cdef double seconds = timeout
    if seconds > 1e9:
        return LP_FOREVER
    return lp_now() + (<int64_t>(seconds * 1e9) if seconds > 0 else 0)


cdef class _Strings:
    """A NULL-ended array of C strings that lives as long as this object."""
    cdef char **array
    cdef list kept

    def __cinit__(self, strings):
        cdef Py_ssize_t i
        self.kept = [_encode(string) for string in strings]
        self.array = <char **>malloc((len(self.kept) + 1) * sizeof(char *))
        if self.array == NULL:
            raise MemoryError()
        for i in range(len(self.kept)):
            self.array[i] = self.kept[i]
        self.array[len(self.kept)] = NULL

    def __dealloc__(self):
        free(self.array)


cdef bytes _encode(string):
    cdef bytes encoded
    if isinstance(string, bytes):
        encoded = string
    else:
        encoded = string.encode("utf-8", "surrogateescape")
    if b"\0" in encoded:
        raise errors.InvalidArgument(f"a NUL byte cannot be passed to a program: {string!r}")
    return encoded


cdef class _Request:
    """The arguments of one spawn, held while the C side borrows them."""
    cdef lp_spawn_request spawn
    cdef object kept
    cdef lp_fd_map *fds

    def __cinit__(self, argv, env, *, executable=None, cwd=None, fds=None, bint session=False,
                  bint group=False):
        cdef _Strings arguments = _Strings(argv)
        cdef _Strings environment = _Strings([f"{name}={value}" for name, value in env.items()])
        cdef bytes path = _encode(argv[0] if executable is None else executable)
        cdef bytes directory = None if cwd is None else _encode(cwd)
        cdef Py_ssize_t i
        mapping = list((fds or {}).items())
        self.fds = <lp_fd_map *>malloc((len(mapping) + 1) * sizeof(lp_fd_map))
        if self.fds == NULL:
            raise MemoryError()
        for i in range(len(mapping)):
            self.fds[i].to = mapping[i][0]
            self.fds[i].from_ = mapping[i][1]
        self.kept = (arguments, environment, path, directory)
        self.spawn.path = path
        self.spawn.argv = arguments.array
        self.spawn.envp = environment.array
        self.spawn.cwd = NULL
        if directory is not None:
            self.spawn.cwd = directory
        self.spawn.fds = self.fds
        self.spawn.fd_count = len(mapping)
        self.spawn.flags = (LP_SPAWN_SESSION if session else 0) | (LP_SPAWN_GROUP if group else 0)

    def __dealloc__(self):
        free(self.fds)


cdef class Process:
    """A process, known by its pidfd; a child of ours if it came from `spawn`."""
    cdef lp_process process
    cdef pid_t owner
    cdef object code
    cdef readonly uint64_t start_time

    def __cinit__(self):
        self.process = LP_PROCESS_NONE
        self.owner = getpid()
        self.code = None
        self.start_time = 0

    def __dealloc__(self):
        lp_process_close(&self.process)

    cdef int check(self) except -1:
        if self.owner != getpid():
            raise errors.UsedAfterFork("this process object belongs to the parent process")
        return 0

    @property
    def pid(self):
        return self.process.pid

    @property
    def returncode(self):
        return self.code

    def fileno(self):
        """The pidfd, readable once the process has ended."""
        if self.process.pidfd < 0:
            raise errors.Closed("this process object has no descriptor")
        return self.process.pidfd

    def wait(self, timeout=None):
        """Waits for a child and reaps it: its exit code, or minus its signal."""
        cdef lp_error err
        cdef int code = 0
        cdef int rc
        cdef int64_t deadline = deadline_of(timeout)
        self.check()
        if self.code is not None:
            return self.code
        while True:
            with nogil:
                rc = lp_process_wait(&self.process, deadline, &code, &err)
            if rc == 0:
                self.code = code
                return code
            if rc != LP_EINTERRUPTED:
                raise error_of(&err)
            PyErr_CheckSignals()

    def ended(self, timeout=0.0):
        """Whether the process, ours or not, has ended before the time-out."""
        cdef lp_error err
        cdef int rc
        cdef int64_t deadline = deadline_of(timeout)
        self.check()
        while True:
            with nogil:
                rc = lp_process_ended(&self.process, deadline, &err)
            if rc == 0:
                return True
            if rc == LP_ETIMEOUT:
                return False
            if rc != LP_EINTERRUPTED:
                raise error_of(&err)
            PyErr_CheckSignals()

    def send_signal(self, int number):
        """Sends a signal; a process that is gone is ProcessLookupError."""
        cdef lp_error err
        self.check()
        if self.code is not None:
            raise ProcessLookupError(f"process {self.process.pid} has ended")
        if lp_process_signal(&self.process, number, &err) != 0:
            if err.sys_errno == ESRCH:
                raise ProcessLookupError(err.message.decode("utf-8", "replace"))
            raise error_of(&err)

    def close(self):
        """Closes the pidfd; the process goes on."""
        lp_process_close(&self.process)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def spawn(argv, env, *, executable=None, cwd=None, fds=None, bint session=False,
          bint group=False):
    """Starts a program with a pidfd; see the stub for the contract."""
    cdef _Request request = _Request(argv, env, executable=executable, cwd=cwd, fds=fds,
                                     session=session, group=group)
    cdef Process process = Process()
    cdef lp_error err
    cdef int rc
    with nogil:
        rc = lp_spawn(&request.spawn, &process.process, &err)
    if rc != 0:
        raise error_of(&err)
    return process


def open_process(int pid):
    """A running process that is not our child, by its pid."""
    cdef Process process = Process()
    cdef lp_error err
    if lp_process_open(pid, &process.process, &err) == 0:
        return process
    if err.sys_errno == ESRCH:
        raise ProcessLookupError(err.message.decode("utf-8", "replace"))
    raise error_of(&err)


cdef class Handshake:
    """One conmon between its start and its answer."""
    cdef lp_conmon conmon
    cdef pid_t owner
    cdef readonly Process process

    def __cinit__(self, argv, env, *, executable=None, cwd=None, fds=None, cgroups=()):
        cdef _Request request = _Request(argv, env, executable=executable, cwd=cwd, fds=fds,
                                         session=True)
        cdef _Strings directories = _Strings(cgroups)
        cdef lp_conmon_request asked
        cdef lp_error err
        cdef int rc
        self.conmon = LP_CONMON_NONE
        self.owner = getpid()
        asked.spawn = request.spawn
        asked.cgroups = <const char **>directories.array
        asked.cgroup_count = len(directories.kept)
        with nogil:
            rc = lp_conmon_begin(&asked, &self.conmon, &err)
        if rc != 0:
            raise error_of(&err)
        self.process = Process()
        self.process.process = self.conmon.process
        self.conmon.process = LP_PROCESS_NONE

    def __dealloc__(self):
        lp_conmon_end(&self.conmon)

    @property
    def warning(self):
        if self.conmon.moved.code == 0:
            return None
        return self.conmon.moved.message.decode("utf-8", "replace")

    @property
    def started(self):
        return self.conmon.started

    def go(self):
        """Lets conmon go on; once."""
        if self.owner != getpid():
            raise errors.UsedAfterFork("this handshake belongs to the parent process")
        self.fileno()
        with nogil:
            lp_conmon_go(&self.conmon)

    def fileno(self):
        """The sync pipe, readable when the answer comes."""
        if self.conmon.sync_fd < 0:
            raise errors.Closed("this handshake is over")
        return self.conmon.sync_fd

    def answer(self, timeout=None):
        """Waits for conmon's line."""
        cdef lp_error err
        cdef int rc
        cdef int64_t deadline = deadline_of(timeout)
        if self.owner != getpid():
            raise errors.UsedAfterFork("this handshake belongs to the parent process")
        self.fileno()
        while True:
            with nogil:
                rc = lp_conmon_answer(&self.conmon, deadline, &err)
            if rc == LP_EINTERRUPTED:
                PyErr_CheckSignals()
                continue
            if rc != 0:
                raise error_of(&err)
            return PyBytes_FromStringAndSize(self.conmon.answer, self.conmon.answer_length)

    def monitor(self, str pid_file, str container_id):
        """Opens the monitor that this handshake made."""
        return open_monitor(pid_file, container_id, self.conmon.started)

    def close(self):
        lp_conmon_end(&self.conmon)
        self.process.close()


def open_monitor(str pid_file, str container_id, int64_t not_before=0):
    """Opens the monitor of a container by the pid file that it wrote."""
    cdef Process process = Process()
    cdef bytes path = _encode(pid_file)
    cdef bytes name = _encode(container_id)
    cdef lp_error err
    cdef int rc = lp_monitor_open(path, name, not_before, &process.process,
                                  &process.start_time, &err)
    if rc == 0:
        return process
    message = err.message.decode("utf-8", "replace")
    if rc == LP_ESTRANGER or err.sys_errno in (ENOENT, ESRCH):
        raise ProcessLookupError(message)
    raise error_of(&err)


cdef class ExitDirectory:
    """The exit files of one directory, and the monitors that write them."""
    cdef lp_exits exits
    cdef pid_t owner

    def __cinit__(self, str path):
        cdef lp_error err
        cdef bytes encoded = _encode(path)
        self.exits = LP_EXITS_NONE
        self.owner = getpid()
        if lp_exits_open(encoded, &self.exits, &err) != 0:
            raise error_of(&err)

    def __dealloc__(self):
        lp_exits_close(&self.exits)

    cdef int check(self) except -1:
        if self.owner != getpid():
            raise errors.UsedAfterFork("this exit directory belongs to the parent process")
        if self.exits.epoll < 0:
            raise errors.Closed("this exit directory is closed")
        return 0

    def fileno(self):
        """Readable when there is something to wait for."""
        self.check()
        return self.exits.epoll

    def watch(self, Process monitor, uint64_t token):
        cdef lp_error err
        self.check()
        if monitor.process.pidfd < 0:  # a kernel without pidfds: the exit file has to do
            return
        if lp_exits_watch(&self.exits, monitor.fileno(), token, &err) != 0:
            raise error_of(&err)

    def forget(self, Process monitor):
        if self.exits.epoll >= 0 and monitor.process.pidfd >= 0 and self.owner == getpid():
            lp_exits_forget(&self.exits, monitor.process.pidfd)

    def wake(self):
        self.check()
        lp_exits_wake(&self.exits)

    def wait(self, timeout=None):
        """Events as (exit file names, tokens of ended monitors, whether to look at all)."""
        cdef lp_exit_event events[LP_EXITS_BATCH]
        cdef lp_error err
        cdef int count
        cdef int i
        cdef int64_t deadline = deadline_of(timeout)
        self.check()
        while True:
            with nogil:
                count = lp_exits_wait(&self.exits, deadline, events, &err)
            if count >= 0:
                break
            if count == LP_ETIMEOUT:
                return [], [], False
            if count != LP_EINTERRUPTED:
                raise error_of(&err)
            PyErr_CheckSignals()
        names = []
        tokens = []
        rescan = False
        for i in range(count):
            if events[i].kind == LP_EXIT_FILE:
                names.append(events[i].name.decode("utf-8", "surrogateescape"))
            elif events[i].kind == LP_EXIT_MONITOR:
                tokens.append(events[i].token)
            elif events[i].kind == LP_EXIT_RESCAN:
                rescan = True
        return names, tokens, rescan

    def read(self, str container_id):
        """(exit code, ns since the epoch), or None where there is no exit file."""
        cdef bytes name = _encode(container_id)
        cdef lp_error err
        cdef int code = 0
        cdef int64_t finished = 0
        cdef int rc
        self.check()
        rc = lp_exits_read(&self.exits, name, &code, &finished, &err)
        if rc == LP_ENOEXIT:
            return None
        if rc == LP_EBADEXIT:
            raise errors.InternalError(
                err.message.decode("utf-8", "replace"),
                container_id=container_id,
                remedy="somebody other than conmon wrote to the exit directory",
            )
        if rc != 0:
            raise error_of(&err)
        return code, finished

    def remove(self, str container_id):
        cdef bytes name = _encode(container_id)
        cdef lp_error err
        self.check()
        if lp_exits_remove(&self.exits, name, &err) != 0:
            raise error_of(&err)

    def close(self):
        lp_exits_close(&self.exits)
