// What the page knows: the server's state, plus what only this visitor has chosen (chat, speaker, look, unread).

const WIRE_KEPT = 300;

export class Store extends EventTarget {
  online = null; // null until the first contact
  people = [];
  chats = [];
  messages = new Map(); // chat id → Map(message id → Message), in order of arrival
  wire = [];
  daemon = { running: false, pid: null, ready: false, status: null };
  faults = {};
  quota = {}; // what is billed, by pool
  robot = null; // how our robot shows itself, where that can be chosen
  tour = null;
  tour_available = false;
  quick = [];
  mode = "demo";
  own = false; // somebody's own routes and handlers
  real_anythingllm = false;
  gateway = null; // where a bot of one's own connects to
  open = []; // ids of the chats on screen, one or two
  seen = new Map(); // chat id → number of the bot's messages read
  drafts = new Map(); // chat id → what was typed and not sent
  speakers = new Map(); // chat id → person
  look = matchMedia("(max-width: 640px)").matches ? "phone" : "pc";

  /** Tells listeners of `name`: state, online, message, wire, daemon, faults, quota, robot, tour, gateway, open, look. */
  #tell(name, detail = null) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  on(name, listener) {
    this.addEventListener(name, ({ detail }) => listener(detail));
  }

  /** Takes GET /api/state. */
  replace(state) {
    if (!state) return;
    const first = this.chats.length === 0;
    const { messages, ...rest } = state;
    Object.assign(this, rest);
    this.messages = new Map(this.chats.map((chat) => [chat.id, new Map()]));
    for (const message of messages) this.messages.get(message.chat)?.set(message.id, message);
    for (const { id } of this.chats)
      this.seen.set(id, first ? this.#heard(id) : Math.min(this.seen.get(id) ?? 0, this.#heard(id)));
    this.open = this.open.filter((id) => this.chat(id));
    if (this.open.length === 0 && this.chats.length > 0) this.open = [this.chats[0].id];
    this.#tell("state", first);
  }

  /** Takes one event of GET /api/events. */
  apply(event) {
    if (event.type === "message") this.#putMessage(event.message);
    else if (event.type === "wire") this.#putWire(event.wire);
    else if (["daemon", "faults", "quota", "robot", "tour", "gateway"].includes(event.type)) this.#set(event.type, event[event.type]);
  }

  #set(name, value) {
    const before = this[name];
    this[name] = value;
    this.#tell(name, before);
  }

  #putMessage(message) {
    const inside = this.messages.get(message.chat);
    if (inside === undefined) return;
    inside.set(message.id, message);
    if (this.open.includes(message.chat) && !document.hidden) this.markSeen(message.chat);
    this.#tell("message", message);
  }

  #putWire(entry) {
    if (this.wire.some((known) => known.id === entry.id)) return; // it came with the state already
    this.wire.push(entry);
    if (this.wire.length > WIRE_KEPT) this.wire.splice(0, this.wire.length - WIRE_KEPT);
    this.#tell("wire", entry);
  }

  setOnline(online) {
    if (this.online === online) return;
    this.online = online;
    this.#tell("online");
  }

  chat(id) {
    return this.chats.find((chat) => chat.id === id);
  }

  nick(id) {
    return this.people.find((person) => person.id === id)?.nick ?? id;
  }

  /** One chat, or two side by side. */
  show(...ids) {
    this.open = ids.filter((id) => this.chat(id)).slice(0, 2);
    this.open.forEach((id) => this.markSeen(id));
    this.#tell("open");
  }

  markSeen(id) {
    this.seen.set(id, this.#heard(id));
  }

  unread(id) {
    return Math.max(0, this.#heard(id) - (this.seen.get(id) ?? 0));
  }

  #heard(id) {
    return [...(this.messages.get(id)?.values() ?? [])].filter((message) => message.from === "bot").length;
  }

  last(id) {
    return [...(this.messages.get(id)?.values() ?? [])].at(-1);
  }

  setLook(look) {
    this.look = look;
    this.#tell("look");
  }
}
