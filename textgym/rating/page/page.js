// The page of `textgym rate`: shows one item, sends each click, and goes on only when the server has stored it.
"use strict";

const element = (id) => document.getElementById(id);
const LONG_PROMPT = 200; // characters; a longer one stands once above the texts instead of at the start of each
const remembered = `textgym-rate ${location.pathname}`;
let rater = "";
let state = null;
let shownAt = 0;
let busy = false; // a click is on its way: keys and buttons wait for its answer

// --- the server ------------------------------------------------------------------------------------------------------------------

async function call(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  for (;;) {
    let answer;
    try {
      answer = await fetch(path, options);
    } catch {
      answer = null; // no connection: a restarted server gets the same call again, and storing a click twice changes nothing
    }
    if (answer !== null && answer.status < 500) {
      trouble("");
      const result = answer.status === 403 ? { error: "this page's address is no longer valid; open the one that was printed" } : await answer.json();
      if (!answer.ok) throw new Error(result.error);
      return result;
    }
    const reason = answer === null ? "The server does not answer." : `The server is in trouble (${answer.status}).`;
    trouble(`${reason} ${body ? "Your last click is not stored yet" : "Nothing is lost"}; trying again …`);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

async function send(item, value) {
  if (busy) return;
  busy = true;
  for (const button of document.querySelectorAll("#answers button, #undo, #undo-finished")) button.disabled = true;
  try {
    const seconds = value === null ? null : (performance.now() - shownAt) / 1000;
    state = await call("api/clicks", { rater, item, value, seconds });
    element("saved").textContent = value === null ? "Taken back" : "Stored";
  } catch (error) {
    trouble(error.message);
  }
  busy = false;
  show();
}

async function begin(name) {
  state = await call(`api/state?rater=${encodeURIComponent(name)}`);
  rater = name;
  localStorage.setItem(remembered, name);
  element("saved").textContent = "";
  show();
}

function trouble(message) {
  element("trouble").textContent = message;
  element("trouble").hidden = message === "";
}

// --- showing: texts are set as textContent, never as HTML --------------------------------------------------------------------------

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function show() {
  const { item, done, total, everyone } = state;
  element("start").hidden = true;
  element("task").hidden = item === null;
  element("finished").hidden = item !== null;
  element("rater").hidden = false;
  element("rater").textContent = rater;
  element("undo").disabled = element("undo-finished").disabled = state.last === null;
  const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
  const { alpha, n_items: shared } = everyone.agreement;
  const agreement = alpha === null ? "" : ` · agreement α = ${alpha.toFixed(2)} on ${count(shared, "shared item")}`;
  element("everyone").textContent = `${count(everyone.judgements, "judgement")} by ${count(everyone.raters, "rater")}${agreement}`;
  if (item === null) {
    element("thanks").textContent = `Thank you, ${rater}: ${count(done, "judgement")} stored. You can close this page.`;
    return;
  }
  element("bar").max = total;
  element("bar").value = done;
  element("count").textContent = `${done} of ${total}`;
  element("question").textContent = state.question;
  const apart = item.prompt.length > LONG_PROMPT;
  element("context").hidden = !apart;
  element("context").textContent = apart ? item.prompt : "";
  element("texts").replaceChildren(...item.texts.map((text, i) => article(apart ? "" : item.prompt, text, item.texts.length > 1 ? ["Left", "Right"][i] : "")));
  element("answers").className = state.mode;
  element("answers").replaceChildren(...values().map(answer));
  element("ends").hidden = state.mode === "pairs";
  element("low-end").textContent = "lowest";
  element("high-end").textContent = "highest";
  showKeys();
  window.scrollTo(0, 0);
  shownAt = performance.now();
}

function article(prompt, text, title) {
  const node = make("article");
  if (title) node.append(make("h2", "", title));
  const paragraph = make("p");
  if (prompt) paragraph.append(make("span", "prompt", prompt));
  paragraph.append(text ? make("span", "continuation", text) : make("span", "empty", prompt ? " (nothing more)" : "(empty)"));
  node.append(paragraph);
  return node;
}

// --- answers: from left to right; in pairs a positive value means the left text ----------------------------------------------------

function values() {
  const all = [];
  for (let value = state.low; value <= state.high; value++) all.push(value);
  return state.mode === "pairs" ? all.reverse() : all;
}

function answer(value) {
  const button = make("button", "", label(value));
  const middle = (state.low + state.high) / 2;
  const far = Math.abs(value - middle) / (state.high - middle);
  const toLow = state.mode === "pairs" ? value > middle : value < middle;
  button.style.setProperty("--tone", far === 0 ? "var(--line)" : toLow ? "var(--low)" : "var(--high)");
  button.style.setProperty("--strength", `${25 + 75 * far}%`);
  if (state.mode === "pairs") button.style.setProperty("--tone", "var(--accent)");
  const key = keyOf(value);
  if (key) {
    const hint = make("kbd", "", key);
    hint.setAttribute("aria-hidden", "true");
    button.append(hint);
    button.setAttribute("aria-keyshortcuts", key);
  }
  button.dataset.value = value;
  button.addEventListener("click", () => choose(button));
  return button;
}

function label(value) {
  if (state.mode === "ratings") return value > 0 && state.low < 0 ? `+${value}` : String(value).replace("-", "−");
  if (value === 0) return "Neither";
  const side = value > 0 ? "Left" : "Right";
  if (state.high === 1) return `${side} is better`;
  const words = { 2: ["slightly", "much"], 3: ["slightly", "clearly", "much"] }[state.high];
  return words ? `${side} ${words[Math.abs(value) - 1]} better` : `${side} +${Math.abs(value)}`;
}

function keyOf(value) {
  if (state.mode === "ratings" && state.low >= 0) return value <= 9 ? String(value) : ""; // the number itself
  const place = values().indexOf(value) + 1;
  return place <= 9 ? String(place) : "";
}

function showKeys() {
  const keys = element("keys");
  keys.replaceChildren();
  const add = (names, what) => keys.append(keys.hasChildNodes() ? "   " : "", ...names.map((name) => make("kbd", "", name)), ` ${what}`);
  if (state.mode === "pairs" && state.high === 1) {
    add(["←"], "left");
    add(["↓"], "neither");
    add(["→"], "right");
  } else {
    add(["←", "→"], "move");
    add(["Enter"], "choose");
  }
}

function choose(button) {
  if (busy || state.item === null) return;
  button.classList.add("chosen");
  send(state.item.id, Number(button.dataset.value));
}

function undo() {
  if (state !== null && state.last !== null) send(state.last, null);
}

function move(step) {
  const buttons = [...element("answers").children];
  const at = buttons.indexOf(document.activeElement);
  const middle = (buttons.length - 1) / 2; // the first press starts beside it
  const next = at >= 0 ? at + step : step > 0 ? Math.ceil(middle) : Math.floor(middle);
  buttons[Math.max(0, Math.min(buttons.length - 1, next))].focus();
}

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || state === null || !element("start").hidden) return;
  if (event.key === "u" || event.key === "U" || event.key === "Backspace") {
    event.preventDefault();
    undo();
    return;
  }
  if (state.item === null || busy) return;
  const buttons = [...element("answers").children];
  const byKey = buttons.find((button) => button.getAttribute("aria-keyshortcuts") === event.key);
  const direct = state.mode === "pairs" && state.high === 1 ? { ArrowLeft: 0, ArrowDown: 1, ArrowRight: 2 }[event.key] : undefined;
  if (byKey) choose(byKey);
  else if (direct !== undefined) choose(buttons[direct]);
  else if (event.key === "ArrowLeft") move(-1);
  else if (event.key === "ArrowRight") move(1);
  else return;
  event.preventDefault();
});

// --- start -------------------------------------------------------------------------------------------------------------------------

function ask() {
  state = null;
  for (const id of ["task", "finished", "rater"]) element(id).hidden = true;
  element("everyone").textContent = element("saved").textContent = "";
  element("start").hidden = false;
  element("name").value = localStorage.getItem(remembered) ?? "";
  element("name").select();
}

element("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  element("start-error").textContent = "";
  try {
    await begin(element("name").value.trim().replace(/\s+/g, " "));
  } catch (error) {
    element("start-error").textContent = error.message;
  }
});
element("rater").addEventListener("click", () => { if (!busy) ask(); });
element("undo").addEventListener("click", undo);
element("undo-finished").addEventListener("click", undo);

const themes = window.matchMedia("(prefers-color-scheme: dark)");
const paint = () => { document.documentElement.dataset.theme = localStorage.getItem("textgym-theme") ?? (themes.matches ? "dark" : "light"); };
themes.addEventListener("change", paint);
element("theme").addEventListener("click", () => {
  localStorage.setItem("textgym-theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  paint();
});
paint();
ask();
