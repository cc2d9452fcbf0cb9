// What the page asks the API. Nothing is decided here: what is refused is told in the API's own words.

/** A refusal or a failure, as RFC 9457 has it; `status` 0: nobody answered. */
export class Problem extends Error {
  constructor(status, told) {
    super(told.detail || told.message || told.title || "no reason is given");
    this.status = status;
    this.what = told.what;
    this.why = told.why;
    this.todo = told.todo;
  }
}

const PATIENCE_MS = 70_000;

/** Why an answer is none, in its own words where it has some. */
export function refusal({ status, headers }, text) {
  if (status === 429) return new Problem(status, { detail: "There were too many wrong tokens from this address: wait a minute." });
  if (!isJson(headers)) return new Problem(status, { detail: text.trim() || `The cluster answered with status ${status}.` });
  try {
    return new Problem(status, JSON.parse(text));
  } catch {
    return new Problem(status, { detail: "The answer cannot be read." });
  }
}

const isJson = (headers) => /json/.test(headers.get("Content-Type") || "");

/** The value of an answer: JSON, or text. `body` is sent as JSON; `signal` gives the answer up. */
export async function ask(method, path, body, signal = null) {
  const patience = AbortSignal.timeout(PATIENCE_MS);
  const request = { method, cache: "no-store", signal: signal ? AbortSignal.any([signal, patience]) : patience, headers: {} };
  if (body !== undefined) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let response, text;
  try {
    response = await fetch(`/api/v2${path}`, request);
    text = await response.text();
  } catch {
    throw new Problem(0, { detail: "The cluster does not answer; what was asked may still have happened." });
  }
  if (!response.ok) throw refusal(response, text);
  if (!isJson(response.headers)) return text;
  try {
    return JSON.parse(text);
  } catch {
    throw new Problem(response.status, { detail: "The answer cannot be read." });
  }
}

/** A path of the API whose parts may hold anything. */
export function path(...parts) {
  return parts.map((part) => `/${encodeURIComponent(part)}`).join("");
}

/** Opens a session; whether the token was one. */
export async function logIn(token) {
  let response;
  try {
    response = await fetch("/api/v1/auth/login", {
      method: "POST",
      body: new URLSearchParams({ token }),
      redirect: "manual",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
  } catch {
    throw new Problem(0, { detail: "The cluster does not answer." });
  }
  if (response.status === 401 || response.status === 400) return false;
  // The session's cookie came with the redirection, which leads nowhere that a page wants to go.
  if (response.ok || response.type === "opaqueredirect") return true;
  throw refusal(response, await response.text().catch(() => ""));
}

export async function logOut() {
  const request = { method: "POST", redirect: "manual", signal: AbortSignal.timeout(PATIENCE_MS) };
  await fetch("/api/v1/auth/logout", request).catch(() => {});
}
