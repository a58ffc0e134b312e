"""An innerlock/1 peer made with dissononce (Debian: python3-dissononce), so that
the two implementations have no line in common.

  peer.py client PORT CERT PSK   dials a server
  peer.py server CERT KEY PSK    prints its port, and awaits a client
  peer.py transcript             prints testdata/transcript.json

Client and server read sessions from standard input, one to a line, and print
what became of each. A line has the client's identity (for the server a `-`),
then steps:

  default >ping+open+data=hello <data=HELLO >end <end

`>` says messages in one write, `<` waits for one. Pings are answered, and pongs
are passed over unless a step waits for them. A message is a type; data has a
text, a bye the number of its code, and `*4096` stands for as many. `raw=` is a
plaintext in hex, whatever it means; `cut` breaks the connection. After the last
step the peer waits for the end. The key is that of the identity, or of the line
that is named behind it: `mallory:alice`.
"""

import hashlib
import json
import logging
import os
import re
import socket
import ssl
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from dissononce.cipher.aesgcm import AESGCMCipher
from dissononce.dh.private import PrivateKey
from dissononce.dh.x25519.x25519 import X25519DH
from dissononce.exceptions.decrypt import DecryptFailedException
from dissononce.hash.sha256 import SHA256Hash
from dissononce.processing.handshakepatterns.interactive.NN import NNHandshakePattern
from dissononce.processing.impl.cipherstate import CipherState
from dissononce.processing.impl.handshakestate import HandshakeState
from dissononce.processing.impl.symmetricstate import SymmetricState
from dissononce.processing.modifiers.psk import PSKPatternModifier

TYPES = ["data", "end", "ping", "pong", "open", "bye", "offer"]
CODES = [None, "service", "backend", "limit", "revoked", "stopping", "aborted", "timeout"]
DATA, END, PING, PONG, OPEN, BYE, OFFER = range(7)

MAGIC = b"innerlock/1 "
IDENTITY = re.compile(r"(?=.{1,64}$)[A-Za-z0-9._-]+(@[A-Za-z0-9._-]+)?")
NOISE_LENGTH = 48
REKEY_INTERVAL = 65_536
PATIENCE = 30  # seconds, for each thing that is waited for


class Refused(Exception):
    """The handshake failed."""


class Violation(Exception):
    """The other side broke the protocol."""


class Closed(Exception):
    """The other side closed the connection: with close_notify, or how."""


class Direction:
    """Transport messages by the specification's text: dissononce's rekey() makes
    a key of 48 bytes and resets the counter."""

    def __init__(self, state):
        self.key, self.n = AESGCM(state._key), 0

    def next_nonce(self):
        if self.n and self.n % REKEY_INTERVAL == 0:
            last = b"\0" * 4 + struct.pack(">Q", 2**64 - 1)
            self.key = AESGCM(self.key.encrypt(last, b"\0" * 32, None)[:32])
        self.n += 1
        return b"\0" * 4 + struct.pack(">Q", self.n - 1)

    def seal(self, plaintext):
        nonce = self.next_nonce()
        return self.key.encrypt(nonce, plaintext, None)

    def open(self, ciphertext):
        nonce = self.next_nonce()
        return self.key.decrypt(nonce, ciphertext, None)


class FixedDH(X25519DH):
    """X25519 whose next key pair is known."""

    def __init__(self, private):
        super().__init__()
        self.private = private

    def generate_keypair(self, privatekey=None):
        return super().generate_keypair(PrivateKey(self.private))


def noise(initiator, hello, psk, dh=None):
    symmetric = SymmetricState(CipherState(AESGCMCipher()), SHA256Hash())
    state = HandshakeState(symmetric, dh or X25519DH())
    pattern = PSKPatternModifier(0).modify(NNHandshakePattern())
    state.initialize(pattern, initiator, hello, psks=[psk])
    return state


def frame(payload):
    return struct.pack(">H", len(payload)) + payload


def read_keys(path):
    lines = (line.split("#")[0].strip() for line in open(path))
    entries = (line.split(":") for line in lines if line)
    return {identity: bytes.fromhex(key) for identity, key in entries}


def key_of(identity, keys):
    """None for an identity that is malformed or that nobody has."""
    if not IDENTITY.fullmatch(identity):
        return None
    return keys.get(identity, keys.get(identity.split("@")[0]))


