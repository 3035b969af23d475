"""An API server over HTTP: list and watch with bookmarks, leases with versions, and everything that goes wrong with them.

usage: api_server.py PORT TOKEN_FILE [TLS_PORT CERTIFICATE KEY], which may change at any time

Objects and faults come by POST /control: {"put": OBJECT}, {"delete": NAMESPACE/NAME}, both with {"at": COLLECTION} unless
they are pods, {"refuse": STATUS or 0}, {"forbid": [PART OF A PATH, ...]} with 403, {"cut": true} ends all watches in the
middle of an event, or of {"garbage": HEX}, {"expire": true} answers the next watch with 410, {"partition": [NAME, ...]} answers nothing to those
who ask below /as/NAME. {"put": OBJECT, "copies": [FROM, TO]} puts many: {n} in it is the number, {digit} its last
one, {hex64} its digits, {uid} and {ip} follow from it. {"retry_after": SECONDS} goes with refusals, {"delay_s": SECONDS} makes all answers
slow. GET /control tells how often it was asked.
"""
import bisect
import json
import ssl
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PORT, TOKEN_FILE = int(sys.argv[1]), sys.argv[2]


PODS = "/api/v1/pods"
PAGE = b"# TYPE apiserver_request_total counter\napiserver_request_total{verb=\"GET\"} 5\n"


class State:
    """All objects by collection, and the events since the start."""

    def __init__(self):
        self.changed = threading.Condition()
        self.objects, self.events = {PODS: {}}, []
        self.forbidden, self.partitioned = [], []
        self.version, self.refuse, self.cuts, self.expires = 1, 0, 0, False
        self.retry_after, self.delay_s, self.garbage = 0, 0, b""
        self.lists = self.watches = self.unauthorized = 0

    def add(self, kind, at, thing, before=None):
        self.version += 1
        thing.setdefault("metadata", {})["resourceVersion"] = str(self.version)
        self.events.append((self.version, kind, at, dict(thing, metadata=dict(thing["metadata"])), before))

    def put(self, at, thing):
        things = self.objects.setdefault(at, {})
        key = key_of(thing)
        self.add("MODIFIED" if key in things else "ADDED", at, thing, things.get(key))
        things[key] = thing

    def control(self, order):
        with self.changed:
            at = order.get("at", PODS)
            if "put" in order:
                for thing in copies(order["put"], *order.get("copies", ())):
                    self.put(at, thing)
            if "delete" in order:
                for key in copies(order["delete"], *order.get("copies", ())):
                    gone = self.objects[at].pop(key)
                    self.add("DELETED", at, gone, dict(gone))
            self.forbidden = order.get("forbid", self.forbidden)
            self.partitioned = order.get("partition", self.partitioned)
            self.retry_after = order.get("retry_after", self.retry_after)
            self.delay_s = order.get("delay_s", self.delay_s)
            self.refuse = order.get("refuse", self.refuse)
            self.cuts += 1 if order.get("cut") else 0
            self.expires = order.get("expire", self.expires)
            self.garbage = bytes.fromhex(order.get("garbage", ""))
            self.changed.notify_all()


STATE = State()


def key_of(thing):
    return f"{thing['metadata'].get('namespace', '')}/{thing['metadata']['name']}"


def copies(template, first=None, last=None):
    """One object for each number from the first to the last; without them the object itself."""
    if first is None:
        return [template]
    text = json.dumps(template)

    def copy(number):
        of_number = {"{n}": str(number), "{digit}": str(number % 10), "{hex64}": f"{number:064x}", "{uid}": f"{number:08x}-0000-4000-8000-0000000000ff",
                     "{ip}": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}
        mine = text
        for place, value in of_number.items():
            mine = mine.replace(place, value)
        return json.loads(mine)
    return [copy(number) for number in range(first, last + 1)]


def is_selected(thing, namespace, query):
    """By a namespace, fields and one label, as far as they are asked for."""
    metadata = thing["metadata"]
    fields = {"spec.nodeName": lambda: thing["spec"].get("nodeName"), "metadata.name": lambda: metadata["name"],
              "status.phase": lambda: thing.get("status", {}).get("phase")}
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        field, _, value = term.partition("=")
        if (fields[field.removesuffix("!")]() == value) == field.endswith("!"):
            return False
    label, _, label_value = query.get("labelSelector", "").partition("=")
    return (namespace in ("", metadata.get("namespace", ""))
            and (label == "" or metadata.get("labels", {}).get(label) == label_value))


