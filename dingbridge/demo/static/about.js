// What is real here and what is not: it differs with how the demo was started.

/** One sentence for the head of the page. */
export function about({ mode, own, real_anythingllm }) {
  if (mode !== "demo") return "钉钉的替身：把您的机器人接上来，在这里和它对话。不需要钉钉账号。";
  const whose = own ? "按您自己的路由和处理器作答。" : "在钉钉里提问，由 AnythingLLM 查资料作答。";
  if (real_anythingllm) return `${whose}守护进程和 AnythingLLM 是真的，只有钉钉是替身。`;
  return `${whose}守护进程是真的，钉钉和 AnythingLLM 是替身：随便问，随便弄坏。`;
}

/** What stands below the chats: [real, stand-in]. */
export function parts({ mode, own, real_anythingllm }) {
  if (mode !== "demo") return ["您的机器人。", "钉钉（网关、会话 webhook、OpenAPI）。不访问互联网。"];
  const daemon = `dingbridge 守护进程、它的磁盘队列、每一条连接${own ? "，您的路由和处理器" : ""}`;
  if (real_anythingllm) return [`${daemon}，还有您的 AnythingLLM。`, "钉钉。"];
  return [`${daemon}。`, "钉钉，和只会摘抄员工手册的 AnythingLLM（不是大模型）。不访问互联网。"];
}
