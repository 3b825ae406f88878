// Keeps an open page true: takes what the server tells, counts down, and says when the connection is gone.
"use strict";

const byId = (id) => document.getElementById(id);

function connection(state) {
  const place = byId("connection");
  place.dataset.state = state;
  place.textContent = { live: "live", offline: "offline, trying again", ended: "ended: open the address that kubectl hive dashboard printed" }[state];
}

function troubles(all) {
  const items = all.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  });
  byId("troubles").replaceChildren(...items);
}

function element(html) {
  const template = document.createElement("template");
  template.innerHTML = html.trim();
  return template.content.firstElementChild;
}

// Rows stay in the order of their ids; what is ticked stays ticked, and what has the focus keeps it.
function setRow(body, id, html) {
  const row = element(html);
  const old = byId(id);
  if (old) {
    const box = old.querySelector("input");
    const now = row.querySelector("input");
    if (box && now) now.checked = box.checked;
    const focused = old.contains(document.activeElement) ? document.activeElement.tagName : null;
    old.replaceWith(row);
    if (focused) row.querySelector(focused.toLowerCase())?.focus();
  } else {
    const next = [...body.children].find((other) => other.id > id);
    body.insertBefore(row, next ?? null);
  }
}

function takeRows(message) {
  const body = byId("rows");
  // The first message after a connection names every row: what it does not name has gone meanwhile.
  if (takeRows.fresh) {
    const named = new Set(message.set.map(([id]) => id));
    for (const row of [...body.children]) if (!named.has(row.id)) row.remove();
    takeRows.fresh = false;
  }
  for (const [id, html] of message.set) setRow(body, id, html);
  for (const id of message.gone) byId(id)?.remove();
  byId("shown").textContent = message.shown;
  byId("total").textContent = message.total;
  byId("empty").hidden = message.shown > 0;
  troubles(message.troubles);
  selection();
  countDown();
}

function selection() {
  const boxes = [...document.querySelectorAll("#rows input[name=id]")];
  const count = boxes.filter((box) => box.checked).length;
  const place = byId("selected");
  if (!place) return;
  place.textContent = count === 0 ? "none selected" : `${count} selected`;
  for (const button of document.querySelectorAll("[data-needs-selection]")) button.disabled = count === 0;
}

// The server sends a beat every ten seconds: a connection that is silent for longer is dead, whatever it says.
const SILENCE = 25000;
const AGAIN = 2000;

function live(address, kind, take) {
  const source = new EventSource(address);
  let heard = Date.now();
  const watch = setInterval(() => {
    if (Date.now() - heard > SILENCE) again();
  }, 1000);
  const hear = () => {
    heard = Date.now();
    connection("live");
  };
  const again = async () => {
    clearInterval(watch);
    source.close();
    takeRows.fresh = true;
    connection("offline");
    // A server that has begun anew has another token, and no page from before gets in.
    const answer = await fetch(location.href, { method: "HEAD", signal: AbortSignal.timeout(AGAIN) }).catch(() => null);
    if (answer?.status === 401) connection("ended");
    setTimeout(() => live(address, kind, take), AGAIN);
  };
  source.addEventListener("open", hear);
  source.addEventListener("beat", hear);
  source.addEventListener("error", again);
  source.addEventListener(kind, (event) => {
    hear();
    take(JSON.parse(event.data));
  });
}

function takeDetail(html) {
  const place = byId("detail");
  const focused = place.contains(document.activeElement) ? document.activeElement.textContent : null;
  place.innerHTML = html;
  htmx.process(place);
  if (focused) [...place.querySelectorAll("button")].find((button) => button.textContent === focused)?.focus();
  countDown();
}

function countDown() {
  for (const place of document.querySelectorAll("time[data-until]")) {
    const seconds = Math.round((Date.parse(place.dateTime) - Date.now()) / 1000);
    if (Number.isNaN(seconds)) continue;
    place.title = place.dateTime;
    place.textContent = seconds >= 0 ? `in ${seconds} s` : `${-seconds} s overdue`;
  }
}

function follow(button) {
  const log = byId("log");
  if (follow.source) {
    follow.source.close();
    follow.source = null;
    button.setAttribute("aria-pressed", "false");
    return;
  }
  button.setAttribute("aria-pressed", "true");
  log.textContent = "";
  const line = (text) => {
    const end = log.scrollTop + log.clientHeight >= log.scrollHeight - 20;
    log.append(`${text}\n`);
    while (log.childNodes.length > 2000) log.firstChild.remove();
    if (end) log.scrollTop = log.scrollHeight;
  };
  follow.source = new EventSource(button.dataset.log);
  follow.source.addEventListener("line", (event) => line(event.data));
  follow.source.addEventListener("broken", (event) => {
    line(event.data);
    follow.source.close();
  });
}

document.addEventListener("DOMContentLoaded", () => {
  const rows = byId("many");
  const detail = byId("detail");
  takeRows.fresh = true;
  if (rows) live(rows.dataset.live, "rows", takeRows);
  else if (detail) live(detail.dataset.live, "detail", takeDetail);
  else byId("connection").hidden = true;
  setInterval(countDown, 1000);
  countDown();

  document.addEventListener("change", (event) => {
    if (event.target.id === "all") {
      for (const box of document.querySelectorAll("#rows input[name=id]")) box.checked = event.target.checked;
    }
    selection();
    if (event.target.closest("#filter select")) byId("filter").requestSubmit();
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-close]")) byId("dialog").close();
    if (event.target.id === "follow") follow(event.target);
  });
  document.body.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id === "dialog" && !event.detail.target.open) event.detail.target.showModal();
  });
  document.body.addEventListener("htmx:sendError", () => connection("offline"));
});
