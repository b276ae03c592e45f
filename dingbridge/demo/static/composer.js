// Where one writes, and sends pictures, files and voice; what is quoted or about to be sent stands above the line.

import { h, icon, setText } from "./dom.js";
import { size } from "./messages.js";
import { post } from "./server.js";

const PICTURES = ["image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp"];
const MOST = 24 * 1024 * 1024;

export class Composer {
  /** `main`: its input carries the id that the skip link goes to. `speaker()`: who writes. `sent()`: to be told. */
  constructor(store, chat, { main, speaker, speakAs, sent }) {
    this.store = store;
    this.chat = chat;
    this.group = chat.kind === "group";
    this.speaker = speaker;
    this.sent = sent;
    this.quote = null; // the message that is answered to
    this.pending = null; // the File that goes out next
    this.voice = false;
    this.input = h("textarea", {
      id: main ? "ask" : null,
      rows: "1",
      maxlength: "20000",
      enterkeyhint: "send",
      "aria-label": `发消息到${chat.title}`,
      on: { input: () => this.#typed(), keydown: (event) => this.#key(event), paste: (event) => this.#pasted(event) },
    });
    this.input.value = store.drafts.get(chat.id) ?? "";
    this.error = h("p", { class: "error", role: "alert" });
    this.above = h("div", { class: "above" });
    this.element = h(
      "form",
      { class: "composer", on: { submit: (event) => this.#submit(event) } },
      h(
        "div",
        { class: "quick", role: "group", "aria-label": "试着问" },
        store.quick.map((text) => h("button", { type: "button", class: "chip", text, on: { click: () => this.say(text) } })),
      ),
      this.above,
      h("div", { class: "write" }, this.group ? this.#speakers(speakAs) : null, this.#attaching(), this.input, send()),
      this.error,
      h("p", {
        class: "hint",
        text: this.group ? "群里的话会自动 @机器人。Enter 发送，Shift + Enter 换行" : "Enter 发送，Shift + Enter 换行",
      }),
    );
    this.#place();
  }

  #speakers(speakAs) {
    const select = h(
      "select",
      { "aria-label": "以谁的身份说话", on: { change: () => speakAs(select.value) } },
      this.chat.people.map((id) =>
        h("option", { value: id, text: this.store.nick(id), selected: id === this.speaker() }),
      ),
    );
    return select;
  }

  /** A group's robot gets pictures only; the bare bot reads text only. */
  #attaching() {
    if (this.chat.bot === "bare") return null;
    const word = this.group ? "发图片" : "发图片或文件";
    this.files = h("input", {
      type: "file",
      hidden: true,
      accept: this.group ? PICTURES.join(",") : null,
      "aria-label": word,
      on: { change: () => this.#chosen(this.files.files) },
    });
    const attach = h(
      "button",
      { type: "button", class: "square", "aria-label": word, title: word, on: { click: () => this.files.click() } },
      icon("attach"),
    );
    this.talk = this.group
      ? null
      : h(
          "button",
          {
            type: "button",
            class: "square",
            "aria-label": "发语音",
            "aria-pressed": "false",
            title: "发语音：写下钉钉识别出的文字",
            on: { click: () => this.#talk(!this.voice) },
          },
          icon("voice"),
        );
    return h("div", { class: "attaching" }, this.files, attach, this.talk);
  }

  #talk(on) {
    this.voice = on;
    this.talk?.setAttribute("aria-pressed", String(on));
    this.#place();
    this.input.focus();
  }

  #place() {
    const usual = this.group ? `@${this.chat.bot_name} 问点什么…` : "问点什么，回车发送";
    this.input.placeholder = this.voice ? "语音里说了什么（钉钉识别出的文字）" : usual;
  }

  #chosen(files) {
    const file = files?.[0];
    if (this.files) this.files.value = "";
    if (!file) return;
    setText(this.error, "");
    if (this.group && !PICTURES.includes(file.type)) {
      setText(this.error, "在群里，机器人只收得到文字和图片；文件和语音请在单聊里发。");
      return;
    }
    if (file.size > MOST) {
      setText(this.error, `文件太大（${size(file.size)}），这里最多 24 MB。`);
      return;
    }
    this.pending = file;
    this.#showAbove();
    this.input.focus();
  }

  /** Of a drop on the chat. */
  take(files) {
    if (this.files) this.#chosen(files);
  }

  #pasted(event) {
    const files = event.clipboardData?.files;
    if (!this.files || !files?.length) return;
    event.preventDefault();
    this.#chosen(files);
  }

