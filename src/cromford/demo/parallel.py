"""Many payments at a time, in the order in which they were chosen."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from cromford.demo.purses import PlannedPayment, Purses
from cromford.demo.steps import POLL_SECONDS


def in_parallel(
    payments: Sequence[PlannedPayment],
    purses: Purses,
    make: Callable[[PlannedPayment], None],
    *,
    n_workers: int,
    told: Callable[[int], None],
) -> None:
    """Make payments, several at a time, each begun in its turn as soon as the purses allow it.

    Args:
        payments: As `Purses.plan` chose them.
        purses: What there is before the first.
        make: Makes one, in a thread; returns once it arrived.
        n_workers: How many at a time.
        told: Hears often how many have arrived; may raise to give up.

    Raises:
        DemoFailed: What `make` raised, or `told`.
    """
    n_paid = n_begun = 0
    running: dict[Future[None], PlannedPayment] = {}
    pool = ThreadPoolExecutor(max_workers=n_workers)
    try:
        while n_paid < len(payments):
            while (
                n_begun < len(payments)
                and len(running) < n_workers
                and purses.can_begin(payments[n_begun])
            ):
                payment = payments[n_begun]
                purses.begin(payment)
                running[pool.submit(make, payment)] = payment
                n_begun += 1
            done, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                purses.end(running.pop(future))
            n_paid += len(done)
            told(n_paid)
    finally:
        # Whoever gives up does not wait: the processes stop, and with them what waits for them.
        pool.shutdown(wait=n_paid == len(payments), cancel_futures=True)
