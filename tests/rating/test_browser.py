"""The page in a real browser: judged by keyboard and mouse, through a kill of the server, and deaf to what texts contain."""

import os
import threading

import pytest

from textgym.rating.collection import Collection, Item
from textgym.rating.store import JudgementStore

CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if not os.access(CHROMIUM, os.X_OK):
        pytest.skip(f"no {CHROMIUM}")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """Open the page as a rater in a browser profile of their own; anything the page's scripts complain of fails the test."""
    complaints, contexts = [], []

    def open_as(url, rater):
        context = browser.new_context()
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        page.get_by_label("Name").fill(rater)
        page.keyboard.press("Enter")
        page.locator("#answers button").first.wait_for()
        return page

    yield open_as
    for context in contexts:
        context.close()
    assert not complaints


def wait_for_count(page, n, total):
    page.locator("#count", has_text=f"{n} of {total}").wait_for()


def test_two_raters_fifty_judgements_and_a_kill_in_the_middle(rate, open_page, open_store, texts_file, tmp_path):
    db = tmp_path / "j.db"
    process = rate(texts_file, "--samples", 25, "--seed", 1, "--out", db, "--port", 0)  # a draw with the attack in it
    pages = {rater: open_page(process.url, rater) for rater in ("Ana", "Ben")}
    seen = {rater: [] for rater in pages}  # (text, value), in the order of the clicks

    def judge(rater, i):
        page, place = pages[rater], i % 9
        seen[rater].append((page.locator(".continuation").inner_text(), place - 4))
        if rater == "Ana":
            page.keyboard.press(str(place + 1))
        else:
            page.locator("#answers button").nth(place).click()

    for i in range(12):
        for rater, page in pages.items():
            judge(rater, i)
            wait_for_count(page, i + 1, 25)  # the page goes on only after the server's answer

    process.kill()
    store = open_store(db)
    assert len(store.judgements()) == 24  # every click that was acknowledged is there
    store.close()
    for rater, page in pages.items():  # clicked while nobody listens: kept, told, sent again
        judge(rater, 12)
        page.get_by_role("alert").filter(has_text="not stored yet").wait_for()
    process = rate("--out", db, "--port", process.port)
    for page in pages.values():
        wait_for_count(page, 13, 25)
        assert page.locator("#trouble").is_hidden()

    for i in range(13, 25):
        for rater, page in pages.items():
            judge(rater, i)
            if i < 24:
                wait_for_count(page, i + 1, 25)
    for rater, page in pages.items():
        page.get_by_text(f"Thank you, {rater}: 25 judgements stored").wait_for()
        assert page.evaluate("window.attacked") is None  # a text was a script
        assert any("<script>" in text for text, _ in seen[rater])
    pages["Ben"].locator("#everyone", has_text="50 judgements by 2 raters · agreement α =").wait_for()

    store = open_store(db)
    texts = {item.id: item.texts[0].strip() for item in store.items}
    for rater, wanted in seen.items():
        assert [(texts[j.item], j.value) for j in store.judgements(rater)] == [(text.strip(), value) for text, value in wanted]


@pytest.fixture
def serve(tmp_path):
    """Serve a small collection from this process."""
    from textgym.rating.server import RatingServer

    running = []

    def start(**settings):
        pairs = settings.get("mode") == "pairs"
        items = [Item(str(i), "It", (f" is a{i}", f" is b{i}")[: 1 + pairs], ("a", "b")[: 1 + pairs]) for i in range(4)]
        store = JudgementStore.create(tmp_path / f"{len(running)}.db", Collection(**settings), items)
        server = RatingServer(store)
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((store, server, thread))
        return server.url, store

    yield start
    for store, server, thread in running:
        server.stop()
        thread.join(20)
        store.close()


def test_pairs_by_arrow_keys_and_taking_back(serve, open_page):
    url, store = serve(mode="pairs")
    page = open_page(url, "Ana")
    wanted = []
    for n, (key, value) in enumerate([("ArrowLeft", 1), ("ArrowRight", -1), ("ArrowDown", 0), ("3", -1)], 1):
        left = page.locator(".continuation").first.inner_text()
        page.keyboard.press(key)
        wanted.append(value if "a" in left.removeprefix(" is ") else -value)
        if n < 4:
            wait_for_count(page, n, 4)
    page.get_by_text("All done").wait_for()
    assert [j.value for j in store.judgements()] == wanted
    page.keyboard.press("u")
    wait_for_count(page, 3, 4)
    page.get_by_role("button", name="Take back").click()
    wait_for_count(page, 2, 4)
    assert [j.value for j in store.judgements()] == wanted[:2]


def test_a_scale_of_own_numbers_arrows_enter_and_another_rater(serve, open_page):
    url, store = serve(low=1, high=5, question="How polite?")
    page = open_page(url, "Ana")
    assert page.get_by_role("heading").inner_text() == "How polite?"
    page.keyboard.press("5")  # the number itself
    wait_for_count(page, 1, 4)
    for key in ("ArrowRight", "ArrowLeft", "ArrowLeft", "Enter"):  # 3, 2, 1
        page.keyboard.press(key)
    wait_for_count(page, 2, 4)
    page.keyboard.press("9")  # no such point
    assert [j.value for j in store.judgements()] == [5, 1]
    page.get_by_role("button", name="Ana").click()
    page.get_by_label("Name").fill("Ben")
    page.get_by_role("button", name="Begin").click()
    wait_for_count(page, 0, 4)
    page.reload()
    assert page.get_by_label("Name").input_value() == "Ben"


def test_light_and_dark(serve, open_page):
    url, _ = serve()
    page = open_page(url, "Ana")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.evaluate(background) != light
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
