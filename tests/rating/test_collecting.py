"""Collecting judgements over HTTP: the whole flow, a kill in the middle, and who is kept out."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from textgym.rating.collection import Collection, Item
from textgym.rating.store import JudgementStore


def client(process):
    return httpx.Client(base_url=process.url, timeout=60)


def state(http, rater):
    return http.get("api/state", params={"rater": rater}).raise_for_status().json()


def click(http, rater, item, value, **more):
    return http.post("api/clicks", json={"rater": rater, "item": item, "value": value, **more})


def test_two_raters_fifty_judgements_and_a_kill_in_the_middle(rate, open_store, texts_file, tmp_path):
    db, acknowledged, stop = tmp_path / "j.db", [], threading.Event()
    process = rate(texts_file, "--samples", 25, "--out", db, "--port", 0)
    first_url = process.url

    def judge(rater, pause_at):
        """Judge as the page does: the next click only after the last was acknowledged."""
        with httpx.Client(base_url=first_url, timeout=60) as http:
            now = state(http, rater)
            while now["item"] is not None and not (pause_at is None and stop.is_set()):
                value = (len(acknowledged) * 7) % 9 - 4
                try:
                    answer = click(http, rater, now["item"]["id"], value, seconds=0.5)
                except httpx.TransportError:
                    return  # killed: this one was not acknowledged
                now = answer.raise_for_status().json()
                acknowledged.append((rater, answer.request.content, value))
                if len(acknowledged) >= (pause_at or 1000):
                    enough.set()
                if len(acknowledged) >= 30 and pause_at:
                    time.sleep(0.3)  # or a busy machine would let them finish before the kill

    enough = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(judge, rater, 24) for rater in ("Ana", "Ben")]
        assert enough.wait(120)
        process.kill()  # while both are clicking
        for future in running:
            future.result()
    assert 24 <= len(acknowledged) < 50
    before = list(acknowledged)

    process = rate("--out", db, "--port", process.port)
    assert process.url == first_url  # open pages go on
    assert f"{len(before)} judgements by 2 raters so far" in process.output or f"{len(before) + 1} judgements" in process.output
    for rater in ("Ana", "Ben"):
        judge(rater, None)
    with client(process) as http:
        end = [state(http, rater) for rater in ("Ana", "Ben")]
    assert [s["done"] for s in end] == [25, 25]
    assert end[0]["everyone"]["judgements"] == 50
    code, rest = process.interrupt()
    assert code == 0
    assert "50 judgements in" in rest

    stored = {(j.rater, j.item): j.value for j in open_store(db).judgements()}
    assert len(stored) == 50
    for rater, body, value in acknowledged:
        assert stored[rater, json.loads(body)["item"]] == value


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server in this process, its store, and a client."""
    from textgym.rating.server import RatingServer

    items = [Item(str(i), "The movie", (f" a{i}", f" b{i}"), ("secret-one", "secret-two")) for i in range(12)]
    items[0] = Item("0", "<i>", ("<script>alert(1)</script>", " b0"), ("secret-one", "secret-two"))
    store = JudgementStore.create(tmp_path_factory.mktemp("rating") / "p.db", Collection(mode="pairs", levels=2), items)
    server = RatingServer(store)
    thread = threading.Thread(target=server.run)
    thread.start()
    with httpx.Client(base_url=server.url, timeout=60) as http:
        yield store, server, http
    server.stop()
    thread.join(20)
    store.close()


def test_the_page_and_its_files_are_there_and_safe(served):
    _, _, http = served
    for name, kind in (("", "text/html"), ("style.css", "text/css"), ("page.js", "text/javascript")):
        answer = http.get(name)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "http://" not in answer.text  # nothing comes from elsewhere
        assert "https://" not in answer.text
        assert "innerHTML" not in answer.text


