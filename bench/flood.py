"""Opens silent connections from one address at a steady rate.

    flood.py SOURCE PORT tcp|tls RATE SECONDS

`tcp` says nothing at all, `tls` nothing after its TLS handshake. Each is held
for HELD seconds, unless the server closes it.
"""

import asyncio
import ssl
import sys

HELD = 20


async def hold(port, source, context):
    try:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, local_addr=(source, 0), ssl=context
        )
        await asyncio.wait_for(reader.read(), HELD)
    except (OSError, asyncio.TimeoutError):
        return
    writer.transport.abort()


async def main(source, port, kind, rate, seconds):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    loop = asyncio.get_running_loop()
    start = loop.time()
    tasks = []
    while (elapsed := loop.time() - start) < float(seconds):
        while len(tasks) < elapsed * float(rate):
            with_tls = context if kind == "tls" else None
            tasks.append(loop.create_task(hold(int(port), source, with_tls)))
        await asyncio.sleep(0.002)
    print(f"{len(tasks)} connections")


asyncio.run(main(*sys.argv[1:]))
