"""What every visit needs: who visits, and where and how long is waited."""

import pathlib
import sys

from playwright.sync_api import expect

URL, TOKEN, ZOOKEEPER, DEFINITION, NODE = sys.argv[1:6]
SHOTS = pathlib.Path(sys.argv[6]) if len(sys.argv) > 6 else None
# A browser, three nodes and their guests share two processors with other tests.
SOON, PATIENCE = 60_000, 120_000

expect.set_options(timeout=SOON)


class Visitor:
    """A browser profile whose pages must not break a rule of their own."""

    def __init__(self, browser, **options):
        self.context = browser.new_context(**options)
        self.complaints = []
        # Something that is forbidden is tried.
        self.quiet = False

    def tab(self):
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(error.stack))
        page.on("dialog", lambda dialog: self.complaints.append(f"a dialog: {dialog.message}"))
        page.on("console", lambda line: self.listen(line.text))
        page.on("request", lambda request: self.check(request.url))
        page.goto(URL)
        return page

    def listen(self, line):
        if not self.quiet and ("Content Security Policy" in line or "Trusted" in line):
            self.complaints.append(line)

    def check(self, url):
        if not url.startswith(URL) and not self.quiet:
            self.complaints.append(f"a request to {url}")

    def leave(self):
        assert not self.complaints, self.complaints
        self.context.close()


def log_in(page, token=TOKEN):
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()


def go(page, place, heading):
    page.evaluate(f"location.hash = '#/{place}'")
    expect(page.get_by_role("heading", level=1, name=heading)).to_be_visible()


def row(page, name):
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def shot(page, name):
    if SHOTS:
        page.screenshot(path=SHOTS / f"{name}.png")


def confirm(page, button, **fields):
    dialog = page.get_by_role("dialog")
    for label, value in fields.items():
        dialog.get_by_label(label.replace("_", " "), exact=False).first.fill(value)
    dialog.get_by_role("button", name=button, exact=True).click()
    expect(dialog).to_be_hidden()


def make_token(page, name, role):
    """A token of the state tree."""
    answer = page.request.post(
        f"{URL}api/v2/tokens", headers={"X-Api-Key": TOKEN}, data={"name": name, "role": role}
    )
    assert answer.status == 201, answer.text()
    return answer.json()["token"]
