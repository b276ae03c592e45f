// What an operator sees: `dingbridge status` of the running daemon.

import { clock, h, span } from "./dom.js";

const QUEUE = [
  ["ready", "等待", "在磁盘上等着轮到"],
  ["running", "正在答", "正在问知识库或发送"],
  ["sending", "正在发", "答案已存盘，正在发往钉钉"],
  ["dead", "没答成", "已停止重试，提问者已被告知"],
];
const LANE_STATES = { ready: "等待", leased: "正在答", answered: "待发", sending: "正在发", later: "稍后重试" };
const PARTS = { store: "存储", link: "钉钉连接", web: "网页", handlers: "处理器", backend: "知识库" };

export class DaemonView {
  constructor(store) {
    this.store = store;
    this.element = h("div", { class: "daemon" });
  }

  shown() {
    this.refresh();
  }

  refresh() {
    const { daemon } = this.store;
    const status = daemon?.status;
    const selection = getSelection();
    if (!selection.isCollapsed && this.element.contains(selection.anchorNode)) return; // someone is about to copy
    const scrolled = this.element.querySelector(".scroll:focus") !== null;
    this.element.replaceChildren(
      ...[
        this.#gateway(),
        trace(this.store.tour?.result?.trace),
        daemon ? this.#summary(daemon) : null,
        status ? lineOf("钉钉连接", linkFact(status.link ?? {})) : null,
        status ? lineOf("知识库", backendFact(status.backend ?? {})) : null,
        ...otherParts(status?.parts ?? {}),
        status ? queue(status.queue ?? {}) : null,
        status ? lanes(status.lanes ?? []) : null,
        status ? failures(status.failures ?? []) : null,
      ].filter(Boolean),
    );
    if (scrolled) this.element.querySelector(".scroll")?.focus();
  }

  #gateway() {
    const { gateway, mode } = this.store;
    if (mode !== "gateway-only" || !gateway) return null;
    return h(
      "div",
      {},
      h("h3", { text: "替身网关" }),
      h(
        "p",
        { class: "fact" },
        "把机器人的接口地址设为 ",
        h("code", { text: gateway.url }),
        "，Client ID 为 ",
        h("code", { text: gateway.client_id }),
      ),
    );
  }

  #summary(daemon) {
    const { status } = daemon;
    const word = !daemon.running ? "已停止" : daemon.ready ? "运行中" : "正在启动";
    return h(
      "div",
      { class: "summary", data: { ok: String(daemon.running && daemon.ready) } },
      h("p", { class: "summary-word", text: word }),
      h(
        "p",
        { class: "quiet" },
        [
          daemon.pid ? `进程 ${daemon.pid}` : "没有进程",
          status?.uptime_s !== undefined ? `，已运行 ${span(status.uptime_s)}` : "",
          status?.version ? `，版本 ${status.version}` : "",
        ].join(""),
      ),
      daemon.running && !status ? h("p", { class: "quiet", text: "控制接口还没有回答。" }) : null,
    );
  }
}

/** `ok`: true, false, or null for unknown. */
function lineOf(title, { ok, words, more }) {
  return h(
    "div",
    { class: "line", data: { ok: String(ok) } },
    h("h3", { text: title }),
    h("p", { class: "line-word", text: words }),
    more ? h("p", { class: "quiet", text: more }) : null,
  );
}

function linkFact(link) {
  const more = [
    link.since_s != null ? `已持续 ${span(link.since_s)}` : "",
    link.opens != null ? `第 ${link.opens} 次取票` : "",
    link.last_frame_s != null ? `上一帧在 ${span(link.last_frame_s)}前` : "还没有收到过帧",
  ];
  return {
    ok: link.connected === true,
    words: link.connected ? "已连接" : `断开${link.why ? `：${link.why}` : ""}`,
    more: more.filter(Boolean).join("，"),
  };
}

function backendFact(backend) {
  if (backend.ok === true) return { ok: true, words: "有回应", more: "" };
  if (backend.ok === false) {
    const since = backend.since_s != null ? `已持续 ${span(backend.since_s)}` : "";
    return { ok: false, words: backend.why || "没有回应", more: [backend.cause, since].filter(Boolean).join("，") };
  }
  return { ok: null, words: "还没有问过", more: "" };
}

