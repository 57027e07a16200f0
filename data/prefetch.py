"""Work done ahead of its use in a few threads, in order, with bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor


def prefetch[Item, Result](
    work: Callable[[Item], Result], items: Iterable[Item], ahead: int = 8, threads: int = 2
) -> Iterator[Result]:
    """Yield work(item) for each item in order, keeping up to `ahead` results in progress."""
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