class Order:
    """What may be said when. Both sides' messages pass here."""

    def __init__(self):
        self.is_proved = self.is_open = self.is_offered = False
        self.ended, self.gone = set(), set()

    def check(self, side, kind, body):
        """Of a message that came."""
        if kind >= len(TYPES):
            raise Violation("unknown type")
        if {DATA: not body, BYE: len(body) != 1}.get(kind, bool(body)):
            raise Violation("malformed " + TYPES[kind])
        if self.fault(side, kind):
            raise Violation(TYPES[kind] + " out of order")

    def fault(self, side, kind):
        if side in self.gone:
            return True
        if side == "client" and not self.is_proved:
            return kind != PING
        if kind in (DATA, END):
            return not self.is_open or side in self.ended
        if kind == OPEN:
            opener = "server" if self.is_offered else "client"
            return self.is_open or side != opener
        if kind == OFFER:
            return side != "client" or self.is_open or self.is_offered
        return False

    def note(self, side, kind):
        if side == "client" and kind == PING:
            self.is_proved = True
        if kind == OPEN:
            self.is_open = True
        if kind == OFFER:
            self.is_offered = True
        if kind == END:
            self.ended.add(side)
        if kind == BYE:
            self.gone.add(side)


class Tls:
    """TLS whose two directions end one by one."""

    def __init__(self, tcp, context, **options):
        tcp.settimeout(PATIENCE)
        # A connection that ends without close_notify was cut.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        self.tcp, self.incoming, self.outgoing = tcp, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, **options)
        self.plaintext = bytearray()
        self.run(self.tls.do_handshake)

    def run(self, work, *args):
        """Does what may take more than has come."""
        while True:
            try:
                return work(*args)
            except ssl.SSLWantReadError:
                self.flush()
            data = self.tcp.recv(65_536)
            if data:
                self.incoming.write(data)
            else:
                self.incoming.write_eof()

    def flush(self):
        self.tcp.sendall(self.outgoing.read())

    def write(self, data):
        try:
            self.tls.write(data)
            self.flush()
        except ConnectionError:
            # What the other side said last may still be read.
            pass

    def read(self, length):
        """So many bytes."""
        while len(self.plaintext) < length:
            try:
                more = self.run(self.tls.read, 65_536)
            except ssl.SSLZeroReturnError:
                more = b""
            except ssl.SSLError:
                raise Closed("without close_notify")
            except ConnectionError:
                raise Closed("by a reset")
            if not more:
                raise Closed("in a frame" if self.plaintext else "with close_notify")
            self.plaintext += more
        data = bytes(self.plaintext[:length])
        del self.plaintext[:length]
        return data

    def end(self):
        """Says close_notify; what the other side says can still be read."""
        try:
            # OpenSSL drops what it finds unread now.
            while more := self.tls.read(65_536):
                self.plaintext += more
        except ssl.SSLError:
            pass
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass
        try:
            self.flush()
        except ConnectionError:
            pass

    def close(self):
        self.tcp.close()


