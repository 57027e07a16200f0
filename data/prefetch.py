"""Doing work in a few threads ahead of its use, in order and with bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor


def prefetch[Item, Result](
    work: Callable[[Item], Result], items: Iterable[Item], ahead: int = 8, threads: int = 2
) -> Iterator[Result]:
    """Yield work(item) for each item in order, with up to `ahead` of them in progress or waiting."""
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
