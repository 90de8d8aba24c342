"""The web application of a collection: a page and two calls, behind a secret address and for this machine's browsers alone."""

import json
import secrets
from collections.abc import Collection as Names
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from textgym.errors import InvalidArgumentError, MissingExtraError, TextgymError
from textgym.rating.agreement import agreement
from textgym.rating.collection import rater_name
from textgym.rating.store import JudgementStore

try:
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.datastructures import Headers
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send
except ModuleNotFoundError:
    raise MissingExtraError("collecting judgements", "rate") from None

PAGE_FILES = {"": ("index.html", "text/html"), "style.css": ("style.css", "text/css"), "page.js": ("page.js", "text/javascript")}
MAX_BODY = 10_000  # bytes; a click has some hundred
HEADERS = {
    # texts of a language model are no code: nothing runs but the page's own files, whatever a text holds
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address is the secret
    "Cache-Control": "no-store",
}


def make_app(store: JudgementStore, hosts: Names[str]) -> ASGIApp:
    """Return the ASGI application of a store.

    ```
    GET  /TOKEN/                       the page (and its style.css, page.js)
    GET  /TOKEN/api/state?rater=NAME   what this rater judges next, and how far everybody is
    POST /TOKEN/api/clicks             {"rater", "item", "value" (null takes back), "seconds"}: stored, then the new state is the answer
    ```
    In pairs the page's values count from the side: positive for the left text, negative for the right one. Everything without the
    token or with another Host header is answered 403.

    Args:
        store: What is shown, and where clicks go.
        hosts: Allowed Host headers, like "127.0.0.1:8765": a stranger's page that has its name resolved to this machine has another.
    """

    async def state(request: Request) -> Response:
        rater = rater_name(request.query_params.get("rater", ""))
        return JSONResponse(await run_in_threadpool(_state, store, rater))

    async def clicks(request: Request) -> Response:
        click = await _read_json(request)
        rater, item, value = rater_name(click.get("rater")), click.get("item"), click.get("value")
        if not isinstance(item, str):
            raise InvalidArgumentError(f"item must be a text, got {item!r}")

        def add() -> dict[str, Any]:
            place_value = -value if isinstance(value, int) and not isinstance(value, bool) and store.swapped(rater, item) else value
            store.add(rater, item, place_value, click.get("seconds"))
            return _state(store, rater)

        return JSONResponse(await run_in_threadpool(add))

    def page_file(name: str, media_type: str) -> Route:
        content = (files("textgym.rating") / "page" / name).read_bytes()

        async def send(_: Request) -> Response:
            return Response(content, media_type=media_type)

        return Route("/" if name == "index.html" else f"/{name}", send)

    async def bad_input(_: Request, error: Exception) -> Response:
        status = 422 if isinstance(error, InvalidArgumentError) else 503
        return JSONResponse({"error": str(error)}, status)

    routes = [
        *(page_file(*file) for file in PAGE_FILES.values()),
        Route("/api/state", state),
        Route("/api/clicks", clicks, methods=["POST"]),
    ]
    inner = Starlette(routes=routes, exception_handlers={TextgymError: bad_input})
    return _Guard(inner, store.token, frozenset(hosts))


class _Guard:
    """Lets through what has an allowed Host, no foreign Origin and the token, which it takes off the path."""

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str]) -> None:
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.lower().encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        headers = Headers(scope=scope)
        origin = headers.get("origin")
        _, _, rest = scope["path"].partition("/")
        token, slash, path = rest.partition("/")
        known = secrets.compare_digest(token.encode(), self.token.encode())
        if not (
            known and slash and headers.get("host", "") in self.hosts and (origin is None or origin.removeprefix("http://") in self.hosts)
        ):
            await PlainTextResponse("Forbidden: open the address that `textgym rate` printed.\n", 403)(scope, receive, send_with_headers)
            return
        inside = {**scope, "path": f"/{path}", "raw_path": f"/{path}".encode(), "root_path": ""}
        await self.app(inside, receive, send_with_headers)


async def _read_json(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":  # a form of a foreign page cannot send this
        raise InvalidArgumentError("a click is sent as application/json")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise InvalidArgumentError(f"a click has at most {MAX_BODY} bytes")
    try:
        click = json.loads(body)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"a click is a JSON object: {error}") from None
    if not isinstance(click, dict):
        raise InvalidArgumentError(f"a click is a JSON object, got {click!r}")
    return click


def _state(store: JudgementStore, rater: str) -> dict[str, Any]:
    """Return all the page needs, and nothing that tells where a text comes from."""
    judgements, collection = store.judgements(), store.collection
    own = [j for j in judgements if j.rater == rater]
    item, shown = store.next_item(rater), None
    if item is not None:
        texts = list(item.texts[::-1] if store.swapped(rater, item.id) else item.texts)
        shown = {"id": item.id, "prompt": item.prompt, "texts": texts}
    values = collection.values
    default = "How good is this text?" if collection.mode == "ratings" else "Which text is better?"
    raters = list(dict.fromkeys(j.rater for j in judgements))
    return {
        "mode": collection.mode,
        "question": collection.question or default,
        "low": values[0],
        "high": values[-1],
        "item": shown,
        "done": len(own),
        "total": len(store.items),
        "last": own[-1].item if own else None,
        "everyone": {
            "raters": len(raters),
            "judgements": len(judgements),
            "agreement": asdict(agreement(judgements, collection.mode)),
        },
    }
