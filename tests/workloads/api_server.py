"""An API server's pods over HTTP: list and watch with bookmarks, and everything that goes wrong with them.

usage: api_server.py PORT TOKEN_FILE

Pods and faults come by POST /control: {"put": POD}, {"delete": NAMESPACE/NAME}, {"refuse": STATUS or 0},
{"cut": true} ends all watches in the middle of an event, {"expire": true} answers the next watch with 410.
GET /control tells how often it was asked.
"""
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PORT, TOKEN_FILE = int(sys.argv[1]), sys.argv[2]


class State:
    """All pods, and the events since the start."""

    def __init__(self):
        self.changed = threading.Condition()
        self.pods, self.events = {}, []
        self.version, self.refuse, self.cuts, self.expires = 1, 0, 0, False
        self.lists = self.watches = self.unauthorized = 0

    def add(self, kind, pod):
        self.version += 1
        pod.setdefault("metadata", {})["resourceVersion"] = str(self.version)
        self.events.append((self.version, kind, pod))

    def control(self, order):
        with self.changed:
            if "put" in order:
                pod = order["put"]
                key = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
                self.add("MODIFIED" if key in self.pods else "ADDED", pod)
                self.pods[key] = pod
            if "delete" in order:
                self.add("DELETED", self.pods.pop(order["delete"]))
            self.refuse = order.get("refuse", self.refuse)
            self.cuts += 1 if order.get("cut") else 0
            self.expires = order.get("expire", self.expires)
            self.changed.notify_all()


STATE = State()


def on_node(pod, selector):
    return selector == "" or pod["spec"]["nodeName"] == selector.removeprefix("spec.nodeName=")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def fail(self, status, reason):
        self.answer(status, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                             "reason": reason, "message": reason, "code": status})

    def do_POST(self):
        STATE.control(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.answer(200, {})

    def do_GET(self):
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/control":
            names = ("lists", "watches", "unauthorized")
            return self.answer(200, {name: getattr(STATE, name) for name in names})
        with open(TOKEN_FILE) as file:
            if self.headers.get("Authorization") != f"Bearer {file.read().strip()}":
                STATE.unauthorized += 1
                return self.fail(401, "Unauthorized")
        if STATE.refuse:
            return self.fail(STATE.refuse, "Refused")
        if url.path != "/api/v1/pods":
            return self.fail(404, "NotFound")
        selector = query.get("fieldSelector", "")
        if query.get("watch") in ("1", "true"):
            return self.watch(selector, int(query.get("resourceVersion") or 0))
        STATE.lists += 1
        with STATE.changed:
            items = [pod for pod in STATE.pods.values() if on_node(pod, selector)]
            version = STATE.version
        self.answer(200, {"kind": "PodList", "apiVersion": "v1", "items": items,
                          "metadata": {"resourceVersion": str(version)}})

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, kind, thing):
        self.chunk(json.dumps({"type": kind, "object": thing}).encode() + b"\n")

    def watch(self, selector, version):
        STATE.watches += 1
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if STATE.expires:
            STATE.expires = False
            self.event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "status": "Failure",
                                 "message": "too old resource version"})
            return self.chunk(b"")
        cuts = STATE.cuts
        while True:
            with STATE.changed:
                STATE.changed.wait_for(lambda: STATE.version > version or STATE.cuts > cuts, timeout=1)
                events = [event for event in STATE.events if event[0] > version]
                is_cut, now = STATE.cuts > cuts, STATE.version
            if is_cut:
                self.chunk(b'{"type":"MODIFIED","object":{"kind":"Pod","metad')
                self.close_connection = True
                return self.connection.close()
            for version, kind, pod in events:
                if on_node(pod, selector):
                    self.event(kind, {"kind": "Pod", "apiVersion": "v1", **pod})
            version = now
            self.event("BOOKMARK", {"kind": "Pod", "apiVersion": "v1",
                                    "metadata": {"resourceVersion": str(now)}, "spec": {"containers": []}})


server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
time.sleep(600)
