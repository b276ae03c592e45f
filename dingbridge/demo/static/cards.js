// An AI card: its text grows frame by frame, its buttons call back, and what they change only the presser sees.

import { drawn, h, icon, setText } from "./dom.js";
import { fragment } from "./safe.js";

const STATES = { processing: "处理中…", streaming: "输入中…", finished: "完成", failed: "失败" };
const STATE_ICONS = { finished: "check", failed: "cross" };
const FRAME_MS = 900; // a frame is typed before the next one comes
const VOTES = [
  ["good", "👍"],
  ["bad", "👎"],
];

export class CardView {
  /** `person`: who looks. `press(action)` gives a promise; `say(text)` is what a quick-reply link does. */
  constructor({ person, press, say, tell }) {
    this.person = person;
    this.press = press;
    this.say = say;
    this.tell = tell;
    this.state = h("p", { class: "card-state" });
    this.text = h("div", { class: "markdown card-text" });
    this.buttons = h("div", { class: "card-buttons", role: "group", "aria-label": "对这个回答" });
    this.note = h("p", { class: "card-note", role: "status" });
    this.error = h("p", { class: "error", role: "alert" });
    this.typing = new Typing(this.text);
    // Every frame would be read out; the whole answer is, once.
    this.element = h(
      "div",
      { class: "card", "aria-live": "off" },
      this.state,
      this.text,
      this.buttons,
      this.note,
      this.error,
    );
  }

  /** `fresh`: it is built from what is known already, so nothing is typed or read out. */
  update(message, look, content, fresh) {
    const { card } = message;
    const before = this.card;
    this.card = card;
    this.element.dataset.state = card.state;
    this.element.dataset.frames = String(card.frames);
    this.element.setAttribute("aria-busy", String(card.state === "processing" || card.state === "streaming"));
    if (before?.state !== card.state) {
      const words = STATES[card.state] ?? card.state;
      const mark = STATE_ICONS[card.state];
      this.state.replaceChildren(mark ? icon(mark) : dots(), words);
    }
    const html = message.html?.[look] ?? "";
    if (html !== this.html) {
      this.html = html;
      const box = h("div", {}, fragment(html, this.say));
      content(box);
      this.typing.show(box, !fresh && card.frames > 0);
    }
    if (!fresh && before?.state !== card.state) this.#announce(message);
    this.#fillButtons();
  }

  #announce(message) {
    if (message.card.state === "processing") this.tell("机器人正在写回答。");
    if (message.card.state === "finished") this.tell(`回答：${this.typing.words}`);
    if (message.card.state === "failed") this.tell(message.text);
  }

  #fillButtons() {
    const { state, deep, page_url, views } = this.card;
    const view = views?.[this.person] ?? {};
    const shown = JSON.stringify([state, deep, page_url, view, this.person]);
    if (shown === this.shown) return;
    this.shown = shown;
    const focused = this.buttons.contains(document.activeElement) ? document.activeElement.dataset.action : null;
    const buttons =
      state === "finished"
        ? [
            ...VOTES.map(([action, text]) =>
              this.#button(action, text, { "aria-pressed": String(view.vote === action) }),
            ),
            deep ? this.#button("deep", "再深入") : null,
            page_url ? page(page_url) : this.#button("full", "查看全文"),
            this.#button("human", "转人工"),
          ].filter(Boolean)
        : [];
    this.buttons.replaceChildren(...buttons);
    this.buttons.hidden = buttons.length === 0;
    if (focused) this.buttons.querySelector(`[data-action="${focused}"]`)?.focus();
    setText(this.note, state === "finished" ? (view.note ?? "") : "");
  }

  #button(action, text, more = {}) {
    const click = () => this.#pressed(action);
    return h("button", { type: "button", class: "card-button", data: { action }, ...more, on: { click } }, drawn(text));
  }

  async #pressed(action) {
    setText(this.error, "");
    try {
      await this.press(action);
    } catch (error) {
      setText(this.error, error.message);
    }
  }
}

function page(url) {
  if (!/^https?:\/\//i.test(url)) return null;
  return h("a", {
    class: "card-button",
    href: url,
    target: "_blank",
    rel: "noopener noreferrer nofollow",
    text: "查看全文",
    data: { action: "full" },
  });
}

function dots() {
  return h("span", { class: "dots", "aria-hidden": "true" }, h("i"), h("i"), h("i"));
}

/** Shows a text as somebody types it: what is new appears bit by bit, and what was there stays. */
class Typing {
  constructor(element) {
    this.element = element;
    this.words = "";
    this.count = 0;
  }

  show(box, animated) {
    cancelAnimationFrame(this.next);
    const seen = this.words.slice(0, this.count);
    this.element.replaceChildren(...box.childNodes);
    this.#measure();
    const still = document.hidden || matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (!animated || still) {
      this.count = this.words.length;
      return;
    }
    const from = common(seen, this.words);
    const began = performance.now();
    const step = (now) => {
      const share = Math.min(1, Math.max(0, (now - began) / FRAME_MS));
      this.#upTo(from + Math.ceil((this.words.length - from) * share));
      if (share < 1) this.next = requestAnimationFrame(step);
    };
    this.#upTo(from);
    this.next = requestAnimationFrame(step);
  }

  /** Where each text and each element begins. */
  #measure() {
    this.texts = [];
    this.elements = [];
    this.words = "";
    const walker = document.createTreeWalker(this.element, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
    for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
      if (node.nodeType === Node.ELEMENT_NODE) this.elements.push([node, this.words.length]);
      else {
        this.texts.push([node, node.data, this.words.length]);
        this.words += node.data;
      }
    }
  }

  #upTo(count) {
    this.count = count;
    for (const [node, text, start] of this.texts) {
      const part = text.slice(0, Math.max(0, count - start));
      if (node.data !== part) node.data = part;
    }
    const done = count >= this.words.length;
    for (const [element, start] of this.elements) element.hidden = !done && start >= count;
  }
}

function common(one, other) {
  let length = 0;
  while (length < one.length && one[length] === other[length]) length += 1;
  return length;
}
