"""Minutes of everything at random, with a seed: `nox -s soak`, or `python -m tests.robustness.soak --minutes 2`.

Connects, joins, broadcasts, leaves, crashes, stalls, resets and garbage. Reports the resident memory, the live objects
and the most tasks all along, and fails where the memory drifts by more than 2 % after the first minute, where tasks
pile up, or where anything is left at the end.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys

import trio

from tests.robustness.probes import Target, leaked, left, settled
from tests.robustness.test_fuzz import cut, handshake
from tests.support.process import Server
from tests.support.wire import DEFLATE, Wire, close, open_wire, plain, text

SOAKED = Target("verbtrio", "tests.apps.soak:app")
CLIENTS = 60
"""Clients at the same time."""
ROOMS = 5
WARM_SECONDS = 60.0
SAMPLE_SECONDS = 1.0
WINDOW = 30
"""Samples whose median is compared: resident memory goes up and down with what is in flight."""
DRIFT = 0.02
TASKS_A_CLIENT = 10
"""A connection takes five at most, and may still be ending when its client's next one has begun. (Seen: 130 for all;
1,000 where one client had them pile up, which the memory showed only where it came after the first minute.)"""


async def client(server: Server, chance: random.Random, done: dict[str, int]) -> None:
    """One client's life."""
    kind = chance.choices(list(LIVES), [weight for _, weight in LIVES.values()])[0]
    done[kind] = done.get(kind, 0) + 1
    try:
        with trio.move_on_after(20):
            await LIVES[kind][0](server, chance)
    except (OSError, trio.BrokenResourceError):
        pass  # a server may hang up on such clients; that it lives is seen by the samples


async def talk(server: Server, chance: random.Random) -> None:
    """Join, say something, hear something, leave in an orderly way."""
    wire = await open_wire(server.port, f"/room/{chance.randrange(ROOMS)}", DEFLATE if chance.random() < 0.3 else "")
    async with wire.stream:
        for _ in range(chance.randrange(1, 20)):
            await wire.send(text("x" * chance.choice((1, 10, 100, 5000))))
            with trio.move_on_after(chance.random()):
                await wire.frame()
        if chance.random() < 0.5:
            await wire.send(text("leave") + text("echo"))
        await wire.send(close(chance.choice((1000, 1001, 4000))))
        with trio.move_on_after(2):
            await wire.to_end()


async def crash(server: Server, chance: random.Random) -> None:
    """Make the handler raise."""
    wire = await open_wire(server.port, f"/room/{chance.randrange(ROOMS)}")
    async with wire.stream:
        await wire.send(text("raise") * chance.randrange(1, 30))
        with trio.move_on_after(1):
            await wire.to_end()


async def stall(server: Server, chance: random.Random) -> None:
    """Join, and read nothing."""
    wire = await open_wire(server.port, f"/room/{chance.randrange(ROOMS)}")
    async with wire.stream:
        await trio.sleep(chance.uniform(0, 8))


async def vanish(server: Server, chance: random.Random) -> None:
    """Reset the connection at any moment."""
    wire = await open_wire(server.port, chance.choice(("/task", f"/room/{chance.randrange(ROOMS)}")))
    await wire.send(text("x" * 5000)[: chance.randrange(5000)])
    await trio.sleep(chance.uniform(0, 0.5))
    wire.reset()


async def fuzz(server: Server, chance: random.Random) -> None:
    """Garbage."""
    async with plain(server.port) as wire:
        for piece in cut(handshake(chance), chance):
            await wire.send(piece)
        await end(wire, chance)


async def end(wire: Wire, chance: random.Random) -> None:
    if chance.random() < 0.5:
        wire.reset()
    else:
        with trio.move_on_after(chance.random()):
            await wire.to_end()


LIVES = {"talk": (talk, 10), "crash": (crash, 2), "stall": (stall, 2), "vanish": (vanish, 4), "fuzz": (fuzz, 4)}
"""What clients do, and how often one does which."""


async def soak(seconds: float, seed: int) -> list[str]:
    """Run for that long; return what was not as it should be."""
    samples: list[int] = []
    tasks: list[int] = []
    done: dict[str, int] = {}
    async with SOAKED.serve() as server:
        await talk(server, random.Random(seed))  # whatever is made once is made now
        await settled(server)
        before = await left(server)

        async def clients(number: int) -> None:
            chance = random.Random(f"{seed} {number}")
            while True:
                await client(server, chance, done)

        async def sample() -> None:
            while True:
                now = await left(server)
                samples.append(now["memory"])
                tasks.append(now["tasks"])
                if len(samples) % 30 == 0:
                    print(
                        f"{len(samples)} s: {samples[-1] / 2**20:.1f} MiB, {now['blocks']} objects, "
                        f"{now['connections']} connections, {max(tasks[-30:])} tasks at most, "
                        f"{now['descriptors']} descriptors, {sum(done.values())} lives",
                        flush=True,
                    )
                await trio.sleep(SAMPLE_SECONDS)

        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for number in range(CLIENTS):
                    nursery.start_soon(clients, number)
                nursery.start_soon(sample)
        after = await settled(server)
        log = server.log_text()
    print(f"seed {seed}: {done}", flush=True)
    return [*judge(samples), *judge_tasks(tasks), *judge_end(before, after, log)]


def judge_tasks(tasks: list[int]) -> list[str]:
    """Whether tasks have piled up, were it for seconds."""
    most, limit = max(tasks, default=0), TASKS_A_CLIENT * CLIENTS
    print(f"tasks: {most} at most")
    return [f"{most} tasks at a time, over {limit}"] if most > limit else []


def judge(samples: list[int]) -> list[str]:
    """Whether the memory has drifted after the first minute."""
    warm = samples[int(WARM_SECONDS / SAMPLE_SECONDS) :]
    if len(warm) < 2 * WINDOW:
        print("too short to judge the memory by: two minutes are the least")
        return []
    first, last = statistics.median(warm[:WINDOW]), statistics.median(warm[-WINDOW:])
    drift = last / first - 1
    print(f"resident memory: {first / 2**20:.1f} MiB after a minute, {last / 2**20:.1f} MiB at the end: {drift:+.2%}")
    return [f"resident memory has drifted by {drift:+.2%}"] if drift > DRIFT else []


def judge_end(before: dict[str, int], after: dict[str, int], log: str) -> list[str]:
    """Whether anything is left, or was logged that the application did not do on purpose."""
    problems = []
    if leaked(before, after):
        problems.append(f"left: before {before}, after {after}")
    unexpected = log.count("Traceback") - log.count("ValueError: on purpose")
    if unexpected:
        problems.append(f"{unexpected} unexpected tracebacks")
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    if problems := trio.run(soak, 60 * options.minutes, options.seed):
        sys.exit(f"seed {options.seed}:\n" + "\n".join(problems))


if __name__ == "__main__":
    main()
