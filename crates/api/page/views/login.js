import { logIn } from "../api.js";
import { sessionChanged, touch } from "../live.js";
import { html, nothing, problem } from "../parts.js";

let [refused, busy] = [null, false];

async function submit(event) {
  event.preventDefault();
  const input = event.target.elements.token;
  [refused, busy] = [null, true];
  touch();
  try {
    if (await logIn(input.value)) {
      input.value = "";
      busy = false;
      sessionChanged(true);
      return;
    }
    refused = { message: "This token is not one of the cluster's." };
    input.select();
  } catch (told) {
    refused = told;
  }
  busy = false;
  touch();
}

export function login(hadSession) {
  return html`<main class="login">
    <form @submit=${submit}>
      <h1>pvc</h1>
      <p>${hadSession ? "The session is over. Log in again to go on where you were." : "A cluster of virtual machines."}</p>
      <label>Token <input name="token" type="password" autocomplete="current-password" required autofocus></label>
      ${refused ? problem(refused) : nothing}
      <button class="main" ?disabled=${busy}>Log in</button>
      <p class="dim">Tokens are in <code>pvc-api.yaml</code> on the coordinators. In a lab, <code>./lab up</code> prints one.</p>
    </form>
  </main>`;
}
