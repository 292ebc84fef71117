"""Work is done by few threads as long as these take any, and by more when they are stuck."""

import asyncio
import threading

from nacre.core.threads import Threads


def test_few_do_it_while_they_take_work() -> None:
    async def main() -> set[str]:
        threads = Threads(16, "few", 2)
        return set(await asyncio.gather(*(threads.run(lambda: threading.current_thread().name) for _ in range(500))))

    assert asyncio.run(main()) <= {"few-1", "few-2"}


def test_more_help_when_the_few_are_stuck_and_end() -> None:
    go_on = threading.Event()

    async def main() -> tuple[list[int], int]:
        threads = Threads(5, "stuck", 2)
        hang = [threads.run(lambda: go_on.wait(20)) for _ in range(4)]
        others = await asyncio.wait_for(asyncio.gather(*(threads.run(lambda number=number: number) for number in range(20))), 15)
        go_on.set()
        await asyncio.gather(*hang)
        await asyncio.sleep(0.3)
        return others, sum(each.name == "stuck-helper" for each in threading.enumerate())

    assert asyncio.run(main()) == (list(range(20)), 0)


def test_failures_and_contexts_are_those_of_who_asked() -> None:
    async def main() -> str:
        threads = Threads(1, "one")

        def fail() -> None:
            raise KeyError("mine")

        try:
            await threads.run(fail)
        except KeyError as error:
            return str(error)
        return "nothing"

    assert asyncio.run(main()) == "'mine'"
