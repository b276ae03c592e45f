// What an empty chat says: what this is, and what can be done here.

import { h } from "./dom.js";

export function greeting(chat, store) {
  const { title, text } = opening(chat, store);
  const hints = [
    store.tour_available ? ["第一次来？", tourLink()] : null,
    ["想看里面？", "“线路”里是每一帧、每次确认和每条回复。"],
    chat.bot === "bare" ? null : ["想弄坏它？", "“故障”里可以断线、强杀进程、让知识库停机。"],
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
  if (store.mode !== "demo") return { title: "等您的机器人来答", text: "把它接到这个替身网关上，然后在下面写一句。" };
  const title = chat.kind === "group" ? "三个人和一个机器人" : "问一句试试";
  if (store.ownSetting) return { title, text: "在下面写一句，按您自己的设置作答。" };
  return { title, text: "点下面的问题，或者自己写一句。答案摘自 12 份示例制度，并注明出处。" };
}
