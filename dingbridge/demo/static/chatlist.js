// The list of conversations: what was said last, and whether it was read.

import { parts } from "./about.js";
import { avatar, clock, h, setText } from "./dom.js";

export class ChatList {
  constructor(store, element, screens) {
    this.store = store;
    this.element = element;
    this.screens = screens;
    this.rows = new Map();
  }

  /** Builds the rows; only what changes in them is touched afterwards. */
  build() {
    this.rows = new Map(this.store.chats.map((chat) => [chat.id, this.#row(chat)]));
    this.element.replaceChildren(
      h("h2", { class: "column-head", text: "消息" }),
      h(
        "ul",
        {},
        [...this.rows.values()].map((row) => h("li", {}, row.button)),
      ),
      h("p", { class: "foot" }, ...foot(this.store)),
    );
    this.refresh();
  }

  #row(chat) {
    const kind = chat.kind === "group" ? "group" : chat.bot === "bare" ? "bare" : "robot";
    const row = {
      time: h("span", { class: "row-time" }),
      preview: h("span", { class: "row-preview" }),
      unread: h("span", { class: "unread" }),
    };
    row.button = h(
      "button",
      { type: "button", class: "row", data: { chat: chat.id }, on: { click: () => this.#open(chat.id) } },
      avatar(chat.title, kind),
      h(
        "span",
        { class: "row-text" },
        h("span", { class: "row-line" }, h("span", { class: "row-title", text: chat.title }), row.time),
        h("span", { class: "row-line" }, row.preview, row.unread),
      ),
    );
    return row;
  }

  #open(id) {
    this.store.show(id);
    this.screens.show("chat");
  }

  refresh() {
    for (const [id, row] of this.rows) {
      const last = this.store.last(id);
      const unread = this.store.unread(id);
      setText(row.time, last ? clock(last.at) : "");
      setText(row.preview, last ? preview(last, this.store.chat(id)) : hint(this.store.chat(id)));
      setText(row.unread, unread ? String(unread) : "");
      row.unread.setAttribute("aria-label", unread ? `${unread} 条未读` : "");
      if (this.store.open.includes(id)) row.button.setAttribute("aria-current", "true");
      else row.button.removeAttribute("aria-current");
    }
  }
}

function foot(store) {
  const [real, standIn] = parts(store);
  return [h("b", { text: "真的：" }), real, h("br"), h("b", { text: "替身：" }), standIn];
}

function preview(message, chat) {
  const kinds = { picture: "[图片]", file: `[文件] ${message.file?.name ?? ""}`, audio: "[语音]" };
  const said = message.kind === "card" && message.card.state !== "finished" ? "[卡片] 正在写…" : message.text;
  const text = `${kinds[message.kind] ?? ""} ${message.title || said}`
    .replace(/[#*>`|]/g, "")
    .replace(/\s+/g, " ")
    .trim()
    .slice(0, 60);
  return chat.kind === "group" && message.nick ? `${message.nick}：${text}` : text;
}

function hint(chat) {
  if (chat.bot === "bare") return "用来对比：会丢问题";
  return chat.kind === "group" ? "三个人，@机器人提问" : "还没有消息，问一句试试";
}
