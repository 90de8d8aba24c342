"""The server of a collection: uvicorn on a loopback address, and on no other."""

import asyncio
import socket

from textgym.errors import InvalidArgumentError, MissingExtraError
from textgym.rating.app import make_app
from textgym.rating.store import JudgementStore

try:
    import uvicorn
except ModuleNotFoundError:
    raise MissingExtraError("collecting judgements", "rate") from None

ADDRESS = "127.0.0.1"


class RatingServer:
    """A listening socket and the application behind it.

    Args:
        store: What is shown, and where clicks go.
        port: 0 for any free one.

    Attributes:
        url: Address of the page, with its secret part; whoever knows it and has this machine's loopback can judge under any name.
    """

    def __init__(self, store: JudgementStore, port: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart finds its port free
        try:
            self._socket.bind((ADDRESS, port))
        except (OSError, OverflowError) as error:
            self._socket.close()
            raise InvalidArgumentError(f"cannot listen on {ADDRESS}:{port}: {error}; choose another --port") from None
        self._socket.listen(128)  # from here on browsers can connect, and wait until `run` answers
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://{ADDRESS}:{self.port}/{store.token}/"
        app = make_app(store, {f"{ADDRESS}:{self.port}", f"localhost:{self.port}"})
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", server_header=False, timeout_graceful_shutdown=2
        )
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        """Answer until interrupted."""
        serving = self._server.serve(sockets=[self._socket])
        try:
            asyncio.run(serving)
        finally:
            serving.close()  # an interrupt may come before it has begun

    def stop(self) -> None:
        """Make `run`, in another thread, return soon."""
        self._server.should_exit = True
