# A person at a terminal: types on a VM's console through `pvc vm console`, has it moved meanwhile, and goes in every way there is. Over the API, too, if that is named: then the
# primary is handed over meanwhile.
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

VM, FROM, TO, *BY_API = sys.argv[1:]
PATIENCE = 60
if BY_API:
    os.environ["PVC_API"], os.environ["PVC_TOKEN"], NEXT_PRIMARY = BY_API
    os.environ["PVC_PLAIN_HTTP"] = "1"
    os.environ.pop("PVC_ZOOKEEPER", None)


class Terminal:
    """`pvc vm console` on a pseudo-terminal."""

    def __init__(self, *arguments):
        self.seen = b""
        # The terminal exists before the program: what it was like is known.
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self.program = subprocess.Popen(
            ["/usr/bin/pvc", "vm", "console", *arguments, VM],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        self.slave = slave

    def expect(self, pattern, doing=None):
        """Reads until this is printed; forgets what was printed up to there."""
        until, next_time = time.monotonic() + PATIENCE, 0
        while time.monotonic() < until:
            found = re.search(pattern, self.seen)
            if found:
                self.seen = self.seen[found.end():]
                return found
            if doing and time.monotonic() >= next_time:
                next_time = time.monotonic() + 0.1
                doing()
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536)
        sys.exit("%r was not printed, but %r" % (pattern, self.seen[-2000:]))

    def type(self, text):
        os.write(self.master, text)

    def compute(self, a, b):
        """What is printed is not what was typed: the guest's shell has answered."""
        self.type(b"echo sum=$((%d + %d))\n" % (a, b))
        self.expect(b"sum=%d\\b" % (a + b))

    def ends(self, code):
        """It has ended with that code, and the terminal is as before."""
        assert self.program.wait(PATIENCE) == code, (self.program.returncode, code, self.seen)
        assert termios.tcgetattr(self.slave) == self.before, "the terminal is not as before"
        os.close(self.slave)
        os.close(self.master)


def opened():
    """Who had it last may hold it for a moment still."""
    until = time.monotonic() + PATIENCE
    while True:
        terminal = Terminal()
        found = terminal.expect(b"on %s; |somebody has this console open.*--force %s" % (TO.encode(), VM.encode()))
        if found[0].startswith(b"on "):
            return terminal
        terminal.ends(3)
        assert time.monotonic() < until, "it is never free"
        time.sleep(0.2)


def said(*arguments):
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stdout + done.stderr


first = Terminal()
first.expect(b"pvc: VM %s on %s; \\^\\] closes this console" % (VM.encode(), FROM.encode()))
assert termios.tcgetattr(first.slave) != first.before, "the terminal is the guest's"
first.type(b"\n")
first.compute(19, 23)

# Somebody else is told, and loses nothing.
other = Terminal()
other.expect(b"somebody has this console open.*--force %s" % VM.encode())
other.ends(3)

# It moves while somebody types.
migration = subprocess.Popen(["/usr/bin/pvc", "vm", "migrate", "-t", TO, VM], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
began = time.monotonic()
first.expect(
    b"pvc: VM %s has moved from %s to %s" % (VM.encode(), FROM.encode(), TO.encode()),
    doing=lambda: first.type(b"echo on the way\n"),
)
print("it was followed after %.1f s" % (time.monotonic() - began))
# What was on its way in that moment may be lost, and with it the end of a line.
first.type(b"\x15\n")
first.compute(1000, 234)
assert migration.wait(PATIENCE) == 0

# Who takes it has it; who had it is told.
taker = Terminal("--force")
taker.expect(b"on %s; " % TO.encode())
first.expect(b"somebody else has taken the console")
first.ends(1)
taker.compute(70, 7)

# The one key that is not the guest's; what was typed before it is.
taker.type(b"echo last=$((5 + 6))\n\x1d")
taker.expect(b"pvc: the console is closed; the VM goes on")
taker.ends(0)

# A signal gives the terminal back, too. What the one before typed was heard.
third = opened()
third.compute(2000, 22)
third.program.send_signal(signal.SIGTERM)
third.expect(b"interrupted")
third.ends(130)

# A guest that ends is told, and who waits sees it come back.
last = opened()
last.compute(3000, 33)
# ^C is the guest's as any other key.
last.type(b"\x03")
last.expect(b"\\^C")
last.type(b"\x15\n")
last.compute(400, 44)
if BY_API:
    began = time.monotonic()
    code, text = said("/usr/bin/pvc", "node", "primary", NEXT_PRIMARY)
    assert code == 0, (code, text)
    last.expect(b"pvc: the console by .* has ended .* and is opened again; the VM goes on")
    last.expect(b"pvc: VM %s on %s" % (VM.encode(), TO.encode()))
    print("it was opened again %.1f s after the primary was asked to change" % (time.monotonic() - began))
    last.type(b"\x15\n")
    last.compute(500, 55)
assert said("/usr/bin/pvc", "vm", "stop", VM)[0] == 0
last.expect(b"pvc: VM %s is off" % VM.encode())
last.ends(0)

refused = Terminal()
refused.expect(b"the VM is off.*pvc vm start %s" % VM.encode())
refused.ends(3)

waiting = Terminal("--wait")
waiting.expect(b"is off: waiting until it starts")
assert said("/usr/bin/pvc", "vm", "start", VM)[0] == 0
waiting.expect(b"pvc: VM %s on %s; " % (VM.encode(), TO.encode()))
waiting.expect(b"LABGUEST ready")
waiting.type(b"\x1d")
waiting.ends(0)

code, text = said("/usr/bin/pvc", "vm", "console", VM)
assert code == 2 and "pvc vm log -f" in text, (code, text)
