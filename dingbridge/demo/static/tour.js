// The three-minute tour: a card that says what happens now, and leads the page to where it can be seen.

import { h, icon } from "./dom.js";
import { post } from "./server.js";

const PANELS = { wire: "wire", operator: "daemon" };

export class Tour {
  /** `lead.chats(ids)`, `lead.panel(id)`, `lead.screen(view)`, `lead.lines(lines)` show what the step is about. */
  constructor(store, element, startButton, lead) {
    this.store = store;
    this.element = element;
    this.lead = lead;
    this.startButton = startButton;
    startButton.addEventListener("click", () => this.#act("start"));
    element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#act("stop");
    });
    this.#build();
  }

  #build() {
    this.count = h("p", { class: "tour-count" });
    this.bar = h("progress", { "aria-label": "导览进度", value: "0", max: "1" });
    this.title = h("h2", { tabindex: "-1" });
    this.text = h("p", { class: "tour-text" });
    this.doing = h("p", { class: "tour-doing" });
    this.lines = h("ul", { class: "tour-lines" });
    this.next = h("button", { type: "button", class: "primary", id: "tour-next", on: { click: () => this.#next() } });
    this.stop = h("button", {
      type: "button",
      class: "plain",
      id: "tour-stop",
      text: "结束",
      on: { click: () => this.#act("stop") },
    });
    this.error = h("p", { class: "error", role: "alert" });
    this.element.replaceChildren(
      h("div", { class: "tour-where" }, this.count, this.bar),
      h("div", { class: "tour-what", role: "status" }, this.title, this.text, this.doing, this.lines, this.error),
      h("div", { class: "tour-buttons" }, this.next, this.stop),
    );
  }

  #next() {
    if (this.next.getAttribute("aria-disabled") === "true") return;
    this.#act(this.store.tour?.status === "done" ? "stop" : "next");
  }

  async #act(action) {
    this.error.textContent = "";
    try {
      await post("/api/tour", { action });
    } catch (error) {
      this.error.textContent = error.message;
    }
  }

  /** `before`: the tour as it was, to tell a new step from news about the same one. */
  refresh(before) {
    const { tour } = this.store;
    const wasHidden = this.element.hidden;
    this.element.hidden = tour === null;
    this.startButton.hidden = tour !== null || !this.store.tour_available;
    if (tour === null) {
      if (!wasHidden) this.#end();
      return;
    }
    this.#fill(tour);
    if (before?.step !== tour.step) this.#lead(tour);
    this.lead.lines(tour.result?.lines ?? []);
  }

  #fill(tour) {
    const busy = tour.status === "running";
    this.element.dataset.status = tour.status;
    this.count.textContent = `第 ${tour.step} 步，共 ${tour.of} 步`;
    this.bar.max = tour.of;
    this.bar.value = tour.step;
    if (this.title.textContent !== tour.title) this.title.textContent = tour.title;
    if (this.text.textContent !== tour.text) this.text.textContent = tour.text;
    const doing = busy ? (tour.doing ?? "") : "";
    if (this.doing.textContent !== doing) this.doing.textContent = doing;
    const lines = tour.result?.lines ?? [];
    this.lines.replaceChildren(...lines.map((line) => row(line, tour.result.command)));
    this.next.setAttribute("aria-disabled", String(busy));
    this.next.classList.toggle("busy", busy);
    this.stop.hidden = tour.status === "done";
    this.next.textContent = busy ? "进行中…" : tour.status === "done" ? "完成" : "继续";
  }

  #lead(tour) {
    this.lead.chats(tour.chats);
    if (PANELS[tour.panel]) this.lead.panel(PANELS[tour.panel]);
    // Where only one fits on the screen, two chats side by side are the point, and then the panel.
    this.lead.screen(PANELS[tour.panel] && tour.chats.length === 1 ? "panel" : "chat");
    if (!this.element.contains(document.activeElement)) this.next.focus({ preventScroll: true });
  }

  #end() {
    this.lead.lines([]);
    this.lead.chats(this.store.open.slice(0, 1));
    this.startButton.focus();
  }
}

/** A result; `command`, where the sentence holds it, stands out as something to type. */
function row({ ok, text }, command) {
  const at = command ? text.indexOf(command) : -1;
  const words =
    at === -1
      ? h("span", { text })
      : h("span", {}, text.slice(0, at), h("code", { text: command }), text.slice(at + command.length));
  return h("li", { data: { ok: String(ok) } }, icon(ok ? "check" : "cross"), words);
}
