"""Runs a program with a stdin, stdout and stderr of a given kind, and tells what
came out and what became of the descriptors, as one line of JSON.

Usage: stdio.py KIND READER LENGTH COMMAND...

KIND    what stdout is: pipe, file, terminal, or one of them with "nonblocking "
        before. stdin and stderr are pipes, which do not block either then
READER  of stdout: fast, slow, or late, who begins when the program cannot go on
LENGTH  how many bytes go to stdin; what comes back should be the same
"""

import array
import fcntl
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import termios
import threading
import time
import tty

kind, reader, length, *command = sys.argv[1:]
blocking = not kind.startswith("nonblocking ")
kind = kind.split()[-1]
sent = random.Random(1).randbytes(int(length))


def flags(descriptor):
    return fcntl.fcntl(descriptor, fcntl.F_GETFL)


def waiting(descriptor):
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


def ends():
    if kind == "file":
        file = tempfile.TemporaryFile(buffering=0)
        return None, os.dup(file.fileno())
    if kind == "terminal":
        near, far = os.openpty()
        tty.setraw(far)
        return near, far
    return os.pipe()


def read_all(descriptor):
    received = []
    if reader == "late":
        # It has nothing more to give when what waits stays the same.
        last = -1
        while program.poll() is None and (
                last == 0 or last != waiting(descriptor)):
            last = waiting(descriptor)
            time.sleep(0.2)
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:
            # A terminal whose other end is closed.
            part = b""
        if not part:
            return b"".join(received)
        received.append(part)
        if reader == "slow":
            time.sleep(0.01)


def feed(descriptor):
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            rest = memoryview(sent)
            while rest:
                rest = rest[file.write(rest[:65536]):]
    except BrokenPipeError:
        pass


stdin, feeder = os.pipe()
source, stdout = ends()
log, stderr = os.pipe()
inherited = [stdin, stdout, stderr]
if not blocking:
    for descriptor in inherited:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags(descriptor) | os.O_NONBLOCK)
before = [flags(descriptor) for descriptor in inherited]
program = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr)

said = []
results = []
threads = [
    threading.Thread(target=feed, args=[feeder], daemon=True),
    threading.Thread(target=lambda: said.append(os.fdopen(log, "rb").read())),
]
if source is not None:
    threads.append(
        threading.Thread(target=lambda: results.append(read_all(source))))
for thread in threads:
    thread.start()
code = program.wait()
after = [flags(descriptor) for descriptor in inherited]
if source is None:
    results.append(os.pread(stdout, len(sent) + 1, 0))
# Whoever reads the other ends sees them end.
for descriptor in inherited:
    os.close(descriptor)
for thread in threads[1:]:
    thread.join()
print(json.dumps({
    "code": code,
    "isWhole": hashlib.sha256(results[0]).digest() == hashlib.sha256(sent).digest(),
    "received": len(results[0]),
    "isUntouched": before == after,
    "stderr": said[0].decode(),
}))
