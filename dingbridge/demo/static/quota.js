// The quota meter: what DingTalk bills this month, by kind, and how much the organisation has.

import { h, setText } from "./dom.js";
import { post } from "./server.js";

const POOLS = [
  ["api", "API 调用", "卡片、OpenAPI 消息、表情、下载文件"],
  ["webhook_stream", "Webhook 与 Stream", "收到的每一帧、会话 webhook 的每一条"],
];
const KINDS = {
  "card.create_and_deliver": "新建并投放卡片",
  "card.create": "新建卡片",
  "card.deliver": "投放卡片",
  "card.stream": "卡片流式更新",
  "card.update": "卡片改变量",
  oto: "单聊消息",
  group: "群消息",
  download: "取文件地址",
  "emotion.reply": "贴表情",
  "emotion.recall": "收回表情",
  message: "收到的消息",
  card_callback: "按钮回传",
  callback: "其他回调",
  event: "事件",
  webhook: "会话 webhook 回复",
  custom: "自定义机器人",
};
const FREE = { token: "取令牌" };
const DAEMON = { api: "API", webhook_stream: "Webhook 与 Stream" };

export class Quota {
  constructor(store) {
    this.store = store;
    this.pools = new Map(POOLS.map(([id, title, what]) => [id, this.#pool(id, title, what)]));
    this.free = h("p", { class: "quiet" });
    this.daemon = h("p", { class: "quiet" });
    this.error = h("p", { class: "error", role: "alert" });
    this.element = h(
      "div",
      { class: "quota" },
      h("p", {
        class: "quiet",
        text: "钉钉按组织、按月计费，下面是替身数到的。把上限改小，就能看到快用完和用完时的样子。",
      }),
      [...this.pools.values()].map((pool) => pool.element),
      this.free,
      this.daemon,
      this.error,
    );
  }

  #pool(id, title, what) {
    const total = h("p", { class: "pool-total" });
    const bar = h("meter", { min: "0", "aria-label": `${title}已用` });
    const kinds = h("dl", { class: "kinds" });
    const cap = h("input", { type: "number", min: "0", max: "1000000", step: "1", inputmode: "numeric" });
    const set = (event) => {
      event.preventDefault();
      this.#set(id, cap.value === "" ? null : Number(cap.value));
    };
    const element = h(
      "section",
      { class: "pool", "aria-label": title, data: { pool: id } },
      h("h3", { text: title }),
      total,
      bar,
      h("p", { class: "quiet", text: what }),
      kinds,
      h(
        "form",
        { class: "cap", on: { submit: set } },
        h("label", {}, "本月上限", cap),
        h("button", { type: "submit", class: "plain", text: "改" }),
      ),
    );
    return { element, total, bar, kinds, cap };
  }

  async #set(pool, cap) {
    setText(this.error, "");
    try {
      await post("/api/quota", { pool, cap });
    } catch (error) {
      setText(this.error, error.message);
    }
  }

  shown() {
    this.refresh();
  }

  refresh() {
    const { quota } = this.store;
    if (!quota?.api) return;
    for (const [id, { element, total, bar, kinds, cap }] of this.pools) {
      const { total: used, cap: most, kinds: by } = quota[id];
      const share = most === null ? 0 : most === 0 ? 1 : used / most;
      setText(total, most === null ? `${used} 次` : `${used} / ${most} 次${used >= most ? "，已用完" : ""}`);
      element.dataset.level = share >= 1 ? "out" : share >= 0.8 ? "low" : "fine";
      bar.max = most || 1;
      bar.value = most === null ? 0 : Math.min(used, most || 1);
      if (most === 0) bar.value = 1;
      const rows = Object.entries(by).sort((one, other) => other[1] - one[1]);
      kinds.replaceChildren(...rows.flatMap(([kind, count]) => [h("dt", { text: KINDS[kind] ?? kind }), h("dd", { text: String(count) })]));
      if (document.activeElement !== cap) cap.value = most === null ? "" : String(most);
    }
    const free = Object.entries(quota.free ?? {});
    setText(this.free, free.length ? `不计费：${free.map(([kind, count]) => `${FREE[kind] ?? KINDS[kind] ?? kind} ${count}`).join("，")}` : "");
    setText(this.daemon, counted(this.store.daemon?.status?.quota));
  }
}

/** What the daemon has counted itself, for a look whether both agree. */
function counted(quota) {
  if (!quota?.pools) return "";
  const said = Object.entries(DAEMON)
    .filter(([pool]) => quota.pools[pool])
    .map(([pool, name]) => `${name} ${quota.pools[pool].used}`);
  return `守护进程自己数到：${said.join("，")}（dingbridge status 也看得到）`;
}
