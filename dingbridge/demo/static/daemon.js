// What an operator sees: `dingbridge status` of the running daemon.

import { clock, h, span } from "./dom.js";
import { outlet } from "./outlet.js";
import { because, trace } from "./trace.js";

const QUEUE = [
  ["等待", "在磁盘上等着轮到，或者等着再试", (queue) => queue.ready],
  ["正在答", "正在问知识库", (queue) => queue.leased],
  ["待发", "答案已存盘，正在发往钉钉或等着发", (queue) => (queue.answered ?? 0) + (queue.sending ?? 0)],
  ["放弃", "已停止重试，提问者已被告知", (queue) => queue.dead],
];
const PARTS = { store: "存储", web: "网页", daemon: "守护进程" };

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
        this.store.gateway ? outlet(this.store.gateway) : null,
        trace(this.store.tour?.result),
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

  #summary(daemon) {
    const { status } = daemon;
    const word = !daemon.running ? "已停止" : daemon.ready ? "运行中" : status ? "没有就绪" : "正在启动";
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

/** `ok`: whether it works; `explained`: why not, and what to do. */
function lineOf(title, { ok, words, more, explained, why }) {
  return h(
    "div",
    { class: "line", data: { ok: String(ok) } },
    h("h3", { text: title }),
    h("p", { class: "line-word", text: words }),
    more ? h("p", { class: "quiet", text: more }) : null,
    because(explained, why),
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
    words: link.connected ? "已连接" : "断开，正在重连",
    more: more.filter(Boolean).join("，"),
    explained: link.explained,
    why: link.why,
  };
}

function backendFact(backend) {
  return {
    ok: backend.ok === true,
    words: backend.ok ? "正常" : "不正常",
    more: backend.since_s != null ? `已持续 ${span(backend.since_s)}` : "",
    explained: backend.explained,
    why: backend.why,
  };
}

function otherParts(parts) {
  return Object.entries(parts)
    .filter(([name, part]) => name !== "link" && part.ok === false)
    .map(([name, part]) => lineOf(PARTS[name] ?? name, { ok: false, words: "不可用", why: part.why }));
}

function queue(numbers) {
  return h(
    "div",
    {},
    h("h3", { text: "队列" }),
    h(
      "dl",
      { class: "tiles" },
      QUEUE.map(([words, title, count]) => {
        const number = String(count(numbers) ?? 0);
        return h("div", { title, data: { count: number } }, h("dt", { text: words }), h("dd", { text: number }));
      }),
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
    h(
      "ul",
      { class: "rows" },
      rows.map((row) =>
        h("li", {}, h("p", {}, h("code", { text: row.code }), ` ${row.words}`), h("p", { class: "quiet", text: waits(row) })),
      ),
    ),
  );
}

/** Who waits in a lane, for how long, and when its head is tried again. */
function waits(row) {
  return [
    `提问者 ${row.person}`,
    `等了 ${span(row.oldest_s)}`,
    row.waiting > 1 ? `后面还有 ${row.waiting - 1} 个` : "",
    row.tries > 0 ? `已试 ${row.tries} 次` : "",
    row.due_s > 0 ? `${span(row.due_s)}后再试` : "",
  ]
    .filter(Boolean)
    .join("，");
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
      { class: "rows" },
      rows.map((row) =>
        h(
          "li",
          {},
          h("p", {}, h("code", { text: row.code }), ` ${row.words}`, h("span", { class: "quiet", text: ` ${clock(row.at * 1000)}` })),
          because(row.explained, row.explained ? "" : row.why),
        ),
      ),
    ),
    h("p", { class: "quiet" }, "聊天里的编号，用 ", h("code", { text: "dingbridge trace 编号" }), " 查到原因。"),
  );
}