def place_of(path):
    """/apis/G/V/namespaces/NS/KIND/NAME -> /apis/G/V/KIND, NS, NAME"""
    parts = path.strip("/").split("/")
    head = 3 if parts[0] == "apis" else 2
    root, rest, namespace = parts[:head], parts[head:], ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    return "/" + "/".join(root + rest[:1]), namespace, rest[1] if len(rest) > 1 else ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        if status == STATE.refuse and STATE.retry_after:
            self.send_header("Retry-After", str(STATE.retry_after))
        self.end_headers()
        self.wfile.write(text)

    def fail(self, status, reason):
        self.answer(status, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                             "reason": reason, "message": reason, "code": status})

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = b""
        while length := int(self.rfile.readline(), 16):
            text += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return json.loads(text)

    def admit(self):
        """The path without who asks; None if that was answered already."""
        path, self.caller = urlsplit(self.path).path, ""
        if path.startswith("/as/"):
            _, _, self.caller, rest = path.split("/", 3)
            path = "/" + rest
        time.sleep(STATE.delay_s)
        if self.caller in STATE.partitioned:
            self.close_connection = True
            return self.connection.close()
        with open(TOKEN_FILE) as file:
            if self.headers.get("Authorization") != f"Bearer {file.read().strip()}":
                STATE.unauthorized += 1
                return self.fail(401, "Unauthorized")
        if STATE.refuse:
            return self.fail(STATE.refuse, "Refused")
        if any(part in path for part in STATE.forbidden):
            return self.fail(403, "Forbidden")
        return path

    def do_POST(self):
        if self.path == "/control":
            STATE.control(self.body())
            return self.answer(200, {})
        self.write(lambda lease, known: known is None)

    def do_PUT(self):
        def is_newest(lease, known):
            return known and lease["metadata"].get("resourceVersion") == known["metadata"]["resourceVersion"]
        self.write(is_newest)

    def write(self, may):
        """Writes an object, on top of the version that was read."""
        lease, path = self.body(), self.admit()
        if path is None:
            return
        at, namespace, _ = place_of(path)
        lease["metadata"]["namespace"] = namespace
        lease["metadata"].setdefault("uid", str(uuid.uuid4()))
        with STATE.changed:
            if not may(lease, STATE.objects.get(at, {}).get(key_of(lease))):
                return self.fail(409, "Conflict")
            STATE.put(at, lease)
            STATE.changed.notify_all()
        self.answer(200, lease)

    def do_DELETE(self):
        path = self.admit()
        if path is None:
            return
        at, namespace, name = place_of(path)
        key = f"{namespace}/{name}"
        if key not in STATE.objects.get(at, {}):
            return self.fail(404, "NotFound")
        STATE.control({"delete": key, "at": at})
        self.answer(200, {})

    def do_GET(self):
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/control":
            names = ("lists", "watches", "unauthorized")
            return self.answer(200, {name: getattr(STATE, name) for name in names})
        path = self.admit()
        if path is None:
            return
        if path == "/metrics":
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(PAGE)))
            self.end_headers()
            return self.wfile.write(PAGE)
        at, namespace, name = place_of(path)
        if name:
            thing = STATE.objects.get(at, {}).get(f"{namespace}/{name}")
            return self.answer(200, thing) if thing else self.fail(404, "NotFound")
        if query.get("watch") in ("1", "true"):
            return self.watch(at, namespace, query)
        STATE.lists += 1
        with STATE.changed:
            things = STATE.objects.get(at, {}).values()
            items = [thing for thing in things if is_selected(thing, namespace, query)]
            version = STATE.version
        # All pages of a list have the version of the first.
        begin, version = map(int, query.get("continue", f"0 {version}").split())
        limit = int(query.get("limit") or len(items))
        rest = {"continue": f"{begin + limit} {version}"} if begin + limit < len(items) else {}
        self.answer(200, {"kind": "List", "apiVersion": "v1", "items": items[begin:begin + limit],
                          "metadata": {"resourceVersion": str(version), **rest}})

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, kind, thing):
        self.chunk(json.dumps({"type": kind, "object": thing}).encode() + b"\n")

    def watch(self, at, namespace, query):
        version = int(query.get("resourceVersion") or 0)
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
                is_apart = lambda: self.caller in STATE.partitioned
                STATE.changed.wait_for(lambda: STATE.version > version or STATE.cuts > cuts or is_apart(), timeout=1)
                if is_apart():
                    self.close_connection = True
                    return self.connection.close()
                events = STATE.events[bisect.bisect_right(STATE.events, version, key=lambda event: event[0]):]
                is_cut, now = STATE.cuts > cuts, STATE.version
            if is_cut:
                self.chunk(STATE.garbage or b'{"type":"MODIFIED","object":{"kind":"Pod","metad')
                self.close_connection = True
                return self.connection.close()
            for version, kind, of, thing, before in events:
                if of != at:
                    continue
                # What leaves the selection is deleted for this watch, and what joins it is new.
                is_in = kind != "DELETED" and is_selected(thing, namespace, query)
                was_in = before is not None and is_selected(before, namespace, query)
                if is_in or was_in:
                    kind = "DELETED" if not is_in else "MODIFIED" if was_in else "ADDED"
                    self.event(kind, {"kind": "Pod", "apiVersion": "v1", **thing})
            version = now
            self.event("BOOKMARK", {"kind": "Pod", "apiVersion": "v1",
                                    "metadata": {"resourceVersion": str(now)}, "spec": {"containers": []}})


class Server(ThreadingHTTPServer):
    """Clients that go away in the middle are none of its business."""
    daemon_threads = True

    def handle_error(self, *_):
        pass


class TlsServer(Server):
    """Each connection gets the certificate that is in the file then."""

    def get_request(self):
        connection, address = super().get_request()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*sys.argv[4:6])
        return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address


def serve(kind, port):
    threading.Thread(target=kind(("127.0.0.1", port), Handler).serve_forever, daemon=True).start()


serve(Server, PORT)
if len(sys.argv) > 3:
    serve(TlsServer, int(sys.argv[3]))
time.sleep(600)
