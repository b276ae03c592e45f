// Behind the chat: the wire, the daemon and the faults, one tab each.

import { h, icon, setText } from "./dom.js";

export class Panel {
  /** `tabs`: [{id, title, view}], where view.element is what the tab shows and view.shown() is told when it appears. */
  constructor(element, tabs, screens) {
    this.tabs = tabs;
    this.buttons = tabs.map((tab, index) => this.#button(tab, index));
    this.sheets = tabs.map((tab) =>
      h(
        "div",
        { class: "sheet", id: `sheet-${tab.id}`, role: "tabpanel", "aria-labelledby": `tab-${tab.id}`, tabindex: "0" },
        tab.view.element,
      ),
    );
    element.replaceChildren(
      h(
        "div",
        { class: "panel-head" },
        h(
          "button",
          {
            type: "button",
            class: "only-small square",
            "aria-label": "返回聊天",
            on: { click: () => screens.show("chat") },
          },
          icon("back"),
        ),
        h("div", { class: "tabs", role: "tablist", "aria-label": "后台" }, this.buttons),
      ),
      ...this.sheets,
    );
    this.select(tabs[0].id);
  }

  #button(tab, index) {
    return h("button", {
      type: "button",
      role: "tab",
      id: `tab-${tab.id}`,
      "aria-controls": `sheet-${tab.id}`,
      text: tab.title,
      on: { click: () => this.select(tab.id), keydown: (event) => this.#move(event, index) },
    });
  }

  #move(event, index) {
    const there = this.tabs.map((_, one) => one).filter((one) => !this.buttons[one].hidden);
    const at = there.indexOf(index);
    const target = {
      ArrowRight: there[(at + 1) % there.length],
      ArrowLeft: there.at(at - 1),
      Home: there[0],
      End: there.at(-1),
    }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    this.select(this.tabs[target].id);
    this.buttons[target].focus();
  }

  rename(id, title) {
    setText(this.buttons[this.tabs.findIndex((tab) => tab.id === id)], title);
  }

  /** A tab that has nothing to show here is left out. */
  offer(id, there) {
    const index = this.tabs.findIndex((tab) => tab.id === id);
    this.buttons[index].hidden = !there;
    if (!there && !this.sheets[index].hidden) this.select(this.tabs[0].id);
  }

  shows(id) {
    return this.tabs.some((tab, index) => tab.id === id && !this.sheets[index].hidden);
  }

  select(id) {
    this.tabs.forEach((tab, index) => {
      const chosen = tab.id === id;
      this.buttons[index].setAttribute("aria-selected", String(chosen));
      this.buttons[index].tabIndex = chosen ? 0 : -1;
      this.sheets[index].hidden = !chosen;
      if (chosen) tab.view.shown?.();
    });
  }
}
