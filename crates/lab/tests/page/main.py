#!/usr/bin/python3
"""A person with a browser: Chromium on the page that pvc-api serves, driven by Playwright.

Usage: main.py URL TOKEN ZOOKEEPER DEFINITION NODE [SCREENSHOTS]
DEFINITION is a file with the libvirt XML of a VM called `page`; it migrates to NODE. A file `cut` beside it names the node
whose power is to be cut. Ends with a traceback and a non-zero exit at the first thing that is not as it shall be.
"""

import pathlib
import re

from playwright.sync_api import sync_playwright

from accessible import accessible
from cluster import network, node, node_dies, primary_moves
from consoles import another_version, console, foreign_page, keys, screen, serial_console
from guests import copy, define, late_answer, migrate, run, stop, undefine
from person import DEFINITION, Visitor
from strangers import hostile_texts, login, roles, session_ends


def say(what):
    print(what, flush=True)


def main():
    uuid = re.search("<uuid>(.*)</uuid>", pathlib.Path(DEFINITION).read_text()).group(1)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        visitor = Visitor(browser)
        page = login(visitor)
        say("logged in")
        define(page)
        say("defined")
        copy(page)
        late_answer(page)
        say("a copy has disks of its own, and a late answer changes no other dialog")
        other = visitor.tab()
        run(page, other)
        say("runs")
        console(page)
        say("its console is seen")
        screen(page)
        say("its screen is seen")
        serial_console(page, other, visitor, uuid)
        say("its system answers what is typed, and can do nothing to the page")
        another_version(page)
        say("a page that is older than the service says so")
        foreign_page(visitor)
        say("a page of another site opens no console")
        migrate(page, other)
        say("migrated")
        node(page)
        say("a node was flushed and is ready")
        network(page)
        say("a network came and went")
        roles(browser, page, uuid)
        say("each is offered what it may do")
        hostile_texts(page, uuid)
        say("hostile texts do nothing")
        session_ends(page, visitor, uuid)
        say("an ended session is followed by a login")
        accessible(browser, uuid)
        say("every view is accessible")
        primary_moves(page, other, uuid)
        say("the page and a console have followed the primary")
        keys(page, uuid)
        say("what is typed on its screen reaches it")
        # Its daemon starts it again by itself.
        node_dies(page)
        say("a node has died, and its VM runs elsewhere")
        stop(page)
        say("off")
        undefine(page, uuid)
        say("undefined")
        visitor.leave()
        browser.close()


main()
