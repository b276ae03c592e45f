// How the robot shows itself: each choice is written into its configuration, which the daemon then reads.

import { h, setText } from "./dom.js";
import { post } from "./server.js";

const CHOICES = [
  {
    name: "quick_replies",
    label: "没有卡片时的按钮",
    effect: "单聊里，答案下面是命令提示，还是能点的按钮（actionCard）。",
    options: [
      ["commands", "写出命令"],
      ["buttons", "按钮"],
      ["off", "不提示"],
    ],
  },
  {
    name: "notice",
    label: "等待时",
    effect: "过几秒还没有答案时：发一条“正在查询”，还是在问题上贴一个表情。",
    options: [
      ["text", "发一条提示"],
      ["emotion", "贴表情"],
      ["off", "不提示"],
    ],
  },
];

export class Settings {
  constructor(store) {
    this.store = store;
    this.cards = h("button", {
      type: "button",
      role: "switch",
      class: "switch calm",
      "aria-checked": "false",
      "aria-label": "AI 卡片",
      "aria-describedby": "effect-cards",
      on: { click: () => this.#choose("cards", this.cards.getAttribute("aria-checked") !== "true") },
    });
    this.selects = new Map(CHOICES.map((choice) => [choice.name, this.#select(choice)]));
    this.message = h("p", { class: "fault-message", role: "status" });
    this.element = h(
      "div",
      { class: "faults" },
      h(
        "section",
        { "aria-label": "机器人的设置" },
        h("h3", { text: "机器人的设置" }),
        row("AI 卡片", "effect-cards", "答案在一张卡片里逐段写出来，下面有按钮。", this.cards),
        CHOICES.map((choice) => row(choice.label, `effect-${choice.name}`, choice.effect, this.selects.get(choice.name))),
      ),
      this.message,
    );
  }

  #select({ name, label, options }) {
    const select = h(
      "select",
      { "aria-label": label, "aria-describedby": `effect-${name}`, on: { change: () => this.#choose(name, select.value) } },
      options.map(([value, text]) => h("option", { value, text })),
    );
    return select;
  }

  async #choose(name, value) {
    if (this.busy) return;
    this.busy = true;
    setText(this.message, name === "cards" ? "正在重启守护进程…" : "正在重新读取配置…");
    this.message.dataset.ok = "true";
    try {
      await post("/api/robot", { name, value });
      setText(this.message, "已生效。");
    } catch (error) {
      setText(this.message, error.message);
      this.message.dataset.ok = "false";
    }
    this.busy = false;
    this.refresh();
  }

  refresh() {
    const look = this.store.robot;
    if (!look) return;
    this.cards.setAttribute("aria-checked", String(look.cards));
    for (const [name, select] of this.selects) if (document.activeElement !== select) select.value = look[name];
  }
}

function row(label, id, effect, control) {
  return h(
    "div",
    { class: "fault" },
    h("div", {}, h("p", { class: "fault-name", text: label }), h("p", { class: "quiet", id, text: effect })),
    control,
  );
}
