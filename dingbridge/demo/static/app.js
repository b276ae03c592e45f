// The page: builds the parts, and tells each of what it shows.

import { about } from "./about.js";
import { Chat } from "./chat.js";
import { ChatList } from "./chatlist.js";
import { DaemonView } from "./daemon.js";
import { h, setText } from "./dom.js";
import { Faults } from "./faults.js";
import { Panel } from "./panel.js";
import { Quota } from "./quota.js";
import { follow, post } from "./server.js";
import { Settings } from "./settings.js";
import { Store } from "./store.js";
import { Tour } from "./tour.js";
import { Wire } from "./wire.js";

const TICK_MS = 10_000;
const byId = (id) => document.getElementById(id);
const store = new Store();
let chats = []; // the Chat objects on screen
let banners = { offline: "", action: "" };

/** Which of list, chat and panel fills a small window; a large one shows them all. */
const screens = {
  show(view) {
    document.body.dataset.view = view;
    const small = matchMedia("(max-width: 1080px)").matches;
    if (!small) return;
    const target = { list: ".row[aria-current]", chat: "#ask", panel: '[role="tab"][aria-selected="true"]' }[view];
    if (view !== "chat" || matchMedia("(min-width: 641px)").matches) document.querySelector(target)?.focus();
    else document.querySelector(".chat-head .only-phone")?.focus(); // the keyboard of a phone would cover the chat
  },
};

const list = new ChatList(store, byId("chats"), screens);
const wire = new Wire(store);
const daemon = new DaemonView(store);
const faults = new Faults(store);
const quota = new Quota(store);
const settings = new Settings(store);
const panel = new Panel(
  byId("panel"),
  [
    { id: "wire", title: "线路", view: wire },
    { id: "daemon", title: "守护进程", view: daemon },
    { id: "quota", title: "额度", view: quota },
    { id: "settings", title: "设置", view: settings },
    { id: "faults", title: "故障", view: faults },
  ],
  screens,
);
const tour = new Tour(store, byId("tour"), byId("tour-start"), {
  chats: (ids) => store.show(...ids),
  panel: (id) => panel.select(id),
  screen(view) {
    document.body.dataset.view = view;
  },
  lines(lines) {
    for (const chat of chats)
      chat.showResult(chats.length > 1 ? lines.filter((line) => line.chat === chat.chat.id) : []);
  },
});

function showChats() {
  const alone = store.open.length === 1;
  const writing = document.activeElement?.id === "ask";
  for (const chat of chats) chat.leave();
  chats = store.open.map((id, index) => new Chat(store, store.chat(id), { main: index === 0, alone, screens }));
  const main = byId("main");
  main.replaceChildren(...chats.map((chat) => chat.element));
  document.body.dataset.count = String(chats.length);
  main.dataset.look = store.look;
  if (writing) byId("ask")?.focus({ preventScroll: true });
  list.refresh();
}

function showBanner() {
  const text = [banners.offline, banners.action].filter(Boolean).join(" ");
  setText(byId("banner"), text);
  byId("banner").classList.toggle("shown", text !== "");
}

store.on("state", (first) => {
  list.build();
  showChats();
  wire.build();
  daemon.refresh();
  faults.refresh();
  quota.refresh();
  settings.refresh();
  panel.offer("settings", store.robot !== null);
  tour.refresh(null);
  panel.rename("daemon", store.mode === "demo" ? "守护进程" : "接入");
  if (first && store.mode !== "demo") panel.select("daemon");
  setText(byId("about"), about(store));
  byId("reset").hidden = store.mode !== "demo";
});
store.on("open", showChats);
store.on("look", () => {
  byId("main").dataset.look = store.look;
  for (const chat of chats) chat.refill();
});
store.on("message", (message) => {
  for (const chat of chats) if (chat.chat.id === message.chat) chat.put(message);
  list.refresh();
});
store.on("wire", (entry) => wire.put(entry));
store.on("daemon", () => {
  if (panel.shows("daemon")) daemon.refresh();
  if (panel.shows("quota")) quota.refresh();
  faults.refresh();
  for (const chat of chats) chat.showStatus();
});
store.on("gateway", () => {
  daemon.refresh();
  for (const chat of chats) chat.showStatus();
});
store.on("faults", () => faults.refresh());
store.on("quota", () => panel.shows("quota") && quota.refresh());
store.on("robot", () => settings.refresh());
store.on("tour", (before) => {
  tour.refresh(before);
  daemon.refresh();
});
store.on("online", () => {
  banners.offline = store.online ? "" : "和演示程序的连接断了，正在重连…（它还在终端里运行吗？）";
  document.body.classList.toggle("offline", !store.online);
  showBanner();
});

byId("panel-open").addEventListener("click", () => screens.show("panel"));
byId("reset").addEventListener("click", async () => {
  banners.action = "";
  try {
    await post("/api/reset", {});
  } catch (error) {
    banners.action = error.message;
  }
  showBanner();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  const open = event.target.closest?.("details[open]");
  if (open) {
    open.open = false;
    open.querySelector("summary").focus();
  } else if (document.body.dataset.view === "panel") screens.show("chat");
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  store.open.forEach((id) => store.markSeen(id));
  list.refresh();
});
setInterval(() => chats.forEach((chat) => chat.tick()), TICK_MS);

byId("main").replaceChildren(h("p", { class: "empty", text: "正在连接…" }));
follow(store);
