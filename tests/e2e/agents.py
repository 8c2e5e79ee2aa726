# SPDX-License-Identifier: Apache-2.0
"""Real BOSH clients that the tests drive: each is a process that speaks the lines of tests/clients/agent.mjs."""

import os
import queue
import shutil
import subprocess
import threading
import time

from bosh_env import ROOT, SLOW, WITH_US, private_dir

CLIENTS = ROOT / "tests" / "clients"
MODULES = CLIENTS / "node_modules"


class Host:
    """A process with one agent (`shared` False) or more in it."""

    def __init__(self, command, shared=False, **environment):
        self.shared = shared
        self.agents = {}
        self.stderr = private_dir("agent") / "stderr"
        self._err = open(self.stderr, "wb")
        self.process = subprocess.Popen([*WITH_US, *map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self._err, env=dict(os.environ, **environment), start_new_session=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            name, event, *args = line.decode().rstrip("\n").split("\t")
            agent = self.agents.get(name)
            if agent:
                agent.events.put((event, args))
        for agent in list(self.agents.values()):
            agent.events.put(("gone", []))

    def tell(self, *fields):
        self.process.stdin.write(("\t".join(map(str, fields)) + "\n").encode())
        self.process.stdin.flush()

    def said(self):
        return self.stderr.read_text(errors="replace")[-4000:]

    def stop(self, kill=False):
        if kill:
            self.process.kill()
        self.process.stdin.close()
        try:
            self.process.wait(20 * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(20)
        self.process.stdout.close()
        self._err.close()
        shutil.rmtree(self.stderr.parent, ignore_errors=True)


class Agent:
    """One user of one client. What it receives is collected by wait()."""

    def __init__(self, host, name, url):
        self.host, self.name, self.url = host, name, url
        self.events = queue.Queue()
        self.jid = None
        self.messages = []  # (from, text)
        host.agents[name] = self

    def tell(self, command, *args):
        self.host.tell(self.name, command, *args)

    def wait(self, event, timeout=30):
        """The arguments of the next such event."""
        return self._until(lambda got, args: args if got == event else None, event, timeout)

    def _until(self, found, what, timeout, harmless=()):
        deadline = time.monotonic() + timeout * SLOW
        while True:
            try:
                event, args = self.events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{self.name}: not within {timeout} s: {what}; {len(self.messages)} messages so far\n"
                                     f"{self.host.said()}") from None
            if event == "message":
                self.messages.append(tuple(args))
            result = found(event, args)
            if result is not None:
                return result
            assert event in harmless or event not in ("error", "gone", "offline"), f"{self.name}: {event} {args}\n{self.host.said()}"

    def login(self, jid, password):
        self.tell("login", self.url, jid, password)
        self.jid, = self.wait("online")[:1]

    def attach(self, jid, sid, rid):
        self.tell("attach", self.url, jid, sid, rid)
        self.jid, = self.wait("online")[:1]

    def reload(self):
        """The page is loaded anew, and resumes."""
        self.tell("reload")
        assert self.wait("online") == [self.jid]

    def session(self):
        """(sid, the rid of the next request)"""
        self.tell("session")
        sid, rid = self.wait("session")
        return sid, int(rid)

    def say(self, to, text):
        assert "\t" not in text and "\n" not in text
        self.tell("say", to.jid, text)

    def receive(self, count, timeout=20):
        """The texts of all messages since the last call, once there are that many."""
        if len(self.messages) < count:
            self._until(lambda *_: len(self.messages) >= count or None, f"{count} messages", timeout)
        texts, self.messages = [text for _, text in self.messages], []
        return texts

    def logout(self):
        self.tell("logout")
        self._until(lambda event, _: event == "offline" or None, "offline", 30)

    def vanish(self):
        """The page is closed, or the process killed: the session stays behind."""
        if self.host.shared:
            self.tell("close")
            self._until(lambda event, _: event == "closed" or None, "closed", 30, harmless=("error", "offline"))
        else:
            self.host.stop(kill=True)
        self.host.agents.pop(self.name, None)
