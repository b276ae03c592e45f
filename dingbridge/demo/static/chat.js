// One chat on screen: who it is with, what was said, and where to write.

import { Composer } from "./composer.js";
import { avatar, clock, h, icon, setText, span } from "./dom.js";
import { greeting } from "./greeting.js";
import { MessageView, pause } from "./messages.js";
import { post } from "./server.js";

const NEAR_END_PX = 80;

export class Chat {
  /** `main`: the chat whose input carries the id that the skip link goes to. */
  constructor(store, chat, { main, alone, screens }) {
    this.store = store;
    this.chat = chat;
    this.views = new Map();
    this.speaker = store.speakers.get(chat.id) ?? chat.people?.[0] ?? store.people[0]?.id;
    this.botName = chat.bot_name;
    this.status = h("span", { class: "bot-status" });
    this.expiry = h("span", { class: "expiry" });
    this.results = h("ul", { class: "results" });
    this.told = h("p", { class: "unseen", "aria-live": "polite" }); // what a card has to say, once
    this.composer = new Composer(store, chat, {
      main,
      speaker: () => this.speaker,
      speakAs: (person) => this.#speakAs(person),
      sent: () => this.toEnd(),
    });
    // A new log for every chat: its first filling is not read out, what comes later is.
    this.log = h("div", {
      class: "log",
      role: "log",
      "aria-live": "polite",
      "aria-relevant": "additions",
      "aria-label": `${chat.title}的消息`,
      tabindex: "0",
      on: { scroll: () => this.#scrolled() },
    });
    this.lines = h("div", { class: "lines" });
    this.log.append(this.lines);
    this.atEnd = true;
    this.top = 0;
    this.sizes = new ResizeObserver(() => this.atEnd && this.toEnd()); // grown, shrunk or shown again: the end stays in sight
    this.sizes.observe(this.log);
    this.sizes.observe(this.lines);
    this.element = h(
      "section",
      {
        class: "chat",
        data: { chat: chat.id, bot: chat.bot },
        "aria-label": chat.title,
        on: { dragover: (event) => this.#dragged(event), drop: (event) => this.#dropped(event) },
      },
      this.#head(alone, screens),
      this.results,
      this.log,
      this.told,
      this.composer.element,
    );
    for (const message of this.#messages()) this.#add(message, true);
    this.#welcome();
    this.showStatus();
    this.tick();
  }

  #messages() {
    return [...(this.store.messages.get(this.chat.id)?.values() ?? [])];
  }

  #head(alone, screens) {
    const kind = this.chat.kind === "group" ? "group" : this.chat.bot === "bare" ? "bare" : "robot";
    return h(
      "header",
      { class: "chat-head" },
      h(
        "button",
        {
          type: "button",
          class: "only-phone square",
          "aria-label": "返回会话列表",
          on: { click: () => screens.show("list") },
        },
        icon("back"),
      ),
      avatar(this.chat.title, kind),
      h("div", { class: "chat-title" }, h("h2", { text: this.chat.title }), h("p", {}, this.status, this.expiry)),
      alone ? this.#looks() : null,
      h(
        "button",
        { type: "button", class: "only-small plain", on: { click: () => screens.show("panel") } },
        icon("pulse"),
        h("span", { text: "后台" }),
      ),
    );
  }

  #looks() {
    const look = (value, words) =>
      h(
        "button",
        {
          type: "button",
          data: { look: value },
          "aria-pressed": String(this.store.look === value),
          on: { click: () => this.store.setLook(value) },
        },
        icon(value),
        words,
      );
    return h(
      "div",
      {
        class: "looks",
        role: "group",
        "aria-label": "钉钉在哪里显示",
        title: "同一条消息，钉钉在电脑和手机上显示得不一样",
      },
      look("pc", "电脑"),
      look("phone", "手机"),
    );
  }

