// The way of one message as `dingbridge trace` tells it, and why something failed.

import { h } from "./dom.js";

/** `explained`: {what, remedy} in the operator's words, or null; `why`: the error's own text, which says where. */
export function because(explained, why) {
  if (!explained && !why) return null;
  return h(
    "div",
    { class: "because" },
    explained ? h("p", {}, h("b", { text: "原因：" }), explained.what) : null,
    explained ? h("p", {}, h("b", { text: "处理：" }), explained.remedy) : null,
    why ? h("p", { class: "raw", lang: "en", text: why }) : null,
  );
}

/** `result`: the tour's, with `trace` and the `command` that shows the same. */
export function trace(result) {
  const told = result?.trace;
  if (!Array.isArray(told?.steps)) return null;
  return h(
    "section",
    { class: "trace", "aria-label": `编号 ${told.code} 的全程` },
    h("h3", { text: "dingbridge trace" }),
    h("p", { class: "trace-title" }, h("code", { text: told.code }), ` ${told.words}`),
    told.causes.map((cause) => because(cause)),
    h("ol", {}, told.steps.map(step)),
  );
}

function step({ clock, text, why, ok }) {
  return h(
    "li",
    { data: { ok: String(ok) } },
    h("time", { text: clock }),
    h("div", {}, h("p", { text }), why ? h("p", { class: "raw", lang: "en", text: why }) : null),
  );
}
