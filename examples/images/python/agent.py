"""An agent of your own that an AgentRuntime can manage: the lifecycle contract in the standard library of Python."""
import json, os, signal, threading, time, uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

ENV, VERBS = os.environ, {"pause": "paused", "resume": "running", "start": "running", "restart": "running", "stop": "stopped"}
UID, POD = ENV.get("HIVE_RUNTIME_UID", ""), ENV.get("HIVE_POD_UID", "")
RECORD = Path(ENV.get("HIVE_DATA_DIR", "/tmp")) / "fence.json"
lock, boot_id, begun = threading.Condition(), uuid.uuid4().hex, time.time()
in_flight = done = version = 0

def step():
    time.sleep(0.2)  # one piece of work; a pause waits for its end

def read(path):  # what another AgentRuntime left on the volume is not ours
    try:
        found = json.loads(path.read_text())
        return found if found["runtime_uid"] == UID else {}
    except (OSError, ValueError, KeyError):
        return {}

# The newer of what this pod recorded and what the operator mounted. Managed with neither: stay paused.
known = max(read(RECORD), read(Path(ENV.get("HIVE_BOOT_DIR", "/none")) / "boot.json"), key=lambda k: k.get("epoch", 0))
epoch, desired = known.get("epoch", 0), known.get("state", "paused" if UID else "running")
opens = begun + float(ENV.get("HIVE_BOOT_HOLD_SECONDS", 0)) if UID else 0  # the operator confirms before that

def record(new_epoch, new_desired):  # on disk before it is answered, so that no crash forgets a pause
    with open(RECORD.with_suffix(".new"), "w") as file:
        json.dump({"runtime_uid": UID, "epoch": new_epoch, "state": new_desired}, file)
        file.flush(); os.fsync(file.fileno())
    os.replace(RECORD.with_suffix(".new"), RECORD)

def count(flight, finished):
    global in_flight, done, version
    in_flight, done, version = in_flight + flight, done + finished, version + 1
    lock.notify_all()

def work():
    while True:
        with lock:  # asked and admitted under one lock: once paused is said, nothing begins
            if lock.wait_for(lambda: desired == "running" and time.time() >= opens, timeout=0.5):
                count(1, 0)
            else: continue
        step()
        with lock: count(-1, 1)
        time.sleep(0.5)

def status():
    ways = {"running": "running", "paused": "pausing", "stopped": "stopping"}
    return {"state": ways[desired] if in_flight else desired, "in_flight": in_flight, "epoch": epoch, "pod_uid": POD or None,
            "uptime_seconds": int(time.time() - begun), "active_streams": in_flight, "total_executions": done, "failed_executions": 0,
            "entry_points": [], "health": {}, "boot_id": boot_id, "version": f"{boot_id}.{version}", "awaiting_confirmation": time.time() < opens}

class Contract(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def answer(self, code, body):
        text = json.dumps(body).encode()
        self.send_response(code); self.send_header("Content-Length", str(len(text))); self.end_headers(); self.wfile.write(text)
    def refuse(self, code, kind, detail):
        self.answer(code, {"type": kind, "title": kind, "status": code, "detail": detail, "runtime": status()})
    def do_GET(self):
        url = urlparse(self.path); query = {key: value[0] for key, value in parse_qs(url.query).items()}
        with lock:
            if url.path == "/health/live": return self.answer(200, {})
            if url.path == "/health/ready": return self.answer(200 if desired == "running" else 503, {})
            if url.path != "/api/v1/status": return self.refuse(404, "not_found", "ask for /api/v1/status")
            lock.wait_for(lambda: status()["version"] != query.get("after"), timeout=min(float(query.get("wait", 0)), 30))
            self.answer(200, status())
    def do_POST(self):
        global epoch, desired, opens
        verb = self.path.rsplit("/", 1)[-1]; body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        with lock:
            if self.path != f"/api/v1/lifecycle/{verb}" or verb not in VERBS: return self.refuse(404, "not_found", "no such verb")
            if body.get("runtime_uid", UID) != UID or body.get("pod_uid", POD) != POD:
                return self.refuse(421, "other_pod", "this pod has another UID")
            if body.get("epoch", epoch) < epoch: return self.refuse(409, "stale_epoch", f"epoch {epoch} was accepted before")
            if "epoch" not in body and (UID or (verb == "resume" and desired == "stopped")):
                return self.refuse(409, "not_now", "change spec.desiredState" if UID else "it is stopped: start it")
            if body.get("epoch", epoch + 1) > epoch:
                record(body.get("epoch", epoch), VERBS[verb])
                epoch, desired = body.get("epoch", epoch), VERBS[verb]
            opens = 0
            count(0, 0)
            self.answer(200 if status()["state"] == desired else 202, status())

def leave(*_):  # SIGTERM: nothing new, and out when what is in flight has ended
    global opens
    def out():
        with lock: lock.wait_for(lambda: in_flight == 0)
        os._exit(0)
    opens = float("inf"); threading.Thread(target=out).start()

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    threading.Thread(target=work, daemon=True).start()
    server = ThreadingHTTPServer((ENV.get("HIVE_LIFECYCLE_HOST", "127.0.0.1"), int(ENV.get("HIVE_LIFECYCLE_PORT", 8080))), Contract)
    print(f"http://{server.server_address[0]}:{server.server_address[1]}", flush=True)
    server.serve_forever()
