"""An agent of your own that an AgentRuntime can manage: the lifecycle contract in the standard library of Python."""
import json, os, re, signal, socket, threading, time, uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import environ
from pathlib import Path
from urllib.parse import parse_qs, urlparse

RUNTIME, POD = environ.get("HIVE_RUNTIME_UID"), environ.get("HIVE_POD_UID")
RECORD, GIVEN = (Path(environ.get(folder, "/tmp")) for folder in ("HIVE_DATA_DIR", "HIVE_BOOT_DIR"))
STATES = {"pause": "paused", "resume": "running", "start": "running", "restart": "running", "stop": "stopped"}
lock, boot, born, begun, done, told = threading.Condition(), uuid.uuid4().hex, time.time(), 0, 0, 0

def step(): time.sleep(1)  # one piece of work; a pause waits for its end

def read(path):  # what another AgentRuntime left on the volume is not ours
    found = json.loads(path.read_text()) if path.is_file() else {}
    return found if found.get("runtime_uid") == RUNTIME else {}

def left(brakes, asked, held):  # a brake ends when a newer epoch than its own names it, and by nothing else
    new, names = asked.get("epoch", 0), asked.get("releases", [])
    return {one: brake for one, brake in brakes.items() if not (one in names and new > brake["epoch"] and new >= held)}

# The newer of what this pod recorded and what the operator mounted. Managed with neither: stay paused.
found, given = read(RECORD / "fence.json"), read(GIVEN / "boot.json")
known = max(found, given, key=lambda one: one.get("epoch", 0))
epoch, wanted = known.get("epoch", 0), known.get("wanted", known.get("state", "paused" if RUNTIME else "running"))
brakes = left(found.get("brakes", {}), given, found.get("epoch", 0))  # kept, whatever the mounted file asks for
opens = born + float(environ.get("HIVE_BOOT_HOLD_SECONDS", 0)) if RUNTIME else 0  # the operator confirms before that

def severest(wanted, brakes):
    return max([wanted] + [brake["state"] for brake in brakes.values()], key=("running", "paused", "stopped").index)

def keep(new, state, held):  # on disk before it is answered, so that no crash forgets a pause
    global epoch, wanted, brakes
    # An image from before brakes reads "state" alone, and stays held by it after a rollback.
    fence = {"runtime_uid": RUNTIME, "epoch": new, "state": severest(state, held), "wanted": state, "brakes": held}
    with open(RECORD / "fence.new", "wb", buffering=0) as file:
        file.write(json.dumps(fence).encode())
        os.fsync(file)
    os.replace(RECORD / "fence.new", RECORD / "fence.json")
    epoch, wanted, brakes = new, state, held

if brakes != found.get("brakes", {}): keep(epoch, wanted, brakes)  # gone from disk before the status says so

def work():
    global begun, done
    while True:
        with lock:  # asked and admitted under one lock: once paused is said, nothing begins
            while severest(wanted, brakes) != "running" or time.time() < opens: lock.wait(0.5)
            begun += 1; lock.notify_all()
        step()
        with lock: done += 1; lock.notify_all()

def status():
    desired = severest(wanted, brakes)
    state = {"running": "running", "paused": "pausing", "stopped": "stopping"}[desired] if begun > done else desired
    return {"state": state, "in_flight": begun - done, "active_streams": begun - done, "total_executions": begun,
            "failed_executions": 0, "entry_points": [], "health": {}, "uptime_seconds": int(time.time() - born),
            "epoch": epoch, "pod_uid": POD, "awaiting_confirmation": time.time() < opens,
            "brakes": list(brakes), "features": ["brake"], "boot_id": boot, "version": f"{boot}.{begun + done + told}"}

def brake(asked):  # one more reason to be held: no epoch is accepted and no boot confirmed by it
    one, state = str(asked.get("id")), asked.get("state")
    if not re.fullmatch("[A-Za-z0-9._-]{1,128}", one) or state not in ("paused", "stopped"): return 400, "invalid"
    if one not in brakes and len(brakes) >= 8: return 409, "brakes_full"
    old = brakes.get(one, {"epoch": 0, "state": state})
    tighter = {"epoch": max(asked.get("epoch", epoch), old["epoch"]), "state": severest(state, {one: old})}
    keep(epoch, wanted, {**brakes, one: tighter})

def command(verb, asked):
    global opens
    new, rest, persons = asked.get("epoch", epoch), left(brakes, asked, epoch), "epoch" not in asked
    refused = RUNTIME or (verb, wanted) == ("resume", "stopped") or (brakes and STATES[verb] == "running")
    if persons and refused: return 409, "not_now"
    if new > epoch or persons: keep(new, STATES[verb], rest)
    elif rest != brakes: keep(epoch, wanted, rest)
    opens = 0

def obey(verb, asked):  # what it answers: the code, and a word for a refusal
    global told
    if verb not in STATES and verb != "brake": return 404, "not_found"
    if (asked.get("runtime_uid", RUNTIME), asked.get("pod_uid", POD)) != (RUNTIME, POD): return 421, "other_pod"
    if asked.get("epoch", epoch) < epoch: return 409, "stale_epoch"
    if refusal := brake(asked) if verb == "brake" else command(verb, asked): return refusal
    told += 1; lock.notify_all()
    return 200 if status()["state"] == severest(wanted, brakes) else 202, None

class Contract(BaseHTTPRequestHandler):
    def answer(self, code, word=None):
        body = {"type": word, "title": word, "status": code, "detail": word, "runtime": status()} if word else status()
        self.send_response(code); self.end_headers(); self.wfile.write(json.dumps(body).encode())
    def do_GET(self):
        url = urlparse(self.path); asked = parse_qs(url.query)
        with lock:
            lock.wait_for(lambda: asked.get("after") != [status()["version"]], float(asked.get("wait", "0")[0]))
            self.answer(503 if url.path == "/health/ready" and severest(wanted, brakes) != "running" else 200)
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        with lock: self.answer(*obey(self.path.removeprefix("/api/v1/lifecycle/"), asked))

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
host, port = environ.get("HIVE_LIFECYCLE_HOST", "127.0.0.1"), environ.get("HIVE_LIFECYCLE_PORT", "8080")
ThreadingHTTPServer.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET  # :: takes IPv4 too
server = ThreadingHTTPServer((host, int(port)), Contract)
print("http://%s:%d" % server.server_address[:2], flush=True)
for task in (work, server.serve_forever): threading.Thread(target=task, daemon=True).start()
signal.sigwait({signal.SIGTERM})  # nothing new begins, and out when what is in flight has ended
with lock: opens = float("inf"); lock.wait_for(lambda: begun == done)
