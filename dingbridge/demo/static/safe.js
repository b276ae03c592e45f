// A second wall behind the server's: rendered markdown is parsed in a document of its own, where nothing loads or runs,
// and only known elements with known attributes are copied over.

const ELEMENTS = new Set(
  (
    "A B BLOCKQUOTE BR CODE DEL DIV EM FONT H1 H2 H3 H4 H5 H6 HR I LI OL P PRE S SPAN STRONG TABLE TBODY TD TH THEAD TR " +
    "UL"
  ).split(" "),
);
const DROPPED = new Set("SCRIPT STYLE TEMPLATE IFRAME OBJECT EMBED SVG MATH NOSCRIPT HEAD TITLE".split(" "));
const COLOUR = /^#[0-9a-f]{3,8}$|^[a-z]{3,20}$/i;
const QUICK_REPLY = "dtmd://dingtalkclient/sendMessage?content=";

/** A fragment that shows `html`; `say(text)` is called when a quick-reply link is clicked. */
export function fragment(html, say) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  const out = document.createDocumentFragment();
  copyChildren(parsed.body, out, say);
  return out;
}

function copyChildren(from, to, say) {
  for (const child of from.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) to.append(child.data);
    else if (child.nodeType === Node.ELEMENT_NODE) copyElement(child, to, say);
  }
}

function copyElement(element, to, say) {
  const name = element.tagName.toUpperCase();
  if (DROPPED.has(name)) return;
  if (name === "IMG") {
    to.append(`[图片${element.alt ? `：${element.alt}` : ""}]`);
    return;
  }
  if (!ELEMENTS.has(name)) {
    copyChildren(element, to, say);
    return;
  }
  const copy = name === "A" ? link(element, say) : document.createElement(name === "FONT" ? "span" : name);
  if (name === "FONT" && COLOUR.test(element.color)) copy.style.color = element.color;
  if (name === "OL" && Number.isInteger(element.start)) copy.start = element.start;
  copyChildren(element, copy, say);
  to.append(name === "TABLE" ? scrolling(copy) : copy);
}

/** A link to http(s) in a new tab; a quick reply becomes a button; any other target is shown as plain text. */
function link(element, say) {
  const target = element.getAttribute("href") ?? "";
  if (target.startsWith(QUICK_REPLY)) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "linklike";
    button.addEventListener("click", () => say(decode(target.slice(QUICK_REPLY.length))));
    return button;
  }
  if (!/^https?:\/\//i.test(target)) return document.createElement("span");
  const copy = document.createElement("a");
  copy.href = target;
  copy.target = "_blank";
  copy.rel = "noopener noreferrer nofollow";
  return copy;
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function scrolling(table) {
  const box = document.createElement("div");
  box.className = "scroll";
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "表格，可以左右滚动");
  box.append(table);
  return box;
}