class Peer:
    def __init__(self, conn, side):
        self.conn, self.side = conn, side
        self.other = {"client": "server", "server": "client"}[side]
        self.order = Order()
        self.sending = self.receiving = None
        # What came and no step has waited for yet.
        self.text, self.pings, self.pongs, self.code = b"", 0, 0, None
        self.is_answering = True

    def read_frame(self, minimum=0, maximum=65_535):
        (length,) = struct.unpack(">H", self.conn.read(2))
        if not minimum <= length <= maximum:
            raise Violation("a frame of %d bytes" % length)
        return self.conn.read(length)

    def initiate(self, identity, psk):
        hello = MAGIC + identity.encode()
        state, message = noise(True, hello, psk), bytearray()
        state.write_message(b"", message)
        self.conn.write(frame(hello) + frame(bytes(message)))
        try:
            message2 = self.read_frame(NOISE_LENGTH, NOISE_LENGTH)
            pair = state.read_message(message2, bytearray())
        except (Closed, DecryptFailedException):
            raise Refused
        self.sending, self.receiving = map(Direction, pair)
        return identity

    def respond(self, keys):
        hello = self.read_frame(len(MAGIC) + 1, len(MAGIC) + 64)
        if not hello.startswith(MAGIC):
            raise Violation("another hello")
        identity = hello[len(MAGIC) :].decode("latin1")
        # An unknown identity looks like a wrong key.
        psk = key_of(identity, keys) or os.urandom(32)
        state, message = noise(False, hello, psk), bytearray()
        message1 = self.read_frame(NOISE_LENGTH, NOISE_LENGTH)
        try:
            state.read_message(message1, bytearray())
        except DecryptFailedException:
            raise Refused
        pair = state.write_message(b"", message)
        self.conn.write(frame(bytes(message)))
        self.receiving, self.sending = map(Direction, pair)
        return identity

    def say(self, plaintexts):
        self.conn.write(b"".join(frame(self.sending.seal(p)) for p in plaintexts))
        for plaintext in plaintexts:
            self.order.note(self.side, plaintext[0] if plaintext else None)

    def hear(self):
        ciphertext = self.read_frame(minimum=17)
        try:
            plaintext = self.receiving.open(ciphertext)
        except InvalidTag:
            raise Violation("a frame that does not open")
        kind, body = plaintext[0], plaintext[1:]
        self.order.check(self.other, kind, body)
        self.order.note(self.other, kind)
        if kind == DATA:
            self.text += body
        elif kind == PING:
            self.pings += 1
            if self.is_answering and not self.is_over():
                self.say([bytes([PONG])])
        elif kind == PONG:
            self.pongs += 1
        elif kind == BYE:
            self.code = body[0]

    def is_over(self):
        """This side says nothing more."""
        return self.side in self.order.gone or len(self.order.ended) == 2

    def wait(self, is_there):
        while not is_there():
            if self.code is not None:
                raise Violation("bye %d in place of another message" % self.code)
            self.hear()

    def await_message(self, name, value, count):
        if name == "data":
            text = value.encode()
            self.wait(lambda: len(self.text) >= len(text))
            if not self.text.startswith(text):
                raise Violation("other data: %r" % self.text)
            self.text = self.text[len(text) :]
        elif name == "ping":
            # Of the step's own: it is not answered.
            self.is_answering = False
            self.wait(lambda: self.pings >= count)
            self.pings, self.is_answering = self.pings - count, True
        elif name == "pong":
            self.wait(lambda: self.pongs >= count)
            self.pongs -= count
        elif name == "end":
            self.wait(lambda: self.other in self.order.ended)
            if self.text:
                raise Violation("more data: %r" % self.text)
        elif name == "open":
            self.wait(lambda: self.order.is_open)
        elif name == "offer":
            self.wait(lambda: self.order.is_offered)
        elif name == "bye":
            self.wait(lambda: self.code is not None)
            if self.code != int(value):
                raise Violation("bye %d" % self.code)
        else:
            raise SystemExit("peer.py: cannot wait for " + name)

    def step(self, step):
        if step == ">cut":
            self.conn.close()
            raise Closed("by this side")
        messages = [parse_message(word) for word in step[1:].split("+")]
        if step[0] == ">":
            self.say([plaintext_of(name, value) for name, value, count in messages
                      for _ in range(count)])
        else:
            for message in messages:
                self.await_message(*message)

    def finish(self):
        """What the session comes to when all steps are done."""
        is_ended = False
        try:
            while True:
                if self.is_over() and not is_ended:
                    self.conn.end()
                    is_ended = True
                self.hear()
        except Closed as closed:
            how = str(closed)
        if self.code is not None:
            return "heard bye " + (CODES[self.code] if 0 < self.code < len(CODES) else "aborted")
        if self.side in self.order.gone:
            return "said bye"
        return "end" if self.is_over() and how == "with close_notify" else "closed " + how


def parse_message(word):
    name, value, count = re.fullmatch(r"(\w+)(?:=([^*]*))?(?:\*(\d+))?", word).groups()
    return name, value or "", int(count or 1)


def plaintext_of(name, value):
    if name == "raw":
        return bytes.fromhex(value)
    body = bytes([int(value)]) if name == "bye" else value.encode()
    return bytes([TYPES.index(name)]) + body


def session(peer, handshake, steps):
    identity = None
    try:
        identity = handshake(peer)
        for step in steps:
            peer.step(step)
        result = peer.finish()
    except Refused:
        result = "refused"
    except Closed as closed:
        result = "closed " + str(closed)
    except Violation as violation:
        result = "error: " + str(violation)
    peer.conn.close()
    numbers = [direction.n if direction else 0 for direction in (peer.sending, peer.receiving)]
    return {"identity": identity, "result": result, "sent": numbers[0], "received": numbers[1]}


def sessions(dial):
    for line in sys.stdin:
        name, *steps = line.split()
        print(json.dumps(session(*dial(name), steps)), flush=True)


