"""Several lives of a simulated node: load, faults, a crash, a start, and a check of everything."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from tests.simulation import (
    clients,
    fault_plan,
    ledger,
    media_audit,
    mortal_index,
    node_shape,
    oracle,
    quiet_end,
    simulated_maintenance,
    simulated_node,
    simulated_process,
    virtual_loop,
)

from couchestor_daemon.adapters import simulated_device
from couchestor_daemon.services import node_store
from couchestor_domain import errors, objects

T = TypeVar("T")

LIVES_COUNT: Final = 4
START_CRASH_RATIO: Final = 0.15
COMMANDS_PER_LIFE_MAX: Final = (500, 500, 2000)
WORKER_SECONDS_MEAN: Final = 20e-3
DEATHS: Final = (simulated_device.SimulatedCrash, mortal_index.WorkerCrash)
LISTED_PER_PAGE: Final = 7


class NoRoomLeftError(Exception):
    """A node whose zones are all taken cannot be started again: the run ends here."""


class Lives:
    """One seed's run.

    Args:
        seed: Everything follows from it.
    """

    def __init__(self, seed: int) -> None:
        self._seed = f"node {seed}"
        self._rng = random.Random(self._seed)
        self.shape = fault_plan.choose_shape(self._rng)
        self.node = simulated_node.SimulatedNode(self._seed, self.shape)
        self.faults = fault_plan.FaultPlan(self._seed, self.node)
        self.book = ledger.Ledger()
        self._starts_count = 0
        self.node.happened = self.faults.log.append
        self._workers: list[simulated_process.Worker] = []
        self._maintenance: simulated_maintenance.Maintenance
        self._loop = virtual_loop.VirtualLoop("none")  # type: ignore[abstract]
        """Of the present life."""
        self._fenced = False
        self._bucket_was_seen = False

    def run(self) -> str:
        """All lives; returns the hash of the trace. Raises at the first broken promise."""
        try:
            self._run_lives()
        except NoRoomLeftError:
            self.faults.log.append("no-room")
        finally:
            # Tasks that are left must not be collected, and complained of, in another test's time.
            self.node.world.crashed = True
            with contextlib.suppress(virtual_loop.DeadlockError):
                self._loop.abandon()

        return self.book.trace_hash()

    def _run_lives(self) -> None:
        for number in range(LIVES_COUNT):
            loop = self._start()
            self._check(loop)
            self._live(loop, number)
            self._end()
        self._check(self._start())
        self._end_quietly()

    def _end_quietly(self) -> None:
        """One more life, in which nothing fails: redundancy comes back, with new devices in the
        place of dead ones or without."""
        self._kill_all(self._loop)
        power_loss = self._rng.random() < 0.5
        # Where zones are few, what is lost cannot always be kept on fewer devices.
        joins = self._room_may_run_out() or self._rng.random() < 0.5
        self.faults.log.append("quiet" if joins else "quiet-alone")
        self.node.lose(power_loss=power_loss, index=simulated_node.IndexLoss.KEPT)
        self.faults.rest()
        if joins:
            quiet_end.join_empty(self.node, len(self.faults.damaged))
        else:
            self.faults.bury_one()
        self._starts_count += 1
        loop = self._loop = virtual_loop.VirtualLoop(  # type: ignore[abstract]
            f"{self._seed}/loop {self._starts_count}"
        )
        try:
            self.node.prepare()
        except errors.StoreFullError as exc:
            raise NoRoomLeftError from exc
        self._workers = []
        self._run(loop, self._start_workers())
        self._run(
            loop,
            quiet_end.repair(
                self.node,
                self._workers,
                self._maintenance,
                is_roomy=not self._room_may_run_out(),
            ),
        )
        quiet_end.audit(self.node, damaged=self.faults.damaged)
        self._check(loop)

    # -- the parts of a life ------------------------------------------------------------------

    def _start(self) -> virtual_loop.VirtualLoop:
        """Start until a start succeeds: some are cut off, too."""
        while True:
            self.faults.before_a_life()
            self.book.errors_are_expected = self.faults.room_is_short or self._room_may_run_out()
            self._starts_count += 1
            if self._rng.random() < START_CRASH_RATIO:
                self._crash_within(80)
            loop = self._loop = virtual_loop.VirtualLoop(  # type: ignore[abstract]
                f"{self._seed}/loop {self._starts_count}"
            )
            try:
                action = self.node.prepare()
                self.faults.log.append(action.value)
                self._workers = []
                self._run(loop, self._start_workers())
            except errors.StoreFullError:
                # The log's last batch must be written again and there is no room: refused.
                if not self.faults.room_is_short:
                    if self._room_may_run_out():
                        raise NoRoomLeftError from None
                    raise
                self.faults.make_room()
                continue
            except (simulated_device.SimulatedCrash, virtual_loop.InterruptedLoop):
                self._kill_all(loop)
                self._end()
                continue
            self.node.world.crash_at = None
            return loop

    async def _start_workers(self) -> None:
        self._fenced = False
        for slot in range(node_shape.WORKERS_COUNT):
            self._fenced |= await self._start_worker(slot)
        await self._start_maintenance()
        if not self._bucket_was_seen:
            with contextlib.suppress(errors.BucketAlreadyExistsError):
                await self._workers[0].store.create_bucket(
                    name=ledger.BUCKET, owner="o", region="r"
                )
            self._bucket_was_seen = True

    async def _start_worker(self, slot: int) -> bool:
        worker = simulated_process.Worker(self.node, slot)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_loop.VirtualLoop), loop
        fenced = await loop.create_task_of(worker, worker.start())
        self._workers.append(worker)
        return fenced

    async def _start_maintenance(self) -> None:
        self._maintenance = simulated_maintenance.Maintenance(self.node)
        await self._maintenance.start()

    async def _restart_processes(self) -> None:
        """Let single processes die and start again while the others go on, until cancelled."""
        rng = self._rng
        while True:
            await asyncio.sleep(rng.expovariate(1 / WORKER_SECONDS_MEAN))
            self._maintenance.check()
            victim = rng.choice([*self._workers, self._maintenance])
            victim.dies_at_commit = rng.random() < 0.5
            if not victim.dies_at_commit:
                victim.die()
            await asyncio.wait({victim.death}, timeout=WORKER_SECONDS_MEAN)
            if victim.death.done():
                place = "in-commit" if victim.dies_at_commit else "alone"
                self.faults.log.append(f"{place} {victim.name} dies")
                if isinstance(victim, simulated_process.Worker):
                    self._workers.remove(victim)
                    await self._start_worker(victim.slot)
                else:
                    await self._start_maintenance()
            victim.dies_at_commit = False

    def _live(self, loop: virtual_loop.VirtualLoop, number: int) -> None:
        if self._rng.random() < 0.9:
            self._crash_within(self._rng.choice(COMMANDS_PER_LIFE_MAX))
        with contextlib.suppress(virtual_loop.InterruptedLoop):
            self._run(loop, self._load(number))
            self._maintenance.check()
        self._kill_all(loop)
        for problem in loop.problems:
            if not isinstance(problem.get("exception"), DEATHS):
                raise AssertionError(f"a task failed unseen: {problem}")

    async def _load(self, number: int) -> None:
        chaos = [
            asyncio.get_running_loop().create_task(work)
            for work in (self.faults.during_a_life(), self._restart_processes())
        ]
        async with asyncio.TaskGroup() as group:
            for client in range(self._rng.randrange(4, 9)):
                work = clients.Client(
                    client,
                    seed=f"{self._seed}/life {number}",
                    book=self.book,
                    shape=self.shape,
                    workers=self._workers,
                )
                group.create_task(work.run(self._rng.randrange(5, 15)))
        for task in chaos:
            task.cancel()

    def _kill_all(self, loop: virtual_loop.VirtualLoop) -> None:
        """Nothing of any process goes on, and no clean-up reaches a device or the index."""
        self.node.world.crashed = True
        loop.abandon()
        self.book.judge.crash()

    def _end(self) -> None:
        power_loss = self._rng.random() < 0.5
        index = self._rng.choice(list(simulated_node.IndexLoss))
        self.faults.log.append("power loss" if power_loss else f"crash, index {index.value}")
        self.book.trace("end", power_loss, index, self.node.world.commands_count)
        self.node.lose(power_loss=power_loss, index=index)
        self.faults.between_lives()
        self.faults.change_membership()

    def _crash_within(self, commands_max: int) -> None:
        world = self.node.world
        world.crash_at = world.commands_count + self._rng.randrange(1, commands_max)

    def _room_may_run_out(self) -> bool:
        return self.shape.zone_count < 64

    def _run(self, loop: virtual_loop.VirtualLoop, work: Coroutine[Any, Any, T]) -> T:
        world = self.node.world
        result = loop.run(work, interrupted=lambda: world.crashed)
        self.book.trace("ran", loop.steps_count, world.commands_count)
        return result

    # -- the check after a start --------------------------------------------------------------

    def _check(self, loop: virtual_loop.VirtualLoop) -> None:
        if self._fenced:
            self.book.judge.fenced()
        self._run(loop, self._check_uploads())
        self._run(loop, self._check_objects())
        self._maintenance.check()
        media_audit.run(self.node, damaged=self.faults.damaged | self.faults.away)

    async def _check_objects(self) -> None:
        book = self.book
        shown: dict[str, tuple[str, int]] = {}
        for key in book.judge.names():
            if key.startswith(("upload ", "part ")):
                continue
            record = await book.read_key(self._rng.choice(self._workers).store, key)
            if record is not None:
                shown[key] = (record.etag, record.size_bytes)
        listed: list[objects.ObjectRecord] = []
        query = objects.ListQuery(bucket=ledger.BUCKET, limit=LISTED_PER_PAGE)
        while True:
            page = await self._rng.choice(self._workers).store.list_objects(query)
            listed.extend(page.objects)
            if not page.truncated:
                break
            query = objects.ListQuery(bucket=ledger.BUCKET, limit=LISTED_PER_PAGE, after=page.last)
        found = [(record.key, (record.etag, record.size_bytes)) for record in listed]
        expected = sorted(shown.items(), key=lambda row: row[0].encode())
        assert found == expected, f"LIST shows {found}, GET shows {expected}"

    async def _check_uploads(self) -> None:
        book, judge = self.book, self.book.judge
        store = self._rng.choice(self._workers).store
        started = judge.tick()
        page = await store.list_uploads(objects.UploadQuery(bucket=ledger.BUCKET))
        present = {int(record.metadata["version"]): record for record in page.uploads}
        assert len(present) == len(page.uploads), page
        assert not page.truncated, page
        names = [name for name in judge.names() if name.startswith("upload ")]
        unknown = set(present) - {int(name.split()[1]) for name in names}
        assert not unknown, f"uploads {unknown} were never begun"
        known = {upload.version: upload for upload in book.uploads}
        book.uploads = []
        for name in names:
            version = int(name.split()[1])
            record = present.get(version)
            shown = oracle.ABSENT if record is None else version
            judge.observe(name, shown, started=started)
            upload = known.get(version)
            if record is None:
                if upload is not None and upload.completion is not None:
                    judge.certainly(upload.completion)
                continue
            if upload is None:
                client = int(record.key.split("/")[1])
                upload = ledger.Upload(
                    client=client, version=version, key=record.key, record=record
                )
            book.uploads.append(upload)
            if upload.completion is not None and self._fenced:
                judge.refuse(upload.completion)
            upload.doubtful = not self._fenced
            if self._fenced:
                upload.completion = upload.removal = None
            await self._check_parts(store, upload)

    async def _check_parts(self, store: node_store.NodeStore, upload: ledger.Upload) -> None:
        judge = self.book.judge
        started = judge.tick()
        page = await store.list_parts(upload.record, after_part=0, limit=1000)
        upload.parts = {}
        listed = {part.number: part for part in page.parts}
        for number in range(1, 5):
            name = upload.part_register(number)
            part = listed.pop(number, None)
            if part is None:
                judge.observe(name, oracle.ABSENT, started=started)
                continue
            version = next(
                (
                    write.version
                    for write in judge.possible(name)
                    if write.version != oracle.ABSENT and oracle.etag_of(write) == part.etag
                ),
                -1,
            )
            write = judge.observe(name, version, started=started)
            whole = objects.ObjectRecord(
                bucket=ledger.BUCKET,
                key=upload.key,
                size_bytes=part.size_bytes,
                etag=part.etag,
                modified_ns=part.modified_ns,
                extents=part.extents,
            )
            pieces = store.stream(whole, start_bytes=0, length_bytes=part.size_bytes)
            body = b"".join([bytes(piece) async for piece in pieces])
            assert body == oracle.body_of(write), f"{name} is torn"
            upload.parts[number] = write
        assert not listed, f"parts {sorted(listed)} of {upload.register} were never sent"


def run(seed: int) -> str:
    """One seed; an error carries the seed and what happened as notes."""
    lives = Lives(seed)
    try:
        return lives.run()
    except BaseException as exc:
        exc.add_note(f"node simulation seed {seed}: {lives.shape}")
        exc.add_note("; ".join(lives.faults.log))
        raise
