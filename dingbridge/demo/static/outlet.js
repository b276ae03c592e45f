// A gateway alone: where a bot connects to, ready to be copied.

import { h } from "./dom.js";

/** `gateway`: {url, client_id, client_secret, connections}. */
export function outlet(gateway) {
  const connected = gateway.connections > 0;
  return h(
    "div",
    { class: "outlet" },
    h(
      "div",
      { class: "summary", data: { ok: String(connected || null) } },
      h("p", { class: "summary-word", text: connected ? "机器人已连接" : "还没有机器人连接" }),
      h("p", { class: "quiet", text: connected ? `${gateway.connections} 条连接` : "先发的消息会等它，连上就送到。" }),
    ),
    way("机器人用的凭据", `Client ID      ${gateway.client_id}\nClient Secret  ${gateway.client_secret}`),
    way(
      "Python SDK（dingtalk-stream，代码不用改）",
      `export DINGTALK_OPENAPI_ENDPOINT=${gateway.url} NO_PROXY=127.0.0.1\npython bot.py`,
    ),
    way(
      "dingbridge（dingbridge.toml）",
      `[dingtalk]\nclient_id = "${gateway.client_id}"\nclient_secret = "${gateway.client_secret}"\n` +
        `api_base = "${gateway.url}"\noapi_base = "${gateway.url}"`,
    ),
    h("p", { class: "quiet", text: "Node SDK 要加几行代码，终端里有现成的。" }),
  );
}

function way(title, text) {
  return h("div", {}, h("h3", { text: title }), h("pre", { tabindex: "0", "aria-label": title, text }));
}
