// The wire: each frame, acknowledgement and post, newest last; an entry opens to its JSON.

import { fineClock, h, icon } from "./dom.js";

const KEPT = 300;
const NEAR_END_PX = 60;
const KINDS = {
  frame: "帧",
  ack: "确认",
  webhook: "回复",
  openapi: "OpenAPI",
  card: "卡片",
  open: "取票",
  connected: "连上",
  closed: "断开",
  backend: "知识库",
  process: "进程",
  fault: "故障",
};
const DIRECTIONS = { down: "收到", up: "发出", info: "状态" }; // as the daemon sees it

export class Wire {
  constructor(store) {
    this.store = store;
    this.list = h("ol", { class: "wire" });
    this.empty = h("p", { class: "empty", text: "还没有动静。问一句，就能看到帧、确认和回复。" });
    this.element = h(
      "div",
      {},
      h("p", { class: "sheet-note" }, Object.keys(DIRECTIONS).map(legend), h("span", { text: "点开看 JSON" })),
      this.empty,
      this.list,
    );
  }

  build() {
    this.list.replaceChildren(...this.store.wire.slice(-KEPT).map(row));
    this.empty.hidden = this.list.childElementCount > 0;
    this.shown();
  }

  put(entry) {
    const box = this.#box();
    const atEnd = box !== null && box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_END_PX;
    this.list.append(row(entry));
    while (this.list.childElementCount > KEPT) this.list.firstElementChild.remove();
    this.empty.hidden = true;
    if (atEnd) box.scrollTop = box.scrollHeight;
  }

  shown() {
    const box = this.#box();
    if (box) box.scrollTop = box.scrollHeight;
  }

  #box() {
    return this.element.closest(".sheet");
  }
}

function legend(direction) {
  return h("span", { class: `legend ${direction}` }, icon(direction), DIRECTIONS[direction]);
}

function row(entry) {
  const detail = h("pre", { tabindex: "0", "aria-label": "JSON" });
  const box = h(
    "details",
    {
      on: {
        toggle: () => {
          if (!box.open) return;
          if (detail.textContent === "") detail.textContent = JSON.stringify(entry.detail ?? null, null, 2);
          box.scrollIntoView({ block: "nearest" });
        },
      },
    },
    h(
      "summary",
      {},
      h(
        "span",
        { class: `direction ${entry.direction}`, role: "img", "aria-label": DIRECTIONS[entry.direction] ?? "" },
        icon(entry.direction),
      ),
      h("span", { class: "wire-kind", text: KINDS[entry.kind] ?? entry.kind }),
      h("span", { class: "wire-title", text: entry.title }),
      entry.bot === "bare" ? h("span", { class: "wire-bot", text: "普通机器人" }) : null,
      h("time", {
        datetime: new Date(entry.at).toISOString(),
        title: new Date(entry.at).toLocaleString("zh-CN"),
        text: fineClock(entry.at),
      }),
    ),
    detail,
  );
  return h("li", { class: entry.ok === false ? "bad" : "", data: { kind: entry.kind, bot: entry.bot ?? "ours" } }, box);
}
