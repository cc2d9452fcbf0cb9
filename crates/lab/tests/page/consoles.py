"""Consoles and screens of the VM `page`."""

import re
import time

from playwright.sync_api import expect

from person import PATIENCE, SOON, URL, go, row, shot


def console(page):
    row(page, "page").get_by_role("link", name="page", exact=True).click()
    expect(page.get_by_role("heading", level=1, name="page")).to_be_visible()
    expect(page.get_by_role("log")).to_contain_text("LABGUEST ready", timeout=PATIENCE)
    expect(page.locator(".conclusion")).not_to_be_empty()
    shot(page, "vm")


def talk(page):
    """The screen of the console that is open on the page `page` of VMs; it is opened if it is not. One who has just left it may still have it."""
    begin = page.get_by_role("button", name="Open the serial console of page")
    again = page.get_by_role("button", name="Open again the serial console of page")
    end = time.monotonic() + SOON / 1000
    while time.monotonic() < end:
        expect(page.locator(".talk.open, .talk.ended").or_(begin).first).to_be_visible()
        if page.locator(".talk.open").count():
            return page.frame_locator("iframe.screen").locator(".xterm-rows")
        (begin if begin.count() else again).click()
        expect(page.locator(".talk.open, .talk.ended")).to_be_visible()
    raise AssertionError("the console does not open")


def answers(page, screen, number):
    """Whoever types there is answered by the guest's system."""
    page.frame_locator("iframe.screen").locator("textarea").focus()
    page.keyboard.type(f"\necho sum=$(({number} + 1))\n")
    expect(screen).to_contain_text(f"sum={number + 1}", timeout=PATIENCE)


def monitor(page):
    """The screen of the VM `page`, when there is something on it."""
    canvas = page.frame_locator("iframe.of-screen").locator("canvas").first
    expect(canvas).to_be_visible(timeout=PATIENCE)
    colours = """canvas => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const seen = new Set();
        for (let at = 0; at < data.length; at += 4) seen.add((data[at] << 16) | (data[at + 1] << 8) | data[at + 2]);
        return seen.size;
    }"""
    end = time.monotonic() + PATIENCE / 1000
    while canvas.evaluate(colours) < 2:
        assert time.monotonic() < end, "there is nothing on the screen"
        time.sleep(0.2)
    return canvas


def screen(page):
    """Seen, in both sizes; its document can do nothing to the page. Nothing is typed: any key is the power button to the lab's guest."""
    page.get_by_role("button", name="Open the screen of page").click()
    expect(page.locator(".talk.open")).to_contain_text("Open.")
    monitor(page)
    page.locator("iframe.of-screen").scroll_into_view_if_needed()
    shot(page, "screen")
    page.get_by_role("button", name="Actual size of the screen of page").click()
    page.get_by_role("button", name="Fit the screen of page").click()
    expect(page.get_by_role("button", name="Send Ctrl-Alt-Del to page")).to_be_visible()
    frame = next(frame for frame in page.frames if "monitor.html" in frame.url)
    assert frame.evaluate("self.origin") == "null"
    page.get_by_role("button", name="Close the screen of page").click()
    expect(page.locator(".talk")).to_have_count(0)


def keys(page, uuid):
    """What is typed on the screen reaches the guest, whose system takes any key for its power button; one leads back to the page."""
    page.bring_to_front()
    go(page, f"vms/{uuid}", "page")
    page.get_by_role("button", name="Open the screen of page").click()
    monitor(page).click()
    page.keyboard.press("Control+]")
    expect(page.get_by_role("button", name="Close the screen of page")).to_be_focused()
    expect(page.get_by_role("log")).to_contain_text("LABGUEST power button", timeout=PATIENCE)
    page.get_by_role("button", name="Close the screen of page").click()