  answerTo(message) {
    this.quote = message;
    this.#showAbove();
    this.input.focus();
  }

  #showAbove() {
    const { pending, quote } = this;
    const drop = (label, act) =>
      h(
        "button",
        { type: "button", class: "square small", "aria-label": label, on: { click: act } },
        icon("cross"),
      );
    this.above.replaceChildren(
      ...[
        quote
          ? h(
              "p",
              { class: "going" },
              icon("quote"),
              h("span", { text: `引用 ${quote.nick || this.store.nick(quote.from)}：${one(quote)}` }),
              drop("不引用", () => this.#drop("quote")),
            )
          : null,
        pending
          ? h(
              "p",
              { class: "going" },
              icon(PICTURES.includes(pending.type) ? "picture" : "file"),
              h("span", { text: `${pending.name}（${size(pending.size)}）` }),
              drop("不发这个文件", () => this.#drop("pending")),
            )
          : null,
      ].filter(Boolean),
    );
  }

  #drop(what) {
    this[what] = null;
    this.#showAbove();
    this.input.focus();
  }

  /** Enter sends, Shift+Enter breaks the line; Enter that ends an input method's choice does neither. */
  #key(event) {
    if (event.key === "Escape" && (this.quote || this.pending || this.voice)) {
      event.preventDefault();
      this.quote = this.pending = null;
      if (this.voice) this.#talk(false);
      this.#showAbove();
      return;
    }
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this.#submit(event);
  }

  #submit(event) {
    event.preventDefault();
    this.input.focus();
    const text = this.input.value.trim();
    const { pending, quote, voice } = this;
    if (text === "" && !pending && !voice) return;
    this.input.value = "";
    this.quote = this.pending = null;
    if (voice) this.#talk(false);
    this.#showAbove();
    this.#typed();
    if (voice) this.#send({ kind: "audio", text });
    else if (pending) this.#sendFile(pending, text, quote);
    else this.say(text, { typed: true, quote });
  }

  /** A picture takes the words along, as DingTalk's rich text; behind a file they are a message of their own. */
  #sendFile(file, text, quote) {
    const picture = PICTURES.includes(file.type);
    this.#send({ kind: picture ? "picture" : "file", text: picture ? text : "" }, file);
    if (!picture && text) this.say(text, { typed: true, quote });
  }

  say(text, { typed = false, quote = null } = {}) {
    this.#queue(
      () => post("/api/say", { chat: this.chat.id, as: this.speaker(), text, ...(quote ? { quote: quote.id } : {}) }),
      typed ? text : "",
    );
  }

  #send(body, file = null) {
    this.#queue(async () => {
      const content = file ? await base64(file) : "";
      const named = { name: file?.name ?? "", content_type: file?.type ?? "", content };
      await post("/api/send", { chat: this.chat.id, as: this.speaker(), ...named, ...body });
    }, body.text);
  }

  /** Something else that is done in this chat: a button that is pressed. */
  act(work) {
    this.#queue(work, "");
  }

  /** One after the other, in the order they were written; what could not be sent comes back into an empty input. */
  #queue(work, text) {
    this.sending = (this.sending ?? Promise.resolve()).then(async () => {
      setText(this.error, "");
      try {
        await work();
        this.sent();
      } catch (error) {
        setText(this.error, error.message);
        if (text && this.input.value === "") this.input.value = text;
        this.#typed();
      }
    });
  }

  #typed() {
    this.store.drafts.set(this.chat.id, this.input.value);
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight, 140)}px`;
  }
}

function send() {
  return h(
    "button",
    { type: "submit", class: "primary send", "aria-label": "发送" },
    icon("send"),
    h("span", { text: "发送" }),
  );
}

function one(message) {
  const text = (message.text || message.file?.name || "").replace(/[#*>`|]/g, "").replace(/\s+/g, " ").trim();
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(String(reader.result).split(",", 2)[1] ?? ""));
    reader.addEventListener("error", () => reject(new Error("浏览器读不了这个文件。")));
    reader.readAsDataURL(file);
  });
}