  #speakAs(person) {
    this.speaker = person;
    this.store.speakers.set(this.chat.id, person);
    this.refill();
  }

  #dragged(event) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  }

  #dropped(event) {
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    this.composer.take(event.dataTransfer.files);
  }

  say(text) {
    this.composer.say(text);
  }

  /** What can be done with a message here. */
  #acts() {
    const as = () => this.speaker;
    return {
      say: (text) => this.say(text),
      tap: (message, title) =>
        this.composer.act(() => post("/api/tap", { message: message.id, title, as: as() })),
      press: (message, action) => post("/api/press", { message: message.id, action, as: as() }),
      quote: this.chat.bot === "bare" ? null : (message) => this.composer.answerTo(message),
      tell: (text) => setText(this.told, text),
    };
  }

  /** Takes a message of this chat, new or changed. */
  put(message) {
    const view = this.views.get(message.id);
    if (view) view.update(message, this.store.look);
    else this.#add(message);
    this.#welcome();
    if (!view && message.from === this.speaker) this.toEnd();
    this.tick();
  }

  /** `fresh`: it was there before this chat was on screen. */
  #add(message, fresh = false) {
    const between = pause(message, this.newest);
    if (between) this.lines.append(between);
    const view = new MessageView(message, {
      own: message.from === this.speaker,
      look: this.store.look,
      name: message.nick || (message.from === "bot" ? this.botName : this.store.nick(message.from)),
      kind: this.chat.bot === "bare" ? "bare" : "robot",
      person: this.speaker,
      acts: this.#acts(),
      fresh,
    });
    this.views.set(message.id, view);
    this.lines.append(view.element);
    this.newest = message;
  }

  /** Builds the log anew: another look, or another speaker. */
  refill() {
    this.log.setAttribute("aria-live", "off");
    this.lines.replaceChildren();
    this.views.clear();
    this.newest = undefined;
    for (const message of this.#messages()) this.#add(message, true);
    this.#welcome();
    for (const button of this.element.querySelectorAll("[data-look]"))
      button.setAttribute("aria-pressed", String(button.dataset.look === this.store.look));
    this.toEnd();
    requestAnimationFrame(() => this.log.setAttribute("aria-live", "polite"));
  }

  #welcome() {
    const empty = this.views.size === 0;
    if (empty === (this.greeting !== undefined)) return;
    this.greeting?.remove();
    this.greeting = empty ? greeting(this.chat, this.store) : undefined;
    if (this.greeting) this.lines.append(this.greeting);
  }

  /** Only a reader moves up; our own way down may be reported when more has come already. */
  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.log;
    if (clientHeight === 0) return;
    if (scrollHeight - scrollTop - clientHeight < NEAR_END_PX) this.atEnd = true;
    else if (scrollTop < this.top) this.atEnd = false;
    this.top = scrollTop;
  }

  toEnd() {
    this.atEnd = true;
    this.log.scrollTop = this.log.scrollHeight;
  }

  /** Off the screen for good. */
  leave() {
    this.sizes.disconnect();
  }

  showStatus() {
    const { word, ok } = botStatus(this.chat, this.store);
    setText(this.status, word);
    this.status.dataset.ok = String(ok);
  }

  /** How it went here, from the tour: [{ok, text}]. */
  showResult(lines) {
    this.results.replaceChildren(
      ...lines.map((line) =>
        h("li", { data: { ok: String(line.ok) } }, icon(line.ok ? "check" : "cross"), h("span", { text: line.text })),
      ),
    );
    const lost = lines.some((line) => !line.ok) ? this.lines.querySelector('[data-state="lost"]') : null;
    if (!lost) return;
    this.atEnd = false;
    this.log.scrollTop = lost.offsetTop - this.log.offsetTop - this.log.clientHeight / 3;
  }

  /** How long the newest session webhook may still be answered on. */
  tick() {
    const until = Math.max(0, ...this.#messages().map((message) => message.webhook_expires_at ?? 0));
    if (until === 0) setText(this.expiry, "");
    else if (until <= Date.now()) setText(this.expiry, "会话 webhook 已过期，改走 OpenAPI");
    else setText(this.expiry, `会话 webhook 还有 ${span((until - Date.now()) / 1000)}`);
    this.expiry.title = until ? `到 ${clock(until)} 为止可以用它回复` : "";
  }
}

/** What stands below a chat's name, and whether it is good news. */
function botStatus(chat, { daemon, gateway }) {
  if (chat.bot === "bare") return { word: "照官方 SDK 的示例写成，问题只在内存里", ok: true };
  if (daemon === null)
    return gateway?.connections > 0 ? { word: "您的机器人已连接", ok: true } : { word: "等您的机器人连接", ok: null };
  if (!daemon.running) return { word: "守护进程停了", ok: false };
  if (daemon.status?.link?.connected === false) return { word: "连接断了，正在重连…", ok: false };
  if (!daemon.ready) return { word: "正在启动…", ok: false };
  return { word: "在线", ok: true };
}
