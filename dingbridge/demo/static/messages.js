// One message on screen. It is built once; what may change later (its state, its text) is changed in place.

import { CardView } from "./cards.js";
import { avatar, clock, drawn, h, icon, setText } from "./dom.js";
import { fragment } from "./safe.js";

const STATES = { sent: "已发送", acked: "已送达", held: "等待连接", lost: "已丢失" };
const STATE_ICONS = { sent: "clock", acked: "check", held: "clock", lost: "cross" };
const PAUSE_MS = 5 * 60 * 1000;

export class MessageView {
  /** `own`: the reader sent it. `look`: "pc" or "phone". `acts`: what can be done with it, all of them functions:
   * say(text), tap(message, title), press(message, action), quote(message), tell(text). */
  constructor(message, { own, look, name, kind, person, acts, fresh }) {
    this.own = own;
    this.acts = acts;
    this.bubble = h("div", { class: "bubble" });
    this.state = own ? h("span", { class: "state" }) : null;
    this.note = h("span", { class: "note" });
    this.emotion = h("span", { class: "emotion" });
    const bot = message.from === "bot";
    if (message.kind === "card") {
      const press = (action) => acts.press(this.message, action);
      this.card = new CardView({ person, press, say: acts.say, tell: acts.tell });
    }
    const who = h(
      "p",
      { class: "who" },
      h("span", { class: "name", text: name }),
      bot ? h("span", { class: "badge", text: "机器人" }) : null,
      h("time", { datetime: new Date(message.at).toISOString(), text: clock(message.at) }),
      acts.quote ? this.#quoting() : null,
    );
    this.element = h(
      "article",
      { class: `message ${own ? "own" : "theirs"}`, data: { id: message.id, from: message.from, kind: message.kind } },
      bot ? avatar(name, kind) : avatar(name),
      h("div", { class: "body" }, who, this.bubble, h("p", { class: "under" }, this.emotion, this.state, this.note)),
    );
    this.update(message, look, fresh);
  }

  #quoting() {
    return h(
      "button",
      {
        type: "button",
        class: "quoting",
        "aria-label": "引用这条消息",
        title: "引用",
        on: { click: () => this.acts.quote(this.message) },
      },
      icon("quote"),
    );
  }

  update(message, look, fresh = false) {
    const before = this.message;
    this.message = message;
    if (this.card) this.#fillCard(message, look, fresh);
    else if (
      before === undefined ||
      look !== this.look ||
      before.text !== message.text ||
      before.html?.[look] !== message.html?.[look]
    )
      this.#fill(message, look);
    this.look = look;
    this.element.classList.toggle("notice", message.notice === true);
    this.element.dataset.state = message.state ?? "";
    if (this.state && before?.state !== message.state) {
      const words = STATES[message.state] ?? "";
      this.state.replaceChildren(...(words ? [icon(STATE_ICONS[message.state]), words] : []));
    }
    setText(this.note, message.note ?? "");
    setText(this.emotion, message.emotion ?? "");
  }

  #fillCard(message, look, fresh) {
    if (!this.bubble.contains(this.card.element)) this.bubble.replaceChildren(this.card.element);
    this.card.update(message, look, (box) => mention(box, message.mentions ?? []), fresh);
  }

  #fill(message, look) {
    const content = this.#content(message, look);
    if (message.kind === "text" || message.kind === "markdown" || message.text) mention(content, message.mentions ?? []);
    const waiting = message.notice ? h("span", { class: "dots", "aria-hidden": "true" }, h("i"), h("i"), h("i")) : null;
    const parts = [
      message.quoted ? h("p", { class: "quoted", text: message.quoted }) : null,
      message.file ? attachment(message) : null,
      content,
      waiting,
      this.#buttons(message),
    ];
    this.bubble.replaceChildren(...parts.filter(Boolean));
  }

  #content(message, look) {
    const html = message.kind === "markdown" ? message.html?.[look] : "";
    if (html) return h("div", { class: "markdown" }, fragment(html, this.acts.say));
    if (message.file && message.text === "") return h("p", { class: "plain-text", hidden: true });
    return h("p", { class: "plain-text", text: message.text });
  }

  /** Those of an action card: what says something says it in the reader's name, the others are links. */
  #buttons(message) {
    if (!message.buttons?.length) return null;
    return h(
      "div",
      { class: "card-buttons", role: "group", "aria-label": "对这个回答" },
      message.buttons.map((button) => (button.says === undefined ? outward(button) : this.#tap(message, button.title))),
    );
  }

  #tap(message, title) {
    const click = () => this.acts.tap(message, title);
    return h("button", { type: "button", class: "card-button", on: { click } }, drawn(title));
  }
}

function outward({ title, url }) {
  if (!/^https?:\/\//i.test(url)) return h("span", { class: "card-button", text: title });
  return h("a", {
    class: "card-button",
    href: url,
    target: "_blank",
    rel: "noopener noreferrer nofollow",
    text: title,
  });
}

function attachment({ id, kind, file }) {
  if (kind === "audio") return h("p", { class: "attached" }, icon("voice"), h("span", { text: "语音，识别出的文字：" }));
  if (kind === "file") return h("p", { class: "attached" }, icon("file"), h("b", { text: file.name }), size(file.size));
  const source = `/api/picture?id=${encodeURIComponent(id)}`;
  const gone = () => picture.replaceWith(h("p", { class: "attached" }, icon("picture"), file.name));
  const picture = h("img", { class: "picture", src: source, alt: `图片 ${file.name}`, on: { error: gone } });
  return picture;
}

/** Bytes as 12 KB. */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${Math.round(bytes / 1024)} KB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MB`;
}

/** "@name" stands out where it is in the text, and is put in front where it is not. */
function mention(content, names) {
  for (const name of names) {
    const called = `@${name.replace(/^@/, "")}`;
    const walker = document.createTreeWalker(content, NodeFilter.SHOW_TEXT);
    let found = false;
    for (let node = walker.nextNode(); node !== null && !found; node = walker.nextNode()) {
      const start = node.data.indexOf(called);
      if (start === -1) continue;
      const middle = node.splitText(start);
      middle.splitText(called.length);
      middle.replaceWith(h("span", { class: "mention", text: called }));
      found = true;
    }
    if (!found)
      (content.querySelector("p, h1, h2, h3, h4, li") ?? content).prepend(
        h("span", { class: "mention", text: called }),
        " ",
      );
  }
}

/** The time in the middle, as after a pause in a conversation; null where there was none. */
export function pause(message, before) {
  if (before !== undefined && message.at - before.at < PAUSE_MS) return null;
  return h("p", { class: "pause", text: clock(message.at) });
}
