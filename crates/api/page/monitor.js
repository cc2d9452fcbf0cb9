// A guest's screen, in a document that has no origin, no session and no way to anywhere but the port that its page hands it: what a guest shows, and
// calls itself, is a stranger's. Nothing of it becomes a title, a sound or something in the clipboard.

// noVNC asks the browser first what it can decode. Who listens for the page's port only after that may have missed it.
const loaded = Promise.all(["rfb.js", "util/logging.js"].map((name) => import(`./vendor/novnc/core/${name}`)));

const target = document.getElementById("screen");
const [ask, password, enter] = ["ask", "password", "enter"].map((id) => document.getElementById(id));

let port = null;
let RFB = null;
let rfb = null;
let channel = null;
let isScaled = true;

/** What noVNC takes for a connection. */
class Channel {
  binaryType = "arraybuffer";
  protocol = "";
  readyState = "open";
  onopen = null;
  onmessage = null;
  onerror = null;
  onclose = null;

  /** noVNC uses its buffer again. */
  send(bytes) {
    if (channel === this) port.postMessage({ done: new Uint8Array(bytes) });
  }

  close() {
    this.readyState = "closed";
    queueMicrotask(() => this.onclose?.({ code: 1000, reason: "" }));
  }
}

/** A new connection has nothing of the one before. */
function begin() {
  channel = null;
  rfb?.disconnect();
  target.replaceChildren();
  ask.hidden = true;
  channel = new Channel();
  const mine = (rfb = new RFB(target, channel, { shared: true }));
  Object.assign(mine, { scaleViewport: isScaled, clipViewport: !isScaled, dragViewport: false, resizeSession: false, background: "#101415" });
  mine.addEventListener("connect", () => document.hasFocus() && mine.focus());
  mine.addEventListener("credentialsrequired", ({ detail }) => {
    if (detail.types.some((type) => type !== "password")) return port.postMessage({ failed: "This screen wants more than a password, which this page cannot give." });
    password.value = "";
    ask.hidden = false;
    password.focus();
  });
  let why = "This page cannot show what came.";
  mine.addEventListener("securityfailure", () => (why = "The password was not right."));
  mine.addEventListener("disconnect", () => {
    // Not if another has begun.
    if (rfb === mine && channel) port.postMessage({ failed: why });
  });
}

function answer() {
  ask.hidden = true;
  rfb?.sendCredentials({ password: password.value });
  password.value = "";
  rfb?.focus();
}

enter.addEventListener("click", answer);
password.addEventListener("keydown", ({ key }) => key === "Enter" && answer());

window.addEventListener("message", async ({ source, ports }) => {
  if (source !== parent || port || ports.length !== 1) return;
  port = ports[0];
  const [{ default: viewer }, { initLogging }] = await loaded;
  RFB = viewer;
  // Some of what it says is the guest's.
  initLogging("none");
  // What has come meanwhile waits in the port.
  port.onmessage = ({ data }) => hear(data);
  port.postMessage({ isThere: true });
});

function hear({ shown, isFresh, isScaled: scaled, keys, focus }) {
  if (scaled !== undefined && scaled !== isScaled) {
    isScaled = scaled;
    if (rfb) Object.assign(rfb, { scaleViewport: isScaled, clipViewport: !isScaled });
  }
  if (shown) {
    if (isFresh) begin();
    channel?.onmessage?.({ data: shown.buffer });
    port.postMessage({ shown: shown.length });
  }
  if (keys === "Ctrl-Alt-Del") rfb?.sendCtrlAltDel();
  if (focus) rfb?.focus();
}

// As in the terminal: what is typed is the guest's, Tab too, so something else has to lead out.
window.addEventListener(
  "keydown",
  (event) => {
    if (!event.ctrlKey || event.key !== "]") return;
    event.preventDefault();
    event.stopImmediatePropagation();
    rfb?.blur();
    port?.postMessage({ left: true });
  },
  true,
);

// Whoever comes back to this document comes back to the guest.
window.addEventListener("focus", () => ask.hidden && rfb?.focus());
