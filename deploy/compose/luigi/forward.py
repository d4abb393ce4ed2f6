"""Pass connections from one port of every address to another one of loopback.

    python forward.py FROM TO
"""

import asyncio
import sys


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def serve(source, target):
    async def forward(reader, writer):
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, to_writer), copy(to_reader, writer))

    async with await asyncio.start_server(forward, "0.0.0.0", source) as server:
        await server.serve_forever()


asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
