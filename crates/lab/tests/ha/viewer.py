# Somebody who looks at a VM's screen: by a viewer at `pvc vm vnc` on a node and over the API, and over the API's WebSocket. Has the VM moved, and stopped, meanwhile.
import os
import re
import socket
import struct
import subprocess
import sys
import time

VM, FROM, TO, API, TOKEN = sys.argv[1:6]
PATIENCE = 60


class Closed(Exception):
    """The other side has closed it; with which code, if it has said one."""


class Plain:
    """A viewer's connection."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, int(port)), PATIENCE)
        self.socket.settimeout(PATIENCE)

    def read(self, count):
        seen = b""
        while len(seen) < count:
            part = self.socket.recv(count - len(seen))
            if not part:
                raise Closed(None)
            seen += part
        return seen

    def write(self, data):
        self.socket.sendall(data)


class WebSocket(Plain):
    """The same, in frames."""

    def __init__(self):
        super().__init__(*API.rsplit(":", 1))
        self.bytes = b""
        head = [
            f"GET /api/v2/vms/{VM}/screen HTTP/1.1", "Host: lab", f"X-Api-Key: {TOKEN}", "Connection: Upgrade", "Upgrade: websocket",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol: binary",
        ]
        super().write("\r\n".join([*head, "", ""]).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += super().read(1)
        assert answer.startswith(b"HTTP/1.1 101") and b"\r\nsec-websocket-protocol: binary\r\n" in answer.lower(), (
            answer,
            self.socket.recv(4096) if b" 101" not in answer else b"",
        )

    def frame(self):
        kind, length = super().read(2)
        if length == 126:
            (length,) = struct.unpack(">H", super().read(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", super().read(8))
        return kind & 15, super().read(length)

    def send(self, kind, data):
        length = struct.pack(">BBH", 0x80 | kind, 0xFE, len(data)) if len(data) > 125 else bytes((0x80 | kind, 0x80 | len(data)))
        super().write(length + bytes(4) + data)

    def read(self, count):
        while len(self.bytes) < count:
            kind, data = self.frame()
            if kind == 2:
                self.bytes += data
            elif kind == 8:
                raise Closed(struct.unpack(">H", data[:2])[0], data[2:].decode())
            elif kind == 9:
                self.send(10, data)
            else:
                sys.exit("a frame of kind %d: %r" % (kind, data))
        seen, self.bytes = self.bytes[:count], self.bytes[count:]
        return seen

    def write(self, data):
        self.send(2, data)


class Viewer:
    """As much of RFB 3.8 as a picture needs."""

    def __init__(self, way):
        self.way = way
        assert way.read(12).startswith(b"RFB 003."), "this is no screen"
        way.write(b"RFB 003.008\n")
        assert 1 in way.read(way.read(1)[0])
        way.write(b"\x01")
        assert way.read(4) == bytes(4)
        way.write(b"\x01")
        self.width, self.height = struct.unpack(">HH", way.read(4))
        way.read(16)
        (length,) = struct.unpack(">I", way.read(4))
        self.name = way.read(length)
        way.write(struct.pack(">BBHi", 2, 0, 1, 0))

    def colours(self):
        """How many there are in what is shown of the whole picture at once."""
        self.way.write(struct.pack(">BBHHHH", 3, 0, 0, 0, self.width, self.height))
        assert self.way.read(1) == b"\0"
        _, count = struct.unpack(">BH", self.way.read(3))
        seen = set()
        for _ in range(count):
            _, _, width, height, encoding = struct.unpack(">HHHHi", self.way.read(12))
            assert encoding == 0, encoding
            pixels = self.way.read(4 * width * height)
            seen.update(pixels[at:at + 4] for at in range(0, len(pixels), 4))
        return len(seen)

    def sees(self):
        until = time.monotonic() + PATIENCE
        while self.colours() < 2:
            assert time.monotonic() < until, "there is nothing on the screen"
            time.sleep(0.2)
        return f"{self.width} × {self.height}, called {self.name.decode(errors='replace')}"

    def until_closed(self):
        """With what it is closed. A screen on which nothing changes says nothing: it is asked again and again."""
        try:
            while True:
                self.colours()
                time.sleep(0.1)
        except Closed as closed:
            return closed.args
        except (BrokenPipeError, ConnectionResetError):
            return (None,)


def pvc(*arguments):
    subprocess.run(["/usr/bin/pvc", *arguments], check=True)


def patiently(make):
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return make()
        except (Closed, AssertionError, OSError) as error:
            if time.monotonic() > until:
                raise
            print("again:", error, flush=True)
            time.sleep(0.3)


def shown(**environment):
    """`pvc vm vnc`, and the viewer that it makes possible."""
    command = subprocess.Popen(["/usr/bin/pvc", "vm", "vnc", VM], stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    line = command.stdout.readline()
    address = re.fullmatch(rf"VM {VM} on {FROM}: vnc://(127\.0\.0\.1):(\d+)\n", line)
    assert address, line
    return command, lambda: Viewer(Plain(*address.groups()))


BY_API = {"PVC_API": f"http://{API}", "PVC_TOKEN": TOKEN, "PVC_PLAIN_HTTP": "1", "PVC_ZOOKEEPER": ""}
(command, plain), (by_api, carried) = shown(), shown(**BY_API)
framed = lambda: Viewer(WebSocket())

viewers = [plain(), framed(), carried()]
print("before:", [viewer.sees() for viewer in viewers], flush=True)
pvc("vm", "migrate", "-t", TO, VM)
closed = [viewer.until_closed() for viewer in viewers]
print("moved:", closed, flush=True)
assert closed[1][0] == 4001, closed
viewers = [patiently(plain), patiently(framed), patiently(carried)]
print("after:", [viewer.sees() for viewer in viewers], flush=True)
pvc("vm", "stop", VM)
closed = [viewer.until_closed() for viewer in viewers]
print("stopped:", closed, flush=True)
assert closed[1][0] == 1000, closed
assert command.wait(PATIENCE) == 0 and by_api.wait(PATIENCE) == 0
off = [
    subprocess.run(["/usr/bin/pvc", "vm", "vnc", VM], capture_output=True, text=True, env={**os.environ, **environment})
    for environment in ({}, BY_API)
]
assert off[0].returncode == 3 and "pvc vm start" in off[0].stderr, off
assert (off[1].returncode, off[1].stderr) == (3, off[0].stderr), off
outside = subprocess.run(["/usr/bin/pvc", "vm", "vnc", "--listen", "0.0.0.0:5999", VM], capture_output=True, text=True)
assert outside.returncode == 2 and "loopback" in outside.stderr, outside
