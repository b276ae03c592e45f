// Elements are built, never parsed from text: whatever a value holds, it is shown and not run.

/** An element. `props`: class, text, on: {event: listener}, data: {key: value}; anything else is an attribute;
 * null, undefined and false leave it out, true sets it empty. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name === "on")
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** A picture from icons.svg; it says nothing to a screen reader, the words beside it do. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `/static/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

const DRAWN = { "👍": ["good", "有用"], "👎": ["bad", "没用"] };

/** A thumb as a picture, since not every machine has one among its fonts; any other text stays. */
export function drawn(text) {
  const [name, words] = DRAWN[text] ?? [];
  return name ? [icon(name), h("span", { class: "unseen", text: words })] : [text];
}

/** Sets a text only when it differs, so that live regions stay silent and the layout stays put. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const pad = (number, width = 2) => String(number).padStart(width, "0");

/** Epoch ms as 14:03. */
export function clock(ms) {
  const at = new Date(ms);
  return `${pad(at.getHours())}:${pad(at.getMinutes())}`;
}

/** Epoch ms as minutes, seconds and thousandths, 03:07.042: what lies beside each other on the wire is that close. */
export function fineClock(ms) {
  const at = new Date(ms);
  return `${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
}

/** Seconds as 3 秒, 4 分钟, 2 小时. */
export function span(seconds) {
  if (seconds < 10) return `${Math.max(0, Math.round(seconds * 10) / 10)} 秒`;
  if (seconds < 60) return `${Math.round(seconds)} 秒`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} 分钟`;
  return `${Math.round(seconds / 3600)} 小时`;
}

/** The initials DingTalk puts on an avatar: the last two characters of a Chinese name. */
export function initials(name) {
  const characters = [...name.trim()];
  if (characters.length === 0) return "?";
  return /\p{Script=Han}/u.test(characters.at(-1)) ? characters.slice(-2).join("") : characters.slice(0, 2).join("");
}

/** One of six colours, always the same for a name. */
export function tint(name) {
  let sum = 0;
  for (const character of name) sum = (sum * 31 + character.codePointAt(0)) % 6007;
  return `tint-${sum % 6}`;
}

export function avatar(name, kind = "person") {
  if (kind === "person")
    return h("span", { class: `avatar ${tint(name)}`, "aria-hidden": "true", text: initials(name) });
  return h("span", { class: `avatar avatar-${kind}`, "aria-hidden": "true" }, icon(kind));
}
