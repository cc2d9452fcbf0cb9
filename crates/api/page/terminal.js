// The screen of a serial console, in a document that has no origin, no session and no way to anywhere but the port that its page hands it: what a
// guest prints is a stranger's text. Nothing of it becomes a title, a link, a sound or something in the clipboard.

import { Terminal } from "./vendor/xterm.js";

// What systems take a serial line for: it tells them no size.
const COLUMNS = 80;
const ROWS = 24;
const [SMALLEST, LARGEST] = [5, 16];

/** Operating system commands that are taken away from it: titles, links, notifications, the clipboard. */
const IGNORED = [0, 1, 2, 8, 9, 52, 99, 777, 1337];
/** Ends whatever sequence has begun. */
const CANCEL = "\x18";

const terminal = new Terminal({
  cols: COLUMNS,
  rows: ROWS,
  scrollback: 5000,
  fontFamily: 'ui-monospace, "SF Mono", "DejaVu Sans Mono", Menlo, monospace',
  fontSize: LARGEST,
  linkHandler: { activate() {} },
  logLevel: "off",
  theme: { background: "#101415", foreground: "#d6e2df" },
});
for (const command of IGNORED) terminal.parser.registerOscHandler(command, () => true);

const screen = document.getElementById("screen");
terminal.open(screen);
terminal.textarea.setAttribute("aria-label", "Types to the guest; Control and ] leaves it");

let port = null;

// --- what is typed

const encoder = new TextEncoder();
/** The largest paste. */
const MOST_TYPED = 64 * 1024;
let parts = [];
let size = 0;

/** Told at once, but as one: a guest may ask its terminal for a million answers. What is too much for one is told as it is, and refused. */
function type(bytes) {
  if (size > MOST_TYPED) return;
  if (parts.length === 0) queueMicrotask(tell);
  parts.push(bytes);
  size += bytes.length;
}

function tell() {
  if (!port || size === 0) return;
  const typed = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    typed.set(part, at);
    at += part.length;
  }
  [parts, size] = [[], 0];
  port.postMessage({ typed });
}

terminal.onData((text) => type(encoder.encode(text)));
// Reports of the mouse are no text.
terminal.onBinary((text) => type(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
terminal.attachCustomKeyEventHandler((event) => {
  // As `pvc vm console`. Tab is the guest's, so something else has to lead out.
  if (!event.ctrlKey || event.key !== "]") return true;
  event.preventDefault();
  if (event.type === "keydown") port?.postMessage({ left: true });
  return false;
});

// --- what is printed

window.addEventListener("message", ({ source, ports }) => {
  if (source !== parent || port || ports.length !== 1) return;
  port = ports[0];
  port.onmessage = ({ data }) => hear(data);
  port.postMessage({ isThere: true });
  // What was typed before the page was there to take it.
  tell();
});

function hear({ printed, missed, focus }) {
  if (missed) terminal.write(`${CANCEL}\x1b[m\r\n`);
  if (printed) terminal.write(printed, () => port.postMessage({ shown: printed.length }));
  if (focus) terminal.focus();
}

// Whoever comes back to this document comes back to the guest, also when a dialog of the page has taken the keyboard.
window.addEventListener("focus", () => terminal.focus());

// --- its size

function fit() {
  const { clientWidth: width, clientHeight: height } = screen;
  const grid = screen.querySelector(".xterm-screen");
  for (let size = LARGEST; size >= SMALLEST; size -= 1) {
    terminal.options.fontSize = size;
    if (grid.offsetWidth + 24 <= width && grid.offsetHeight + 6 <= height) return;
  }
}

window.addEventListener("resize", fit);
fit();