function otherParts(parts) {
  return Object.entries(parts)
    .filter(([name, part]) => name !== "link" && part.ok === false)
    .map(([name, part]) => lineOf(PARTS[name] ?? name, { ok: false, words: part.why || "不可用", more: "" }));
}

function queue(numbers) {
  return h(
    "div",
    {},
    h("h3", { text: "队列" }),
    h(
      "dl",
      { class: "tiles" },
      QUEUE.map(([key, words, title]) =>
        h(
          "div",
          { title, data: { count: String(numbers[key] ?? 0) } },
          h("dt", { text: words }),
          h("dd", { text: String(numbers[key] ?? 0) }),
        ),
      ),
    ),
    numbers.oldest_s > 0 ? h("p", { class: "quiet", text: `最早的一个已经等了 ${span(numbers.oldest_s)}` }) : null,
  );
}

function lanes(rows) {
  const head = h("h3", { text: "车道（每人每会话一条，先来先答）" });
  if (rows.length === 0) return h("div", {}, head, h("p", { class: "quiet", text: "没有等待的问题。" }));
  return h(
    "div",
    {},
    head,
    table(
      ["编号", "谁", "状态", "等待", "已等"],
      rows.map((row) => [
        row.code,
        row.person,
        LANE_STATES[row.state] ?? row.state,
        String(row.waiting),
        span(row.oldest_s ?? 0),
      ]),
    ),
  );
}

function failures(rows) {
  const head = h("h3", { text: "最近的失败" });
  if (rows.length === 0) return h("div", {}, head, h("p", { class: "quiet", text: "没有。" }));
  return h(
    "div",
    {},
    head,
    h(
      "ul",
      { class: "failures" },
      rows.map((row) =>
        h(
          "li",
          {},
          h("p", {}, h("code", { text: row.code }), ` ${row.reason || row.cause || row.outcome}`),
          h("p", { class: "quiet", text: [moment(row.at), row.outcome, row.cause].filter(Boolean).join("，") }),
        ),
      ),
    ),
    h("p", { class: "quiet" }, "聊天里的编号，用 ", h("code", { text: "dingbridge trace 编号" }), " 查到原因。"),
  );
}

/** The way of one message, as `dingbridge trace` tells it: each step with the time since the first. */
function trace(told) {
  if (!Array.isArray(told?.steps)) return null;
  const start = told.steps[0]?.at ?? 0;
  return h(
    "div",
    { class: "trace" },
    h("h3", { text: `编号 ${told.code} 的全程` }),
    h(
      "ol",
      {},
      told.steps.map(({ at, name, ...facts }) =>
        h(
          "li",
          {},
          h("time", { text: `+${((at - start) * 1000).toFixed(0)} ms` }),
          h("code", { text: name }),
          h("span", { class: "quiet", text: words(facts) }),
        ),
      ),
    ),
    told.why
      ? h(
          "p",
          { class: "trace-why" },
          h("b", { text: "原因：" }),
          told.why,
          told.cause ? h("code", { text: told.cause }) : null,
        )
      : null,
  );
}

function words(facts) {
  return Object.entries(facts)
    .filter(([, value]) => ["string", "number", "boolean"].includes(typeof value) && value !== "")
    .map(([name, value]) => `${name}=${value}`)
    .join(" ");
}

/** Epoch seconds, epoch ms or a written time. */
function moment(at) {
  if (typeof at === "number") return clock(at < 1e11 ? at * 1000 : at);
  const parsed = Date.parse(at ?? "");
  return Number.isNaN(parsed) ? "" : clock(parsed);
}

function table(heads, rows) {
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": "车道，可以左右滚动" },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          heads.map((text) => h("th", { scope: "col", text })),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((cells) =>
          h(
            "tr",
            {},
            cells.map((text) => h("td", { text: text ?? "" })),
          ),
        ),
      ),
    ),
  );
}
