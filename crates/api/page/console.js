// A VM's serial console: bytes between the API's WebSocket and a document of its own that shows them. This module looks at none of them.

import { html, nothing } from "./vendor/lit-html.js";
import { Line, lineOf, MOST_SENT } from "./line.js";
import { may } from "./may.js";
import { button, panel } from "./parts.js";

export function serialConsole(vm) {
  const mine = lineOf(Console, vm.uuid);
  if (!may("operate") || (!mine && !vm.running_on?.length)) return nothing;
  const name = vm.name ?? vm.uuid;
  if (!mine) {
    const offer = html`<p class="dim">A terminal on the VM's serial line, for one person at a time.</p>`;
    return panel("Serial console", offer, button("Open", () => new Console(vm.uuid, name).open(), { label: `Open the serial console of ${name}` }));
  }
  const isTaken = mine.refusal?.status === 409 && vm.running_on?.length;
  const take = isTaken ? button("Take it", () => mine.open("&force=true"), { dangerous: true, label: `Take the serial console of ${name}` }) : nothing;
  return mine.panel(nothing, "Enter, if nothing is shown. Ctrl and ] leads back to this page.", take);
}

class Console extends Line {
  route = "console";
  title = "Serial console";
  noun = "serial console";
  document = new URL("./terminal.html", import.meta.url).href;
  mostUnshown = 1 << 20;
  /** Whoever had it has not lost it yet, nobody can say, there is no place. */
  mayPass = [409, 500, 503, 504];

  /** The first line, and each after a move, say of whom and where it is; others say what has happened. */
  said(text) {
    this.lastWord = text;
    if (this.state !== "open" || text.startsWith("VM ")) this.opened(text);
    else this.tell(text);
  }

  came(bytes) {
    if (this.unshown + bytes.length > this.mostUnshown) {
      this.missed += bytes.length;
      if (!this.note) this.tell("The guest prints faster than this browser shows it: some of it is left out.");
      return;
    }
    this.unshown += bytes.length;
    this.post({ printed: bytes, missed: this.missed });
    this.missed = 0;
  }

  fromFrame({ typed }) {
    if (!(typed instanceof Uint8Array)) return;
    if (!this.isOpen) return this.tell("Nothing is typed while the console is not open.");
    if (typed.length > MOST_SENT) return this.tell("Nothing was pasted: at most 64 KiB are at once.");
    if (this.socket.bufferedAmount > MOST_SENT) return this.tell("The connection is slow: this was not typed.");
    this.socket.send(typed);
    this.tell(null);
  }
}
