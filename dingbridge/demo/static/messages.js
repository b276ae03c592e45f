// One message on screen. It is built once; what may change later (its state, its text) is changed in place.

import { avatar, clock, h, icon, setText } from "./dom.js";
import { fragment } from "./safe.js";

const STATES = { sent: "已发送", acked: "已送达", held: "等待连接", lost: "已丢失" };
const STATE_ICONS = { sent: "clock", acked: "check", held: "clock", lost: "cross" };
const PAUSE_MS = 5 * 60 * 1000;

export class MessageView {
  /** `own`: the reader sent it. `look`: "pc" or "phone". `say(text)` is what a quick reply does. */
  constructor(message, { own, look, name, kind, say }) {
    this.own = own;
    this.say = say;
    this.bubble = h("div", { class: "bubble" });
    this.state = own ? h("span", { class: "state" }) : null;
    this.note = h("span", { class: "note" });
    const bot = message.from === "bot";
    const who = h(
      "p",
      { class: "who" },
      h("span", { class: "name", text: name }),
      bot ? h("span", { class: "badge", text: "机器人" }) : null,
      h("time", { datetime: new Date(message.at).toISOString(), text: clock(message.at) }),
    );
    this.element = h(
      "article",
      { class: `message ${own ? "own" : "theirs"}`, data: { id: message.id, from: message.from } },
      bot ? avatar(name, kind) : avatar(name),
      h("div", { class: "body" }, who, this.bubble, h("p", { class: "under" }, this.state, this.note)),
    );
    this.update(message, look);
  }

  update(message, look) {
    const before = this.message;
    this.message = message;
    if (
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
  }

  #fill(message, look) {
    const html = message.kind === "markdown" ? message.html?.[look] : "";
    const content = html
      ? h("div", { class: "markdown" }, fragment(html, this.say))
      : h("p", { class: "plain-text", text: message.text });
    mention(content, message.mentions ?? []);
    const waiting = message.notice ? h("span", { class: "dots", "aria-hidden": "true" }, h("i"), h("i"), h("i")) : null;
    this.bubble.replaceChildren(content, ...(waiting ? [waiting] : []));
  }
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
