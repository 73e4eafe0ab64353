# SPDX-License-Identifier: Apache-2.0
# Part of _kv.pyx: group commit, for Database.batch().

cdef enum:
    TICKET_WAITS
    TICKET_LEADER  # its thread runs the next group
    TICKET_DONE
    TICKET_ALONE  # its fn failed in a group: its thread runs it by itself

cdef enum:
    GATHER_IDLE = 100  # offers of the processor that nobody took


@cython.final
cdef class _Ticket:
    cdef object fn
    cdef object wake
    cdef object result
    cdef object error
    cdef int state

    def __cinit__(self, fn):
        self.fn = fn
        self.wake = allocate_lock()
        self.wake.acquire()
        self.state = TICKET_WAITS

    cdef void finish(self, int state):
        self.state = state
        self.wake.release()


cdef _Ticket run_group(Database db, Transaction tx, list group):
    """Runs the group's functions; the ticket whose function failed, or None."""
    cdef _Ticket ticket

    for ticket in group:
        try:
            ticket.result = ticket.fn(tx)
        except Exception:
            return ticket
    return None


cdef int gather(Database db) except -1:
    """Lets those come whom the last commit served: most of them have more to do.

    No time is waited: the processor is offered to them, until as many queue as
    were served, or nobody came of it for a while.
    """
    cdef Py_ssize_t queued = len(db.queue)
    cdef Py_ssize_t before
    cdef int idle = 0

    while queued + 1 < db.group and idle < GATHER_IDLE:
        with nogil:
            sched_yield()
        before = queued
        queued = len(db.queue)
        idle = 0 if queued > before else idle + 1
    return 0


cdef void lead(Database db, _Ticket own) noexcept:
    """Commits what is queued, then hands the lead to the next in the queue.

    The queue is taken once the transaction is open: everybody who came while
    the commit before was synced is in this one.
    """
    cdef list group = [own]
    cdef _Ticket ticket, failed
    cdef Transaction tx = None
    cdef object error = None

    try:
        while group:
            tx = db.begin(True)
            gather(db)
            while db.queue:
                group.append(db.queue.popleft())
            db.group = len(group)
            failed = run_group(db, tx, group)
            if failed is None:
                tx.commit()
                break
            tx.rollback()
            group.remove(failed)
            if failed is own:
                own.state = TICKET_ALONE
            else:
                failed.finish(TICKET_ALONE)
    except BaseException as caught:
        error = caught
        if tx is not None:
            tx.rollback()
    for ticket in group:
        ticket.error = error
        if ticket is own:
            own.state = TICKET_DONE
        else:
            ticket.finish(TICKET_DONE)
    if db.queue:
        ticket = db.queue.popleft()
        ticket.finish(TICKET_LEADER)
    else:
        db.led = False
