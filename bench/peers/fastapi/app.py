"""The agent runtime as a FastAPI service: lifecycle, status, and durable triggers on SQLite.

Run by uvicorn with uvloop and httptools, one worker. A 202 is answered after the commit of its row, with
synchronous=FULL; one writer commits whatever has gathered while the commit before was syncing.
"""

import asyncio
import os
import secrets
import sqlite3
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import orjson
from fastapi import FastAPI, Request, Response

ENTRY_POINTS = ["main"]
MAX_CONCURRENT = int(os.environ.get("MAX_CONCURRENT", "8"))
QUEUES_WHILE_PAUSED = os.environ.get("HIVE_WHILE_PAUSED", "reject") == "queue"
DATA_DIR = os.environ.get("HIVE_DATA_DIR", ".hive")
# What the one step of an execution asks for; without it the step only yields.
STEP_URL = os.environ.get("STEP_URL")

INSERT = "INSERT INTO executions (id, entry_point, memory, created) VALUES (?, ?, ?, ?)"
FINISH = "UPDATE executions SET state = ?, ended = ? WHERE id = ?"


class Store:
    """Executions on disk: a connection, a thread that uses it, and a task that feeds it groups."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS executions (id TEXT PRIMARY KEY, entry_point TEXT NOT NULL,"
            " state TEXT NOT NULL DEFAULT 'queued', memory BLOB NOT NULL, created REAL NOT NULL, ended REAL)"
            " WITHOUT ROWID"
        )
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._waiting: list[tuple[str, tuple, asyncio.Future]] = []
        self._wake = asyncio.Event()

    def unfinished(self) -> list[str]:
        rows = self._connection.execute("SELECT id FROM executions WHERE ended IS NULL ORDER BY created")
        return [row[0] for row in rows]

    def counts(self) -> tuple[int, int]:
        return self._connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE state = 'failed') FROM executions"
        ).fetchone()

    async def write(self, statement: str, values: tuple) -> None:
        """Returns when the statement is committed."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((statement, values, done))
        self._wake.set()
        await done

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            group, self._waiting = self._waiting, []
            try:
                await loop.run_in_executor(self._thread, self._commit, group)
            except sqlite3.Error as error:
                for _, _, done in group:
                    if not done.done():
                        done.set_exception(error)
                continue
            for _, _, done in group:
                # One whose client hung up is cancelled.
                if not done.done():
                    done.set_result(None)

    def _commit(self, group: list[tuple[str, tuple, asyncio.Future]]) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            for statement in (INSERT, FINISH):
                rows = [values for wanted, values, _ in group if wanted is statement]
                if rows:
                    self._connection.executemany(statement, rows)
            execute("COMMIT")
        except BaseException:
            execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._thread.shutdown()
        self._connection.close()


class Runtime:
    """The state, the queue, and the executions in flight."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.state = "starting"
        self.started = time.monotonic()
        self.queue: deque[str] = deque(store.unfinished())
        self.total, self.failed = store.counts()
        self.in_flight: set[asyncio.Task] = set()
        self.idle = asyncio.Event()
        self.idle.set()
        self._client = None

    def admits(self) -> bool:
        return self.state == "running" or (QUEUES_WHILE_PAUSED and self.state in ("pausing", "paused"))

    def begin(self) -> None:
        """Starts what waits, as far as the state and the limit allow."""
        while self.state == "running" and self.queue and len(self.in_flight) < MAX_CONCURRENT:
            self.idle.clear()
            task = asyncio.create_task(self._execute(self.queue.popleft()))
            self.in_flight.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task) -> None:
        self.in_flight.discard(task)
        self.begin()
        if not self.in_flight:
            self.idle.set()

    async def _execute(self, execution: str) -> None:
        state = "succeeded"
        try:
            await self._step()
        except Exception:
            state = "failed"
            self.failed += 1
        await self.store.write(FINISH, (state, time.time(), execution))

    async def _step(self) -> None:
        if STEP_URL is None:
            await asyncio.sleep(0)
            return
        if self._client is None:
            # The import takes as long as half of the start, so that it is left to the first that needs it.
            import aiohttp

            self._client = aiohttp.ClientSession()
        async with self._client.get(STEP_URL) as answer:
            answer.raise_for_status()
            await answer.read()

    async def resume(self) -> None:
        self.state = "running"
        self.begin()

    async def drain(self, via: str, to: str) -> None:
        """Lets nothing begin, waits for what is in flight, and only then says so."""
        self.state = via
        await self.idle.wait()
        if self.state == via:
            self.state = to

    async def close(self) -> None:
        await self.drain("stopping", "stopped")
        if self._client is not None:
            await self._client.close()

    def status(self) -> bytes:
        return orjson.dumps(
            {
                "state": self.state,
                "uptime_seconds": int(time.monotonic() - self.started),
                "active_streams": 1 if self.in_flight else 0,
                "total_executions": self.total,
                "failed_executions": self.failed,
                "entry_points": ENTRY_POINTS,
                "health": {"storage": "healthy", "llm": "unknown", "tools": "healthy"},
            }
        )


@asynccontextmanager
async def lifespan(app: FastAPI):
    os.makedirs(DATA_DIR, exist_ok=True)
    store = Store(os.path.join(DATA_DIR, "executions.sqlite"))
    writer = asyncio.create_task(store.run())
    app.state.runtime = Runtime(store)
    await app.state.runtime.resume()
    yield
    await app.state.runtime.close()
    writer.cancel()
    store.close()


app = FastAPI(title="agent runtime", lifespan=lifespan)


def json(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="application/json")


def problem(status: int, detail: str) -> Response:
    return json(orjson.dumps({"status": status, "detail": detail}), status)


@app.get("/health/live")
async def live() -> Response:
    return Response("alive")


@app.get("/health/ready")
async def ready() -> Response:
    return Response("ready") if app.state.runtime.admits() else problem(503, f"it is {app.state.runtime.state}")


@app.get("/api/v1/status")
async def status() -> Response:
    return json(app.state.runtime.status())


@app.post("/api/v1/lifecycle/{verb}")
async def lifecycle(verb: str) -> Response:
    runtime: Runtime = app.state.runtime
    match verb:
        case "start" | "resume":
            await runtime.resume()
        case "pause":
            await runtime.drain("pausing", "paused")
        case "stop":
            await runtime.drain("stopping", "stopped")
        case "restart":
            await runtime.drain("stopping", "stopped")
            await runtime.resume()
        case _:
            return problem(404, f"there is no verb {verb}")
    return json(runtime.status())


@app.post("/api/v1/entry-points/{entry_point}/trigger")
async def trigger(entry_point: str, request: Request) -> Response:
    runtime: Runtime = app.state.runtime
    if entry_point not in ENTRY_POINTS:
        return problem(404, f"there is no entry point {entry_point}")
    if not runtime.admits():
        return problem(503, f"it is {runtime.state}")
    body = await request.body() or b"{}"
    try:
        if not isinstance(orjson.loads(body), dict):
            return problem(400, "the body is no JSON object")
    except orjson.JSONDecodeError:
        return problem(400, "the body is no JSON object")
    # Ids in the order of time, so that the table grows at its end.
    execution = f"{time.time_ns():016x}{secrets.token_hex(8)}"
    await runtime.store.write(INSERT, (execution, entry_point, body, time.time()))
    runtime.total += 1
    runtime.queue.append(execution)
    runtime.begin()
    return json(orjson.dumps({"execution": execution, "repeated": False}), 202)
