"""A web gateway on one event loop: an upload is stored at a peer, a query is JSON, what its own SCP sees is streamed.

    pip install rxdicom[gateway]
    python examples/gateway.py ARCHIVE 127.0.0.1 11112

Then see http://127.0.0.1:8000, or

    curl --data-binary @ct.dcm http://127.0.0.1:8000/instances
    curl 'http://127.0.0.1:8000/studies?PatientID=4MR1&StudyDate='
    curl http://127.0.0.1:8000/events

Whatever is sent to its SCP, port 11113, is passed on to the peer before it is acknowledged.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory

import uvicorn
from attrs import field, frozen
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rxdicom import ArgumentError, DatasetError, InvalidFile, RxDicomError, Status, evt
from rxdicom.aio import AE, AssociationServer
from rxdicom.events.records import CStore
from rxdicom.operators import activity, to_async_iterator, to_jsonl
from rxdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

RETURNED = ("StudyInstanceUID", "StudyDate", "StudyDescription", "PatientID", "PatientName")


@frozen
class Gateway:
    """Passes on to the peer of this AE title, at host and port; listens for associations at ``address``."""

    title: str
    peer: tuple[str, int]
    address: tuple[str, int] = ("127.0.0.1", 11113)
    ae: AE = field(factory=lambda: AE("GATEWAY"), init=False)

    async def store(self, path: str) -> Status:
        (sent,) = [each async for each in self.ae.send(*self.peer, path, ae_title=self.title)]
        if sent.status is None:
            raise sent.error or RxDicomError(f"{path} was not sent")
        return sent.status

    async def on_store(self, event: CStore) -> Status:
        with TemporaryDirectory() as folder:
            await asyncio.to_thread(event.save, f"{folder}/received.dcm")
            return await self.store(f"{folder}/received.dcm")

    async def upload(self, request: Request) -> Response:
        with NamedTemporaryFile(suffix=".dcm") as file:
            async for chunk in request.stream():
                file.write(chunk)
            file.flush()
            status = await self.store(file.name)
        answer = {"status": f"0x{status:04X}", "description": status.description}
        return JSONResponse(answer, 201 if status.category in ("Success", "Warning") else 502)

    async def find(self, request: Request) -> Response:
        query = Dataset()
        query.QueryRetrieveLevel = "STUDY"
        for keyword, value in (dict.fromkeys(RETURNED, "") | dict(request.query_params)).items():
            if tag_for_keyword(keyword) is None:
                raise ArgumentError(f"there is no attribute {keyword}")
            setattr(query, keyword, value)
        async with self.ae.associate(*self.peer, ae_title=self.title) as assoc:
            answers = [answer async for answer in assoc.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)]
        status, _ = answers[-1]
        if status.category != "Success":
            raise RxDicomError(f"the peer answers 0x{status:04X}, {status.description}")
        matches = [identifier.to_json_dict() for _, identifier in answers if identifier is not None]
        return JSONResponse(matches, media_type="application/dicom+json")

    async def events(self, request: Request) -> Response:
        server: AssociationServer = request.state.server

        async def lines() -> AsyncIterator[str]:
            # A browser that is behind misses the oldest ones; nothing grows, and nobody waits for it.
            async with activity(server.events).pipe(to_jsonl(), to_async_iterator(100, "oldest")) as events:
                yield ": listening\n\n"
                async for line in events:
                    yield f"data: {line}\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    @asynccontextmanager
    async def serving(self, _: Starlette) -> AsyncGenerator[dict[str, AssociationServer]]:
        self.ae.accept_any_storage = True
        self.ae.add_supported_context(Verification)
        self.ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
        async with self.ae, self.ae.start_server(self.address, evt_handlers=[(evt.EVT_C_STORE, self.on_store)]) as scp:
            yield {"server": scp}

    def app(self) -> Starlette:
        routes = [
            Route("/", FileResponse(Path(__file__).with_suffix(".html"))),
            Route("/instances", self.upload, methods=["POST"]),
            Route("/studies", self.find),
            Route("/events", self.events),
        ]
        return Starlette(routes=routes, lifespan=self.serving, exception_handlers={RxDicomError: failed})


def failed(_: Request, error: Exception) -> Response:
    """What is wrong with the request, or with the peer."""
    is_ours = isinstance(error, ArgumentError | DatasetError | InvalidFile)
    return JSONResponse({"error": str(error)}, 400 if is_ours else 502)


def main() -> None:
    if len(sys.argv) != 4:
        print(__doc__)
        return
    title, host, port = sys.argv[1:]
    # A browser that listens to events would not let it end.
    uvicorn.run(Gateway(title, (host, int(port))).app(), timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
