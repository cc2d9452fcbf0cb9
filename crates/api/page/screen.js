// A VM's screen (VNC): RFB between the API's WebSocket and a document of its own that shows it. This module looks at none of it. RFB cannot be resumed:
// after a move the screen is opened again, and drawn anew.

import { html, nothing } from "./vendor/lit-html.js";
import { Line, lineOf, MOST_SENT } from "./line.js";
import { may } from "./may.js";
import { button, panel } from "./parts.js";

/** What a browser may have waiting for a slow connection: who waits longer has lost what it was about. */
const MOST_WAITING = 1 << 20;

export function screen(vm) {
  const mine = lineOf(Screen, vm.uuid);
  if (!may("operate") || (!mine && !vm.running_on?.length)) return nothing;
  const name = vm.name ?? vm.uuid;
  const named = (text) => ({ label: `${text} ${name}` });
  if (!mine) {
    // The definition may have been changed since the VM was started: it is offered all the same.
    const has = /<graphics\s[^>]*type=['"]vnc['"]/.test(vm.xml ?? "");
    const offer = has
      ? html`<p class="dim">The VM's display, keyboard and mouse, for up to four people at a time.</p>`
      : html`<p class="dim">Its definition has no VNC display. Give it <code>&lt;graphics type='vnc' listen='127.0.0.1' autoport='yes' sharePolicy='force-shared'/&gt;</code> among its devices, and restart it.</p>`;
    return panel("Screen", offer, button("Open", () => new Screen(vm.uuid, name).open(), named("Open the screen of")));
  }
  const full = document.fullscreenEnabled ? button("Full screen", () => mine.frame?.requestFullscreen(), named("Full screen of")) : nothing;
  const buttons = html`${button("Ctrl-Alt-Del", () => mine.post({ keys: "Ctrl-Alt-Del" }), named("Send Ctrl-Alt-Del to"))}
    ${button(mine.isScaled ? "Actual size" : "Fit", () => mine.scale(!mine.isScaled), named(mine.isScaled ? "Actual size of the screen of" : "Fit the screen of"))}
    ${full}`;
  return mine.panel(buttons, "Ctrl and ] leads back to this page.");
}

class Screen extends Line {
  route = "screen";
  title = "Screen";
  noun = "screen";
  document = new URL("./monitor.html", import.meta.url).href;
  mostUnshown = 32 << 20;
  /** Nobody can say, there is no place. What has no screen, and a VM that is off, stay so. */
  mayPass = [500, 503, 504];
  isScaled = true;
  /** Nothing was shown since it was opened. */
  isFresh = true;

  open(query) {
    this.isFresh = true;
    super.open(query);
  }

  /** Nothing is said in words but a refusal. */
  said() {}

  came(bytes) {
    if (this.state !== "open") {
      this.isFresh = true;
      this.opened("Open.");
    }
    // A screen sends what was asked for, so only something else sends this much.
    if (this.unshown + bytes.length > this.mostUnshown) return this.fail("More came than this browser can show.");
    this.unshown += bytes.length;
    this.post({ shown: bytes, isFresh: this.isFresh, isScaled: this.isScaled });
    this.isFresh = false;
  }

  scale(isScaled) {
    this.isScaled = isScaled;
    this.post({ isScaled });
    this.tell(null);
  }

  fromFrame({ done, failed }) {
    if (done instanceof Uint8Array && this.isOpen) {
      if (this.socket.bufferedAmount > MOST_WAITING) return this.fail("The connection is too slow for it.");
      for (let at = 0; at < done.length; at += MOST_SENT) this.socket.send(done.subarray(at, at + MOST_SENT));
    }
    if (typeof failed === "string") this.fail(failed.slice(0, 200));
  }
}
