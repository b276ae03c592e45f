// What the page can do beyond its form: vote without a reload, copy the code, print. Without this it stays whole.
"use strict";

const copy = document.getElementById("copy");
const print = document.getElementById("print");
const form = document.querySelector("#feedback form");

if (copy) {
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    const code = document.getElementById("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      // Only secure origins have a clipboard; what is selected can always be copied.
      getSelection().selectAllChildren(code);
      if (!document.execCommand("copy")) return;
      getSelection().removeAllRanges();
    }
    copy.textContent = copy.dataset.done;
  });
}

if (print) {
  print.hidden = false;
  print.addEventListener("click", () => window.print());
}

let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const one of closed) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of closed) one.open = false;
});

if (form) {
  const status = form.querySelector("[role=status]");
  const reason = document.getElementById("reason");
  let pressed = reason; // older browsers do not say which button sent a form
  form.addEventListener("click", (event) => { pressed = event.target.closest("button") ?? pressed; });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { value } = event.submitter ?? pressed;
    const body = new URLSearchParams({ verdict: value, comment: form.elements.comment.value });
    let kept = false;
    try {
      const answer = await fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" } });
      kept = answer.ok;
    } catch {
      // No network: told below.
    }
    status.textContent = kept ? form.dataset[value === "good" ? "keptGood" : "keptBad"] : form.dataset.notKept;
    if (!kept) return;
    for (const button of form.querySelectorAll(".verdicts button")) {
      button.setAttribute("aria-pressed", String(button.value === value));
    }
    reason.value = value;
    reason.hidden = false;
  });
}