def client(port, cert, psk_file):
    context = ssl.create_default_context(cafile=cert)
    keys = read_keys(psk_file)

    def dial(name):
        identity, _, line = name.partition(":")
        psk = keys[line] if line else key_of(identity, keys) or os.urandom(32)
        tcp = socket.create_connection(("127.0.0.1", int(port)), PATIENCE)
        conn = Tls(tcp, context, server_hostname="localhost")
        return Peer(conn, "client"), lambda peer: peer.initiate(identity, psk)

    sessions(dial)


def server(cert, key, psk_file):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    keys = read_keys(psk_file)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(PATIENCE)
    print(listener.getsockname()[1], flush=True)

    def dial(_):
        conn = Tls(listener.accept()[0], context, server_side=True)
        return Peer(conn, "server"), lambda peer: peer.respond(keys)

    sessions(dial)


class Recorder:
    """A session between two sides in this program, and its frames."""

    PSK, CLIENT, SERVER = (bytes([i]) * 32 for i in (0x0F, 0xC1, 0x5E))

    def __init__(self, identity):
        hello = MAGIC + identity.encode()
        initiator = noise(True, hello, self.PSK, FixedDH(self.CLIENT))
        responder = noise(False, hello, self.PSK, FixedDH(self.SERVER))
        message1, message2 = bytearray(), bytearray()
        initiator.write_message(b"", message1)
        responder.read_message(bytes(message1), bytearray())
        pair = responder.write_message(b"", message2)
        initiator.read_message(bytes(message2), bytearray())
        self.identity = identity
        self.hash = initiator.symmetricstate.get_handshake_hash()
        self.sides = dict(zip(("client", "server"), map(Direction, pair)))
        self.order = Order()
        self.entries = {
            "client": [self.shown("hello", hello, hello), self.shown("noise", message1)],
            "server": [self.shown("noise", message2)],
        }

    @staticmethod
    def shown(name, payload, plaintext=b""):
        return {
            "type": name,
            "plaintext": plaintext.hex(),
            "frame": frame(bytes(payload)).hex(),
        }

    def seal(self, side, name, value=""):
        plaintext = plaintext_of(name, value)
        self.order.check(side, plaintext[0], plaintext[1:])
        self.order.note(side, plaintext[0])
        return plaintext, self.sides[side].seal(plaintext)

    def say(self, side, *words):
        for word in words:
            name, value = parse_message(word)[:2]
            plaintext, sealed = self.seal(side, name, value)
            self.entries[side].append(self.shown(name, sealed, plaintext))

    def say_many(self, side, name, count):
        """So many messages: their frames' SHA-256 stands for them."""
        digest = hashlib.sha256()
        for _ in range(count):
            digest.update(frame(self.seal(side, name)[1]))
        self.entries[side].append({"type": name, "count": count, "sha256": digest.hexdigest()})

    def result(self):
        return {
            "identity": self.identity,
            "handshake_hash": self.hash.hex(),
            "client_to_server": self.entries["client"],
            "server_to_client": self.entries["server"],
        }


def transcript():
    call = Recorder("default")
    call.say("client", "ping", "open", "data=hello")
    call.say("server", "pong", "data=HELLO")
    # Up to the rekey, and over it.
    call.say_many("client", "ping", REKEY_INTERVAL - 3)
    call.say_many("server", "pong", REKEY_INTERVAL - 2)
    call.say("client", "data=after the rekey", "end")
    call.say("server", "data=AFTER THE REKEY", "end")

    bye = Recorder("alice@db")
    bye.say("client", "ping", "open", "data=hello")
    bye.say("server", "pong", "bye=2")

    offer = Recorder("alice@db")
    offer.say("client", "ping", "offer")
    offer.say("server", "pong", "open", "data=hello")
    offer.say("client", "data=HELLO", "end")
    offer.say("server", "end")

    sessions = {"call": call, "bye": bye, "offer": offer}
    result = {
        "made_by": "tests/peer.py transcript",
        "protocol": "Noise_NNpsk0_25519_AESGCM_SHA256",
        "psk": Recorder.PSK.hex(),
        "client_ephemeral": Recorder.CLIENT.hex(),
        "server_ephemeral": Recorder.SERVER.hex(),
        **{name: session.result() for name, session in sessions.items()},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    logging.disable()
    {"client": client, "server": server, "transcript": transcript}[sys.argv[1]](
        *sys.argv[2:]
    )
