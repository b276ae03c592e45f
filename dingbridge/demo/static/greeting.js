// What an empty chat says: what this is, and what can be done here.

import { h } from "./dom.js";

export function greeting(chat, store) {
  const { title, text } = opening(chat, store);
  const hints = [
    store.tour_available ? ["第一次来？", tourLink()] : null,
    store.own ? ["谁是谁？", roles(chat, store)] : null,
    ["想看里面？", "“线路”里是每一帧、每次确认和每条回复。"],
    chat.bot === "bare" ? null : ["想弄坏它？", breaking(store)],
  ];
  return h(
    "div",
    { class: "greeting" },
    h("h3", { text: title }),
    h("p", { text }),
    h(
      "ul",
      {},
      hints.filter(Boolean).map(([question, answer]) => h("li", {}, h("b", { text: question }), answer)),
    ),
  );
}

function roles(chat, { people }) {
  const here = people.filter(({ id }) => chat.people.includes(id));
  return `${here.map(({ nick, role }) => `${nick}是${role}`).join("，")}。`;
}

function breaking({ mode, faults }) {
  if (mode !== "demo") return "“故障”里可以断线、要求换连接、重复投递：看您的机器人受不受得住。";
  return `“故障”里可以断线、强杀进程${"down" in faults ? "、让知识库停机" : ""}。`;
}

function tourLink() {
  return h("button", {
    type: "button",
    class: "linklike",
    text: "看三分钟导览，每一步都说明发生了什么",
    on: { click: () => document.getElementById("tour-start").click() },
  });
}

function opening(chat, store) {
  if (chat.bot === "bare")
    return {
      title: "用来对比的机器人",
      text: "它照官方 SDK 的示例写成，和 dingbridge 连着同样的替身，只是问题都在内存里：进程一死，正在答的就没了。",
    };
  if (store.mode !== "demo") return { title: "等您的机器人来答", text: "“接入”里写着怎么连上来；然后在下面写一句。" };
  const title = chat.kind === "group" ? "三个人和一个机器人" : "问一句试试";
  if (store.real_anythingllm) return { title, text: "在下面写一句，由您的 AnythingLLM 作答。" };
  if (store.own) return { title, text: "在下面写一句，按您自己的路由和处理器作答。" };
  return { title, text: "点下面的问题，或者自己写一句。答案摘自 12 份示例制度，并注明出处。" };
}
