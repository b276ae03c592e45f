// The demo's JSON API: what is read, what is asked for, and the event stream that tells of every change.

const RETRY_MS = 1000;

/** GET /api/state. */
export async function fetchState() {
  const response = await fetch("/api/state", { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`/api/state: ${response.status}`);
  return response.json();
}

/** POST; the answer's JSON, or an Error whose message may be shown. */
export async function post(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Error("演示程序没有回应，请看看终端里它是否还在运行。");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(typeof answer.error === "string" ? answer.error : `出错了（${response.status}）`);
  return answer;
}

/** Keeps the store up to date for as long as the page lives: each connection begins with the whole state. */
export function follow(store) {
  let waiting = null; // events that came while the state was still on its way
  const source = new EventSource("/api/events");

  async function load() {
    const mine = (waiting = []);
    let state;
    try {
      state = await fetchState();
    } catch {
      again();
      return;
    }
    if (waiting !== mine) return; // a newer load is under way
    waiting = null;
    store.replace(state);
    mine.forEach((event) => store.apply(event));
    store.setOnline(true);
  }

  source.addEventListener("open", load);
  source.addEventListener("message", ({ data }) => {
    const event = JSON.parse(data);
    if (event.type === "reset") load();
    else if (waiting !== null) waiting.push(event);
    else store.apply(event);
  });
  source.addEventListener("error", () => {
    store.setOnline(false);
    if (source.readyState === EventSource.CLOSED) again(); // the browser gives up after an HTTP error, we do not
  });

  function again() {
    source.close();
    store.setOnline(false);
    setTimeout(() => follow(store), RETRY_MS);
  }
}