def serial_console(page, other, visitor, uuid):
    """Typed, pasted, printed by a guest that means harm, left, taken by another tab."""
    screen = talk(page)
    expect(page.locator(".talk")).to_contain_text(re.compile("VM page on node[123]"))
    answers(page, screen, 41)
    page.locator("iframe.screen").scroll_into_view_if_needed()
    shot(page, "console")
    # Pasted: as the browser's own event, which takes no permission.
    screen.locator("xpath=ancestor::main").locator("textarea").evaluate("""field => {
        const data = new DataTransfer();
        data.setData("text/plain", "echo pasted=$((5 * 5))\\n");
        field.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
    }""")
    expect(screen).to_contain_text("pasted=25")
    # A title, something for the clipboard, a link, HTML, a report of the title.
    evil = r"\033]0;owned\007\033]52;c;b3duZWQ=\007\033]8;;http://evil.example/\007press\055me\033]8;;\007\033[21t"
    page.keyboard.type(f"printf '{evil}\\n<img src=x onerror=window.hacked=1>\\n'\n")
    expect(screen.get_by_text(re.compile("^press-me"))).to_be_visible()
    screen.get_by_text(re.compile("^press-me")).click(force=True)
    inside = page.frame(url=re.compile("terminal.html"))
    assert "owned" not in page.title() + inside.title() and len(visitor.context.pages) == 2
    assert page.evaluate("window.hacked") is None and inside.evaluate("window.hacked") is None
    assert screen.locator("img, a").count() == 0
    # It is a document of nobody, which reaches nothing.
    assert inside.evaluate("window.origin") == "null"
    asked = "path => fetch(path).then(() => 'answered', () => 'refused')"
    visitor.quiet = True
    assert inside.evaluate(asked, f"{URL}api/v2/status") == "refused"
    visitor.quiet = False
    # What is printed faster than it is shown; Ctrl-C and Tab are the guest's. Chromium may have given that press to the page around the frame.
    page.frame_locator("iframe.screen").locator("textarea").focus()
    page.keyboard.type("seq 1 20000; echo last=$((20000 + 1))\n")
    expect(screen).to_contain_text("last=20001", timeout=PATIENCE)
    page.keyboard.type("sleep 1000\n")
    expect(screen).to_contain_text("sleep 1000")
    page.keyboard.press("Control+c")
    # What is typed before the prompt is thrown away by the guest, which ticks when it likes.
    expect(screen).to_contain_text(re.compile(r"sleep 1000(LABGUEST tick [\d. ]+)?(\^C)?\s*/ # "))
    page.keyboard.type("ls -d /pro")
    page.keyboard.press("Tab")
    page.keyboard.type("$((3 * 5))/../1\n")
    expect(screen).to_contain_text("/proc/15/../1")
    # This leaves it.
    page.keyboard.press("Control+]")
    expect(page.get_by_role("button", name="Close the serial console of page")).to_be_focused()

    go(other, f"vms/{uuid}", "page")
    other.get_by_role("button", name="Open the serial console of page").click()
    expect(other.get_by_role("alert")).to_contain_text("somebody has this console open")
    other.get_by_role("button", name="Take the serial console of page").click()
    answers(other, talk(other), 20)
    expect(page.locator(".talk.ended")).to_contain_text("somebody else has taken the console", timeout=PATIENCE)
    other.get_by_role("button", name="Close the serial console of page").click()
    expect(other.locator("iframe.screen")).to_have_count(0)
    go(other, "vms", "VMs")
    answers(page, talk(page), 30)
    # No title was typed as an answer.
    expect(screen).not_to_contain_text("not found")


def another_version(page):
    """The service has become another since this page was loaded: its files are gone."""
    page.route("**/terminal.html", lambda route: route.fulfill(status=404, body="none", content_type="text/plain"))
    page.reload()
    talk(page)
    expect(page.locator(".talk")).to_contain_text("Load the page again")
    page.get_by_role("button", name="Close the serial console of page").click()
    page.unroute("**/terminal.html")


def foreign_page(visitor):
    """A page of another port of the same machine, to whose WebSocket the browser gives the session's cookie, too."""
    elsewhere = URL.replace(":7370", ":7371")
    page = visitor.context.new_page()
    page.route(f"{elsewhere}**", lambda route: route.fulfill(body="<p>Nothing bad</p>", content_type="text/html"))
    page.goto(elsewhere)
    socket = URL.replace("http", "ws") + "api/v2/vms/page/console?inside=true"
    opened = """path => new Promise((done) => {
        const socket = new WebSocket(path);
        socket.onopen = () => {
            socket.close();
            done("opened");
        };
        socket.onerror = () => done("refused");
    })"""
    assert page.evaluate(opened, socket) == "refused"
    page.close()
    # The service's own page does.
    assert visitor.context.pages[0].evaluate(opened, socket) == "opened"
