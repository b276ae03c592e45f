// Ways to break it, each with what will be seen.

import { h, setText } from "./dom.js";
import { post } from "./server.js";

const GROUPS = [
  {
    title: "钉钉这一侧",
    faults: [
      {
        name: "cut",
        label: "拔网线",
        verb: "断开",
        effect: "连接当场断开，守护进程随即重连；断开时发的问题显示“等待连接”，连上后照常作答。",
        alone: "连接当场断开；没有连接时发的消息显示“等待连接”，机器人连上来就送到。",
      },
      {
        name: "disconnect",
        label: "钉钉要求换连接",
        verb: "发出",
        effect: "钉钉定期会这样做：先连好新的，再离开旧的，问题一个不丢。",
        alone: "钉钉定期会这样做：机器人应当先连好新的，再离开旧的。",
      },
      {
        name: "half_open",
        label: "半开连接",
        verb: "开始",
        effect: "看着连着，其实不通；十几秒内被心跳发现并重连，之前的问题随后作答。",
        alone: "看着连着，其实不通；看您的机器人多久发现。",
      },
      {
        name: "redeliver",
        label: "重复投递",
        verb: "再投一次",
        effect: "同一条消息再来一次：线路里看得到，聊天里不会有第二个答案。",
        alone: "同一条消息再来一次：机器人不该再答一遍。",
      },
      {
        name: "expire_webhooks",
        label: "会话 webhook 过期",
        verb: "作废",
        effect: "已有的和下一个问题的 webhook 都失效，答案改走 OpenAPI，照样送到。",
        alone: "已有的和下一个问题的 webhook 都失效：只有改走 OpenAPI，答案才送得到。",
      },
    ],
  },
  {
    title: "卡片、文件和额度",
    faults: [
      {
        name: "card_midway",
        label: "卡片写到一半失败",
        toggle: true,
        effect: "流式更新中途返回 500：卡片收尾，完整的回答另发消息，一个字不丢。",
      },
      {
        name: "card_template",
        label: "卡片模板不见了",
        toggle: true,
        effect: "新建卡片被拒绝：改用普通消息作答，30 分钟后（或重启后）再试卡片。",
      },
      {
        name: "slow_files",
        label: "取文件很慢",
        toggle: true,
        effect: "下载图片或文件要 15 秒：确认照样立刻发出，答案晚一点。",
      },
      {
        name: "quota_api",
        label: "API 额度用完",
        toggle: true,
        effect: "卡片和 OpenAPI 都被拒绝：答案改走会话 webhook。",
      },
      {
        name: "quota_stream",
        label: "Webhook 与 Stream 额度用完",
        toggle: true,
        effect: "钉钉不再给出消息内容：机器人告诉提问的人找管理员。",
      },
    ],
  },
  {
    title: "守护进程",
    faults: [
      {
        name: "kill",
        label: "强杀（SIGKILL）",
        verb: "强杀",
        effect: "像断电一样消失。确认过的问题都在磁盘上，启动后接着答。",
        when: (daemon) => daemon?.running === true,
      },
      {
        name: "start",
        label: "启动",
        verb: "启动",
        effect: "从磁盘接着处理；也许已经发出过的答案会标上（可能重复）。",
        when: (daemon) => daemon?.running === false,
      },
    ],
  },
  {
    title: "知识库（AnythingLLM）",
    faults: [
      { name: "slow", label: "变慢", toggle: true, effect: "先看到“正在查询，请稍候…”，过一会儿才有答案。" },
      {
        name: "failing",
        label: "报错",
        toggle: true,
        effect: "每次都返回错误：提问者只被告知一次，关掉以后自动补答。",
      },
      { name: "down", label: "停机", toggle: true, effect: "连不上：问题留在磁盘上，关掉以后自动补答。" },
    ],
  },
];

export class Faults {
  constructor(store) {
    this.store = store;
    this.controls = new Map();
    this.message = h("p", { class: "fault-message", role: "status" });
    this.element = h(
      "div",
      { class: "faults" },
      GROUPS.map((group) => this.#group(group)),
      this.message,
    );
  }

  #group({ title, faults }) {
    return h(
      "section",
      { "aria-label": title },
      h("h3", { text: title }),
      faults.map((fault) => this.#fault(fault)),
    );
  }

  #fault(fault) {
    const effect = h("p", { class: "quiet", id: `effect-${fault.name}`, text: fault.effect });
    const control = fault.toggle
      ? h("button", {
          type: "button",
          role: "switch",
          class: "switch",
          "aria-checked": "false",
          "aria-label": fault.label,
          "aria-describedby": effect.id,
          data: { fault: fault.name },
        })
      : h("button", {
          type: "button",
          class: "plain",
          text: fault.verb,
          "aria-label": `${fault.label}：${fault.verb}`,
          "aria-describedby": effect.id,
          data: { fault: fault.name },
        });
    control.addEventListener("click", () => this.#ask(fault, control));
    const row = h(
      "div",
      { class: "fault" },
      h("div", {}, h("p", { class: "fault-name", text: fault.label }), effect),
      control,
    );
    this.controls.set(fault, { control, row, effect });
    return row;
  }

  async #ask(fault, control) {
    if (control.getAttribute("aria-disabled") === "true") return;
    const on = fault.toggle ? control.getAttribute("aria-checked") !== "true" : true;
    try {
      await post("/api/fault", { name: fault.name, on });
      if (fault.toggle) control.setAttribute("aria-checked", String(on));
      setText(this.message, fault.toggle ? `${fault.label}：${on ? "已打开" : "已关闭"}` : `${fault.label}：已执行`);
      this.message.dataset.ok = "true";
    } catch (error) {
      setText(this.message, error.message);
      this.message.dataset.ok = "false";
    }
  }

  refresh() {
    for (const [fault, { control, row, effect }] of this.controls) {
      setText(effect, this.store.mode === "demo" ? fault.effect : (fault.alone ?? fault.effect));
      row.hidden = !(fault.name in this.store.faults);
      if (fault.toggle) control.setAttribute("aria-checked", String(this.store.faults[fault.name] === true));
      if (fault.when) control.setAttribute("aria-disabled", String(!fault.when(this.store.daemon)));
    }
    for (const section of this.element.querySelectorAll("section"))
      section.hidden = !section.querySelector(".fault:not([hidden])");
  }
}