@pytest.mark.parametrize(
    "path", ["", "/", "/page.js", "/api/state?rater=x", "/wrong/", "/wrong/api/state?rater=x", "/TOKEN", "//TOKEN/", "/TOKE/"]
)
def test_without_the_token_nothing_is_shown(served, path):
    store, server, _ = served
    url = f"http://127.0.0.1:{server.port}" + path.replace("TOKEN", store.token).replace("TOKE", store.token[:-1])
    answer = httpx.get(url)
    assert answer.status_code == 403
    assert "The movie" not in answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:PORT"}, 200),
        ({"Host": "localhost:PORT"}, 200),
        ({"Host": "evil.example:PORT"}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Host": "127.0.0.1:1"}, 403),
        ({"Origin": "http://127.0.0.1:PORT"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_a_strangers_page_is_kept_out(served, headers, status):
    _, server, http = served
    answer = http.get("api/state?rater=x", headers={k: v.replace("PORT", str(server.port)) for k, v in headers.items()})
    assert answer.status_code == status


def test_a_form_of_a_strangers_page_cannot_click(served):
    store, _, http = served
    body = json.dumps({"rater": "Mallory", "item": "1", "value": 1})
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        assert http.post("api/clicks", content=body, headers={"Content-Type": kind}).status_code == 422
    assert http.get("api/clicks").status_code == 405
    assert not store.judgements("Mallory")


def test_only_this_machine_is_listened_to(served):
    _, server, _ = served
    assert server._socket.getsockname()[0] == "127.0.0.1"


def test_a_rater_is_told_nothing_of_the_sources(served):
    store, _, http = served
    rater, answer = "Blind", None
    for _ in store.items:
        answer = state(http, rater)
        assert "secret" not in json.dumps(answer)
        click(http, rater, answer["item"]["id"], 0)


def test_sides_are_shuffled_and_values_follow_the_text_not_the_side(served):
    store, _, http = served
    left_is_first = 0
    for _ in store.items:
        item = state(http, "Sides")["item"]
        first = next(i for i in store.items if i.id == item["id"]).texts[0]
        left_is_first += item["texts"][0] == first
        click(http, "Sides", item["id"], 2 if item["texts"][0] == first else -2)  # prefers the first text, wherever it stands
    assert left_is_first == 6  # half of the items
    found = store.judgements("Sides")
    assert [j.value for j in found] == [2] * 12
    assert sum(j.swapped for j in found) == 6


def test_taking_back_step_by_step(served):
    store, _, http = served
    now, order = state(http, "Undo"), []
    assert now["last"] is None
    for _ in range(3):
        order.append(now["item"]["id"])
        now = click(http, "Undo", order[-1], 1).json()
    for n, item in ((2, order[2]), (1, order[1])):
        assert now["last"] == item
        now = click(http, "Undo", item, None).json()
        assert now["done"] == n
        assert now["item"]["id"] == item
        assert click(http, "Undo", item, None).json()["done"] == n  # sent twice after a lost answer, it still takes back one
    click(http, "Undo", order[1], -1)
    assert [j.item for j in store.judgements("Undo")] == order[:2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": 3}, "integer from -2 to 2"),
        ({"value": 0.5}, "integer from -2 to 2"),
        ({"value": True}, "integer from -2 to 2"),
        ({"value": "1"}, "integer from -2 to 2"),
        ({"item": "99"}, "no item '99'"),
        ({"item": ["1"]}, "item must be a text"),
        ({"rater": "  "}, "rater's name"),
        ({"rater": "x" * 65}, "rater's name"),
        ({"rater": None}, "rater's name"),
        ({"seconds": -1}, "seconds must be"),
        ({"seconds": "x"}, "seconds must be"),
        ({"rater": "y" * 20_000}, "at most 10000 bytes"),
    ],
)
def test_bad_clicks_are_told_and_not_stored(served, change, said):
    store, _, http = served
    before = store.judgements()
    answer = http.post("api/clicks", json={"rater": "Bad", "item": "1", "value": 1, **change})
    assert answer.status_code == 422
    assert said in answer.json()["error"]
    assert store.judgements() == before


@pytest.mark.parametrize("body", ["", "{", "[]", "1", '{"rater": "x"', "\xff"])
def test_what_is_no_json_object_is_told(served, body):
    _, _, http = served
    answer = http.post("api/clicks", content=body.encode("latin-1"), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert "JSON object" in answer.json()["error"]


def test_names_are_tidied(served):
    store, _, http = served
    click(http, "  Zoë \n Z ", "1", 1)
    assert [j.rater for j in store.judgements("Zoë Z")] == ["Zoë Z"]
