import asyncio, socket, threading, time
import aiohttp, pytest
from harness import *

async def test_routes():
    async with RawServer(vbo_routes(b'[1]')) as raw, aiohttp.ClientSession() as s:
        for _ in range(2):
            async with s.post(raw.url + "/V4/Token?x=%2f", data={"a": "b&"}) as r:
                tok = (await r.json())["access_token"]
        async with s.get(raw.url + "/v4/RestoreSessions", headers={"Authorization": f"Bearer {tok}"}) as r:
            assert await r.json() == [1]
        async with s.get(raw.url + "/v4/RestoreSessions") as r: assert r.status == 401
        async with s.get(raw.url + "/nope") as r: assert r.status == 404
        assert len(raw.connections) == 1
        assert raw.requests[0].target == "/V4/Token?x=%2f" and raw.requests[0].form == {"a": "b&"}
        assert len(raw.asked("POST", "/v4/token")) == 2

async def test_leak_task():
    asyncio.get_running_loop().stray = asyncio.create_task(asyncio.sleep(30), name="STRAY")

async def test_leak_sock():
    asyncio.get_running_loop().stray = s= socket.socket()
    test_leak_sock.s = s
def test_leak_sync():
    test_leak_sock.s2 = socket.socket()
def test_leak_gc():
    socket.socket()
async def test_block():
    import aiovbo
    code = compile("import time\ndef f():\n    time.sleep(0.1)\n", aiovbo.__path__[0] + "/_x.py", "exec")
    ns = {}; exec(code, ns)
    with pytest.raises(Exception, match="Blocking"): ns["f"]()
    time.sleep(0.001)
async def test_ok(): pass
def test_ok2(): pass
@pytest.mark.parametrize("n", range(100))
async def test_many(n): pass
