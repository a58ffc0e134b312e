"""An innerlock/1 peer made with dissononce (Debian: python3-dissononce), so that
the two implementations have no line in common.

  peer.py client PORT CERT PSK     talks to server.ts
  peer.py server CERT KEY PSK      talks to client.ts; prints its port
  peer.py transcript               prints testdata/transcript.json
"""

import hashlib
import json
import logging
import socket
import ssl
import struct
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from dissononce.cipher.aesgcm import AESGCMCipher
from dissononce.dh.private import PrivateKey
from dissononce.dh.x25519.x25519 import X25519DH
from dissononce.hash.sha256 import SHA256Hash
from dissononce.processing.handshakepatterns.interactive.NN import NNHandshakePattern
from dissononce.processing.impl.cipherstate import CipherState
from dissononce.processing.impl.handshakestate import HandshakeState
from dissononce.processing.impl.symmetricstate import SymmetricState
from dissononce.processing.modifiers.psk import PSKPatternModifier

DATA, END, PING, PONG, OPEN = range(5)
HELLO = b"innerlock/1 default"
REKEY_INTERVAL = 65_536
ROUNDS, PINGS = 17, 4096  # of each, answered by as many pongs: all rekey
PART = 500  # bytes of text in a round


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


def noise(initiator, psk, dh=None):
    symmetric = SymmetricState(CipherState(AESGCMCipher()), SHA256Hash())
    state = HandshakeState(symmetric, dh or X25519DH())
    pattern = PSKPatternModifier(0).modify(NNHandshakePattern())
    state.initialize(pattern, initiator, HELLO, psks=[psk])
    return state


def frame(payload):
    return struct.pack(">H", len(payload)) + payload


def read_psk(path):
    for line in open(path):
        if line.startswith("default:"):
            return bytes.fromhex(line.split(":")[1].strip())
    raise SystemExit("no identity default in " + path)


class Peer:
    def __init__(self, conn):
        self.conn, self.file = conn, conn.makefile("rb")

    def read_frame(self):
        (length,) = struct.unpack(">H", self.file.read(2))
        return self.file.read(length)

    def initiate(self, psk):
        state, message = noise(True, psk), bytearray()
        state.write_message(b"", message)
        self.conn.sendall(frame(HELLO) + frame(bytes(message)))
        pair = state.read_message(self.read_frame(), bytearray())
        self.sending, self.receiving = map(Direction, pair)

    def respond(self, psk):
        assert self.read_frame() == HELLO
        state, message = noise(False, psk), bytearray()
        state.read_message(self.read_frame(), bytearray())
        pair = state.write_message(b"", message)
        self.conn.sendall(frame(bytes(message)))
        self.receiving, self.sending = map(Direction, pair)
        assert self.receive() == (PING, b"")
        self.send([(PONG, b"")])
        assert self.receive() == (OPEN, b"")

    def send(self, messages):
        self.conn.sendall(
            b"".join(frame(self.sending.seal(bytes([t]) + b)) for t, b in messages)
        )

    def receive(self):
        plaintext = self.receiving.open(self.read_frame())
        return plaintext[0], plaintext[1:]

    def closed(self):
        """Both ends are said: close_notify goes and comes."""
        try:
            self.conn.unwrap()
        except (ssl.SSLEOFError, OSError):
            pass
        self.conn.close()


def client(port, cert, psk_file):
    tls = ssl.create_default_context(cafile=cert)
    tcp = socket.create_connection(("127.0.0.1", int(port)))
    peer = Peer(tls.wrap_socket(tcp, server_hostname="localhost"))
    peer.initiate(read_psk(psk_file))
    peer.send([(PING, b""), (OPEN, b"")])
    text = bytes(97 + i % 26 for i in range(ROUNDS * PART))
    reply, pongs = b"", -1  # the first is the handshake's
    for i in range(ROUNDS):
        part = text[i * PART : (i + 1) * PART]
        peer.send([(DATA, part)] + [(PING, b"")] * PINGS)
        while len(reply) < (i + 1) * PART or pongs < (i + 1) * PINGS:
            kind, body = peer.receive()
            assert kind in (DATA, PONG), kind
            pongs += kind == PONG
            reply += body
    peer.send([(END, b"")])
    assert peer.receive() == (END, b"")
    assert reply == text.upper() and pongs == ROUNDS * PINGS
    assert peer.sending.n > REKEY_INTERVAL and peer.receiving.n > REKEY_INTERVAL
    peer.closed()
    print(json.dumps({"sent": peer.sending.n, "received": peer.receiving.n}))


def server(cert, key, psk_file):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    peer = Peer(tls.wrap_socket(listener.accept()[0], server_side=True))
    peer.respond(read_psk(psk_file))
    text, kind = b"", DATA
    while kind != END:
        kind, body = peer.receive()
        assert kind in (DATA, END), kind
        text += body
    for i in range(ROUNDS):
        part = text[i * PART : (i + 1) * PART].upper()
        peer.send([(DATA, part)] + [(PING, b"")] * PINGS)
        for _ in range(PINGS):
            assert peer.receive() == (PONG, b"")
    peer.send([(END, b"")])
    peer.closed()
    print(json.dumps({"sent": peer.sending.n, "received": peer.receiving.n}))


def transcript():
    psk, e_client, e_server = (bytes([i]) * 32 for i in (0x0F, 0xC1, 0x5E))
    initiator, responder = (
        noise(True, psk, FixedDH(e_client)),
        noise(False, psk, FixedDH(e_server)),
    )
    message1, message2 = bytearray(), bytearray()
    initiator.write_message(b"", message1)
    responder.read_message(bytes(message1), bytearray())
    pair = responder.write_message(b"", message2)
    initiator.read_message(bytes(message2), bytearray())

    def shown(name, payload, plaintext=b""):
        return {
            "type": name,
            "plaintext": plaintext.hex(),
            "frame": frame(bytes(payload)).hex(),
        }

    types = ["data", "end", "ping", "pong", "open"]

    def message(direction, name, body=b""):
        plaintext = bytes([types.index(name)]) + body
        return shown(name, direction.seal(plaintext), plaintext)

    def many(direction, name, count):
        """So many messages: their frames' SHA-256 stands for them."""
        digest, plaintext = hashlib.sha256(), bytes([types.index(name)])
        for _ in range(count):
            digest.update(frame(direction.seal(plaintext)))
        return {"type": name, "count": count, "sha256": digest.hexdigest()}

    def say(direction, first, text, after):
        """The first of these again and again, up to the rekey."""
        return [
            *(message(direction, name) for name in first),
            message(direction, "data", text.encode()),
            many(direction, first[0], REKEY_INTERVAL - len(first) - 1),
            message(direction, "data", after.encode()),
            message(direction, "end"),
        ]

    up, down = map(Direction, pair)
    result = {
        "made_by": "tests/peer.py transcript",
        "protocol": "Noise_NNpsk0_25519_AESGCM_SHA256",
        "identity": HELLO.split()[1].decode(),
        "psk": psk.hex(),
        "client_ephemeral": e_client.hex(),
        "server_ephemeral": e_server.hex(),
        "handshake_hash": initiator.symmetricstate.get_handshake_hash().hex(),
        "client_to_server": [
            shown("hello", HELLO, HELLO),
            shown("noise", message1),
            *say(up, ["ping", "open"], "hello", "after the rekey"),
        ],
        "server_to_client": [
            shown("noise", message2),
            *say(down, ["pong"], "HELLO", "AFTER THE REKEY"),
        ],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    logging.disable()
    {"client": client, "server": server, "transcript": transcript}[sys.argv[1]](
        *sys.argv[2:]
    )
